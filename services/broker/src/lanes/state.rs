//! What is known of one lane, and where it waits.

use std::collections::{BTreeSet, VecDeque};

use kit::{Position, Timestamp};

use super::{History, Lane};

/// A lane that has something to deliver.
#[derive(Debug)]
pub(super) struct LaneState {
    /// Its known unsettled events, in order; those in flight first. Of a lane that is set aside at most the next one.
    pub(super) queue: VecDeque<(Position, usize)>,
    /// How many of them are in flight: one at most.
    pub(super) in_flight: u8,
    pub(super) aside: Option<Aside>,
    /// How often the first event failed, and how many events were acknowledged when it began to.
    pub(super) failures: u32,
    pub(super) acknowledged_before: u64,
    /// How the first event was tried.
    pub(super) history: Option<Box<History>>,
    /// How often it was on its way when the endpoint broke.
    pub(super) suspicions: u16,
    /// How often there was no room for it.
    pub(super) postponements: u16,
    pub(super) is_alone: bool,
    pub(super) is_proven: bool,
    pub(super) next_at: Timestamp,
    /// Where it stands in [`Waiting`].
    pub(super) listed: Option<Listed>,
}

/// Where a lane stands in [`Waiting`], but for its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed {
    pub(super) class: Class,
    pub(super) at: Timestamp,
    pub(super) position: Position,
}

#[derive(Debug)]
pub(super) struct Aside {
    /// Everything of it before this is settled.
    pub(super) first: Position,
    /// How many bytes heavy its next event is, when that is known to stand at `first`; otherwise 0, and it is to be found in the log.
    pub(super) weight: u32,
    pub(super) is_parked: bool,
}

/// How much is held against a lane: each class has its own share of the deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Nothing: goes in batches.
    Fresh,
    /// Was in a batch that failed: goes alone, so that the one at fault is found.
    Alone,
    /// Its event failed: waits its turn among its like.
    Proven,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) at: Timestamp,
    pub(super) position: Position,
    pub(super) lane: Lane,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) fresh: BTreeSet<Due>,
    pub(super) alone: BTreeSet<Due>,
    pub(super) proven: BTreeSet<Due>,
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) class: Class,
    pub(super) events: Vec<(Position, Lane)>,
}

pub(super) const AT_ONCE: Timestamp = Timestamp::from_ms(0);

impl Default for LaneState {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            in_flight: 0,
            aside: None,
            failures: 0,
            acknowledged_before: 0,
            history: None,
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
    pub(super) fn next(&self) -> Option<(Position, usize)> {
        self.queue.get(usize::from(self.in_flight)).copied().or_else(|| self.known_aside())
    }

    /// Its first unsettled event, when that is known.
    pub(super) fn first(&self) -> Option<Position> {
        self.queue.front().copied().or_else(|| self.known_aside()).map(|(first, _)| first)
    }

    /// The next event is on its way.
    pub(super) fn send_next(&mut self) {
        self.queue.extend(self.known_aside());
        self.in_flight += 1;
    }

    /// The event that it was set aside with, or failed on since, unless that is in the queue.
    fn known_aside(&self) -> Option<(Position, usize)> {
        self.aside.as_ref().filter(|_| self.queue.is_empty()).and_then(Aside::known)
    }

    pub(super) fn class(&self) -> Class {
        match (self.is_proven, self.is_alone) {
            (true, _) => Class::Proven,
            (false, true) => Class::Alone,
            (false, false) => Class::Fresh,
        }
    }

    /// Whether the event at `position` is one of its known unsettled ones.
    pub(super) fn holds(&self, position: Position) -> bool {
        self.queue.iter().any(|(queued, _)| *queued == position)
    }

    /// How often its first event was sent in vain.
    pub(super) fn tries(&self) -> u32 {
        self.history.as_ref().map_or(0, |history| history.tries)
    }

    /// Nothing is held against it any more.
    pub(super) fn forgive(&mut self) {
        (self.failures, self.suspicions, self.postponements, self.history) = (0, 0, 0, None);
        (self.is_alone, self.is_proven, self.next_at) = (false, false, AT_ONCE);
    }
}

impl Aside {
    /// Its next event, when it is known.
    pub(super) fn known(&self) -> Option<(Position, usize)> {
        (self.weight > 0).then(|| (self.first, usize::try_from(self.weight).unwrap_or(usize::MAX)))
    }

    /// Set aside with this next event.
    pub(super) fn at(event: (Position, usize)) -> Self {
        let mut aside = Self { first: event.0, weight: 0, is_parked: false };
        aside.know(event);
        aside
    }

    /// Its next event is this one.
    pub(super) fn know(&mut self, (first, weight): (Position, usize)) {
        (self.first, self.weight) = (first, u32::try_from(weight).unwrap_or(u32::MAX));
    }
}

impl Listed {
    pub(super) fn due(self, lane: &Lane) -> Due {
        Due { at: self.at, position: self.position, lane: lane.clone() }
    }
}

impl Waiting {
    pub(super) fn of(&self, class: Class) -> &BTreeSet<Due> {
        match class {
            Class::Fresh => &self.fresh,
            Class::Alone => &self.alone,
            Class::Proven => &self.proven,
        }
    }

    pub(super) fn of_mut(&mut self, class: Class) -> &mut BTreeSet<Due> {
        match class {
            Class::Fresh => &mut self.fresh,
            Class::Alone => &mut self.alone,
            Class::Proven => &mut self.proven,
        }
    }
}
