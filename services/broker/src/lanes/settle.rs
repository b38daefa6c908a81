//! Learns from answers: acknowledges, retries, sets aside, and gives up.

use std::borrow::Cow;

use kit::{Position, Timestamp};

use super::{
    Attempt, DeadLetter, DeliveryId, Fate, History, Lane, Lanes, LetterState, OnExhausted,
    state::{Aside, Class, Flight, LaneState},
};
use crate::verdict::{Fault, Outcome, Verdict};

/// The longest that an endpoint may ask us to wait, in seconds.
const RETRY_AFTER_S_MAX: u32 = 3_600;
/// After how many of these a lane is set aside when much is waiting.
const POSTPONEMENTS_UNTIL_ASIDE: u16 = 10;
/// The longest that a lane waits because there was no room for its event, unless the endpoint asks for a longer time.
const POSTPONE_MS_MAX: u64 = 2_000;
/// Retries that are this far off, in milliseconds, go with those of other lanes.
const TOGETHER_FROM_MS: u64 = 1_000;
/// Those of so many milliseconds go together.
const TOGETHER_MS: u64 = 10;

/// How many tries of one event are kept: the first and the last ones.
const ATTEMPTS_KEPT: usize = 10;
/// The same, while more than [`MANY_FAILING`] lanes are tried again.
const ATTEMPTS_KEPT_OF_MANY: usize = 2;
const MANY_FAILING: usize = 1_000;

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
        self.learn(id, &flight, &verdict);
        let (events, verdict) = self.without_lost(&flight.events, verdict);
        self.note_attempts(&events, &verdict, now);
        match verdict {
            Verdict::Answered(outcomes) => {
                for ((position, lane), outcome) in events.iter().zip(outcomes) {
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
            Verdict::Failed(fault) => match &*events {
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
            Verdict::Unreadable(_) => self.part(&events, now, &mut || 0),
            Verdict::Busy(fault) => events.iter().for_each(|(_, lane)| self.postpone(lane, &fault, now, jitter)),
            Verdict::EndpointAtFault(fault) => {
                self.suspect(events.iter().map(|(_, lane)| lane), now, jitter);
                self.hold_back(id, fault, now, jitter);
            }
        }
        // Whatever the answer forgot to mention is still to be delivered.
        for (_, lane) in &flight.events {
            self.list_family(lane);
        }
    }

    /// Whether the sink struggles: it has no room, or it fails on events that nothing is held against.
    fn learn(&mut self, id: DeliveryId, flight: &Flight, verdict: &Verdict) {
        let is_struggling = match verdict {
            Verdict::Busy(_) => true,
            Verdict::Failed(_) => flight.class == Class::Fresh,
            Verdict::Answered(outcomes) => outcomes.iter().any(|outcome| matches!(outcome, Outcome::Later(_))),
            Verdict::Unreadable(_) | Verdict::EndpointAtFault(_) => false,
        };
        if is_struggling {
            self.concurrency.struggles(id, DeliveryId(self.delivery_last));
        } else if matches!(verdict, Verdict::Answered(_)) {
            self.concurrency.went_well();
        }
    }

    /// Without the events that the log has lost meanwhile: whatever was answered, they have their fate.
    fn without_lost<'a>(&mut self, events: &'a [(Position, Lane)], verdict: Verdict) -> (Cow<'a, [(Position, Lane)]>, Verdict) {
        if self.lost_in_flight.is_empty() {
            return (Cow::Borrowed(events), verdict);
        }
        let is_lost: Vec<_> = events.iter().map(|(position, lane)| self.land_lost(lane, *position)).collect();
        let mut left = is_lost.iter();
        let events = events.iter().filter(|_| left.next() == Some(&false)).cloned().collect();
        let verdict = match verdict {
            Verdict::Answered(outcomes) => {
                let mut left = is_lost.iter();
                Verdict::Answered(outcomes.into_iter().filter(|_| left.next() == Some(&false)).collect())
            }
            Verdict::Unreadable(_) | Verdict::Busy(_) | Verdict::Failed(_) | Verdict::EndpointAtFault(_) => verdict,
        };
        (Cow::Owned(events), verdict)
    }

    /// Keeps in mind how each event was tried in vain.
    fn note_attempts(&mut self, events: &[(Position, Lane)], verdict: &Verdict, now: Timestamp) {
        let kept = if self.failing_count() > MANY_FAILING { ATTEMPTS_KEPT_OF_MANY } else { ATTEMPTS_KEPT };
        for (index, (_, lane)) in events.iter().enumerate() {
            if let (Some(fault), Some(state)) = (verdict.fault_of(index), self.lanes.get_mut(lane)) {
                let attempt = Attempt { at: now, status: fault.status, reason: self.reasons.share(&fault.reason) };
                state.history.get_or_insert_default().note(attempt, kept);
            }
        }
    }

    fn acknowledge(&mut self, lane: &Lane, position: Position) {
        self.acknowledged += 1;
        if lane.is_apart() {
            self.forget_letter(lane, position);
            if self.give_back(lane, position) {
                return;
            }
        }
        self.settle(lane, position, Fate::Delivered);
    }

    /// The event is done with, one way or the other; its lane goes on.
    pub(super) fn settle(&mut self, lane: &Lane, position: Position, fate: Fate) {
        let Some(state) = self.lanes.get_mut(lane) else { return };
        let Some(index) = state.queue.iter().position(|(queued, _)| *queued == position) else { return };
        state.queue.remove(index);
        state.forgive();
        let is_done = state.aside.is_none() && state.queue.is_empty();
        self.move_first(lane, position.next());
        if self.close(position) {
            self.ledger.enter(position, fate);
        } else {
            self.change(lane, position, Fate::Deferred, fate);
        }
        self.unlist(lane);
        if is_done {
            self.lanes.remove(lane);
        } else {
            self.list(lane);
        }
    }

    fn retry(&mut self, lane: &Lane, position: Position, fault: &Fault, now: Timestamp, jitter: Jitter<'_>) {
        let (acknowledged, tuning) = (self.acknowledged, self.tuning);
        let Some(state) = self.lanes.get_mut(lane).filter(|state| state.holds(position)) else { return };
        if state.failures == 0 {
            state.acknowledged_before = acknowledged;
        }
        state.failures = state.failures.saturating_add(1);
        let since = state.history.as_ref().and_then(|history| history.since).unwrap_or(now);
        let is_old = tuning.failing_ms_max.is_some_and(|failing_ms_max| now >= since.plus_ms(failing_ms_max));
        // While nothing at all is taken it is not the event's fault: an outage, however long, gives up nothing.
        if (state.failures >= tuning.failures_max || is_old) && acknowledged > state.acknowledged_before {
            return self.give_up(lane, position, fault, now);
        }
        state.is_proven = true;
        let backoff_ms = jitter(backoff_ms(tuning.backoff_ms, state.failures, tuning.backoff_ms_max));
        state.next_at = together(now, backoff_ms.max(asked_ms(fault)));
        let (failures, first) = (state.failures, state.aside.as_ref().map(|aside| aside.first));
        if let Some(first) = first {
            // Whatever waits behind it is found again in the log.
            let event = std::mem::take(&mut state.queue).front().copied();
            if first == position {
                self.mark_stale(lane);
            } else {
                self.move_first(lane, position);
            }
            if let Some((aside, event)) = self.lanes.get_mut(lane).and_then(|state| state.aside.as_mut()).zip(event) {
                aside.know(event);
            }
            self.list(lane);
        } else if !lane.is_apart() && (failures >= tuning.failures_until_aside || self.is_crowded()) {
            self.set_aside(lane);
        } else {
            self.list(lane);
        }
    }

    /// When much is waiting there is no room in memory for lanes that fail.
    fn is_crowded(&self) -> bool {
        self.open.len() > self.tuning.window_events_max / 2 || self.open_bytes > self.tuning.window_bytes_max / 2
    }

    pub(super) fn yield_room(&mut self, lane: &Lane, is_hopeless: impl FnOnce(&LaneState) -> bool) {
        if self.is_crowded() && self.lanes.get(lane).is_some_and(|state| is_hopeless(state)) {
            self.set_aside(lane);
        } else {
            self.list(lane);
        }
    }

    /// Makes the event a dead letter. Its lane waits behind it, or goes on.
    fn give_up(&mut self, lane: &Lane, position: Position, fault: &Fault, now: Timestamp) {
        let Some(state) = self.lanes.get_mut(lane).filter(|state| state.holds(position)) else { return };
        let history = state.history.take().map(|history| *history).unwrap_or_default();
        let history = History { answer: fault.answer.clone(), ..history };
        let (status, reason) = (fault.status, fault.reason.to_string());
        let (attempts, state) = (history.tries, LetterState::Waiting);
        self.keep_letter(DeadLetter { position, lane: lane.whole(), status, reason, attempts, given_up_at: now, state, history });
        if lane.is_apart() || self.tuning.on_exhausted == OnExhausted::Continue {
            return self.settle(lane, position, Fate::DeadLettered);
        }
        self.set_aside(lane);
        self.move_first(lane, position);
        if let Some(aside) = self.lanes.get_mut(lane).and_then(|state| state.aside.as_mut()) {
            aside.is_parked = true;
        }
        self.unlist(lane);
        self.parked.insert(position, lane.clone());
        self.change(lane, position, Fate::Deferred, Fate::DeadLettered);
    }

    /// From now on a row stands for all events of `lane`; those that are not in flight are found again in the log.
    pub(super) fn set_aside(&mut self, lane: &Lane) {
        let Some(state) = self.lanes.get_mut(lane).filter(|_| !lane.is_apart()) else { return };
        if state.aside.is_none() {
            let Some(event) = state.queue.front().copied() else { return };
            let first = event.0;
            state.aside = Some(Aside::at(event));
            let covered: Vec<_> = state.queue.iter().map(|(position, _)| *position).collect();
            state.queue.truncate(usize::from(state.in_flight));
            state.queue.shrink_to_fit();
            self.firsts.insert((first, lane.clone()));
            for position in covered {
                self.close(position);
                self.ledger.enter(position, Fate::Deferred);
            }
        }
        self.unsaved(lane);
        self.list(lane);
    }

    /// Answers whether it was open.
    pub(super) fn close(&mut self, position: Position) -> bool {
        let weight = self.open.remove(&position);
        self.open_bytes -= weight.unwrap_or(0);
        weight.is_some()
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
            let delay_ms = jitter(backoff_ms(first_ms, state.postponements.into(), POSTPONE_MS_MAX));
            state.next_at = now.plus_ms(delay_ms.max(asked_ms(fault)));
        }
        self.yield_room(lane, |state| state.postponements >= POSTPONEMENTS_UNTIL_ASIDE);
    }
}

/// The time after `delay_ms`. A retry that is far off comes a little later than that, with those of other lanes: thousands of lanes that
/// fail would else be a delivery of one event in every millisecond, and the others would notice.
fn together(now: Timestamp, delay_ms: u64) -> Timestamp {
    let at = now.plus_ms(delay_ms);
    let past_ms = u64::try_from(at.as_ms()).unwrap_or(0) % TOGETHER_MS;
    if delay_ms < TOGETHER_FROM_MS || past_ms == 0 { at } else { at.plus_ms(TOGETHER_MS - past_ms) }
}

pub(super) fn backoff_ms(first_ms: u64, failures: u32, max_ms: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(32);
    first_ms.saturating_mul(1 << doublings).min(max_ms)
}

pub(super) fn asked_ms(fault: &Fault) -> u64 {
    u64::from(fault.retry_after_s.unwrap_or(0).min(RETRY_AFTER_S_MAX)) * 1_000
}
