//! How one service is tested. A dev-dependency only.

/// Given a state, when an input comes, then this follows: for `domain.rs`.
pub mod given;

pub use given::given;
