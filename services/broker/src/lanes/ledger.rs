//! What became of every event that the subscription asked for: the books of one subscription.
//!
//! What is saved counts the events up to the saved floor, and no others: those above it are read again after a crash, and counted when
//! the floor passes them. A change below the floor is booked together with the row or the dead letter that it belongs to. So the saved
//! counts are exact in every state that a crash can leave behind.

use std::{collections::BTreeMap, ops::AddAssign};

use kit::Position;
use serde::{Deserialize, Serialize};

/// What became of an event that the subscription asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The subscriber took it.
    Delivered,
    /// It waits, covered by a row, or is being redriven.
    Deferred,
    /// It was given up, until somebody redrives or discards it.
    DeadLettered,
    /// Somebody gave it up for good.
    Discarded,
    /// The log lost it before it was taken.
    Expired,
}

/// How many events had which fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Taken by the subscriber.
    pub delivered: i64,
    /// Waiting, covered by a row, or being redriven.
    pub deferred: i64,
    /// Given up, until somebody redrives or discards them.
    pub dead_lettered: i64,
    /// Given up for good.
    pub discarded: i64,
    /// Lost by the log before they were taken.
    pub expired: i64,
}

impl Counts {
    /// How many there are in all.
    pub fn total(&self) -> i64 {
        self.delivered + self.deferred + self.dead_lettered + self.discarded + self.expired
    }

    /// Counts `by` more of the fate `fate`.
    pub fn add(&mut self, fate: Fate, by: i64) {
        *match fate {
            Fate::Delivered => &mut self.delivered,
            Fate::Deferred => &mut self.deferred,
            Fate::DeadLettered => &mut self.dead_lettered,
            Fate::Discarded => &mut self.discarded,
            Fate::Expired => &mut self.expired,
        } += by;
    }

    /// One event goes over from `from` to `to`.
    pub(super) fn go_over(&mut self, from: Fate, to: Fate) {
        self.add(from, -1);
        self.add(to, 1);
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.deferred += other.deferred;
        self.dead_lettered += other.dead_lettered;
        self.discarded += other.discarded;
        self.expired += other.expired;
    }
}

/// The books of one subscription.
#[derive(Debug)]
pub(super) struct Ledger {
    /// As it was taken to be saved.
    floor: Position,
    /// The events up to the floor, as their rows and dead letters were taken to be saved.
    below: Counts,
    /// The events above the floor that are not open any more.
    above: BTreeMap<Position, Fate>,
    /// All events, as they stand now.
    now: Counts,
}

impl Ledger {
    /// The books as they were saved.
    pub(super) fn resume(floor: Position, below: Counts) -> Self {
        Self { floor, below, above: BTreeMap::new(), now: below }
    }

    /// The floor as it was taken to be saved.
    pub(super) fn floor(&self) -> Position {
        self.floor
    }

    /// The events up to that floor.
    pub(super) fn below(&self) -> Counts {
        self.below
    }

    /// All events that are not open, as they stand now.
    pub(super) fn now(&self) -> Counts {
        self.now
    }

    /// The event at `position`, above the floor, is not open any more.
    pub(super) fn enter(&mut self, position: Position, fate: Fate) {
        self.now.add(fate, 1);
        if let Some(before) = self.above.insert(position, fate) {
            self.now.add(before, -1);
        }
    }

    /// The event at `position` goes over from `from` to `to`. Answers whether that is to be booked with its lane: it is below the floor.
    pub(super) fn change(&mut self, position: Position, from: Fate, to: Fate) -> bool {
        if position <= self.floor {
            self.now.go_over(from, to);
            return true;
        }
        // After a crash it may not have been read again yet; then it gets its fate when it is.
        if let Some(fate) = self.above.get_mut(&position) {
            self.now.go_over(*fate, to);
            *fate = to;
        }
        false
    }

    /// The event at `position`, above the floor, is open again.
    pub(super) fn reopen(&mut self, position: Position) {
        if let Some(fate) = self.above.remove(&position) {
            self.now.add(fate, -1);
        }
    }

    /// Changes below the floor are saved, with their lane.
    pub(super) fn book(&mut self, changes: Counts) {
        self.below += changes;
    }

    /// The floor is saved; everything else was saved before.
    pub(super) fn rise(&mut self, floor: Position) {
        while let Some(entry) = self.above.first_entry().filter(|entry| *entry.key() <= floor) {
            self.below.add(entry.remove(), 1);
        }
        self.floor = self.floor.max(floor);
    }
}
