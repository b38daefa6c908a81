//! How every service runs: the microservice chassis. It knows no shop.
//!
//! A service is a pure state machine (its `domain.rs`) inside the kit's shell. The kit owns what no service may get wrong: one
//! input is one transaction, an event is applied once, an outbox row survives a crash, a caller is answered after the commit.

/// Points in time and who tells them.
pub mod clock;

/// Identifiers of events and the source of new ones.
pub mod ids;

/// The CloudEvents envelope, and an event with its place in the log.
pub mod envelope;

/// Chance as a pure function, and how fast the simulated parts go.
pub mod chance;

/// What a state machine answers to one input.
pub mod step;

/// The seam between a service's pure core and the kit's shell.
pub mod machine;

/// What a service is given to live in: clock, ids, disk, network.
pub mod environment;

/// SQLite as every service opens it: checked, locked, migrated.
pub mod store;

/// A running service: its front door for commands, events and queries.
pub mod service;

/// The writer loop: batches of inputs, one durable transaction each.
mod writer;

/// Performs durable effects and brings their outcomes back.
mod effects;

/// Brings committed events to the broker, in sequence.
pub mod relay;

/// Takes the events that the broker delivers.
pub mod intake;

/// The two directions of an event's travel, each a URL or a handle.
pub mod transport;

/// The way to a broker in another process.
pub mod broker_client;

/// Starting, serving and stopping in order.
pub mod lifecycle;

/// Keys, tokens, sessions and signatures.
pub mod security;

/// HTTP as every service speaks it.
pub mod http;

/// Errors as problem documents (RFC 9457).
pub mod problem;

/// What an HTTP API looks like from outside.
pub mod describe;

/// What the simulation observes of every service.
pub mod trace;

/// Logs.
pub mod telemetry;

/// What is counted and measured of a process, for whoever watches it.
pub mod metrics;

/// Faults that the simulation plants on purpose, to prove that it would find them.
pub mod planted;

pub use clock::{Clock, Timestamp};
pub use envelope::{Envelope, Recorded};
pub use environment::Environment;
pub use ids::{EventId, Position};
pub use lifecycle::Lifecycle;
pub use machine::Machine;
pub use problem::Problem;
pub use service::{Handle, Service};
pub use step::{Context, Step};

/// A future on the heap, for the few traits that are called through a pointer.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
