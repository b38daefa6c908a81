//! Replays: a part of the log, sent to a subscriber again. They never move the subscription's cursor, and survive a restart.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use kit::{Position, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{
    INSTRUCTIONS_MAX, OperateError, Subscriptions,
    stored::Stored,
    wanted::{Fields, Invalid, Start, Wanted, check_types, invalid},
};
use crate::{
    dispatcher::{Account, Dispatcher, End, Ended, Instruction, Replay, State, Status},
    engine::EngineError,
    filters::{self, Selection},
    keeping::{self, Cursor},
    lanes::OnExhausted,
    sink::Target,
    wire,
};

/// How many replays of a subscription may run at once.
const RUNNING_MAX: usize = 4;
/// How many replays of a subscription are remembered.
const REPLAYS_MAX: usize = 32;
/// How many events are sent in a second, and at most.
pub(crate) const RATE_PER_S: u32 = 100;
pub(crate) const RATE_PER_S_MAX: u32 = 10_000;

/// What is to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    from: Start,
    to: Start,
    also: Selection,
    rate_per_s: u32,
}

/// A replay as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    /// It begins after this position.
    after: Position,
    /// The last position that is sent.
    to: Position,
    /// What must hold beside what the subscription asked for when it was made.
    also: Selection,
    rate_per_s: u32,
    created_at: Timestamp,
    stored: Stored,
    #[serde(default)]
    pub(crate) ended: Option<Ended>,
}

/// A replay that runs, or has ended.
#[derive(Clone)]
pub(super) struct Running {
    record: Record,
    pub(super) instructions: mpsc::Sender<Instruction>,
    status: Arc<Mutex<Status>>,
    ended: Arc<Mutex<Option<Ended>>>,
}

/// A replay and how it stands.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Replay")]
pub(crate) struct Shown {
    pub(crate) id: String,
    state: Stage,
    from: Position,
    to: Position,
    #[serde(flatten)]
    also: Selection,
    rate_per_s: u32,
    #[serde(with = "wire::time")]
    #[schemars(with = "Timestamp")]
    created_at: Timestamp,
    #[serde(with = "wire::optional_time")]
    #[schemars(with = "Option<Timestamp>")]
    ended_at: Option<Timestamp>,
    /// How far the log was read.
    read_up_to: Position,
    counts: Account,
    /// The first hundred of the events that were not taken, when it has ended.
    failed: Vec<Position>,
}

/// Whether a replay goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ReplayState")]
#[serde(untagged)]
enum Stage {
    Running(State),
    Ended(End),
}

/// Why no replay was begun or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplayError {
    /// There is nothing to send again.
    #[error("the log has nothing from `from` to `to`")]
    Empty,
    /// Too many are running.
    #[error("{RUNNING_MAX} replays of the subscription are running already")]
    TooMany,
    /// There is no replay of this name.
    #[error("there is no replay `{0}`")]
    Unknown(String),
    /// The subscription cannot do it.
    #[error(transparent)]
    Subscription(#[from] OperateError),
}

impl From<EngineError> for ReplayError {
    fn from(error: EngineError) -> Self {
        Self::Subscription(error.into())
    }
}

impl Asked {
    /// Reads what is to be sent again.
    ///
    /// # Errors
    /// The first field that does not hold what it must, or that there is not.
    pub(crate) fn parse(map: Map<String, Value>) -> Result<Self, Invalid> {
        let mut fields = Fields(map);
        let filters = match fields.0.remove("filters") {
            Some(Value::Null) | None => Vec::new(),
            Some(json) => filters::parse(&json, "/filters")?,
        };
        let asked = Self {
            from: fields.take("from")?.unwrap_or(Start::Earliest),
            to: fields.take("to")?.unwrap_or(Start::Latest),
            also: Selection { types: fields.take("types")?, filters },
            rate_per_s: fields.take("rate_per_s")?.unwrap_or(RATE_PER_S),
        };
        fields.finish()?;
        asked.from.check("from")?;
        asked.to.check("to")?;
        if let Some(types) = &asked.also.types {
            check_types(types)?;
        }
        if asked.to == Start::Earliest {
            return Err(invalid("to", "must be \"latest\", {\"position\": …} or {\"time\": …}"));
        }
        if !(1..=RATE_PER_S_MAX).contains(&asked.rate_per_s) {
            return Err(invalid("rate_per_s", "must be 1 to 10000"));
        }
        Ok(asked)
    }
}

