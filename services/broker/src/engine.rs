//! The log engine: the broker's one seam for scale. Whoever keeps the log passes the suite in `engine/conformance.rs`.

use kit::{BoxFuture, Envelope, Position, Recorded, envelope::InvalidEnvelope};
use tokio_util::task::task_tracker::TaskTrackerToken;

use tail::Tail;

/// Where the log ends.
pub mod tail;

/// The engine in one SQLite file.
pub mod embedded;

/// What every engine must do.
#[cfg(test)]
pub(crate) mod conformance;

/// Where an event stands after an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the log; that of the first append, if there was one before.
    pub position: Position,
    /// Whether the log had the event already.
    pub is_duplicate: bool,
}

/// Why not all events were appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too much is waiting: try again.
    #[error("too many appends are waiting")]
    Busy,
    /// The engine has stopped: nothing is known of these events.
    #[error("the log is closed")]
    Closed,
    /// The engine could not do it; none of these events is in the log because of this append.
    #[error("the log failed: {0}")]
    Failed(String),
    /// The events in `landed` are durable; the one after them is never taken; those behind it were not looked at.
    #[error("{refusal}")]
    Refused {
        /// Where the first events stand.
        landed: Vec<Appended>,
        /// Why the next one is refused.
        refusal: Refusal,
    },
}

/// Why an event is never taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The log has another event under the same source and id.
    #[error("event `{id}` of `{source_name}` is in the log with other content")]
    OtherContent {
        /// The event's source.
        source_name: String,
        /// The event's id.
        id: String,
    },
    /// It is no event that we take.
    #[error("{0}")]
    Invalid(InvalidEnvelope),
    /// It is larger than [`kit::envelope::EVENT_BYTES_MAX`].
    #[error("event `{id}` is larger than 256 KiB")]
    TooLarge {
        /// The event's id.
        id: String,
    },
}

/// Why the engine could not read or keep something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Somebody else changed the state; nothing was written.
    #[error("state `{key}` has another version than expected")]
    VersionConflict {
        /// The first key whose version differs.
        key: String,
    },
    /// Too much is waiting: try again.
    #[error("too many writes are waiting")]
    Busy,
    /// The engine has stopped.
    #[error("the log is closed")]
    Closed,
    /// The engine could not do it.
    #[error("the log failed: {0}")]
    Failed(String),
}

/// The first and the last position in the log; both zero while it is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first event's position.
    pub first: Position,
    /// The last durable event's position.
    pub last: Position,
}

/// A piece of state, with the version that a change of it must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    /// Its name.
    pub key: String,
    /// JSON text.
    pub value: String,
    /// Counts its changes, from 1.
    pub version: i64,
}

/// A change of one piece of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePut {
    /// Its name.
    pub key: String,
    /// The new JSON text; none deletes it.
    pub value: Option<String>,
    /// The version that it has now; zero when it must not be there.
    pub expected_version: i64,
}

/// While one is held, the engine outlives a halt: for loops that save something when they end.
#[derive(Debug)]
pub struct Hold {
    _token: TaskTrackerToken,
}

impl Hold {
    /// Wraps the token of an engine's tracker.
    pub fn new(token: TaskTrackerToken) -> Self {
        Self { _token: token }
    }
}

/// Keeps the log: an ordered, durable, append-only sequence of events, and beside it small durable state.
///
/// A reader never sees an event that is not durable, and what it has read up to a position has no holes that are filled later.
pub trait LogEngine: Send + Sync + 'static {
    /// Appends `events` in this order; resolves when they are durable. Events are the same by (`source`, `id`).
    fn append(&self, events: Vec<Envelope>) -> BoxFuture<'_, Result<Vec<Appended>, AppendError>>;

    /// Up to `limit` events after the position `after`, in order; perhaps fewer, but none only when there are none.
    fn read(&self, after: Position, limit: usize) -> BoxFuture<'_, Result<Vec<Recorded>, EngineError>>;

    /// The same, of one lane (see [`Envelope::lane`]).
    fn read_lane<'a>(&'a self, lane: &'a str, after: Position, limit: usize) -> BoxFuture<'a, Result<Vec<Recorded>, EngineError>>;

    /// How far the log reaches.
    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, EngineError>>;

    /// The last durable position, as it rises.
    fn tail(&self) -> Tail;

    /// One piece of state.
    fn state_get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StateEntry>, EngineError>>;

    /// All state whose key begins with `prefix`, in the order of keys.
    fn state_list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<StateEntry>, EngineError>>;

    /// Makes all changes or none; resolves when they are durable.
    fn state_put(&self, puts: Vec<StatePut>) -> BoxFuture<'_, Result<(), EngineError>>;

    /// Keeps the engine from ending with a halt.
    fn hold(&self) -> Hold;
}

/// About how much memory an event takes, in bytes.
pub(crate) fn weigh(event: &Envelope) -> usize {
    let texts = [Some(&event.source), Some(&event.ty), event.subject.as_ref(), event.traceparent.as_ref(), event.owner.as_ref()];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    400 + texts + 64 * event.extensions.len() + event.data.as_ref().map_or(0, |data| data.get().len())
}
