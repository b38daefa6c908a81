//! HTTP as every service speaks it: limits, problem documents, request ids, sessions, health.

/// The accept loop.
pub mod server;

/// Connections whose other end takes nothing.
mod stall;

/// Requests to other services.
pub mod client;

/// Who is asking, and what they may see.
pub mod identity;

/// Bodies, paths and queries, read with clear errors.
pub mod extract;

/// Whether a service is alive, and whether it wants requests.
pub mod health;

/// What stands around every route.
pub mod layers;

pub use extract::{Body, Params, Query};
pub use identity::{Caller, Gate};
pub use layers::finish;
