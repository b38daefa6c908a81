//! The lanes of one subscription: which event may go when. A pure state machine: no IO, no clock, no chance.
//!
//! At most one delivery is in flight per lane, and a batch holds at most one event of each lane. That alone gives sequence within a
//! lane and independence between lanes. A lane that keeps failing, or has too much waiting, is *set aside*: one durable row stands for
//! all of its events, the floor moves past them, and they are found in the log again when their turn comes.
//!
//! Whoever drives it saves what `Lanes::take_changes` gives, each time all of it or nothing. From any such state, however old, it can
//! be resumed: every event is then either above the floor, or covered by a row or a dead letter, or done with.

use std::collections::{BTreeMap, BTreeSet};

use kit::{Position, Timestamp};

/// The names of lanes.
mod lane;

/// The limits of a subscription.
mod tuning;

/// What is known of one lane.
mod state;

/// What became of every event.
mod ledger;

/// What outlives a crash.
mod durable;

/// What is to be saved.
mod saving;

/// How many deliveries may be in flight.
mod concurrency;

/// Chooses what goes next.
mod pick;

/// Learns from answers.
mod settle;

/// Holds back a broken endpoint.
mod endpoint;

/// Dead letters: redriving and discarding them.
mod letters;

/// Where one event stands.
mod standing;

/// What the log loses.
mod expire;

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests;

pub use durable::{Attempt, Changes, DeadLetter, History, LetterState, Row, Saved, Urgency, Words};
pub use endpoint::HeldBack;
pub use expire::Loss;
pub use lane::Lane;
pub use ledger::{Counts, Fate};
pub use settle::Jitter;
pub use standing::Standing;
pub use tuning::{OnExhausted, Tuning};

use concurrency::Concurrency;
use durable::Reasons;
use expire::Gone;
use ledger::Ledger;
use saving::Unsaved;
use state::{Aside, Class, Flight, LaneState, Waiting};

/// Names a delivery that is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeliveryId(u64);

/// Events that are to be delivered together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its name, for [`Lanes::finish`].
    pub id: DeliveryId,
    /// The events, in the order of the batch.
    pub events: Vec<Position>,
    /// The how-many-eth attempt this is, from 1; in a batch that of the event that was tried most often.
    pub attempt: u32,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Find the first matching event of `lane` after `after` and not after `up_to`, and tell [`Lanes::found`].
    Seek {
        /// The lane.
        lane: Lane,
        /// Where its events are settled to.
        after: Position,
        /// How far the log was read.
        up_to: Position,
    },
    /// Deliver this, and tell [`Lanes::finish`].
    Deliver(Delivery),
    /// Nothing before [`Lanes::next_wake`], a finished delivery or a new event.
    Idle,
}

/// The lanes of one subscription.
#[derive(Debug)]
pub struct Lanes {
    tuning: Tuning,
    /// The subscription starts after this position.
    after: Position,
    read_head: Position,
    /// Events that were read and are neither settled nor covered by a row, with their weights.
    open: BTreeMap<Position, usize>,
    open_bytes: usize,
    /// Boxed, since a map's nodes have room to spare.
    lanes: BTreeMap<Lane, Box<LaneState>>,
    /// Where the lanes that are set aside are settled to.
    firsts: BTreeSet<(Position, Lane)>,
    /// Lanes that wait behind a dead letter, by its position.
    parked: BTreeMap<Position, Lane>,
    /// Every dead letter there is, also those that were discarded.
    letters: BTreeMap<Position, (Lane, LetterState)>,
    /// Those that wait for somebody to decide, and those that are redriven by themselves.
    letters_waiting: BTreeSet<Position>,
    letters_redriving: BTreeSet<Position>,
    waiting: Waiting,
    /// Since when events gather for a batch.
    gathering_since: Option<Timestamp>,
    flights: BTreeMap<DeliveryId, Flight>,
    delivery_last: u64,
    /// Events that are in flight, and that the log has lost.
    lost_in_flight: BTreeSet<Position>,
    reasons: Reasons,
    gone: Gone,
    concurrency: Concurrency,
    held_back: Option<HeldBack>,
    acknowledged: u64,
    ledger: Ledger,
    unsaved: BTreeMap<Lane, Unsaved>,
    /// Lanes of whose row only what is held against them changed. After a crash an older row only means more attempts.
    stale: BTreeSet<Lane>,
    /// Which of them was saved last.
    stale_last: Option<Lane>,
    /// How many of them have dead letters.
    unsaved_letters: usize,
}

