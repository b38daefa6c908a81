//! The log loses its oldest events: those that still wait among them are counted as lost.
//!
//! It goes in two steps, with a save of everything between them. The first is [`Lanes::expire_open`], then [`Lanes::expire_unread`] for each
//! event that was not read yet. The second asks for the lanes that are set aside ([`Lanes::expiring_lanes`]), begins with
//! [`Lanes::expire_letters`], then names each event of each of those lanes, and at last each of those lanes. What the second step changes is
//! below the saved floor, so each lane of it can be saved by itself.

use std::collections::{BTreeMap, BTreeSet};

use kit::{Position, Timestamp};

use super::{Fate, Lane, Lanes, LetterState, Standing};

/// What the log loses.
#[derive(Debug)]
pub struct Loss {
    /// The events up to here.
    up_to: Position,
    /// The dead letters among them, and those that were discarded.
    letters: BTreeSet<Position>,
}

/// How many of the events that were lost, or forgotten, are known one by one.
const GONE_MAX: usize = 4_096;

/// What became of an event that the log is about to lose, and of which nothing else is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was lost before it was taken.
    Lost,
    /// It had been given up for good.
    Discarded {
        /// When.
        at: Timestamp,
    },
}

/// The events that were lost or forgotten last, for whoever asks about one while the log still has it.
#[derive(Debug)]
pub(super) struct Gone {
    events: BTreeMap<Position, End>,
    /// Of those up to here that are not among them nobody knows any more.
    known_after: Position,
}

impl Gone {
    /// Knows nothing of the events up to `known_after`, and that none behind it is lost or forgotten.
    pub(super) fn known_after(known_after: Position) -> Self {
        Self { events: BTreeMap::new(), known_after }
    }

    fn add(&mut self, position: Position, end: End) {
        self.events.insert(position, end);
        while self.events.len() > GONE_MAX {
            let oldest = self.events.pop_first().map_or(Position::START, |(oldest, _)| oldest);
            self.known_after = self.known_after.max(oldest);
        }
    }
}

impl Lanes {
    /// Where an event stands that is settled, and that the log was let go of; none when nobody knows any more.
    pub fn standing_at_last(&self, position: Position) -> Option<Standing> {
        match self.gone.events.get(&position) {
            Some(End::Lost) => Some(Standing::Lost),
            Some(End::Discarded { at }) => Some(Standing::Discarded { at: *at }),
            None => (position > self.gone.known_after).then_some(Standing::Settled),
        }
    }

    /// The log loses the events up to `up_to`: those that are open go at once.
    pub fn expire_open(&mut self, up_to: Position) {
        let open: Vec<_> = self.open.range(..=up_to).map(|(position, _)| *position).collect();
        for position in open {
            self.close(position);
            self.ledger.enter(position, Fate::Expired);
            self.gone.add(position, End::Lost);
        }
        let lanes = self.lanes.iter().filter(|(lane, state)| state.aside.is_none() && !lane.is_apart());
        let lanes: Vec<_> = lanes.map(|(lane, _)| lane.clone()).collect();
        lanes.iter().for_each(|lane| self.drop_queued(lane, up_to));
    }

    /// The event at `position`, of the lane `name`, which was not read yet, is lost, unless it has another fate or waits with its lane.
    pub fn expire_unread(&mut self, position: Position, name: &str) {
        if position <= self.read_head {
            return;
        }
        self.read_head = position;
        let fate = self.fate_before(position, &Lane::new(name)).unwrap_or_else(|| {
            self.gone.add(position, End::Lost);
            Fate::Expired
        });
        self.ledger.enter(position, fate);
    }

    /// The lanes that are set aside with something to lose, and where their events are settled to.
    pub fn expiring_lanes(&self, up_to: Position) -> Vec<(Lane, Position)> {
        let lanes = self.firsts.iter().take_while(|(first, _)| *first <= up_to);
        lanes.map(|(first, lane)| (lane.clone(), Position(first.0 - 1))).collect()
    }

    /// The dead letters up to `up_to` are lost; those that were discarded are forgotten, and stay discarded.
    pub fn expire_letters(&mut self, up_to: Position) -> Loss {
        let letters: Vec<_> = self.letters.range(..=up_to).map(|(position, (lane, state))| (*position, lane.clone(), *state)).collect();
        for (position, lane, state) in &letters {
            match state {
                LetterState::Discarded { at } => {
                    self.unsaved(lane).forgotten += i64::from(*position > self.after);
                    self.gone.add(*position, End::Discarded { at: *at });
                }
                LetterState::Waiting | LetterState::Redriving => {
                    self.change(lane, *position, state.fate(), Fate::Expired);
                    self.gone.add(*position, End::Lost);
                }
            }
            self.parked.remove(position);
            self.forget_letter(lane, *position);
            self.drop_queued(&lane.apart(*position), up_to);
        }
        Loss { up_to, letters: letters.into_iter().map(|(position, _, _)| position).collect() }
    }

    /// The event of `lane` at `position`, which is set aside, is lost.
    pub fn expire_aside(&mut self, loss: &Loss, lane: &Lane, position: Position) {
        if !loss.letters.contains(&position) {
            self.change(lane, position, Fate::Deferred, Fate::Expired);
            self.gone.add(position, End::Lost);
        }
    }

    /// All events of `lane` that are lost were named.
    pub fn expire_lane(&mut self, loss: &Loss, lane: &Lane) {
        let up_to = loss.up_to;
        self.move_first(lane, up_to.next());
        if let Some(state) = self.lanes.get_mut(lane) {
            if let Some(aside) = &mut state.aside {
                aside.is_parked = false;
            }
            // What is held against a later event stays.
            if state.in_flight == 0 && state.queue.front().is_none_or(|(first, _)| *first <= up_to) {
                state.forgive();
            }
        }
        self.drop_queued(lane, up_to);
        if up_to >= self.read_head && self.lanes.get(lane).is_some_and(|state| state.queue.is_empty()) {
            // It has caught up.
            self.found(lane, None);
        }
    }

    /// What waits in `lane` up to `up_to` is not sent any more. What is in flight stays until it lands, so that nothing else of its
    /// lane is sent meanwhile; then it counts for nothing.
    fn drop_queued(&mut self, lane: &Lane, up_to: Position) {
        let Some(state) = self.lanes.get_mut(lane) else { return };
        let in_flight = usize::from(state.in_flight);
        let mut index = 0;
        state.queue.retain(|(position, _)| {
            index += 1;
            index <= in_flight || *position > up_to
        });
        self.lost_in_flight.extend(state.queue.iter().take(in_flight).map(|(position, _)| *position).filter(|position| *position <= up_to));
        if state.queue.is_empty() && state.aside.is_none() {
            self.unlist(lane);
            self.lanes.remove(lane);
        } else {
            if index > state.queue.len() && in_flight == 0 {
                state.forgive();
            }
            self.list(lane);
        }
    }

    /// A lost event has landed; whatever was answered, it has its fate.
    pub(super) fn land_lost(&mut self, lane: &Lane, position: Position) -> bool {
        if !self.lost_in_flight.remove(&position) {
            return false;
        }
        if let Some(state) = self.lanes.get_mut(lane) {
            state.queue.retain(|(queued, _)| *queued != position);
            state.forgive();
            if state.queue.is_empty() && state.aside.is_none() {
                self.unlist(lane);
                self.lanes.remove(lane);
            }
        }
        true
    }
}
