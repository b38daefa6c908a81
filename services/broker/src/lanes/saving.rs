//! What changed since it was saved last, in pieces that are each consistent by themselves.

use std::{collections::BTreeMap, ops::Bound};

use kit::{
    Position,
    planted::{Bug, is_planted},
};

use super::{Changes, Counts, DeadLetter, Fate, Lane, Lanes, Row, Urgency};

/// What of a lane is to be saved, its row apart.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    pub(super) letters: BTreeMap<Position, Option<DeadLetter>>,
    /// How events up to the saved floor went over from one fate to another.
    pub(super) changes: Counts,
    /// How many records of discarded events went with the log.
    pub(super) forgotten: i64,
}

impl Lanes {
    /// What changed since the last time, of up to `lanes_max` lanes; with the floor as it is now, if that was all that it waits for. How
    /// often events failed fills up what room there is. What this gives must be saved together, and one after the other.
    pub fn take_changes(&mut self, lanes_max: usize) -> Changes {
        let (mut rows, mut letters, mut forgotten) = (Vec::new(), Vec::new(), 0);
        for _ in 0..lanes_max {
            let Some((lane, unsaved)) = self.unsaved.pop_first() else { break };
            self.ledger.book(unsaved.changes);
            self.unsaved_letters -= unsaved.letters.len();
            letters.extend(unsaved.letters);
            forgotten += unsaved.forgotten;
            self.stale.remove(&lane);
            let row = self.row(&lane);
            rows.push((lane, row));
        }
        while rows.len() < lanes_max {
            let Some(lane) = self.next_stale() else { break };
            let row = self.row(&lane);
            rows.push((lane, row));
        }
        let is_all = self.unsaved.is_empty();
        if is_all {
            self.ledger.rise(self.floor());
        }
        let counts = if is_planted(Bug::CountPastFloor) { self.ledger.now() } else { self.ledger.below() };
        Changes { rows, letters, floor: self.ledger.floor(), counts, forgotten, is_all }
    }

    /// Whether something is to be saved, and how urgently.
    pub fn urgency(&self) -> Urgency {
        let advanced = u64::try_from(self.floor().0 - self.ledger.floor().0).unwrap_or(0);
        if self.unsaved_letters > 0 {
            Urgency::Now { advanced }
        } else if advanced > 0 || !self.unsaved.is_empty() || self.has_stale() {
            Urgency::Soon { advanced }
        } else {
            Urgency::Nothing
        }
    }

    /// Whether some rows do not tell how often events failed last.
    pub fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    fn row(&self, lane: &Lane) -> Option<Row> {
        let state = self.lanes.get(lane)?;
        let aside = state.aside.as_ref()?;
        let history = state.history.as_deref().cloned().unwrap_or_default();
        let (failures, next_at) = (state.failures, state.next_at);
        Some(Row { lane: lane.clone(), first: aside.first, failures, next_at, is_parked: aside.is_parked, history })
    }

    /// In turn, so that none is left out while others fail again.
    fn next_stale(&mut self) -> Option<Lane> {
        let after = self.stale_last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let lane = self.stale.range((after, Bound::Unbounded)).next().or_else(|| self.stale.first())?.clone();
        self.stale.remove(&lane);
        self.stale_last = Some(lane.clone());
        Some(lane)
    }

    /// Only what is held against `lane` changed.
    pub(super) fn mark_stale(&mut self, lane: &Lane) {
        self.stale.insert(lane.whole());
    }

    /// What of `lane` is to be saved; from now on that is something.
    pub(super) fn unsaved(&mut self, lane: &Lane) -> &mut Unsaved {
        self.unsaved.entry(lane.whole()).or_default()
    }

    /// The dead letter at `position` came, changed or went.
    pub(super) fn write_letter(&mut self, lane: &Lane, position: Position, letter: Option<DeadLetter>) {
        if self.unsaved(lane).letters.insert(position, letter).is_none() {
            self.unsaved_letters += 1;
        }
    }

    /// The event of `lane` goes over from `from` to `to`.
    pub(super) fn change(&mut self, lane: &Lane, position: Position, from: Fate, to: Fate) {
        if self.ledger.change(position, from, to) {
            self.unsaved(lane).changes.go_over(from, to);
        }
    }

    /// From now on everything of `lane` before `first` is settled.
    pub(super) fn move_first(&mut self, lane: &Lane, first: Position) {
        let Some(aside) = self.lanes.get_mut(lane).and_then(|state| state.aside.as_mut()) else { return };
        self.firsts.remove(&(aside.first, lane.clone()));
        (aside.first, aside.weight) = (first, 0);
        self.firsts.insert((first, lane.clone()));
        self.unsaved(lane);
    }
}
