//! Dead letters: looking at them, choosing some of them, deciding on them.

use std::collections::BTreeSet;

use kit::{Position, Recorded};
use serde_json::{Map, Value};

use super::{
    OperateError, Subscriptions,
    wanted::{Fields, Invalid, check_types, invalid},
};
use crate::{
    dispatcher::{Decision, Instruction},
    engine::EngineError,
    filters::{self, Selection},
    keeping,
    lanes::{DeadLetter, LetterState},
};

/// How many dead letters are looked at for one decision.
pub(crate) const LOOK_MAX: usize = 1_000;
/// How many dead letters are decided on in one write.
const DECIDE_MAX: usize = 128;

/// Which dead letters are meant. Whatever is named must hold; where nothing is named, all are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// One of these.
    positions: Option<BTreeSet<Position>>,
    /// Those of this lane.
    lane: Option<String>,
    /// Those whose last answer had one of these statuses; null for those without an answer.
    statuses: Option<BTreeSet<Option<u16>>>,
    /// Those whose event is chosen by this.
    selection: Selection,
    /// Only what comes after this position.
    after: Position,
}

/// What was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) positions: Vec<Position>,
    /// What to give as `after` for more; none at the end.
    pub(crate) next: Option<Position>,
}

/// A dead letter with its event, if the log still has that.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) letter: DeadLetter,
    pub(crate) event: Option<Recorded>,
}

impl Choice {
    /// Reads a choice, and whether nothing but a look is wanted.
    ///
    /// # Errors
    /// The first field that does not hold what it must, or that there is not.
    pub(crate) fn parse(map: Map<String, Value>) -> Result<(Self, bool), Invalid> {
        let mut fields = Fields(map);
        let filters = match fields.0.remove("filters") {
            Some(Value::Null) | None => Vec::new(),
            Some(json) => filters::parse(&json, "/filters")?,
        };
        let choice = Self {
            positions: fields.take("positions")?,
            lane: fields.take("lane")?,
            statuses: fields.take("statuses")?,
            selection: Selection { types: fields.take("types")?, filters },
            after: fields.take("after")?.unwrap_or(Position::START),
        };
        let is_dry: Option<bool> = fields.take("dry_run")?;
        fields.finish()?;
        if choice.positions.as_ref().is_some_and(|positions| positions.is_empty() || positions.len() > LOOK_MAX) {
            return Err(invalid("positions", "must be 1 to 1000 positions"));
        }
        if choice.statuses.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err(invalid("statuses", "must name at least one status"));
        }
        if let Some(types) = &choice.selection.types {
            check_types(types)?;
        }
        Ok((choice, is_dry.unwrap_or(false)))
    }

    fn takes(&self, letter: &DeadLetter) -> bool {
        letter.state == LetterState::Waiting
            && self.lane.as_ref().is_none_or(|lane| lane == letter.lane.as_str())
            && self.statuses.as_ref().is_none_or(|statuses| statuses.contains(&letter.status))
    }

    fn needs_event(&self) -> bool {
        self.selection != Selection::default()
    }
}

impl Subscriptions {
    /// Up to `limit` dead letters after `after` whose state is what `is_wanted` says, and whether there are more.
    pub(crate) async fn letters(
        &self,
        name: &str,
        (after, limit): (Position, usize),
        is_wanted: fn(LetterState) -> bool,
    ) -> Result<(Vec<Letter>, bool), OperateError> {
        let limit_and_one = limit.saturating_add(1);
        let find = |reply| Instruction::Letters { after, limit: limit_and_one, is_wanted, reply };
        let mut positions = self.tell(name, find).await?;
        let is_more = positions.len() > limit;
        positions.truncate(limit);
        let mut letters = Vec::with_capacity(positions.len());
        for position in positions {
            letters.extend(self.letter(name, position).await?);
        }
        Ok((letters, is_more))
    }

    /// The dead letter at `position`, if there is one.
    pub(crate) async fn letter(&self, name: &str, position: Position) -> Result<Option<Letter>, OperateError> {
        if self.get(name).is_none() {
            return Err(OperateError::Unknown(name.to_owned()));
        }
        let Some(letter) = keeping::dead_letter(self.engine.as_ref(), name, position).await? else { return Ok(None) };
        Ok(Some(Letter { letter, event: self.event_at(position).await? }))
    }

    /// The event at `position`, if the log has it.
    async fn event_at(&self, position: Position) -> Result<Option<Recorded>, EngineError> {
        match self.engine.read_one(position).await {
            Err(EngineError::Trimmed { .. }) => Ok(None),
            found => found,
        }
    }

    /// The dead letters of `choice` that wait for somebody to decide; up to 1,000 are looked at.
    pub(crate) async fn choose(&self, name: &str, choice: &Choice) -> Result<Chosen, OperateError> {
        let (after, is_wanted) = (choice.after, |state| state == LetterState::Waiting);
        let waiting = self.tell(name, |reply| Instruction::Letters { after, limit: LOOK_MAX + 1, is_wanted, reply }).await?;
        let (looked, next) = match &choice.positions {
            Some(named) => (named.iter().copied().filter(|position| *position > after).collect(), None),
            None => {
                let next = waiting.get(LOOK_MAX - 1).copied().filter(|_| waiting.len() > LOOK_MAX);
                (waiting.into_iter().take(LOOK_MAX).collect::<Vec<_>>(), next)
            }
        };
        let mut positions = Vec::new();
        for position in looked {
            let letter = keeping::dead_letter(self.engine.as_ref(), name, position).await?;
            let Some(letter) = letter.filter(|letter| choice.takes(letter)) else { continue };
            let is_chosen = match self.event_at(letter.position).await? {
                _ if !choice.needs_event() => true,
                Some(one) => choice.selection.takes(&one.event),
                None => false,
            };
            if is_chosen {
                positions.push(position);
            }
        }
        Ok(Chosen { positions, next })
    }

    /// Tries the dead letters at `positions` again, or gives them up for good. Answers how many of them there were.
    pub(crate) async fn decide(&self, name: &str, decision: Decision, positions: Vec<Position>) -> Result<usize, OperateError> {
        let mut count = 0;
        for some in positions.chunks(DECIDE_MAX) {
            let positions = some.to_vec();
            count += self.tell(name, |reply| Instruction::Decide { decision, positions, reply }).await?;
        }
        Ok(count)
    }
}
