//! Learns from answers: acknowledges, retries, sets aside, gives up, and holds back a broken endpoint.

use kit::{Position, Timestamp};

use super::{AT_ONCE, Aside, Class, DeadLetter, DeliveryId, HeldBack, Lane, LaneState, Lanes};
use crate::verdict::{Fault, Outcome, Verdict};

/// The longest that an endpoint may ask us to wait, in seconds.
const RETRY_AFTER_S_MAX: u32 = 3_600;
/// The longest that a lane waits because it was on its way when the endpoint broke.
const SUSPICION_MS_MAX: u64 = 5_000;

/// After how many of these a lane is set aside when much is waiting.
const SUSPICIONS_UNTIL_ASIDE: u32 = 3;
const POSTPONEMENTS_UNTIL_ASIDE: u32 = 10;
/// The longest that a lane waits because there was no room for its event, unless the endpoint asks for a longer time.
const POSTPONE_MS_MAX: u64 = 2_000;

/// A whole number from 0 to the given one, both included: jitter.
pub type Jitter<'a> = &'a mut dyn FnMut(u64) -> u64;

impl Lanes {
    /// Takes the verdict on a delivery.
    pub fn finish(&mut self, id: DeliveryId, verdict: Verdict, now: Timestamp, jitter: Jitter<'_>) {
        let Some(flight) = self.flights.remove(&id) else { return };
        for (_, lane) in &flight.events {
            if let Some(state) = self.lanes.get_mut(lane) {
                state.in_flight = state.in_flight.saturating_sub(1);
            }
        }
        if !matches!(verdict, Verdict::EndpointAtFault(_)) {
            self.release(now);
        }
        match verdict {
            Verdict::Answered(outcomes) => {
                for ((position, lane), outcome) in flight.events.iter().zip(outcomes) {
                    match outcome {
                        Outcome::Acknowledged => self.acknowledge(lane, *position),
                        Outcome::Later(fault) => self.postpone(lane, &fault, now, jitter),
                        Outcome::Retry(fault) => self.retry(lane, *position, &fault, now, jitter),
                        Outcome::Poison(fault) => {
                            if let Some(state) = self.lanes.get_mut(lane) {
                                state.failures = state.failures.saturating_add(1);
                            }
                            self.give_up(lane, *position, &fault, now);
                        }
                    }
                }
            }
            Verdict::Failed(fault) => match &*flight.events {
                [(position, lane)] => {
                    if let Some(state) = self.lanes.get_mut(lane) {
                        state.is_alone = true;
                    }
                    self.retry(lane, *position, &fault, now, jitter);
                }
                events => {
                    let first_ms = self.tuning.backoff_ms;
                    self.part(events, now, &mut || jitter(first_ms).max(asked_ms(&fault)));
                }
            },
            Verdict::Unreadable(_) => self.part(&flight.events, now, &mut || 0),
            Verdict::Busy(fault) => flight.events.iter().for_each(|(_, lane)| self.postpone(lane, &fault, now, jitter)),
            Verdict::EndpointAtFault(fault) => {
                self.suspect(&flight.events, now, jitter);
                self.hold_back(id, fault, now, jitter);
            }
        }
        // Whatever the answer forgot to mention is still to be delivered.
        for (_, lane) in &flight.events {
            self.list(lane);
        }
    }

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

    fn acknowledge(&mut self, lane: &Lane, position: Position) {
        self.acknowledged += 1;
        let Some(state) = self.lanes.get_mut(lane) else { return };
        let Some(index) = state.queue.iter().position(|(queued, _)| *queued == position) else { return };
        state.queue.remove(index);
        state.forgive();
        let is_done = state.aside.is_none() && state.queue.is_empty();
        if let Some(aside) = &mut state.aside {
            aside.first = position.next();
            self.dirty_rows.insert(lane.clone());
        }
        self.close(position);
        self.unlist(lane);
        if is_done {
            self.lanes.remove(lane);
        } else {
            self.list(lane);
        }
    }

    fn retry(&mut self, lane: &Lane, position: Position, fault: &Fault, now: Timestamp, jitter: Jitter<'_>) {
        let (acknowledged, tuning) = (self.acknowledged, self.tuning);
        let Some(state) = self.lanes.get_mut(lane) else { return };
        if !state.queue.iter().any(|(queued, _)| *queued == position) {
            return;
        }
        if state.failures == 0 {
            state.acknowledged_before = acknowledged;
        }
        state.failures = state.failures.saturating_add(1);
        // While nothing at all is taken it is not the event's fault: an outage, however long, gives up nothing.
        if state.failures >= tuning.failures_max && acknowledged > state.acknowledged_before {
            return self.give_up(lane, position, fault, now);
        }
        state.is_proven = true;
        let backoff_ms = jitter(backoff_ms(tuning.backoff_ms, state.failures, tuning.backoff_ms_max));
        state.next_at = now.plus_ms(backoff_ms.max(asked_ms(fault)));
        let (failures, is_aside) = (state.failures, state.aside.is_some());
        if is_aside {
            self.dirty_rows.insert(lane.clone());
            self.list(lane);
        } else if failures >= tuning.failures_until_aside || self.is_crowded() {
            self.set_aside(lane);
        } else {
            self.list(lane);
        }
    }

