//! Which timers are due when. The rows are in the store; this is their order in memory, changed after each commit.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Machine, Timestamp};

/// Names a timer: its entity and its name there.
pub(crate) struct TimerName<M: Machine> {
    pub(crate) key: M::Key,
    pub(crate) name: String,
}

/// A timer was set (`due`) or is gone (none).
pub(crate) struct TimerMoved<M: Machine> {
    pub(crate) timer: TimerName<M>,
    pub(crate) due: Option<Timestamp>,
}

/// All timers of a service by the time at which they are due.
pub(crate) struct Timers<M: Machine> {
    due: BTreeMap<(M::Key, String), Timestamp>,
    queue: BTreeSet<(Timestamp, M::Key, String)>,
}

impl<M: Machine> Timers<M> {
    pub(crate) fn from_rows(rows: Vec<TimerMoved<M>>) -> Self {
        let mut timers = Self { due: BTreeMap::new(), queue: BTreeSet::new() };
        timers.apply(rows);
        timers
    }

    /// Takes note of what a commit changed.
    pub(crate) fn apply(&mut self, moved: Vec<TimerMoved<M>>) {
        for TimerMoved { timer: TimerName { key, name }, due } in moved {
            let id = (key, name);
            if let Some(before) = self.due.remove(&id) {
                self.queue.remove(&(before, id.0.clone(), id.1.clone()));
            }
            if let Some(due) = due {
                self.queue.insert((due, id.0.clone(), id.1.clone()));
                self.due.insert(id, due);
            }
        }
    }

    /// Lets a timer rest until `due`, in memory only.
    pub(crate) fn postpone(&mut self, timer: TimerName<M>, due: Timestamp) {
        self.apply(vec![TimerMoved { timer, due: Some(due) }]);
    }

    /// Up to `max` timers that are due at `now`, the earliest first. They stay until a commit removes them.
    pub(crate) fn due(&self, now: Timestamp, max: usize) -> Vec<TimerName<M>> {
        let due = self.queue.iter().take_while(|(due, ..)| *due <= now).take(max);
        due.map(|(_, key, name)| TimerName { key: key.clone(), name: name.clone() }).collect()
    }

    /// When the next timer is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.queue.first().map(|(due, ..)| *due)
    }
}