impl Lanes {
    /// The lanes of a subscription that has had everything up to `floor`, or does not want it.
    pub fn new(tuning: Tuning, floor: Position) -> Self {
        Self::resume(tuning, Saved { after: floor, floor, ..Saved::default() })
    }

    /// The lanes as they were saved.
    pub fn resume(tuning: Tuning, saved: Saved) -> Self {
        let mut lanes = Self {
            tuning,
            after: saved.after,
            read_head: saved.floor,
            open: BTreeMap::new(),
            open_bytes: 0,
            lanes: BTreeMap::new(),
            firsts: BTreeSet::new(),
            parked: BTreeMap::new(),
            letters: BTreeMap::new(),
            letters_waiting: BTreeSet::new(),
            letters_redriving: BTreeSet::new(),
            waiting: Waiting::default(),
            gathering_since: None,
            flights: BTreeMap::new(),
            delivery_last: 0,
            lost_in_flight: BTreeSet::new(),
            reasons: Reasons::default(),
            gone: Gone::known_after(saved.floor),
            concurrency: Concurrency::new(tuning.deliveries_max),
            held_back: None,
            acknowledged: 0,
            ledger: Ledger::resume(saved.floor, saved.counts),
            unsaved: BTreeMap::new(),
            stale: BTreeSet::new(),
            stale_last: None,
            unsaved_letters: 0,
        };
        saved.rows.into_iter().for_each(|row| lanes.resume_row(row));
        saved.letters.into_iter().for_each(|letter| lanes.resume_letter(letter));
        lanes
    }

    fn resume_row(&mut self, row: Row) {
        if row.is_parked {
            self.parked.insert(row.first, row.lane.clone());
        }
        self.firsts.insert((row.first, row.lane.clone()));
        let state = LaneState {
            aside: Some(Aside { first: row.first, weight: 0, is_parked: row.is_parked }),
            failures: row.failures,
            history: row.history.in_memory(),
            is_alone: row.failures > 0,
            is_proven: row.failures > 0,
            next_at: row.next_at,
            ..LaneState::default()
        };
        self.lanes.insert(row.lane.clone(), Box::new(state));
        self.list(&row.lane);
    }

    /// Takes the next event of the log that the subscription asks for, `weight` bytes heavy.
    pub fn offer(&mut self, position: Position, name: &str, weight: usize) {
        if position <= self.read_head {
            return;
        }
        self.read_head = position;
        let lane = Lane::new(name);
        if let Some(fate) = self.fate_before(position, &lane) {
            return self.ledger.enter(position, fate);
        }
        let state = self.lanes.entry(lane.clone()).or_default();
        state.queue.push_back((position, weight));
        self.open.insert(position, weight);
        self.open_bytes += weight;
        if state.queue.len() > self.tuning.lane_events_max {
            self.set_aside(&lane);
        } else if state.listed.is_none() {
            self.list(&lane);
        }
    }

    /// What the event of `lane` at `position` came to before it is read: before a crash, or because its lane is set aside.
    fn fate_before(&self, position: Position, lane: &Lane) -> Option<Fate> {
        if let Some((_, letter)) = self.letters.get(&position) {
            return Some(letter.fate());
        }
        let aside = self.lanes.get(lane).and_then(|state| state.aside.as_ref())?;
        // It will be found in the log, or was taken before a crash.
        Some(if position < aside.first { Fate::Delivered } else { Fate::Deferred })
    }

