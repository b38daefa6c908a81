//! What outlives a crash: rows of lanes that are set aside, dead letters, and the floor with its counts.

use std::{collections::VecDeque, fmt, sync::Arc};

use kit::{Position, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Counts, Lane};

/// How many reasons are shared.
const REASONS_KEPT: usize = 16;

/// The durable row of a lane that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The lane.
    pub lane: Lane,
    /// Everything of this lane before this position is settled.
    pub first: Position,
    /// How often its next event failed.
    pub failures: u32,
    /// When it is tried next.
    pub next_at: Timestamp,
    /// Whether it waits behind a dead letter, which then stands at `first`.
    pub is_parked: bool,
    /// How its next event was tried.
    #[serde(default, skip_serializing_if = "History::is_empty")]
    pub history: History,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event's place in the log.
    pub position: Position,
    /// Its lane.
    pub lane: Lane,
    /// The last answer's status.
    pub status: Option<u16>,
    /// The last answer in words.
    pub reason: String,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was given up.
    pub given_up_at: Timestamp,
    /// What is to become of it.
    #[serde(default)]
    pub state: LetterState,
    /// How it was tried.
    #[serde(default)]
    pub history: History,
}

/// What is to become of a dead letter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// It waits for somebody to decide.
    #[default]
    Waiting,
    /// It is being tried again, by itself: its lane went on without it.
    Redriving,
    /// It was given up for good.
    Discarded {
        /// When.
        at: Timestamp,
    },
}

/// How an event was tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// How often it was sent in vain.
    pub tries: u32,
    /// When that began.
    pub since: Option<Timestamp>,
    /// The first try and the last nine; the last one alone, while very many lanes fail.
    pub attempts: Vec<Attempt>,
    /// The beginning of the last answer, once the event is given up.
    pub answer: Option<Words>,
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended.
    pub at: Timestamp,
    /// The HTTP status; none where no answer came.
    pub status: Option<u16>,
    /// What went wrong, in words.
    pub reason: Words,
}

/// A text that many share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "String", into = "String")]
#[schemars(inline)]
pub struct Words(Arc<str>);

impl Words {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Words {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl From<String> for Words {
    fn from(text: String) -> Self {
        Self(Arc::from(text))
    }
}

impl From<Words> for String {
    fn from(words: Words) -> Self {
        words.as_str().to_owned()
    }
}

impl History {
    fn is_empty(&self) -> bool {
        self.tries == 0
    }

    /// It was sent in vain once more. Of all tries the first and the last are kept, `kept` in all, and no fewer than two.
    pub(super) fn note(&mut self, attempt: Attempt, kept: usize) {
        self.tries = self.tries.saturating_add(1);
        self.since.get_or_insert(attempt.at);
        while self.attempts.len() >= kept.max(2) {
            self.attempts.remove(1);
        }
        self.attempts.reserve_exact(1);
        self.attempts.push(attempt);
    }

    /// What of it is kept in memory while the event is tried again; nothing, if it was not tried yet.
    pub(super) fn in_memory(self) -> Option<Box<Self>> {
        (self.tries > 0).then(|| Box::new(Self { answer: None, ..self }))
    }
}

impl Reasons {
    /// `reason`, as others have it already if it was given lately.
    pub(super) fn share(&mut self, reason: &Words) -> Words {
        if let Some(known) = self.0.iter().find(|known| *known == reason) {
            return known.clone();
        }
        if self.0.len() >= REASONS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(reason.clone());
        reason.clone()
    }
}

/// The reasons that were given last: ten thousand lanes that fail for the same one keep it once.
#[derive(Debug, Default)]
pub(super) struct Reasons(VecDeque<Words>);

/// What must be saved together, so that the counts fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Lanes whose row changed; none deletes it.
    pub rows: Vec<(Lane, Option<Row>)>,
    /// Dead letters that came, changed or went.
    pub letters: Vec<(Position, Option<DeadLetter>)>,
    /// Everything up to here is settled or covered by a row.
    pub floor: Position,
    /// What became of the events up to the floor.
    pub counts: Counts,
    /// How many records of discarded events go with this, because the log loses the events.
    pub forgotten: i64,
    /// Whether that was everything.
    pub is_all: bool,
}

/// How a subscription stood when it was saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// The subscription starts after this position.
    pub after: Position,
    /// Everything up to here is settled or covered by a row.
    pub floor: Position,
    /// What became of the events up to the floor.
    pub counts: Counts,
    /// The lanes that are set aside.
    pub rows: Vec<Row>,
    /// The events that were given up, also those that were discarded.
    pub letters: Vec<DeadLetter>,
}

/// How urgently [`super::Lanes::take_changes`] should be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// There is nothing to save.
    Nothing,
    /// Some time: what is not saved is delivered again after a crash.
    Soon {
        /// How many positions the floor has moved.
        advanced: u64,
    },
    /// Somebody waits to see it.
    Now {
        /// How many positions the floor has moved.
        advanced: u64,
    },
}
