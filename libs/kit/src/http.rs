//! HTTP as every service speaks it: limits, problem documents, request ids, sessions, health.

/// The accept loop, and its end.
pub mod server;

/// One connection: its limits on time, and how it ends without losing a request.
mod connection;

/// The stream under a connection: what is going on there, and how it is closed.
mod wire;

/// Connections whose other end takes nothing.
mod stall;

/// Requests to other services.
pub mod client;

/// Networks as a setting names them.
pub mod networks;

/// Where a request came from when a proxy stands in front.
pub mod forwarded;

/// Who is asking, and what they may see.
pub mod identity;

/// Bodies, paths and queries, read with clear errors.
pub mod extract;

/// Whether a service is alive, and whether it wants requests.
pub mod health;

/// What stands around every route.
pub mod layers;

pub use extract::{Body, Params, Query};
pub use forwarded::{Proxies, Remote, Scheme};
pub use identity::{Caller, Gate};
pub use layers::finish;
