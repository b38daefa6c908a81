//! What a caller may see.

use kit::{
    Position, Problem, Recorded,
    http::{Caller, Gate},
};

use crate::{
    engine::{LogEngine, Scope},
    http::engine_problem,
};

/// What a stream shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    /// Everything, to an operator.
    All,
    /// All events of one owner.
    Own {
        /// Whose.
        owner: String,
    },
    /// The events of one subject.
    Subject {
        /// The subject.
        subject: String,
        /// Only what is theirs: nothing is known of the subject yet, and it may turn out to be another's.
        only_of: Option<String>,
    },
}

impl View {
    /// What `caller` gets to see of `subject`, or of everything; `share` may be a token for the subject.
    pub(super) async fn choose(
        engine: &dyn LogEngine,
        caller: &Caller,
        gate: &Gate,
        subject: Option<String>,
        share: Option<&str>,
    ) -> Result<Self, Problem> {
        let Some(subject) = subject else {
            return match caller {
                Caller::Operator => Ok(Self::All),
                Caller::Guest(owner) => Ok(Self::Own { owner: owner.clone() }),
                Caller::Anonymous => Err(Problem::unauthorized()),
                Caller::Service(_) => Err(Problem::forbidden("services get events by subscribing")),
            };
        };
        if caller.may_read(gate, None, &subject, share) {
            return Ok(Self::Subject { subject, only_of: None });
        }
        let first = engine.read_scope(Scope::Subject(&subject), Position::START, 1).await.map_err(|error| engine_problem(&error))?;
        match (first.first(), caller) {
            (Some(first), _) if caller.may_read(gate, first.event.owner.as_deref(), &subject, None) => {
                Ok(Self::Subject { subject, only_of: None })
            }
            // Its first event is still on its way.
            (None, Caller::Guest(owner)) => Ok(Self::Subject { subject, only_of: Some(owner.clone()) }),
            (Some(_) | None, _) => Err(Problem::not_found("no such subject")),
        }
    }

    /// Where a stream begins that nobody has seen anything of: with the first event of a subject, with what comes after `last` else.
    pub(super) fn fresh_start(&self, last: Position) -> Position {
        match self {
            Self::Subject { .. } => Position::START,
            Self::All | Self::Own { .. } => last,
        }
    }

    /// Which events of the log concern it, by an index.
    pub(super) fn scope(&self) -> Scope<'_> {
        match self {
            Self::All => Scope::All,
            Self::Own { owner } => Scope::Owner(owner),
            Self::Subject { subject, .. } => Scope::Subject(subject),
        }
    }

    /// Whether an event may be shown.
    pub(super) fn shows(&self, recorded: &Recorded) -> bool {
        let is_theirs = match self {
            Self::Subject { only_of: Some(owner), .. } => recorded.event.owner.as_ref() == Some(owner),
            Self::All | Self::Own { .. } | Self::Subject { only_of: None, .. } => true,
        };
        is_theirs && self.scope().contains(&recorded.event)
    }
}
