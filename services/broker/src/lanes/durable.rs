//! What outlives a crash: rows of lanes that are set aside, dead letters, and the floor.

use kit::{Position, Timestamp};
use serde::{Deserialize, Serialize};

use super::Lane;

/// The durable row of a lane that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The lane.
    pub lane: Lane,
    /// Everything of this lane before this position is settled.
    pub first: Position,
    /// How often its next event failed.
    pub failures: u32,
    /// When it is tried next.
    pub next_at: Timestamp,
    /// Whether it waits behind a dead letter, which then stands at `first`.
    pub is_parked: bool,
}

/// An event that was given up, until somebody redrives or discards it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event's place in the log.
    pub position: Position,
    /// Its lane, which waits behind it.
    pub lane: Lane,
    /// The last answer's status.
    pub status: Option<u16>,
    /// The last answer in words.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    pub given_up_at: Timestamp,
}

/// What must be saved: rows and dead letters together or before the floor, never after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Lanes whose row changed; none deletes it.
    pub rows: Vec<(Lane, Option<Row>)>,
    /// Dead letters that came or went.
    pub dead_letters: Vec<(Position, Option<DeadLetter>)>,
    /// Everything up to here is settled or covered by a row.
    pub floor: Position,
}

/// How urgently [`super::Lanes::take_changes`] should be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// There is nothing to save.
    Nothing,
    /// Some time: what is not saved is delivered again after a crash.
    Soon {
        /// How many positions the floor has moved.
        advanced: u64,
    },
    /// Somebody waits to see it.
    Now {
        /// How many positions the floor has moved.
        advanced: u64,
    },
}
