//! A dispatcher that sends a part of the log again: it has a cursor of its own, an end, and a pace.

use std::sync::{Arc, Mutex, PoisonError};

use kit::{Position, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Account, Dispatcher, Run, Status};
use crate::{engine::EngineError, filters::Selection, keeping, wire};

/// How many of the events that were not taken are named.
const FAILED_MAX: usize = 100;

/// What makes a dispatcher a replay.
pub(crate) struct Replay {
    /// What it is called.
    pub(crate) id: String,
    /// The last event that is sent.
    pub(crate) to: Position,
    /// What must hold beside what the subscription asks for.
    pub(crate) also: Selection,
    /// How many events are sent in a second.
    pub(crate) rate_per_s: u32,
    /// How it ended, when it has.
    pub(crate) ended: Arc<Mutex<Option<Ended>>>,
}

/// How a replay ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) how: End,
    #[serde(with = "wire::time")]
    pub(crate) at: Timestamp,
    pub(crate) counts: Account,
    /// The first of the events that were not taken.
    pub(crate) failed: Vec<Position>,
}

/// How a replay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ReplayEnd")]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// Everything was taken or given up.
    Completed,
    /// Somebody ended it.
    Cancelled,
}

/// How many events may be sent now so that no more than a number of them are sent in a second.
#[derive(Debug)]
pub(super) struct Pace {
    rate_per_s: u64,
    /// In thousandths of an event.
    left: u64,
    at: Timestamp,
}

impl Pace {
    pub(super) fn new(rate_per_s: u32, now: Timestamp) -> Self {
        let rate_per_s = u64::from(rate_per_s.max(1));
        Self { rate_per_s, left: 1_000, at: now }
    }

    /// How many may be sent now: at most those of a tenth of a second at once.
    pub(super) fn allowance(&mut self, now: Timestamp) -> usize {
        let passed_ms = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let burst = (self.rate_per_s * 100).max(1_000);
        self.left = self.left.saturating_add(passed_ms.saturating_mul(self.rate_per_s)).min(burst);
        self.at = self.at.max(now);
        usize::try_from(self.left / 1_000).unwrap_or(usize::MAX)
    }

    /// So many are sent.
    pub(super) fn spend(&mut self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.left = self.left.saturating_sub(count.saturating_mul(1_000));
    }

    /// Until when nothing may be sent, if nothing may be now.
    pub(super) fn waits_until(&self, now: Timestamp) -> Option<Timestamp> {
        (self.left < 1_000).then(|| self.next_at()).filter(|at| *at > now)
    }

    /// When the next may be sent.
    fn next_at(&self) -> Timestamp {
        let missing = 1_000_u64.saturating_sub(self.left);
        self.at.plus_ms(missing.div_ceil(self.rate_per_s))
    }
}

impl Replay {
    /// How it has ended, if it has.
    pub(crate) fn ended(ended: &Mutex<Option<Ended>>) -> Option<Ended> {
        ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Dispatcher {
    /// Whether there is nothing more to send again.
    pub(super) fn is_done(&self, run: &Run) -> bool {
        let is_at_end = self.replay.as_ref().is_some_and(|replay| run.lanes.read_head() >= replay.to);
        is_at_end && Status::of(&run.lanes, run.keeping.cursor(), true, (self.environment.clock.now(), Position::START)).counts.pending == 0
    }

    /// A replay is done: says how it ended, and removes what it kept. It is done again after a crash in between.
    pub(super) async fn conclude(&self, run: &mut Run) {
        let Some(replay) = &self.replay else { return };
        while let Err(error) = self.try_conclude(run, replay).await {
            self.pause(run, &error).await;
            if self.lifecycle.is_halting() {
                return;
            }
        }
    }

    async fn try_conclude(&self, run: &mut Run, replay: &Replay) -> Result<(), EngineError> {
        self.flush(run).await?;
        let counts = self.status_now(run, self.engine.tail().last()).counts;
        let failed = run.lanes.dead_letters_waiting().take(FAILED_MAX).collect();
        let ended = Ended { how: End::Completed, at: self.environment.clock.now(), counts, failed };
        keeping::end_replay(self.engine.as_ref(), &self.name, &replay.id, &ended).await?;
        *replay.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        keeping::remove(self.engine.as_ref(), &self.key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_events_are_sent_in_any_second_than_the_pace_allows_but_for_a_tenth_of_it_at_once() {
        for rate_per_s in [1_u32, 3, 100, 5_000] {
            let mut pace = Pace::new(rate_per_s, Timestamp::from_ms(0));
            let (mut now, mut sent) = (Timestamp::from_ms(0), 0);
            while now < Timestamp::from_ms(10_000) {
                match pace.allowance(now) {
                    0 => {
                        assert!(pace.next_at() > now);
                        now = pace.next_at();
                    }
                    allowed => {
                        pace.spend(allowed);
                        sent += u64::try_from(allowed).unwrap();
                    }
                }
            }
            let expected = u64::from(rate_per_s) * 10;
            assert!(sent >= expected - expected / 100 && sent <= expected + u64::from(rate_per_s) / 10 + 1, "{rate_per_s}: {sent}");
        }
        // What was not used is not kept.
        let mut pace = Pace::new(100, Timestamp::from_ms(0));
        assert_eq!(pace.allowance(Timestamp::from_ms(60_000)), 10);
        assert_eq!(pace.allowance(Timestamp::from_ms(0)), 10, "a clock that steps back gives nothing");
    }
}
