//! The hand-over from the log to the shared reader: the pure core of a stream.
//!
//! A stream takes its seat at the shared reader *before* it reads the log. So an event that concerns it is in the log when the stream has
//! read to the end, or it is told, or both; and what was given before is passed over. Nothing is left out, and nothing comes twice.

use std::collections::VecDeque;

use kit::{Position, Recorded};

/// How many events may be told and not yet taken. They are places, not events: who does not read holds no event in memory.
pub(super) const TOLD_MAX: usize = 32;
/// How far apart events may be in the log and still be read from it at once.
const SPAN_MAX: i64 = 32;

/// What the shared reader has told a stream.
#[derive(Debug, Default)]
pub(super) struct Told {
    positions: VecDeque<Position>,
    /// More has happened than is told here: the log is to be read.
    is_cut: bool,
}

impl Told {
    /// An event that concerns the stream stands at `position`, later than all that were told before.
    pub(super) fn tell(&mut self, position: Position) {
        if self.is_cut {
            return;
        }
        if self.positions.len() < TOLD_MAX {
            self.positions.push_back(position);
        } else {
            self.cut();
        }
    }

    /// More has happened than is told one by one.
    pub(super) fn cut(&mut self) {
        self.positions.clear();
        self.is_cut = true;
    }
}

/// What a stream is to do next. What it has read, it shows to [`Place::has_got`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Read what concerns it, by index, behind [`Place::after`].
    Read,
    /// Read up to `limit` events of the whole log behind `after`.
    Take {
        /// Just before the first event that was told.
        after: Position,
        /// As many as lie between the first and the last that are taken now.
        limit: usize,
    },
    /// Wait until something is told.
    Wait,
}

/// Where a stream stands in the log.
#[derive(Debug)]
pub(super) struct Place {
    after: Position,
    /// Whether all that was in the log when the seat was taken, or when the last word was cut short, has been read.
    is_following: bool,
}

impl Place {
    /// A stream that is to be given what comes after `after`.
    pub(super) fn new(after: Position) -> Self {
        Self { after, is_following: false }
    }

    /// Everything up to here that concerns the stream was given to it.
    pub(super) fn after(&self) -> Position {
        self.after
    }

    /// What to do now. `at` is how far the shared reader has come, looked up before `told` was.
    pub(super) fn next(&mut self, told: &mut Told, at: Position) -> Next {
        if std::mem::take(&mut told.is_cut) {
            self.is_following = false;
        }
        if !self.is_following {
            return Next::Read;
        }
        while told.positions.front().is_some_and(|first| *first <= self.after) {
            told.positions.pop_front();
        }
        match told.positions.front() {
            Some(first) => {
                let near = told.positions.iter().take_while(|position| position.0 - first.0 < SPAN_MAX).last().unwrap_or(first);
                let limit = usize::try_from(near.0 - first.0 + 1).unwrap_or(1);
                Next::Take { after: Position(first.0 - 1), limit }
            }
            None => {
                // What the reader has passed without a word does not concern this stream.
                self.after = self.after.max(at);
                Next::Wait
            }
        }
    }

    /// `page` was read, as `next` asked. Gives what counts of it; it may hold events that do not concern the stream.
    pub(super) fn has_got(&mut self, next: Next, page: Vec<Recorded>) -> Vec<Recorded> {
        let is_as_told = match next {
            Next::Take { after, .. } => page.first().is_some_and(|first| first.position == after.next()),
            // There may be more.
            Next::Read => !page.is_empty(),
            Next::Wait => return Vec::new(),
        };
        // A read that finds nothing has come to the end; one of what was told has not found it: what is there, reading will show.
        self.is_following = is_as_told == matches!(next, Next::Take { .. });
        match page.last().filter(|_| is_as_told) {
            Some(last) => self.after = self.after.max(last.position),
            None => return Vec::new(),
        }
        page
    }

    /// The log begins with `first` now, and cannot be read from where it was to be. Answers where the stream stood, if something may be lost
    /// to it; then it goes on from there.
    pub(super) fn begin_at(&mut self, first: Position) -> Option<Position> {
        let before = Position(first.0 - 1);
        self.is_following = false;
        (self.after < before).then(|| std::mem::replace(&mut self.after, before))
    }
}
