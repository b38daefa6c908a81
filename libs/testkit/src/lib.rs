//! How one service is tested. A dev-dependency only.
#![allow(clippy::panic, reason = "a test fails by a panic")]

/// Given a state, when an input comes, then this follows: for `domain.rs`.
pub mod given;

/// A world with a manual clock, seeded ids and no other threads.
pub mod world;

/// Brokers to test a service against: one that records, and can be told to fail.
pub mod publisher;

pub use given::given;
pub use publisher::RecordingPublisher;
pub use world::{eventually, world};
