//! How a subscription stands.

use kit::Position;
use serde::Serialize;

use crate::wire;

/// How a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Whether it delivers.
    pub state: State,
    /// Everything up to here is settled, or set aside.
    #[serde(with = "wire::position")]
    pub floor: Position,
    /// How far the log was read.
    #[serde(with = "wire::position")]
    pub read_head: Position,
    /// How many positions of the log are after the floor.
    pub lag_events: i64,
    /// How many deliveries are in flight.
    pub in_flight: usize,
    /// How many lanes are set aside, the parked ones among them.
    pub lanes_set_aside: usize,
    /// How many lanes wait behind a dead letter.
    pub lanes_parked: usize,
    /// How many dead letters there are.
    pub dead_letters: usize,
    /// What went wrong last.
    pub last_error: Option<LastError>,
    /// When the next retry or probe is due, RFC 3339.
    pub next_attempt: Option<String>,
}

/// Whether a subscription delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It delivers.
    Running,
    /// Its endpoint is at fault; it is probed.
    Held,
    /// It has no sink: a service of this process has not come back yet.
    Unattached,
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// The HTTP status; none where no answer came.
    pub status: Option<u16>,
    /// Why, in words.
    pub reason: String,
    /// When, RFC 3339.
    pub at: String,
}

impl Status {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Unattached,
            floor: Position::START,
            read_head: Position::START,
            lag_events: 0,
            in_flight: 0,
            lanes_set_aside: 0,
            lanes_parked: 0,
            dead_letters: 0,
            last_error: None,
            next_attempt: None,
        }
    }
}
