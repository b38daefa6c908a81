//! The log engine: the broker's one seam for scale. Whoever keeps the log passes the suite in `engine/conformance.rs`.

use kit::{BoxFuture, Envelope, EventId, Position, Recorded, Timestamp, envelope::InvalidEnvelope};
use tokio_util::task::task_tracker::TaskTrackerToken;

use tail::Tail;

/// Where the log ends.
pub mod tail;

/// Small durable state beside the log, and leases.
pub mod state;

/// An event on its way into a log.
mod entry;

/// The engine in one SQLite file.
pub mod embedded;

/// The engine in memory.
pub mod memory;

/// What every engine must do.
#[cfg(test)]
pub(crate) mod conformance;

pub(crate) use entry::{Entry, weigh};
pub use state::{Fence, Lease, LeaseRequest, StateEntry, StatePut};

/// The most events that one read answers.
const READ_EVENTS_MAX: usize = 1_024;
/// About how many bytes of events one read answers at most.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

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
    /// The disk is full; none of these events is in the log because of this append. It may succeed when there is room again.
    #[error("the disk is full")]
    DiskFull,
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
    /// The reader is behind the beginning of the log: events that it has not read are gone. It can go on behind `first`.
    #[error("the log begins at {first}: what was before it is gone")]
    Trimmed {
        /// Where the log begins now.
        first: Position,
    },
    /// What is stored is not what was written. It is never served.
    #[error("the log is damaged at position {position}: {reason}")]
    Damaged {
        /// The first event that cannot be trusted.
        position: Position,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else changed the state; nothing was written.
    #[error("state `{key}` has another version than expected")]
    VersionConflict {
        /// The first key whose version differs.
        key: String,
    },
    /// Somebody else has the lease.
    #[error("lease `{name}` is held by `{holder}`")]
    LeaseHeld {
        /// The lease.
        name: String,
        /// Who has it.
        holder: String,
        /// When it ends unless it is renewed.
        until: Timestamp,
    },
    /// The lease that a write names was given to somebody since; nothing was written.
    #[error("lease `{name}` was given away")]
    LeaseLost {
        /// The lease.
        name: String,
    },
    /// Too much is waiting: try again.
    #[error("too many writes are waiting")]
    Busy,
    /// The engine has stopped.
    #[error("the log is closed")]
    Closed,
    /// The disk is full: try again when there is room.
    #[error("the disk is full")]
    DiskFull,
    /// The engine could not do it.
    #[error("the log failed: {0}")]
    Failed(String),
}

/// How far the log reaches, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Where it begins: no event before this is there any more. Past `last` while the log is empty.
    pub first: Position,
    /// The last durable event's position, also when that was trimmed; zero before the first event.
    pub last: Position,
    /// What its events take, in bytes, indexes included: an estimate that adds up, whatever the disk makes of it.
    pub bytes: u64,
}

/// Which events are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// All.
    All,
    /// Those of a lane (see [`Envelope::lane`]).
    Lane(&'a str),
    /// Those of a subject.
    Subject(&'a str),
    /// Those of an owner.
    Owner(&'a str),
}

impl Scope<'_> {
    /// Whether `event` is one of them.
    pub fn contains(&self, event: &Envelope) -> bool {
        match self {
            Self::All => true,
            Self::Lane(lane) => event.lane() == *lane,
            Self::Subject(subject) => event.subject.as_deref() == Some(subject),
            Self::Owner(owner) => event.owner.as_deref() == Some(owner),
        }
    }
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
/// A reader never sees an event that is not durable, and what it has read up to a position has no holes that are filled later. The log
/// may lose its oldest events ([`LogEngine::trim`]): who reads on from a position before its beginning is told so, and never skips
/// events in silence. Reading from [`Position::START`] means from wherever the log begins.
pub trait LogEngine: Send + Sync + 'static {
    /// Appends `events` in this order; resolves when they are durable. Events are the same by (`source`, `id`).
    fn append(&self, events: Vec<Envelope>) -> BoxFuture<'_, Result<Vec<Appended>, AppendError>>;

    /// Up to `limit` events of `scope` after the position `after`, in order; perhaps fewer, but none only when there are none.
    fn read_scope<'a>(&'a self, scope: Scope<'a>, after: Position, limit: usize) -> BoxFuture<'a, Result<Vec<Recorded>, EngineError>>;

    /// The event at `position`; none when there is none yet. [`EngineError::Trimmed`] when it is gone.
    fn read_one(&self, position: Position) -> BoxFuture<'_, Result<Option<Recorded>, EngineError>>;

    /// The event that `source` calls `id`, if the log has it.
    fn find<'a>(&'a self, source: &'a str, id: &'a EventId) -> BoxFuture<'a, Result<Option<Recorded>, EngineError>>;

    /// The position after which stand the events that were appended at `at` or later, by the engine's clock. A clock that steps back is
    /// taken to stand still: a later time never gives an earlier position.
    fn find_time(&self, at: Timestamp) -> BoxFuture<'_, Result<Position, EngineError>>;

    /// The position up to which the log must be trimmed so that its events take at most `bytes` (see [`Bounds::bytes`]).
    fn find_size(&self, bytes: u64) -> BoxFuture<'_, Result<Position, EngineError>>;

    /// When the first event after `after` was appended, by the engine's clock; none when there is none.
    fn time_after(&self, after: Position) -> BoxFuture<'_, Result<Option<Timestamp>, EngineError>>;

    /// How far the log reaches, and how large it is. Cheap.
    fn bounds(&self) -> Bounds;

    /// The last durable position, as it rises.
    fn tail(&self) -> Tail;

    /// Forgets the events up to `up_to`, the oldest first; resolves when they are gone. Positions are never used again. Dropped before
    /// its end, it may have trimmed a part.
    fn trim(&self, up_to: Position) -> BoxFuture<'_, Result<(), EngineError>>;

    /// One piece of state.
    fn state_get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StateEntry>, EngineError>>;

    /// All state whose key begins with `prefix`, in the order of keys.
    fn state_list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<StateEntry>, EngineError>>;

    /// Makes all changes or none; resolves when they are durable. With a `fence`, only while nobody else was given that lease.
    fn state_put_fenced(&self, fence: Option<Fence>, puts: Vec<StatePut>) -> BoxFuture<'_, Result<(), EngineError>>;

    /// Takes or renews a lease, or gives it back when it is asked for no time at all. Resolves when that is durable.
    fn lease(&self, request: LeaseRequest) -> BoxFuture<'_, Result<Lease, EngineError>>;

    /// Keeps the engine from ending with a halt.
    fn hold(&self) -> Hold;

    /// Up to `limit` events after the position `after`; see [`LogEngine::read_scope`].
    fn read(&self, after: Position, limit: usize) -> BoxFuture<'_, Result<Vec<Recorded>, EngineError>> {
        self.read_scope(Scope::All, after, limit)
    }

    /// Up to `limit` events of a lane; see [`LogEngine::read_scope`].
    fn read_lane<'a>(&'a self, lane: &'a str, after: Position, limit: usize) -> BoxFuture<'a, Result<Vec<Recorded>, EngineError>> {
        self.read_scope(Scope::Lane(lane), after, limit)
    }

    /// Makes all changes or none; see [`LogEngine::state_put_fenced`].
    fn state_put(&self, puts: Vec<StatePut>) -> BoxFuture<'_, Result<(), EngineError>> {
        self.state_put_fenced(None, puts)
    }
}
