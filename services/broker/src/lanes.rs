//! The lanes of one subscription: which event may go when. A pure state machine: no IO, no clock, no chance.
//!
//! At most one delivery is in flight per lane, and a batch holds at most one event of each lane. That alone gives sequence within a
//! lane and independence between lanes. A lane that keeps failing, or has too much waiting, is *set aside*: one durable row stands for
//! all of its events, the floor moves past them, and they are found in the log again when their turn comes.
//!
//! Whoever drives it saves what `Lanes::take_changes` gives, rows before the floor. From any such state, however old, it can be
//! resumed: every event is then either above the floor, or covered by a row, or was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use kit::{Position, Timestamp};
use serde::{Deserialize, Serialize};

use crate::verdict::Fault;

/// The limits of a subscription.
mod tuning;

/// What outlives a crash.
mod durable;

/// Chooses what goes next.
mod pick;

/// Learns from answers.
mod settle;

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests;

pub use durable::{Changes, DeadLetter, Row, Urgency};
pub use settle::Jitter;
pub use tuning::Tuning;

/// What keeps its events in sequence; see [`kit::Envelope::lane`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Lane(Arc<str>);

impl Lane {
    /// The lane called `name`.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Lane {
    fn from(name: String) -> Self {
        Self(Arc::from(name))
    }
}

impl From<Lane> for String {
    fn from(lane: Lane) -> Self {
        lane.as_str().to_owned()
    }
}

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

/// An endpoint at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBack {
    /// How often in a row it was at fault.
    pub failures: u32,
    /// When it is probed next.
    pub next_at: Timestamp,
    /// What went wrong last.
    pub fault: Fault,
    probe: Option<DeliveryId>,
}

/// The lanes of one subscription.
#[derive(Debug)]
pub struct Lanes {
    tuning: Tuning,
    read_head: Position,
    /// Events that were read and are neither settled nor covered by a row, with their weights.
    open: BTreeMap<Position, usize>,
    open_bytes: usize,
    lanes: BTreeMap<Lane, LaneState>,
    set_aside: usize,
    parked: BTreeMap<Position, Lane>,
    waiting: Waiting,
    flights: BTreeMap<DeliveryId, Flight>,
    delivery_last: u64,
    held_back: Option<HeldBack>,
    acknowledged: u64,
    dirty_rows: BTreeSet<Lane>,
    dirty_dead_letters: BTreeMap<Position, Option<DeadLetter>>,
    floor_taken: Position,
}

/// A lane that has something to deliver.
#[derive(Debug)]
struct LaneState {
    /// Its known unsettled events, in order; those in flight first. Of a lane that is set aside at most the next one.
    queue: VecDeque<(Position, usize)>,
    in_flight: usize,
    aside: Option<Aside>,
    /// How often the first event failed, and how many events were acknowledged when it began to.
    failures: u32,
    acknowledged_before: u64,
    /// How often it was on its way when the endpoint broke.
    suspicions: u32,
    /// How often there was no room for it.
    postponements: u32,
    is_alone: bool,
    is_proven: bool,
    next_at: Timestamp,
    /// Where it stands in [`Waiting`].
    listed: Option<(Class, Due)>,
}

#[derive(Debug)]
struct Aside {
    first: Position,
    is_parked: bool,
}

/// How much is held against a lane: each class has its own share of the deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Nothing: goes in batches.
    Fresh,
    /// Was in a batch that failed: goes alone, so that the one at fault is found.
    Alone,
    /// Its event failed: waits its turn among its like.
    Proven,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Timestamp,
    position: Position,
    lane: Lane,
}

#[derive(Debug, Default)]
struct Waiting {
    fresh: BTreeSet<Due>,
    alone: BTreeSet<Due>,
    proven: BTreeSet<Due>,
}

#[derive(Debug)]
struct Flight {
    class: Class,
    events: Vec<(Position, Lane)>,
}

const AT_ONCE: Timestamp = Timestamp::from_ms(0);

impl Lanes {
    /// The lanes as they were saved: everything up to `floor` is settled or covered by one of `rows`.
    pub fn resume(tuning: Tuning, floor: Position, rows: Vec<Row>) -> Self {
        let mut lanes = Self {
            tuning,
            read_head: floor,
            open: BTreeMap::new(),
            open_bytes: 0,
            lanes: BTreeMap::new(),
            set_aside: rows.len(),
            parked: BTreeMap::new(),
            waiting: Waiting::default(),
            flights: BTreeMap::new(),
            delivery_last: 0,
            held_back: None,
            acknowledged: 0,
            dirty_rows: BTreeSet::new(),
            dirty_dead_letters: BTreeMap::new(),
            floor_taken: floor,
        };
        for row in rows {
            if row.is_parked {
                lanes.parked.insert(row.first, row.lane.clone());
            }
            let state = LaneState {
                aside: Some(Aside { first: row.first, is_parked: row.is_parked }),
                failures: row.failures,
                is_alone: row.failures > 0,
                is_proven: row.failures > 0,
                next_at: row.next_at,
                ..LaneState::default()
            };
            lanes.lanes.insert(row.lane.clone(), state);
            lanes.list(&row.lane);
        }
        lanes
    }

