//! Why an event did or did not arrive: where it stands with every subscription.

use kit::{Position, Recorded, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use super::{OperateError, Subscriptions, stored::Stored};
use crate::{
    dispatcher::{Instruction, State, Status},
    engine::EngineError,
    filters::Clause,
    keeping,
    lanes::{DeadLetter, Standing, Words},
    wire,
};

/// Where an event stands with one subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Arrival {
    pub(crate) subscription: String,
    /// Whether the subscription delivers at all.
    pub(crate) subscription_state: State,
    #[serde(flatten)]
    pub(crate) stage: Stage,
}

/// Where an event stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ArrivalState")]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Stage {
    /// It was taken.
    Delivered,
    /// It was not asked for.
    Filtered { clause: Clause },
    /// It is before the start of the subscription.
    BeforeStart { after: Position },
    /// It waits for its turn.
    Queued,
    /// It is on its way.
    InFlight { attempt: u32 },
    /// It was sent in vain.
    Retrying {
        attempts: u32,
        #[serde(with = "wire::time")]
        #[schemars(with = "Timestamp")]
        next_attempt: Timestamp,
        last_attempt: Option<Tried>,
    },
    /// It waits for an earlier event of its lane.
    Blocked { by: Position },
    /// It waits behind a dead letter of its lane.
    Parked { by: Position },
    /// It was given up, until somebody decides.
    DeadLettered {
        attempts: u32,
        status: Option<u16>,
        reason: String,
        #[serde(with = "wire::time")]
        #[schemars(with = "Timestamp")]
        given_up_at: Timestamp,
    },
    /// It was given up for good.
    Discarded {
        #[serde(with = "wire::time")]
        #[schemars(with = "Timestamp")]
        at: Timestamp,
    },
    /// The log lost it before it was taken.
    Expired,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Tried {
    #[serde(with = "wire::time")]
    #[schemars(with = "Timestamp")]
    pub(crate) at: Timestamp,
    pub(crate) status: Option<u16>,
    pub(crate) reason: Words,
}

impl Subscriptions {
    /// Where `event` stands with every subscription.
    pub(crate) async fn arrivals(&self, event: &Recorded) -> Result<Vec<Arrival>, EngineError> {
        let mut arrivals = Vec::new();
        for name in self.list().into_iter().map(|subscription| subscription.name) {
            match self.arrival(&name, event).await {
                Ok(arrival) => arrivals.push(arrival),
                // It was removed meanwhile.
                Err(OperateError::Unknown(_)) => {}
                Err(OperateError::Engine(error)) => return Err(error),
            }
        }
        Ok(arrivals)
    }

    async fn arrival(&self, name: &str, event: &Recorded) -> Result<Arrival, OperateError> {
        let (position, lane) = (event.position, event.event.lane().to_owned());
        let (standing, status, stored) = self.tell(name, |reply| Instruction::Stand { position, lane, reply }).await?;
        let letter = match standing {
            Standing::DeadLettered => keeping::dead_letter(self.engine.as_ref(), name, position).await?,
            _ => None,
        };
        let stage = stage(event, standing, letter, &status, &stored);
        Ok(Arrival { subscription: name.to_owned(), subscription_state: status.state, stage })
    }
}

fn stage(event: &Recorded, standing: Standing, letter: Option<DeadLetter>, status: &Status, stored: &Stored) -> Stage {
    let position = event.position;
    if let Standing::Discarded { at } = standing {
        return Stage::Discarded { at };
    }
    if position <= status.after {
        return Stage::BeforeStart { after: status.after };
    }
    if let Err(clause) = stored.selection_at(position).matches(&event.event) {
        return Stage::Filtered { clause };
    }
    match standing {
        Standing::Lost => Stage::Expired,
        Standing::Settled => Stage::Delivered,
        Standing::Queued | Standing::Sought { .. } => Stage::Queued,
        Standing::InFlight { attempt } => Stage::InFlight { attempt },
        Standing::Retrying { attempts, next_at, last } => {
            let last_attempt = last.map(|last| Tried { at: last.at, status: last.status, reason: last.reason });
            Stage::Retrying { attempts, next_attempt: next_at, last_attempt }
        }
        Standing::Blocked { by } => Stage::Blocked { by },
        Standing::Parked { by } => Stage::Parked { by },
        Standing::Discarded { at } => Stage::Discarded { at },
        Standing::DeadLettered => match letter {
            Some(DeadLetter { attempts, status, reason, given_up_at, .. }) => Stage::DeadLettered { attempts, status, reason, given_up_at },
            // Somebody has just decided.
            None => Stage::Queued,
        },
    }
}