impl Subscriptions {
    /// Begins to send a part of the log again.
    pub(crate) async fn replay(&self, name: &str, asked: Asked) -> Result<Shown, ReplayError> {
        let _one_at_a_time = self.changing.lock().await;
        let entry = self.entries().get(name).cloned().ok_or_else(|| OperateError::Unknown(name.to_owned()))?;
        if entry.replays.values().filter(|replay| replay.end().is_none()).count() >= RUNNING_MAX {
            return Err(ReplayError::TooMany);
        }
        let after = self.resolve(asked.from).await?;
        let to = self.resolve_end(asked.to).await?;
        if after >= to {
            return Err(ReplayError::Empty);
        }
        let now = self.environment.clock.now();
        // What is not taken is counted, and holds nothing up; the log does not wait for it.
        let wanted = Wanted { on_exhausted: OnExhausted::Continue, required: Some(false), ..entry.stored.wanted.clone() };
        let record = Record {
            id: self.environment.ids.uuid_v7(now).to_string(),
            after,
            to,
            also: asked.also,
            rate_per_s: asked.rate_per_s,
            created_at: now,
            stored: Stored::new(wanted, now),
            ended: None,
        };
        let (target, status) = self.tell(name, |reply| Instruction::Reveal { reply }).await?;
        let cursor = Cursor { is_paused: status.state == State::Paused, ..Cursor::at(after) };
        self.forget_ended(name).await?;
        keeping::create_replay(self.engine.as_ref(), (name, &record.id), &record, &cursor).await?;
        let running = self.start_replay(name, record, &cursor, target);
        let shown = running.show();
        self.keep_replay(name, running);
        Ok(shown)
    }

    /// The replays of a subscription, the oldest first.
    pub(crate) fn replays(&self, name: &str) -> Result<Vec<Shown>, ReplayError> {
        let entries = self.entries();
        let entry = entries.get(name).ok_or_else(|| OperateError::Unknown(name.to_owned()))?;
        Ok(entry.replays.values().map(Running::show).collect())
    }

    /// One of them.
    pub(crate) fn one_replay(&self, name: &str, id: &str) -> Result<Shown, ReplayError> {
        let found = self.replays(name)?.into_iter().find(|replay| replay.id == id);
        found.ok_or_else(|| ReplayError::Unknown(id.to_owned()))
    }

    /// Ends a replay; one that has ended stays as it is.
    pub(crate) async fn cancel_replay(&self, name: &str, id: &str) -> Result<Shown, ReplayError> {
        let _one_at_a_time = self.changing.lock().await;
        self.one_replay(name, id)?;
        let replay = self.entries().get(name).and_then(|entry| entry.replays.get(id).cloned());
        let replay = replay.ok_or_else(|| ReplayError::Unknown(id.to_owned()))?;
        replay.stop().await;
        if replay.end().is_none() {
            let (at, counts) = (self.environment.clock.now(), replay.status().counts);
            let ended = Ended { how: End::Cancelled, at, counts, failed: Vec::new() };
            keeping::end_replay(self.engine.as_ref(), name, id, &ended).await?;
            *replay.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
            keeping::remove(self.engine.as_ref(), &keeping::replay_name(name, id)).await?;
        }
        Ok(replay.show())
    }

    /// Goes on with the replays of a subscription that had not ended; finishes to remove what those keep that had.
    pub(super) async fn resume_replays(&self, name: &str, target: Option<&Target>) -> Result<(), EngineError> {
        for record in keeping::replays(self.engine.as_ref(), name).await? {
            if record.ended.is_some() {
                keeping::remove(self.engine.as_ref(), &keeping::replay_name(name, &record.id)).await?;
            }
            let cursor = Cursor::at(record.after);
            let running = self.start_replay(name, record, &cursor, target.cloned());
            self.keep_replay(name, running);
        }
        Ok(())
    }

