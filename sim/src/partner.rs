//! An outsider's service: it subscribes with a filter, its sink fails and refuses for a while, and an operator pauses it, and decides on
//! what was given up. In the end it must have every event that it asked for, but for what was given up for good, and what the log lost
//! while it was away: that must be counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{Router, body::Bytes, routing::post};
use http::{HeaderMap, StatusCode};
use kit::{Envelope, ids::Ids};
use serde_json::{Value, json};

use crate::{archive::Logged, losses::Retention, world};

/// Whoever operates its subscription.
mod operator;

/// What an operator is told of single events.
mod inquiry;

pub(crate) use operator::Operator;

/// Its host, and its subscription.
pub(crate) const PARTNER: &str = "partner";
/// Where it listens.
pub(crate) const PORT: u16 = 4100;
/// What it does not ask for.
const NOT_WANTED: &str = "cascade.WorkerSearchStarted.v1";
/// What a delivery of a replay says.
const REPLAY: &str = "cascade-replay";

/// What is drawn for one run.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Until when it fails.
    fails_until_ms: u64,
    /// Of a hundred events, how many are refused until then, and how many fail beside these.
    refused_percent: u64,
    failed_percent: u64,
    is_in_sequence: bool,
    /// When it is paused, and for how long.
    paused_from_ms: u64,
    paused_for_ms: u64,
    /// Where the log forgets: what the outsider does then.
    retention: Option<Retention>,
}

/// The outsider. Clones are the same.
#[derive(Clone)]
pub(crate) struct Partner {
    plan: Plan,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    /// With the time when they came for the first time.
    known: BTreeMap<(String, String), u64>,
    /// In that order.
    events: Vec<(String, String)>,
    /// What came by each replay.
    replayed: BTreeMap<String, BTreeSet<(String, String)>>,
}

impl Partner {
    /// Draws what will happen.
    pub(crate) fn draw(chance: &Ids, retention: Option<Retention>) -> Self {
        let plan = Plan {
            fails_until_ms: 500 + chance.up_to(3_000),
            refused_percent: chance.up_to(25),
            failed_percent: chance.up_to(25),
            is_in_sequence: chance.up_to(1) == 0,
            paused_from_ms: 300 + chance.up_to(2_500),
            paused_for_ms: chance.up_to(900),
            retention,
        };
        Self { plan, taken: Arc::default() }
    }

    /// What it serves.
    pub(crate) fn routes(&self) -> Router {
        let partner = self.clone();
        Router::new().route(
            "/events",
            post(move |headers: HeaderMap, body: Bytes| {
                let answer = partner.take(&headers, &body);
                async move { answer }
            }),
        )
    }

    /// Takes a batch, but for what it fails on.
    fn take(&self, headers: &HeaderMap, body: &[u8]) -> Result<axum::Json<Value>, StatusCode> {
        let now_ms = world::elapsed_ms();
        if let Some(status) = self.plan.retention.and_then(|retention| retention.refusal_at(now_ms)) {
            return Err(status);
        }
        let events: Vec<Envelope> = serde_json::from_slice(body).map_err(|_| StatusCode::BAD_REQUEST)?;
        let replay = headers.get(REPLAY).and_then(|replay| replay.to_str().ok());
        let mut taken = self.taken();
        let mut results = Vec::new();
        for event in events {
            let name = (event.source.clone(), event.id.as_str().to_owned());
            if let Some(status) = self.temper(event.id.as_str()) {
                results.push(json!({"source": event.source, "id": event.id, "status": status}));
            } else if let Some(replay) = replay {
                taken.replayed.entry(replay.to_owned()).or_default().insert(name);
            } else if !taken.known.contains_key(&name) {
                taken.known.insert(name.clone(), now_ms);
                taken.events.push(name);
            }
        }
        Ok(axum::Json(json!({"results": results})))
    }

    fn temper(&self, id: &str) -> Option<u16> {
        if world::elapsed_ms() >= self.plan.fails_until_ms {
            return None;
        }
        let dice = id.bytes().fold(7_u64, |dice, byte| dice.wrapping_mul(31).wrapping_add(u64::from(byte))) % 100;
        match dice {
            dice if dice < self.plan.refused_percent => Some(422),
            dice if dice < self.plan.refused_percent + self.plan.failed_percent => Some(500),
            _ => None,
        }
    }

    /// Whether it asks for this event.
    pub(crate) fn wants(&self, one: &Logged) -> bool {
        one.event.ty != NOT_WANTED
    }

    /// Whether it has this event.
    pub(crate) fn has(&self, one: &Logged) -> bool {
        self.taken_at_ms(one).is_some()
    }

    /// When it took this event first.
    pub(crate) fn taken_at_ms(&self, one: &Logged) -> Option<u64> {
        let (source, id) = one.name();
        self.taken().known.get(&(source.to_owned(), id.to_owned())).copied()
    }

    /// How many of `log` the replay `id` brought.
    pub(crate) fn count_replayed<'a>(&self, id: &str, log: impl Iterator<Item = &'a Logged>) -> usize {
        let taken = self.taken();
        let Some(replayed) = taken.replayed.get(id) else { return 0 };
        log.map(Logged::name).filter(|(source, id)| replayed.contains(&((*source).to_owned(), (*id).to_owned()))).count()
    }

    /// What it asked for of `log` and does not have.
    pub(crate) fn missing(&self, log: &[Logged]) -> Vec<String> {
        let missing = log.iter().filter(|one| self.wants(one) && !self.has(one));
        missing.map(|one| format!("the partner never got {} {} of order {}", one.event.ty, one.event.id, one.event.lane())).collect()
    }

    /// What came to it out of sequence, or was not asked for. `log` is all that the log ever held.
    pub(crate) fn check(&self, log: &[Logged]) -> Vec<String> {
        // An event that is published again after the log forgot it may come late.
        let again: BTreeSet<_> = log.iter().filter(|one| one.is_again).map(Logged::name).collect();
        let events: BTreeMap<_, _> = log.iter().filter(|one| !one.is_again).map(|one| (one.name(), one)).collect();
        let (mut wrong, mut last) = (Vec::new(), BTreeMap::new());
        for (source, id) in &self.taken().events {
            let Some(one) = events.get(&(source.as_str(), id.as_str())) else {
                wrong.push(format!("the partner got event {id} of {source}, which the log does not have"));
                continue;
            };
            if !self.wants(one) {
                wrong.push(format!("the partner got {id}, a {NOT_WANTED}"));
            }
            if again.contains(&one.name()) {
                continue;
            }
            let before = last.insert(one.event.lane(), one.position);
            if self.plan.is_in_sequence && before.is_some_and(|before| before > one.position) {
                wrong.push(format!("the partner got events of order {} out of sequence", one.event.lane()));
            }
        }
        wrong
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
