//! What a service forgets: that it applied an event, once that can never come again, and what old idempotency keys made.
//!
//! Each delivery says where the log begins ([`crate::transport::log_first`]), and the broker sends no event from before that place any
//! more. But a delivery that was sent earlier may still be on its way. It is refused when its signature is older than the tolerance. So
//! what a delivery says is only acted upon after `LATE_MS`: whatever is taken then was sent after it, whichever way the two machines'
//! clocks differ. (By the service's clock, a delivery that says that the log begins at `first` was signed before `t + 1` tolerances, if
//! it was taken at `t`; one that was sent before it was signed no later, and is refused from `t + 2` tolerances on.)
//!
//! A few rows at a time go, within transactions that are made anyway: an idle service forgets nothing, and gets no larger.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;

use super::rows;
use crate::{Position, Timestamp, security::webhook::AGE_MS_MAX, store::StoreError};

/// How long it may take from when a delivery is put together to when its events are applied, in milliseconds: twice the tolerance of
/// signatures, and once more for the time before it is signed and after it is checked, and for clocks that are set.
const LATE_MS: i64 = 3 * AGE_MS_MAX;
/// How long an applied event is remembered whatever the log does, in milliseconds: its service may publish it once more when it was killed
/// before it noted that the broker has it. A log that is kept for less than that outage takes it for a new one.
const INBOX_MS_MIN: i64 = 24 * 60 * 60 * 1_000;
/// How long an idempotency key is remembered whatever the log does, in milliseconds: clients repeat a request for days.
const KEY_MS_MIN: i64 = 7 * 24 * 60 * 60 * 1_000;
/// How many rows of a table a transaction forgets, unless it has many inputs.
const ROWS_MAX: usize = 64;
/// How many it forgets for each input, which adds one or two: more than come, so that what has gathered becomes less.
const ROWS_AN_INPUT: usize = 3;
/// The time until it is looked again after everything was forgotten that could be.
const LOOK: Duration = Duration::from_secs(10);

/// What a service remembers, as those see it who do not write it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    log_first: AtomicI64,
    events_forgotten: AtomicU64,
    keys_forgotten: AtomicU64,
}

impl Memory {
    /// The log begins at `first`, says a delivery.
    pub(crate) fn hear_log_first(&self, first: Position) {
        self.log_first.store(first.0, Ordering::Relaxed);
    }

    /// How many applied events were forgotten since the start.
    pub(crate) fn events_forgotten(&self) -> u64 {
        self.events_forgotten.load(Ordering::Relaxed)
    }

    /// How many idempotency keys were forgotten since the start.
    pub(crate) fn keys_forgotten(&self) -> u64 {
        self.keys_forgotten.load(Ordering::Relaxed)
    }
}

/// Decides what is forgotten. It begins anew with each start: what was heard before is heard again.
pub(super) struct Forgetting {
    memory: Arc<Memory>,
    /// No event before this place can be taken any more.
    certain: Position,
    /// What was heard since, and when; it becomes certain.
    heard: Option<(Position, Timestamp)>,
    /// When there was nothing left to forget.
    done_at: Option<Timestamp>,
}

/// What a transaction forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forgotten {
    events: usize,
    keys: usize,
    /// When there was nothing left, if there was not.
    done_at: Option<Timestamp>,
}

impl Forgetting {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, certain: Position::START, heard: None, done_at: None }
    }

    /// Forgets some of what can be, within the transaction that `db` has begun, which has so many `inputs`.
    pub(super) fn forget(&mut self, db: &Connection, now: Timestamp, inputs: usize) -> Result<Forgotten, StoreError> {
        let first = self.certain_at(now);
        // As long as the log has lost nothing, everything can come again.
        let is_early = self.done_at.is_some_and(|at| now >= at && now.since(at) < LOOK);
        if is_early || first <= Position::START.next() {
            return Ok(Forgotten { events: 0, keys: 0, done_at: self.done_at });
        }
        let rows_max = ROWS_MAX.max(inputs.saturating_mul(ROWS_AN_INPUT));
        let events = rows::forget_inbox(db, first, ago(now, INBOX_MS_MIN), rows_max)?;
        // A key is kept as long as any event that is: whoever gets one again may ask again for what it asked for then.
        let oldest = rows::oldest_in_inbox(db)?;
        let before = ago(now, KEY_MS_MIN);
        let keys = rows::forget_idempotency(db, oldest.map_or(before, |oldest| oldest.min(before)), rows_max)?;
        let is_more = events == rows_max || keys == rows_max;
        Ok(Forgotten { events, keys, done_at: (!is_more).then_some(now) })
    }

    /// What a transaction forgot is gone.
    pub(super) fn committed(&mut self, forgotten: Forgotten) {
        let count = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
        self.memory.events_forgotten.fetch_add(count(forgotten.events), Ordering::Relaxed);
        self.memory.keys_forgotten.fetch_add(count(forgotten.keys), Ordering::Relaxed);
        self.done_at = forgotten.done_at;
    }

    /// No event before this place can be taken any more. The lowest place that was said in a while counts: after the loss of its store the
    /// broker begins another log.
    fn certain_at(&mut self, now: Timestamp) -> Position {
        let told = Position(self.memory.log_first.load(Ordering::Relaxed));
        if told <= Position::START {
            return Position::START;
        }
        let (first, at) = self.heard.get_or_insert((told, now));
        // A clock that was set back measures anew.
        (*first, *at) = (told.min(*first), now.min(*at));
        if now.as_ms() >= at.as_ms().saturating_add(LATE_MS) {
            self.certain = *first;
            self.heard = Some((told, now));
        }
        self.certain
    }
}

fn ago(now: Timestamp, ms: i64) -> Timestamp {
    Timestamp::from_ms(now.as_ms().saturating_sub(ms))
}
