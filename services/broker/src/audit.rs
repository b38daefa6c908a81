//! Checks the books of a subscription against the log: what it says became of its events must be what the log, its rows and its dead
//! letters say. The auditor is a pure fold over the log; it needs the log only from where its beginning was counted before it was lost.

use std::collections::BTreeMap;

use kit::{Position, Recorded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{EngineError, LogEngine},
    keeping::{self, Keeping},
    lanes::{Counts, Fate, LetterState, Saved},
    subscriptions::stored::Stored,
};

/// How many events are read from the log at once.
const PAGE_EVENTS: usize = 1_000;

/// What a subscription had saved at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// What was counted of the events that the log may have lost since.
    pub checkpoint: Checkpoint,
    /// Its start, its floor, its counts up to there, its rows and its dead letters.
    pub saved: Saved,
}

/// What was counted of the events up to a position, which need not be in the log any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// The position.
    pub position: Position,
    /// How many events up to there the subscription asked for.
    pub matched: i64,
    /// How many of the discarded ones were forgotten with the log.
    pub discarded: i64,
}

/// One thing that is counted twice: by the books, and by the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema, thiserror::Error)]
#[error("{what}: {books} by the books, {log} by the log")]
pub struct Check {
    /// What is counted; sent. `matched`: events that were asked for. `pending`: those that wait, covered by rows. `dead_lettered`,
    /// `discarded`: as they say. `delivered_or_expired`: those that were taken, or lost.
    pub what: &'static str,
    /// What the books say.
    pub books: i64,
    /// What the log says.
    pub log: i64,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What became of the events up to here was counted.
    pub up_to: Position,
    /// The books.
    pub books: Counts,
    /// What was compared.
    pub checks: Vec<Check>,
}

/// Why books were not found to be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// They are wrong.
    #[error("the books of subscription `{name}` are wrong: {}", .wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Wrong {
        /// The subscription.
        name: String,
        /// In what.
        wrong: Vec<Check>,
    },
    /// There is no such subscription.
    #[error("there is no subscription `{0}`")]
    Unknown(String),
    /// They cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Report {
    /// Whether the log bears the books out.
    pub fn agrees(&self) -> bool {
        self.checks.iter().all(|check| check.books == check.log)
    }

    /// In what it does not.
    fn wrong(self) -> Vec<Check> {
        self.checks.into_iter().filter(|check| check.books != check.log).collect()
    }
}

/// Folds over the log, event by event, in the order of positions.
#[derive(Debug)]
pub struct Auditor {
    books: Books,
    rows: BTreeMap<String, Position>,
    letters: BTreeMap<Position, LetterState>,
    matched: i64,
    found: Counts,
}

impl Auditor {
    /// Begins an audit of `books`.
    pub fn new(mut books: Books) -> Self {
        let rows = std::mem::take(&mut books.saved.rows).into_iter().map(|row| (row.lane.as_str().to_owned(), row.first)).collect();
        let letters = std::mem::take(&mut books.saved.letters).into_iter().map(|letter| (letter.position, letter.state)).collect();
        Self { books, rows, letters, matched: 0, found: Counts::default() }
    }

    /// Sees the event at `position`, in the lane `lane`, which the subscription asks for.
    pub fn see(&mut self, position: Position, lane: &str) {
        if position <= self.books.saved.after || position > self.books.saved.floor {
            return;
        }
        if position > self.books.checkpoint.position {
            self.matched += 1;
        }
        let is_covered = self.rows.get(lane).is_some_and(|first| *first <= position);
        let otherwise = if is_covered { Fate::Deferred } else { Fate::Delivered };
        self.found.add(self.letters.get(&position).map_or(otherwise, |letter| letter.fate()), 1);
    }

    /// Ends the audit: everything that was counted twice.
    pub fn report(self) -> Report {
        let (books, found, checkpoint) = (self.books.saved.counts, self.found, self.books.checkpoint);
        let check = |what, books, log| Check { what, books, log };
        let mut checks = vec![
            check("matched", books.total(), checkpoint.matched + self.matched),
            check("pending", books.deferred, found.deferred),
            check("dead_lettered", books.dead_lettered, found.dead_lettered),
            check("discarded", books.discarded, checkpoint.discarded + found.discarded),
        ];
        // Of what the log has lost, it cannot say any more whether it was taken.
        if checkpoint.position <= self.books.saved.after {
            checks.push(check("delivered_or_expired", books.delivered + books.expired, found.delivered));
        }
        Report { up_to: self.books.saved.floor, books, checks }
    }

