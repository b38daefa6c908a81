//! The two directions of an event's travel, each a URL or a handle: to the broker, and from it to a subscriber.

use crate::{BoxFuture, Envelope, Position, Recorded};

/// Where the log begins, as a delivery over HTTP tells it.
pub mod log_first;

/// The way to the broker.
pub trait Publisher: Send + Sync + 'static {
    /// Appends `events` to the log, in this order; returns when all of them are durable. Publishing an event again is harmless.
    fn publish<'a>(&'a self, events: &'a [Envelope]) -> BoxFuture<'a, Result<(), PublishError>>;
}

/// Why not all events were published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker cannot be had just now: try again.
    #[error("the broker is unavailable: {0}")]
    Unavailable(String),
    /// The first `landed` events are durable; the one after them will never be taken; those behind it were not looked at.
    #[error("the broker refused an event: {reason}")]
    Refused {
        /// How many events became durable.
        landed: usize,
        /// Why the next one was refused.
        reason: String,
    },
}

/// The way from the broker to one subscriber.
pub trait Sink: Send + Sync + 'static {
    /// Delivers `events` (at most one of each lane) and waits for the answer.
    fn deliver<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<Vec<ItemAnswer>, SinkError>>;

    /// Hears before each delivery where the log begins: no event before `first` is sent from now on. Whoever remembers nothing of what
    /// it took need not listen.
    fn hear_log_first(&self, first: Position) {
        let _ = first;
    }
}

/// The answer to one event of a batch that was not accepted. Events without one are acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemAnswer {
    /// The event's place in the batch, from 0.
    pub index: usize,
    /// An HTTP status.
    pub status: u16,
    /// When to come again, in seconds.
    pub retry_after_s: Option<u32>,
    /// Why, in words.
    pub reason: String,
}

/// Why a whole batch was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SinkError {
    /// The HTTP status; none where no answer came.
    pub status: Option<u16>,
    /// When to come again, in seconds.
    pub retry_after_s: Option<u32>,
    /// Why, in words.
    pub reason: String,
}
