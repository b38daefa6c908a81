//! How a subscription stands.

use kit::{Position, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Attempts, Reset};
use crate::{
    keeping::Cursor,
    lanes::{Counts, Lanes, Tuning, Words},
    sink::Target,
    wire,
};

/// How a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "SubscriptionStatus")]
pub struct Status {
    /// Whether it delivers.
    pub state: State,
    /// It starts after this position.
    pub after: Position,
    /// Everything up to here is settled, or set aside.
    pub floor: Position,
    /// How far the log was read.
    pub read_head: Position,
    /// How many events wait to be taken. Of those that were not read yet, what is asked for is counted where a subscription is described
    /// in full, and only among the first 10,000; else all of them are.
    pub lag_events: i64,
    /// How long the oldest event waits that does not wait behind a dead letter, in seconds; known where it is described in full.
    pub lag_s: Option<u64>,
    /// That event.
    pub oldest_unacknowledged: Option<Oldest>,
    /// How many deliveries are in flight, and how many may be.
    pub in_flight: usize,
    /// The most deliveries that may be in flight now: fewer while the sink struggles.
    pub in_flight_max: usize,
    /// How many lanes are set aside, the parked ones among them.
    pub lanes_set_aside: usize,
    /// How many lanes wait for the next attempt of an event that failed.
    pub lanes_blocked: usize,
    /// How many lanes wait behind a dead letter.
    pub lanes_parked: usize,
    /// How many dead letters wait for somebody to decide.
    pub dead_letters: usize,
    /// What became of the events that were read.
    pub counts: Account,
    /// What the log lost last before it was taken.
    pub reset: Option<Reset>,
    /// What went wrong last.
    pub last_error: Option<LastError>,
    /// When the next retry or probe is due.
    #[serde(with = "wire::optional_time")]
    #[schemars(with = "Option<Timestamp>")]
    pub next_attempt: Option<Timestamp>,
    /// How often events were sent since the broker started.
    #[serde(skip)]
    pub attempts: Attempts,
}

/// The oldest event that waits to be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Oldest {
    /// Its position.
    pub position: Position,
    /// Its lane.
    pub lane: String,
    /// When it was published.
    #[serde(with = "wire::time")]
    #[schemars(with = "Timestamp")]
    pub published_at: Timestamp,
}

/// What became of the events that a subscription asked for, since its start, as far as they were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    /// All of them: the sum of the others.
    pub matched: i64,
    /// Taken.
    pub delivered: i64,
    /// Given up, until somebody redrives or discards them.
    pub dead_lettered: i64,
    /// Given up for good.
    pub discarded: i64,
    /// Lost by the log before they were taken.
    pub expired: i64,
    /// Waiting: queued, in flight, retrying, blocked or parked.
    pub pending: i64,
}

/// Whether a subscription delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "SubscriptionState")]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It delivers.
    Active,
    /// Somebody paused it.
    Paused,
    /// Its endpoint is at fault; it is probed.
    Holding,
    /// It has no sink: a service of this process has not come back yet.
    Unattached,
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LastError {
    /// The HTTP status; none where no answer came.
    pub status: Option<u16>,
    /// Why, in words.
    pub reason: Words,
    /// When.
    #[serde(with = "wire::time")]
    #[schemars(with = "Timestamp")]
    pub at: Timestamp,
}

impl Status {
    /// Before more is known than where it starts, and whether it has a sink.
    pub(crate) fn at(cursor: &Cursor, target: Option<&Target>) -> Self {
        let lanes = Lanes::new(Tuning::default(), cursor.after);
        Self::of(&lanes, cursor, target.is_some(), (Timestamp::from_ms(0), Position::START))
    }

    /// How `lanes` stand at the time `now`, when the log ends at `last`.
    pub(super) fn of(lanes: &Lanes, cursor: &Cursor, is_attached: bool, (now, last): (Timestamp, Position)) -> Self {
        let state = match (cursor.is_paused, is_attached, lanes.held_back()) {
            (true, ..) => State::Paused,
            (false, false, _) => State::Unattached,
            (false, true, Some(_)) => State::Holding,
            (false, true, None) => State::Active,
        };
        let counts = Account::of(lanes);
        let unread = last.0.saturating_sub(lanes.read_head().0).max(0);
        Self {
            state,
            after: cursor.after,
            floor: lanes.floor(),
            read_head: lanes.read_head(),
            lag_events: counts.pending.saturating_add(unread),
            lag_s: None,
            oldest_unacknowledged: None,
            in_flight: 0,
            in_flight_max: lanes.concurrency(),
            lanes_set_aside: lanes.set_aside_count(),
            lanes_blocked: lanes.blocked_count(),
            lanes_parked: lanes.parked_count(),
            dead_letters: lanes.dead_letter_count(),
            counts,
            reset: cursor.reset,
            last_error: None,
            next_attempt: lanes.next_wake(now).filter(|_| matches!(state, State::Active | State::Holding)),
            attempts: Attempts::default(),
        }
    }
}

impl Account {
    fn of(lanes: &Lanes) -> Self {
        let Counts { delivered, deferred, dead_lettered, discarded, expired } = lanes.counts();
        let pending = deferred + i64::try_from(lanes.open_count()).unwrap_or(i64::MAX);
        Self { matched: lanes.counts().total() + pending - deferred, delivered, dead_lettered, discarded, expired, pending }
    }
}