    /// Ends the audit: what became of the events up to the floor.
    ///
    /// # Errors
    /// Everything in which the books are wrong.
    pub fn finish(self) -> Result<Counts, Vec<Check>> {
        let report = self.report();
        if report.agrees() { Ok(report.books) } else { Err(report.wrong()) }
    }

    /// What the log alone says, for books that were kept before there were counts.
    pub(crate) fn counted(self) -> Counts {
        self.found
    }
}

/// Audits `books` against `log`, which holds every event from the checkpoint to the floor; `is_matched` says which of them the
/// subscription asked for.
///
/// # Errors
/// Everything in which the books are wrong.
pub fn audit<'a>(
    books: Books,
    log: impl IntoIterator<Item = &'a Recorded>,
    is_matched: impl Fn(&Recorded) -> bool,
) -> Result<Counts, Vec<Check>> {
    let mut auditor = Auditor::new(books);
    log.into_iter().filter(|one| is_matched(one)).for_each(|one| auditor.see(one.position, one.event.lane()));
    auditor.finish()
}

/// Audits what the subscription `name` has saved against the log that `engine` keeps. Nobody may write either of them meanwhile: it is
/// for a log that rests, such as that of a broker that has stopped.
///
/// # Errors
/// See [`AuditError`].
pub async fn check(engine: &dyn LogEngine, name: &str) -> Result<Counts, AuditError> {
    let (stored, _) = keeping::stored(engine, name).await?.ok_or_else(|| AuditError::Unknown(name.to_owned()))?;
    let (keeping, saved) = Keeping::load(engine, name, &stored).await?;
    verdict(name, fold(engine, &stored, keeping.books(saved)).await?.report())
}

/// Books that are wrong are an error.
pub(crate) fn verdict(name: &str, report: Report) -> Result<Counts, AuditError> {
    if report.agrees() { Ok(report.books) } else { Err(AuditError::Wrong { name: name.to_owned(), wrong: report.wrong() }) }
}

/// The names of all subscriptions that `engine` keeps.
///
/// # Errors
/// When they cannot be read.
pub async fn names(engine: &dyn LogEngine) -> Result<Vec<String>, EngineError> {
    let entries = engine.state_list(keeping::CONFIG_PREFIX).await?;
    Ok(entries.into_iter().map(|entry| entry.key.trim_start_matches(keeping::CONFIG_PREFIX).to_owned()).collect())
}

/// Folds over the whole log up to the floor of `books`.
pub(crate) async fn fold(engine: &dyn LogEngine, stored: &Stored, books: Books) -> Result<Auditor, EngineError> {
    let mut folding = Folding::begin(engine, stored.clone(), books)?;
    while !folding.is_done() {
        folding.read_page(engine).await?;
    }
    Ok(folding.auditor)
}

/// An audit that is under way, and can be left for a while: its books stay as they were at its begin.
#[derive(Debug)]
pub(crate) struct Folding {
    stored: Stored,
    auditor: Auditor,
    after: Position,
    up_to: Position,
}

impl Folding {
    /// Begins where the log does.
    ///
    /// # Errors
    /// When the log was trimmed since `books` were read.
    pub(crate) fn begin(engine: &dyn LogEngine, stored: Stored, books: Books) -> Result<Self, EngineError> {
        let (up_to, counted) = (books.saved.floor, books.checkpoint.position.max(books.saved.after));
        let first = engine.bounds().first;
        let after = Position(first.0.saturating_sub(1).max(0));
        if after > counted {
            return Err(EngineError::Trimmed { first });
        }
        Ok(Self { stored, auditor: Auditor::new(books), after, up_to })
    }

    /// How far the log was read.
    pub(crate) fn after(&self) -> Position {
        self.after
    }

    /// Whether there is nothing left to read.
    pub(crate) fn is_done(&self) -> bool {
        self.after >= self.up_to
    }