    /// Tells every replay of a subscription the same.
    pub(super) async fn tell_replays(&self, name: &str, instruction: impl Fn() -> Instruction) {
        let replays = self.entries().get(name).map(|entry| entry.replays.clone()).unwrap_or_default();
        for replay in replays.into_values().filter(|replay| replay.end().is_none()) {
            let _ = replay.instructions.send(instruction()).await;
        }
    }

    async fn resolve_end(&self, end: Start) -> Result<Position, EngineError> {
        let last = self.engine.tail().last();
        Ok(match end {
            Start::Earliest | Start::Latest => last,
            Start::Position(position) => position.min(last),
            Start::Time(time) => self.engine.find_time(time).await?.min(last),
        })
    }

    /// The oldest replays that have ended make room.
    async fn forget_ended(&self, name: &str) -> Result<(), EngineError> {
        let replays = self.entries().get(name).map(|entry| entry.replays.clone()).unwrap_or_default();
        let surplus = (replays.len() + 1).saturating_sub(REPLAYS_MAX);
        for id in replays.into_iter().filter(|(_, replay)| replay.end().is_some()).map(|(id, _)| id).take(surplus) {
            keeping::forget_replay(self.engine.as_ref(), name, &id).await?;
            if let Some(entry) = self.entries().get_mut(name) {
                entry.replays.remove(&id);
            }
        }
        Ok(())
    }

    fn keep_replay(&self, name: &str, running: Running) {
        if let Some(entry) = self.entries().get_mut(name) {
            entry.replays.insert(running.record.id.clone(), running);
        }
    }

    fn start_replay(&self, name: &str, record: Record, cursor: &Cursor, target: Option<Target>) -> Running {
        let (instructions, queue) = mpsc::channel(INSTRUCTIONS_MAX);
        let status = Arc::new(Mutex::new(Status::at(cursor, target.as_ref())));
        let ended = Arc::new(Mutex::new(record.ended.clone()));
        if record.ended.is_none() {
            let Record { id, to, also, rate_per_s, .. } = record.clone();
            let dispatcher = Dispatcher {
                name: name.to_owned(),
                key: keeping::replay_name(name, &id),
                stored: record.stored.clone(),
                version: 0,
                target,
                engine: self.engine.clone(),
                environment: self.environment.clone(),
                lifecycle: self.lifecycle.clone(),
                instructions: queue,
                status: status.clone(),
                replay: Some(Replay { id, to, also, rate_per_s, ended: ended.clone() }),
            };
            self.lifecycle.spawn("replay", dispatcher.run());
        }
        Running { record, instructions, status, ended }
    }
}

impl Running {
    fn end(&self) -> Option<Ended> {
        Replay::ended(&self.ended)
    }

    fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends its dispatcher, and waits until it has.
    pub(super) async fn stop(&self) {
        let _ = self.instructions.send(Instruction::End).await;
        self.instructions.closed().await;
    }

    fn show(&self) -> Shown {
        let (record, status) = (&self.record, self.status());
        let shown = Shown {
            id: record.id.clone(),
            state: Stage::Running(status.state),
            from: record.after.next(),
            to: record.to,
            also: record.also.clone(),
            rate_per_s: record.rate_per_s,
            created_at: record.created_at,
            ended_at: None,
            read_up_to: status.read_head.max(record.after),
            counts: status.counts,
            failed: Vec::new(),
        };
        match self.end() {
            Some(Ended { how, at, counts, failed }) => {
                let read_up_to = if how == End::Completed { record.to } else { shown.read_up_to };
                Shown { state: Stage::Ended(how), ended_at: Some(at), read_up_to, counts, failed, ..shown }
            }
            None => shown,
        }
    }
}

/// The replays of one subscription, by their ids, which rise with time.
pub(super) type Replays = BTreeMap<String, Running>;
