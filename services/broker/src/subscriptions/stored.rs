//! A subscription as it is kept: what it asks for, and what it asked for before, as long as that matters.

use kit::{Position, Timestamp};
use serde::{Deserialize, Serialize};

use super::wanted::Wanted;
use crate::filters::Selection;

/// How many earlier selections are kept at most.
const EARLIER_MAX: usize = 16;

/// A subscription as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// What is asked for now.
    #[serde(flatten)]
    pub(crate) wanted: Wanted,
    /// What the subscriber registered, if it was patched since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    declared: Option<Box<Wanted>>,
    /// What was asked for before, in the order of positions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Earlier>,
    /// When it was made; zero for those made before this was kept.
    #[serde(default = "unknown_time")]
    pub(crate) created_at: Timestamp,
    /// It is being removed: what is left of it goes before anything else happens under its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_removed: bool,
}

/// A selection that was changed later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Earlier {
    /// It chose among the events up to here.
    up_to: Position,
    selection: Selection,
}

/// A subscription was changed too often while old events still wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events that were chosen by the last {EARLIER_MAX} selections are still waiting")]
pub(crate) struct TooManyChanges;

fn unknown_time() -> Timestamp {
    Timestamp::from_ms(0)
}

impl Stored {
    /// A subscription that is made at `now`.
    pub(crate) fn new(wanted: Wanted, now: Timestamp) -> Self {
        Self { wanted, declared: None, earlier: Vec::new(), created_at: now, is_removed: false }
    }

    /// What the subscriber itself asked for last.
    pub(crate) fn declared(&self) -> &Wanted {
        self.declared.as_deref().unwrap_or(&self.wanted)
    }

    /// What chose, or will choose, the event at `position`.
    pub(crate) fn selection_at(&self, position: Position) -> &Selection {
        let earlier = self.earlier.iter().find(|earlier| position <= earlier.up_to);
        earlier.map_or(&self.wanted.selection, |earlier| &earlier.selection)
    }

    /// This, when the subscriber asks for `wanted` from now on.
    pub(crate) fn registered(&self, wanted: Wanted) -> Self {
        Self { wanted, declared: None, ..self.clone() }
    }

    /// This, when somebody else changes what it asks for to `wanted`.
    pub(crate) fn patched(&self, wanted: Wanted) -> Self {
        let declared = (*self.declared() != wanted).then(|| Box::new(self.declared().clone()));
        Self { wanted, declared, ..self.clone() }
    }

    /// This, when the subscriber asks for the same and sends it elsewhere.
    pub(crate) fn moved(&self, sink: Option<String>) -> Self {
        let declared = self.declared.as_ref().map(|declared| Box::new(Wanted { sink: sink.clone(), ..(**declared).clone() }));
        Self { wanted: Wanted { sink, ..self.wanted.clone() }, declared, ..self.clone() }
    }

    /// This, when it is being removed.
    pub(crate) fn removed(&self) -> Self {
        Self { is_removed: true, ..self.clone() }
    }

    /// This, when every event that is read from now on is chosen by what is asked for now.
    pub(crate) fn without_earlier(&self) -> Self {
        Self { earlier: Vec::new(), ..self.clone() }
    }

    /// Keeps in mind that `before` chose the events up to `read_head`, of which those up to `settled` matter no more.
    ///
    /// # Errors
    /// When too much would have to be kept in mind.
    pub(crate) fn remember(&mut self, before: &Self, read_head: Position, settled: Position) -> Result<(), TooManyChanges> {
        self.earlier.clone_from(&before.earlier);
        let last = self.earlier.last().map_or(Position::START, |last| last.up_to);
        if self.wanted.selection == before.wanted.selection || read_head <= last {
            return Ok(());
        }
        if self.earlier.len() >= EARLIER_MAX {
            self.earlier.retain(|earlier| earlier.up_to > settled);
        }
        if self.earlier.len() >= EARLIER_MAX {
            return Err(TooManyChanges);
        }
        self.earlier.push(Earlier { up_to: read_head, selection: before.wanted.selection.clone() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(ty: &str) -> Wanted {
        Wanted { selection: Selection::of_types([ty]), revision: 1, ..Wanted::default() }
    }

    fn chosen(stored: &Stored, position: i64) -> &str {
        stored.selection_at(Position(position)).types.as_ref().unwrap().first().unwrap()
    }

    #[test]
    fn an_event_is_chosen_by_what_was_asked_for_when_it_was_read() {
        let mut stored = Stored::new(wanted("a"), unknown_time());
        for (ty, read_head) in [("b", 10), ("c", 20), ("d", 20), ("d", 30)] {
            let before = stored.clone();
            stored = before.patched(wanted(ty));
            stored.remember(&before, Position(read_head), Position::START).unwrap();
        }
        let read: Stored = serde_json::from_str(&serde_json::to_string(&stored).unwrap()).unwrap();
        assert_eq!(read, stored);
        let all: Vec<_> = [1, 10, 11, 20, 21, 99].into_iter().map(|position| chosen(&read, position)).collect();
        assert_eq!(all, ["a", "a", "b", "b", "d", "d"]);
    }

    #[test]
    fn what_matters_no_more_makes_room_and_what_matters_is_never_forgotten() {
        let mut stored = Stored::new(wanted("t0"), unknown_time());
        let mut change = |n: usize, settled: i64| {
            let before = stored.clone();
            let mut after = before.patched(wanted(&format!("t{n}")));
            let changed = after.remember(&before, Position(i64::try_from(n).unwrap()), Position(settled));
            if changed.is_ok() {
                stored = after;
            }
            changed.map(|()| stored.earlier.len())
        };
        for n in 1..=EARLIER_MAX {
            assert_eq!(change(n, 0), Ok(n));
        }
        assert_eq!(change(17, 0), Err(TooManyChanges));
        assert_eq!(change(18, 5), Ok(EARLIER_MAX - 5 + 1));
        assert_eq!(chosen(&stored, 6), "t5");
    }

    #[test]
    fn a_patch_is_kept_beside_what_was_registered() {
        let stored = Stored::new(wanted("a"), unknown_time());
        let patched = stored.patched(wanted("b"));
        assert_eq!((patched.declared(), &patched.wanted), (&wanted("a"), &wanted("b")));
        assert_eq!(patched.patched(wanted("a")), stored, "patched back to what was registered");
        let moved = patched.moved(Some("http://h/".into()));
        assert_eq!((moved.declared().sink.as_deref(), moved.wanted.sink.as_deref()), (Some("http://h/"), Some("http://h/")));
        assert_eq!(patched.registered(wanted("c")).declared(), &wanted("c"));
    }
}
