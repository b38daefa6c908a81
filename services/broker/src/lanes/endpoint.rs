//! Holds back a broken endpoint: nothing is sent but one probe at a time, until it answers.

use kit::Timestamp;

use super::{
    DeliveryId, Jitter, Lane, Lanes,
    settle::{asked_ms, backoff_ms},
    state::{AT_ONCE, Class},
};
use crate::verdict::Fault;

/// The longest that a lane waits because it was on its way when the endpoint broke.
const SUSPICION_MS_MAX: u64 = 5_000;
/// After how many of these a lane is set aside when much is waiting.
const SUSPICIONS_UNTIL_ASIDE: u16 = 3;

/// An endpoint at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBack {
    /// How often in a row it was at fault.
    pub failures: u32,
    /// When it is probed next.
    pub next_at: Timestamp,
    /// What went wrong last.
    pub fault: Fault,
    pub(super) probe: Option<DeliveryId>,
}

impl Lanes {
    /// The endpoint has just shown that it is there: a hold ends, and whatever waits for its next attempt goes now.
    pub fn nudge(&mut self, now: Timestamp) {
        self.held_back = None;
        let later = [Class::Fresh, Class::Alone, Class::Proven].map(|class| {
            let later = self.waiting.of(class).iter().rev().take_while(|due| due.at > now);
            later.map(|due| due.lane.clone()).collect::<Vec<_>>()
        });
        for lane in later.into_iter().flatten() {
            if let Some(state) = self.lanes.get_mut(&lane) {
                state.next_at = now;
            }
            self.list(&lane);
        }
    }

    /// The endpoint broke while these were on their way. If one of them broke it, the others must get past it: each goes alone, and
    /// the oftener it was there the later.
    pub(super) fn suspect<'a>(&mut self, lanes: impl Iterator<Item = &'a Lane>, now: Timestamp, jitter: Jitter<'_>) {
        for lane in lanes {
            if let Some(state) = self.lanes.get_mut(lane) {
                state.is_alone = true;
                state.suspicions = state.suspicions.saturating_add(1);
                state.next_at = now.plus_ms(jitter(backoff_ms(self.tuning.backoff_ms, state.suspicions.into(), SUSPICION_MS_MAX)));
            }
            self.yield_room(lane, |state| state.suspicions >= SUSPICIONS_UNTIL_ASIDE);
        }
    }

    pub(super) fn hold_back(&mut self, id: DeliveryId, fault: Fault, now: Timestamp, jitter: Jitter<'_>) {
        let failures = match &self.held_back {
            // What was in flight beside the probe says nothing new.
            Some(held_back) if held_back.probe != Some(id) => return,
            Some(held_back) => held_back.failures.saturating_add(1),
            None => 1,
        };
        let delay_ms = backoff_ms(self.tuning.backoff_ms, failures, self.tuning.probe_ms_max);
        // Half of it is certain: a broken endpoint is not hammered by chance.
        let delay_ms = (delay_ms / 2 + jitter(delay_ms / 2)).max(asked_ms(&fault));
        self.concurrency.broke();
        self.held_back = Some(HeldBack { failures, next_at: now.plus_ms(delay_ms), fault, probe: None });
    }

    pub(super) fn release(&mut self, now: Timestamp) {
        if self.held_back.take().is_none() {
            return;
        }
        // Lanes that were merely there when it broke need not wait for their own time.
        let merely_there = self.waiting.alone.iter().filter(|due| due.at > now).map(|due| due.lane.clone());
        let merely_there: Vec<_> = merely_there.filter(|lane| self.lanes.get(lane).is_some_and(|state| state.suspicions == 1)).collect();
        for lane in merely_there {
            if let Some(state) = self.lanes.get_mut(&lane) {
                state.next_at = AT_ONCE;
            }
            self.list(&lane);
        }
    }
}
