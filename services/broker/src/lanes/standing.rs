//! Where one event stands, for whoever asks why it did not arrive.

use kit::{Position, Timestamp};

use super::{Attempt, Lane, Lanes, LetterState, state::LaneState};

/// Where an event that the subscription asks for stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It was taken, or the log was let go of it: see [`Lanes::standing_at_last`].
    Settled,
    /// It was lost before it was taken.
    Lost,
    /// It waits for its turn.
    Queued,
    /// It is on its way.
    InFlight {
        /// The how-many-eth attempt this is, from 1.
        attempt: u32,
    },
    /// It was sent in vain, and waits for the next attempt.
    Retrying {
        /// How often.
        attempts: u32,
        /// When it is sent again.
        next_at: Timestamp,
        /// The last of them.
        last: Option<Attempt>,
    },
    /// It waits for an earlier event of its lane.
    Blocked {
        /// That event.
        by: Position,
    },
    /// It, or an event of its lane before it, is to be found in the log: the first one after this position that is asked for.
    Sought {
        /// Everything of the lane up to here is settled.
        after: Position,
        /// Where that event stands.
        first: Box<Standing>,
    },
    /// It waits behind a dead letter of its lane.
    Parked {
        /// The dead letter.
        by: Position,
    },
    /// It was given up, until somebody decides.
    DeadLettered,
    /// It was given up for good.
    Discarded {
        /// When.
        at: Timestamp,
    },
}

impl Lanes {
    /// Where the event at `position`, of the lane `name`, stands.
    pub fn standing(&self, position: Position, name: &str) -> Standing {
        let lane = Lane::new(name);
        match self.letters.get(&position) {
            Some((_, LetterState::Waiting)) => return Standing::DeadLettered,
            Some((_, LetterState::Discarded { at })) => return Standing::Discarded { at: *at },
            Some((_, LetterState::Redriving)) => {
                return self.lanes.get(&lane.apart(position)).map_or(Standing::Queued, |state| state.first_standing());
            }
            None => {}
        }
        let Some(state) = self.lanes.get(&lane) else { return self.unknown(position) };
        let first = state.first();
        match (&state.aside, first) {
            (Some(aside), _) if position < aside.first => Standing::Settled,
            (Some(aside), _) if aside.is_parked => Standing::Parked { by: aside.first },
            (Some(aside), None) => Standing::Sought { after: Position(aside.first.0 - 1), first: Box::new(state.first_standing()) },
            (_, Some(first)) if first == position => state.first_standing(),
            (Some(_), Some(by)) => Standing::Blocked { by },
            (None, Some(by)) if state.holds(position) => Standing::Blocked { by },
            (None, _) => self.unknown(position),
        }
    }

    /// No lane knows it.
    fn unknown(&self, position: Position) -> Standing {
        if position > self.read_head { Standing::Queued } else { Standing::Settled }
    }

    /// The oldest event that is known to wait; and the lane that was set aside with the oldest event, which is at that position or
    /// later. Lanes behind dead letters are left out.
    pub fn oldest(&self) -> (Option<Position>, Option<(Position, Lane)>) {
        let open = self.open.first_key_value().map(|(first, _)| *first);
        let known = open.into_iter().chain(self.letters_redriving.first().copied()).min();
        let aside = self.firsts.iter().find(|(first, _)| !self.parked.contains_key(first));
        (known, aside.cloned())
    }

    /// Up to `limit` dead letters after `after`, in the order of positions, whose state is what `is_wanted` says.
    pub fn dead_letters(&self, after: Position, limit: usize, is_wanted: impl Fn(LetterState) -> bool) -> Vec<Position> {
        let letters = self.letters.range(after.next()..).filter(|(_, (_, state))| is_wanted(*state));
        letters.map(|(position, _)| *position).take(limit).collect()
    }
}

impl LaneState {
    /// Where its first event stands.
    fn first_standing(&self) -> Standing {
        match (self.in_flight, self.tries()) {
            (1.., tries) => Standing::InFlight { attempt: tries.saturating_add(1) },
            (0, 0) => Standing::Queued,
            (0, attempts) => {
                let last = self.history.as_ref().and_then(|history| history.attempts.last()).cloned();
                Standing::Retrying { attempts, next_at: self.next_at, last }
            }
        }
    }
}