    /// Reads a page of the log.
    ///
    /// # Errors
    /// When it cannot be read, or the log has lost what comes next.
    pub(crate) async fn read_page(&mut self, engine: &dyn LogEngine) -> Result<(), EngineError> {
        let page = engine.read(self.after, PAGE_EVENTS).await?;
        for one in page.iter().filter(|one| self.stored.selection_at(one.position).takes(&one.event)) {
            self.auditor.see(one.position, one.event.lane());
        }
        self.after = page.last().map_or(self.up_to, |last| last.position);
        tokio::task::yield_now().await;
        Ok(())
    }

    /// What was found. It says something of the books once all is read.
    pub(crate) fn report(self) -> Report {
        self.auditor.report()
    }

    /// The books, and up to where they count.
    pub(crate) fn books(&self) -> (Position, Counts) {
        (self.up_to, self.auditor.books.saved.counts)
    }
}

#[cfg(test)]
mod tests {
    use kit::Timestamp;

    use super::*;
    use crate::lanes::{DeadLetter, History, Lane, Row};

    fn row(lane: &str, first: i64) -> Row {
        let (lane, first) = (Lane::new(lane), Position(first));
        Row { lane, first, failures: 1, next_at: Timestamp::from_ms(0), is_parked: false, history: History::default() }
    }

    fn letter(lane: &str, position: i64, state: LetterState) -> DeadLetter {
        let (lane, position, given_up_at) = (Lane::new(lane), Position(position), Timestamp::from_ms(0));
        DeadLetter { position, lane, status: None, reason: "r".into(), attempts: 1, given_up_at, state, history: History::default() }
    }

    /// Ten events in the lanes `a` and `b`, by turns. `a` waits from 5 on, 2 was discarded, 4 is a dead letter, 6 is redriven.
    fn books() -> Books {
        let letters = [(2, LetterState::Discarded { at: Timestamp::from_ms(0) }), (4, LetterState::Waiting), (6, LetterState::Redriving)];
        let letters = letters.map(|(position, state)| letter("b", position, state)).into();
        let counts = Counts { delivered: 4, deferred: 3, dead_lettered: 1, discarded: 1, expired: 0 };
        let rows = vec![row("a", 5), row("c", 1)];
        Books { saved: Saved { floor: Position(9), counts, rows, letters, ..Saved::default() }, ..Books::default() }
    }

    fn audited(books: Books, first: i64) -> Result<Counts, Vec<Check>> {
        let mut auditor = Auditor::new(books);
        (first..=10).for_each(|position| auditor.see(Position(position), if position % 2 == 1 { "a" } else { "b" }));
        auditor.finish()
    }

    #[test]
    fn books_are_right_when_the_log_says_the_same() {
        // 1, 3 and 8 were delivered, and so was nothing else; 5, 7 and 9 wait with lane `a`, 6 by itself.
        let mut right = books();
        (right.saved.counts.delivered, right.saved.counts.deferred) = (3, 4);
        assert_eq!(audited(right.clone(), 1), Ok(right.saved.counts));
        let wrong = audited(books(), 1).unwrap_err();
        assert_eq!(wrong.iter().map(|wrong| (wrong.books, wrong.log)).collect::<Vec<_>>(), [(3, 4), (4, 3)]);
    }

    #[test]
    fn one_event_too_many_or_too_few_is_found_whatever_it_is_counted_as() {
        let mut right = books();
        (right.saved.counts.delivered, right.saved.counts.deferred) = (3, 4);
        for fate in [Fate::Delivered, Fate::Deferred, Fate::DeadLettered, Fate::Discarded, Fate::Expired] {
            for by in [-1, 1] {
                let mut wrong = right.clone();
                wrong.saved.counts.add(fate, by);
                assert!(audited(wrong, 1).is_err(), "{fate:?} {by}");
            }
        }
    }

    #[test]
    fn what_was_counted_before_the_log_was_trimmed_counts() {
        let mut right = books();
        (right.saved.counts.delivered, right.saved.counts.deferred) = (3, 4);
        right.checkpoint = Checkpoint { position: Position(3), matched: 3, discarded: 1 };
        // The record of 2 went with the log.
        right.saved.letters.remove(0);
        assert_eq!(audited(right.clone(), 4), Ok(right.saved.counts));
        right.checkpoint.matched = 2;
        assert!(audited(right, 4).is_err());
    }
}