    /// Takes the next event of the log that the subscription asks for, `weight` bytes heavy.
    pub fn offer(&mut self, position: Position, name: &str, weight: usize) {
        if position <= self.read_head {
            return;
        }
        self.read_head = position;
        let lane = Lane::new(name);
        let state = self.lanes.entry(lane.clone()).or_default();
        if state.aside.is_some() {
            // It will be found in the log.
            return;
        }
        state.queue.push_back((position, weight));
        self.open.insert(position, weight);
        self.open_bytes += weight;
        if state.queue.len() > self.tuning.lane_events_max {
            self.set_aside(&lane);
        } else if state.listed.is_none() {
            self.list(&lane);
        }
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

    /// Everything up to here is settled, in every lane.
    pub fn settled_up_to(&self) -> Position {
        let aside = self.lanes.values().filter_map(|state| state.aside.as_ref()).map(|aside| Position(aside.first.0 - 1)).min();
        aside.map_or(self.floor(), |aside| aside.min(self.floor()))
    }

    /// From now on there are these limits.
    pub fn tune(&mut self, tuning: Tuning) {
        self.tuning = tuning;
    }

    /// How many more events may be offered now.
    pub fn room(&self) -> usize {
        if self.open_bytes >= self.tuning.window_bytes_max { 0 } else { self.tuning.window_events_max.saturating_sub(self.open.len()) }
    }

    /// Answers a [`Step::Seek`]: the next event of `lane` and its weight, or that the lane has caught up with what was read.
    pub fn found(&mut self, lane: &Lane, event: Option<(Position, usize)>) {
        let Some(state) = self.lanes.get_mut(lane) else { return };
        match event {
            Some(event) if state.queue.is_empty() => {
                state.queue.push_back(event);
                self.list(lane);
            }
            Some(_) => {}
            None => {
                self.unlist(lane);
                self.lanes.remove(lane);
                self.set_aside -= 1;
                self.dirty_rows.insert(lane.clone());
            }
        }
    }

    /// Tries the dead letter at `position` again. Answers whether there is one.
    pub fn redrive(&mut self, position: Position, now: Timestamp) -> bool {
        self.unpark(position, |state| {
            (state.failures, state.is_alone, state.is_proven, state.next_at) = (0, true, true, now);
        })
    }

    /// Gives up the dead letter at `position` for good; its lane goes on behind it. Answers whether there is one.
    pub fn discard(&mut self, position: Position) -> bool {
        self.unpark(position, |state| {
            state.queue.clear();
            state.forgive();
            if let Some(aside) = &mut state.aside {
                aside.first = position.next();
            }
        })
    }

    fn unpark(&mut self, position: Position, change: impl FnOnce(&mut LaneState)) -> bool {
        let Some(lane) = self.parked.remove(&position) else { return false };
        if let Some(state) = self.lanes.get_mut(&lane) {
            if let Some(aside) = &mut state.aside {
                aside.is_parked = false;
            }
            change(state);
        }
        self.dirty_dead_letters.insert(position, None);
        self.dirty_rows.insert(lane.clone());
        self.list(&lane);
        true
    }

    /// What changed since the last time, with the floor now.
    pub fn take_changes(&mut self) -> Changes {
        let rows = std::mem::take(&mut self.dirty_rows);
        let rows = rows.into_iter().map(|lane| (lane.clone(), self.row(&lane))).collect();
        self.floor_taken = self.floor();
        Changes { rows, dead_letters: std::mem::take(&mut self.dirty_dead_letters).into_iter().collect(), floor: self.floor_taken }
    }

    /// Whether something is to be saved, and how urgently.
    pub fn urgency(&self) -> Urgency {
        let advanced = self.floor().0 - self.floor_taken.0;
        if !self.dirty_dead_letters.is_empty() {
            Urgency::Now { advanced: u64::try_from(advanced).unwrap_or(0) }
        } else if advanced > 0 || !self.dirty_rows.is_empty() {
            Urgency::Soon { advanced: u64::try_from(advanced).unwrap_or(0) }
        } else {
            Urgency::Nothing
        }
    }

    fn row(&self, lane: &Lane) -> Option<Row> {
        let state = self.lanes.get(lane)?;
        let aside = state.aside.as_ref()?;
        let (failures, next_at) = (state.failures, state.next_at);
        Some(Row { lane: lane.clone(), first: aside.first, failures, next_at, is_parked: aside.is_parked })
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
        self.set_aside
    }

    /// How many lanes wait behind a dead letter.
    pub fn parked_count(&self) -> usize {
        self.parked.len()
    }

    /// Why nothing is delivered, when the endpoint is at fault.
    pub fn held_back(&self) -> Option<&HeldBack> {
        self.held_back.as_ref()
    }
}

impl Default for LaneState {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            in_flight: 0,
            aside: None,
            failures: 0,
            acknowledged_before: 0,
            suspicions: 0,
            postponements: 0,
            is_alone: false,
            is_proven: false,
            next_at: AT_ONCE,
            listed: None,
        }
    }
}

impl LaneState {
    /// The next event that is not in flight.
    fn next(&self) -> Option<(Position, usize)> {
        self.queue.get(self.in_flight).copied()
    }

    fn class(&self) -> Class {
        match (self.is_proven, self.is_alone) {
            (true, _) => Class::Proven,
            (false, true) => Class::Alone,
            (false, false) => Class::Fresh,
        }
    }

    /// Nothing is held against it any more.
    fn forgive(&mut self) {
        (self.failures, self.suspicions, self.postponements) = (0, 0, 0);
        (self.is_alone, self.is_proven, self.next_at) = (false, false, AT_ONCE);
    }
}

impl Waiting {
    fn of(&self, class: Class) -> &BTreeSet<Due> {
        match class {
            Class::Fresh => &self.fresh,
            Class::Alone => &self.alone,
            Class::Proven => &self.proven,
        }
    }

    fn of_mut(&mut self, class: Class) -> &mut BTreeSet<Due> {
        match class {
            Class::Fresh => &mut self.fresh,
            Class::Alone => &mut self.alone,
            Class::Proven => &mut self.proven,
        }
    }
}