    /// Takes note that everything up to `position` was read, and the rest of it is not for this subscription.
    pub fn passed(&mut self, position: Position) {
        self.read_head = self.read_head.max(position);
    }

    /// How far the log was read.
    pub fn read_head(&self) -> Position {
        self.read_head
    }

    /// Everything up to here is settled or covered by a row.
    pub fn floor(&self) -> Position {
        self.open.first_key_value().map_or(self.read_head, |(first, _)| Position(first.0 - 1))
    }

    /// Everything up to here is done with, in every lane; a dead letter that waits for somebody to decide is not.
    pub fn settled_up_to(&self) -> Position {
        let aside = self.firsts.first().map(|(first, _)| *first);
        let pending = aside.into_iter().chain(self.letters_waiting.first().copied()).chain(self.letters_redriving.first().copied());
        pending.map(|first| Position(first.0 - 1)).fold(self.floor(), Position::min)
    }

    /// From now on there are these limits.
    pub fn tune(&mut self, tuning: Tuning) {
        self.tuning = tuning;
        self.concurrency.tune(tuning.deliveries_max);
    }

    /// How many more events may be offered now.
    pub fn room(&self) -> usize {
        if self.open_bytes >= self.tuning.window_bytes_max || self.failing_count() >= self.tuning.aside_lanes_max {
            return 0;
        }
        self.tuning.window_events_max.saturating_sub(self.open.len())
    }

    /// Answers a [`Step::Seek`]: the next event of `lane` and its weight, or that the lane has caught up with what was read.
    pub fn found(&mut self, lane: &Lane, event: Option<(Position, usize)>) {
        if let Some((position, _)) = event.filter(|(position, _)| self.letters.contains_key(position)) {
            // It was given up before a crash that took the lane back; what comes of it is decided apart.
            self.move_first(lane, position.next());
            return self.list(lane);
        }
        let Some(state) = self.lanes.get_mut(lane) else { return };
        match event {
            Some(event) if state.queue.is_empty() => {
                state.queue.push_back(event);
                self.list(lane);
            }
            Some(_) => {}
            None => {
                let first = state.aside.as_ref().map(|aside| aside.first);
                self.unlist(lane);
                self.lanes.remove(lane);
                if let Some(first) = first {
                    self.firsts.remove(&(first, lane.clone()));
                }
                self.unsaved(lane);
            }
        }
    }

    /// Whether the event at `position` was read and is neither settled nor covered by a row.
    pub fn is_open(&self, position: Position) -> bool {
        self.open.contains_key(&position)
    }

    /// How many events were read and are neither settled nor covered by a row.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// How many lanes are set aside, the parked ones among them.
    pub fn set_aside_count(&self) -> usize {
        self.firsts.len()
    }

    /// How many lanes are set aside and tried again.
    fn failing_count(&self) -> usize {
        self.firsts.len().saturating_sub(self.parked.len())
    }

    /// How many lanes wait for the next attempt of an event that failed, or for its answer.
    pub fn blocked_count(&self) -> usize {
        let in_flight = self.flights.values().filter(|flight| flight.class == Class::Proven).map(|flight| flight.events.len());
        self.waiting.of(Class::Proven).len() + in_flight.sum::<usize>()
    }

    /// How many lanes wait behind a dead letter.
    pub fn parked_count(&self) -> usize {
        self.parked.len()
    }

    /// What became of the events that were read and are not open.
    pub fn counts(&self) -> Counts {
        self.ledger.now()
    }

    /// How many deliveries may be in flight now.
    pub fn concurrency(&self) -> usize {
        self.concurrency.limit()
    }

    /// Why nothing is delivered, when the endpoint is at fault.
    pub fn held_back(&self) -> Option<&HeldBack> {
        self.held_back.as_ref()
    }
}
