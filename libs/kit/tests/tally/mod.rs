//! A machine small enough to see through: a tally that counts and tells its neighbour.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test file uses some of it; a test fails by a panic"
)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use kit::{
    BoxFuture, Context, Envelope, Environment, Handle, Lifecycle, Machine, Position, Recorded, Service, Step, Timestamp,
    machine::{Column, EventDraft, Key, Outcome, Reaction, Table, Unprocessable},
    service::{Meta, SubmitError},
};
use serde::{Deserialize, Serialize};
use testkit::RecordingPublisher;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub String);

impl Key for Name {
    fn table(&self) -> &'static str {
        "tallies"
    }
    fn id(&self) -> String {
        self.0.clone()
    }
    fn parse(table: &str, id: &str) -> Option<Self> {
        (table == "tallies").then(|| Self(id.to_owned()))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Input {
    Count,
    CountBothWith(String),
    CountLater { after_ms: u64 },
    CountByEffect { after_ms: u64 },
    Refuse,
    Panic,
    PanicNeighbour(String),
    CountAgainAfter { after_ms: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no")]
pub struct No;

#[derive(Default, Clone)]
pub struct Tally {
    pub effects_performed: Arc<AtomicUsize>,
    pub effects_hang: Arc<AtomicBool>,
}

impl Machine for Tally {
    type Key = Name;
    type State = u32;
    type Input = Input;
    type Event = u32;
    type Effect = u64;
    type Refusal = No;
    const NAME: &'static str = "tally";
    const TABLES: &'static [Table] = &[Table { name: "tallies", index_columns: &["is_even"] }];
    const MIGRATIONS: &'static [&'static str] = &[
        "create table tallies (id text primary key, version bigint not null, sequence bigint not null, state text not null, is_even bigint not null)",
    ];
    const SUBSCRIBES: &'static [&'static str] = &["count"];

    fn decide(&self, _: &Name, state: Option<&u32>, input: &Input, now: Timestamp) -> Result<kit::machine::StepOf<Self>, No> {
        let next = state.copied().unwrap_or(0) + 1;
        match input {
            Input::Count => Ok(Step::to(next).emit(next)),
            Input::CountBothWith(other) => Ok(Step::to(next).emit(next).tell(Name(other.clone()), Input::Count)),
            Input::PanicNeighbour(other) => Ok(Step::to(next).emit(next).tell(Name(other.clone()), Input::Refuse)),
            Input::CountLater { after_ms } => Ok(Step::nothing().set_timer("later", now.plus_ms(*after_ms), Input::Count)),
            Input::CountAgainAfter { after_ms } => {
                Ok(Step::to(next).emit(next).set_timer("again", now.plus_ms(*after_ms), Input::CountAgainAfter { after_ms: *after_ms }))
            }
            Input::CountByEffect { after_ms } => Ok(Step::to(next).emit(next).perform(*after_ms)),
            Input::Refuse => Err(No),
            Input::Panic => panic!("on purpose"),
        }
    }

    fn index(state: &u32) -> Vec<Column> {
        vec![Column::Int(i64::from(state.is_multiple_of(2)))]
    }

    fn draft(event: &u32) -> Result<EventDraft, serde_json::Error> {
        Ok(EventDraft { ty: "counted", data: serde_json::value::to_raw_value(event)? })
    }

    fn react(&self, event: &Envelope) -> Reaction<Name, Input> {
        match event.ty.as_str() {
            "count" => Ok(Some((Name(event.lane().to_owned()), Input::Count))),
            "refuse" => Ok(Some((Name(event.lane().to_owned()), Input::Refuse))),
            "panic" => Ok(Some((Name(event.lane().to_owned()), Input::Panic))),
            "other" => Ok(None),
            _ => Err(Unprocessable(String::from("unknown"))),
        }
    }

    fn perform(&self, after_ms: u64, _: Context) -> BoxFuture<'_, Vec<Outcome<Name, Input>>> {
        Box::pin(async move {
            self.effects_performed.fetch_add(1, Ordering::SeqCst);
            if self.effects_hang.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            vec![Outcome { key: Name(String::from("a")), after_ms, input: Input::Count }]
        })
    }
}

/// A running tally, and what it needs to be killed and started again.
pub struct Running {
    pub service: Service<Tally>,
    pub lifecycle: Lifecycle,
}

impl Running {
    pub fn start(machine: &Tally, folder: &Path, environment: &Environment, broker: &Arc<RecordingPublisher>) -> Self {
        let lifecycle = Lifecycle::new();
        let service = Service::start(machine.clone(), folder, environment, broker.clone(), &lifecycle).unwrap();
        Self { service, lifecycle }
    }

    pub fn handle(&self) -> &Handle<Tally> {
        self.service.handle()
    }

    pub async fn submit(&self, name: &str, input: Input) -> Result<u32, SubmitError<No>> {
        let committed = self.handle().submit(Name(name.to_owned()), input, Meta::default()).await?;
        Ok(committed.entity.map_or(0, |entity| entity.state))
    }

    pub fn count(&self, name: &str) -> u32 {
        self.handle().load(&Name(name.to_owned())).unwrap().map_or(0, |entity| entity.state)
    }

    pub async fn stop(self) {
        assert!(self.lifecycle.stop(Duration::from_secs(5)).await);
    }
}

/// An event of the lane, at the first place of the log.
pub fn event(id: &str, ty: &str, lane: &str) -> Recorded {
    let json =
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"/test","type":"{ty}","subject":"{lane}","owner":"me","scenario":"7"}}"#);
    Recorded { position: Position(1), event: Arc::new(serde_json::from_str(&json).unwrap()) }
}