    /// When much is waiting there is no room in memory for lanes that fail.
    fn is_crowded(&self) -> bool {
        self.open.len() > self.tuning.window_events_max / 2 || self.open_bytes > self.tuning.window_bytes_max / 2
    }

    fn yield_room(&mut self, lane: &Lane, is_hopeless: impl FnOnce(&LaneState) -> bool) {
        if self.is_crowded() && self.lanes.get(lane).is_some_and(is_hopeless) {
            self.set_aside(lane);
        } else {
            self.list(lane);
        }
    }

    /// Makes the event a dead letter; its lane waits behind it.
    fn give_up(&mut self, lane: &Lane, position: Position, fault: &Fault, now: Timestamp) {
        let Some(state) = self.lanes.get_mut(lane) else { return };
        if !state.queue.iter().any(|(queued, _)| *queued == position) {
            return;
        }
        let attempts = state.failures;
        self.set_aside(lane);
        if let Some(aside) = self.lanes.get_mut(lane).and_then(|state| state.aside.as_mut()) {
            (aside.first, aside.is_parked) = (position, true);
        }
        self.unlist(lane);
        self.parked.insert(position, lane.clone());
        let (status, reason) = (fault.status, fault.reason.clone());
        let letter = DeadLetter { position, lane: lane.clone(), status, reason, attempts, given_up_at: now };
        self.dirty_dead_letters.insert(position, Some(letter));
        self.dirty_rows.insert(lane.clone());
    }

    /// From now on a row stands for all events of `lane`; only the next one is kept in mind.
    pub(super) fn set_aside(&mut self, lane: &Lane) {
        let Some(state) = self.lanes.get_mut(lane) else { return };
        if state.aside.is_none() {
            let Some((first, _)) = state.queue.front().copied() else { return };
            state.aside = Some(Aside { first, is_parked: false });
            self.set_aside += 1;
            let covered: Vec<_> = state.queue.iter().map(|(position, _)| *position).collect();
            state.queue.truncate(state.in_flight.max(1));
            covered.into_iter().for_each(|position| self.close(position));
        }
        self.dirty_rows.insert(lane.clone());
        self.list(lane);
    }

    fn close(&mut self, position: Position) {
        if let Some(weight) = self.open.remove(&position) {
            self.open_bytes -= weight;
        }
    }

    /// A batch failed as a whole: each of its events goes alone, so that the one at fault is found and the others are not held up.
    fn part(&mut self, events: &[(Position, Lane)], now: Timestamp, delay_ms: &mut dyn FnMut() -> u64) {
        for (_, lane) in events {
            if let Some(state) = self.lanes.get_mut(lane) {
                state.is_alone = true;
                state.next_at = now.plus_ms(delay_ms());
            }
            self.list(lane);
        }
    }

    /// There is no room for it just now. That is nobody's fault and counts for nothing, but it is not asked ever faster.
    fn postpone(&mut self, lane: &Lane, fault: &Fault, now: Timestamp, jitter: Jitter<'_>) {
        let first_ms = self.tuning.backoff_ms;
        if let Some(state) = self.lanes.get_mut(lane) {
            state.postponements = state.postponements.saturating_add(1);
            let delay_ms = jitter(backoff_ms(first_ms, state.postponements, POSTPONE_MS_MAX));
            state.next_at = now.plus_ms(delay_ms.max(asked_ms(fault)));
        }
        self.yield_room(lane, |state| state.postponements >= POSTPONEMENTS_UNTIL_ASIDE);
    }

    /// The endpoint broke while these were on their way. If one of them broke it, the others must get past it: each goes alone, and
    /// the oftener it was there the later.
    fn suspect(&mut self, events: &[(Position, Lane)], now: Timestamp, jitter: Jitter<'_>) {
        for (_, lane) in events {
            if let Some(state) = self.lanes.get_mut(lane) {
                state.is_alone = true;
                state.suspicions = state.suspicions.saturating_add(1);
                state.next_at = now.plus_ms(jitter(backoff_ms(self.tuning.backoff_ms, state.suspicions, SUSPICION_MS_MAX)));
            }
            self.yield_room(lane, |state| state.suspicions >= SUSPICIONS_UNTIL_ASIDE);
        }
    }

    fn hold_back(&mut self, id: DeliveryId, fault: Fault, now: Timestamp, jitter: Jitter<'_>) {
        let failures = match &self.held_back {
            // What was in flight beside the probe says nothing new.
            Some(held_back) if held_back.probe != Some(id) => return,
            Some(held_back) => held_back.failures.saturating_add(1),
            None => 1,
        };
        let delay_ms = backoff_ms(self.tuning.backoff_ms, failures, self.tuning.probe_ms_max);
        // Half of it is certain: a broken endpoint is not hammered by chance.
        let delay_ms = (delay_ms / 2 + jitter(delay_ms / 2)).max(asked_ms(&fault));
        self.held_back = Some(HeldBack { failures, next_at: now.plus_ms(delay_ms), fault, probe: None });
    }

    fn release(&mut self, now: Timestamp) {
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

fn backoff_ms(first_ms: u64, failures: u32, max_ms: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(32);
    first_ms.saturating_mul(1 << doublings).min(max_ms)
}

fn asked_ms(fault: &Fault) -> u64 {
    u64::from(fault.retry_after_s.unwrap_or(0).min(RETRY_AFTER_S_MAX)) * 1_000
}
