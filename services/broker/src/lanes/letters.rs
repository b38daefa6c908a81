//! Dead letters: what was given up, redriving it, discarding it.

use kit::{Position, Timestamp};

use super::{DeadLetter, Fate, Lane, Lanes, LetterState, state::LaneState};

impl LetterState {
    /// What became of the event.
    pub(crate) fn fate(self) -> Fate {
        match self {
            Self::Waiting => Fate::DeadLettered,
            Self::Redriving => Fate::Deferred,
            Self::Discarded { .. } => Fate::Discarded,
        }
    }
}

impl Lanes {
    pub(super) fn resume_letter(&mut self, letter: DeadLetter) {
        self.mark(&letter);
        if letter.state == LetterState::Redriving {
            let at_once = letter.given_up_at;
            self.send_apart(letter, at_once);
        }
    }

    /// How many dead letters wait for somebody to decide.
    pub fn dead_letter_count(&self) -> usize {
        self.letters_waiting.len()
    }

    /// The dead letters that wait for somebody to decide.
    pub fn dead_letters_waiting(&self) -> impl Iterator<Item = Position> {
        self.letters_waiting.iter().copied()
    }

    /// Tries a dead letter again, as it was saved: with its lane, if that waits behind it, else by itself. Answers whether it waited.
    pub fn redrive(&mut self, letter: DeadLetter, now: Timestamp) -> bool {
        let position = letter.position;
        if !self.letters_waiting.contains(&position) {
            return false;
        }
        self.change(&letter.lane, position, Fate::DeadLettered, Fate::Deferred);
        let Some(lane) = self.parked.remove(&position) else {
            let letter = DeadLetter { state: LetterState::Redriving, ..letter };
            self.keep_letter(letter.clone());
            self.send_apart(letter, now);
            return true;
        };
        self.forget_letter(&lane, position);
        self.unpark(&lane);
        if let Some(state) = self.lanes.get_mut(&lane) {
            (state.failures, state.is_alone, state.is_proven, state.next_at) = (0, true, true, now);
            state.history = letter.history.in_memory();
        }
        self.list(&lane);
        true
    }

    /// Gives up a dead letter, as it was saved, for good; if its lane waits behind it, that goes on. Answers whether it waited.
    pub fn discard(&mut self, letter: DeadLetter, now: Timestamp) -> bool {
        let position = letter.position;
        if !self.letters_waiting.contains(&position) {
            return false;
        }
        self.change(&letter.lane, position, Fate::DeadLettered, Fate::Discarded);
        self.keep_letter(DeadLetter { state: LetterState::Discarded { at: now }, ..letter });
        if let Some(lane) = self.parked.remove(&position) {
            self.unpark(&lane);
            if let Some(state) = self.lanes.get_mut(&lane) {
                state.queue.clear();
                state.forgive();
            }
            self.move_first(&lane, position.next());
            self.list(&lane);
        }
        true
    }

    /// The dead letter at `position` is none any more.
    pub(super) fn forget_letter(&mut self, lane: &Lane, position: Position) {
        self.letters.remove(&position);
        self.letters_waiting.remove(&position);
        self.letters_redriving.remove(&position);
        self.write_letter(lane, position, None);
    }

    /// There is this dead letter from now on, or it has changed to this.
    pub(super) fn keep_letter(&mut self, letter: DeadLetter) {
        self.mark(&letter);
        let (lane, position) = (letter.lane.clone(), letter.position);
        self.write_letter(&lane, position, Some(letter));
    }

    fn mark(&mut self, letter: &DeadLetter) {
        let position = letter.position;
        self.letters.insert(position, (letter.lane.clone(), letter.state));
        self.letters_waiting.remove(&position);
        self.letters_redriving.remove(&position);
        match letter.state {
            LetterState::Waiting => drop(self.letters_waiting.insert(position)),
            LetterState::Redriving => drop(self.letters_redriving.insert(position)),
            LetterState::Discarded { .. } => {}
        }
    }

    /// The event goes by itself: its lane went on without it.
    fn send_apart(&mut self, letter: DeadLetter, now: Timestamp) {
        let lane = letter.lane.apart(letter.position);
        let state = LaneState {
            queue: [(letter.position, 0)].into(),
            history: letter.history.in_memory(),
            is_alone: true,
            is_proven: true,
            next_at: now,
            ..LaneState::default()
        };
        self.lanes.insert(lane.clone(), Box::new(state));
        self.list(&lane);
    }

    /// Gives an event that was redriven by itself, and was taken, back to its lane, if a crash had taken that back to before it: nothing
    /// would say any more that the lane has had it, so it comes again there, in its turn. Answers whether that is so.
    pub(super) fn give_back(&mut self, apart: &Lane, position: Position) -> bool {
        let lane = apart.whole();
        // What was not read again yet will come to its lane by itself.
        let Some(state) = self.lanes.get_mut(&lane).filter(|_| position <= self.read_head) else { return false };
        match &state.aside {
            Some(aside) if position < aside.first => return false,
            // The row stands for it.
            Some(_) => {}
            None => {
                let index = state.queue.partition_point(|(queued, _)| *queued < position);
                if index == 0 {
                    return false;
                }
                state.queue.insert(index, (position, 0));
                self.open.insert(position, 0);
                self.ledger.reopen(position);
            }
        }
        self.unlist(apart);
        self.lanes.remove(apart);
        self.list(&lane);
        true
    }

    fn unpark(&mut self, lane: &Lane) {
        if let Some(aside) = self.lanes.get_mut(lane).and_then(|state| state.aside.as_mut()) {
            aside.is_parked = false;
        }
        self.unsaved(lane);
    }
}
