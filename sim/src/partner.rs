//! An outsider's service: it subscribes with a filter, its sink fails and refuses for a while, and an operator pauses it, and redrives
//! what was given up. In the end it must have every event that it asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Bytes, routing::post};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use kit::{
    Envelope, Lifecycle,
    http::client::{Client, Limits},
    ids::Ids,
};
use serde_json::{Value, json};

use crate::{invariants::Logged, world};

/// Its host, and its subscription.
pub(crate) const PARTNER: &str = "partner";
/// Where it listens.
pub(crate) const PORT: u16 = 4100;
/// What it does not ask for.
const NOT_WANTED: &str = "cascade.WorkerSearchStarted.v1";
/// The operator's patience with one request, and the pause before the next one.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(2), answer_bytes_max: 256 * 1024 };
const PAUSE: Duration = Duration::from_millis(200);

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
}

/// The outsider, and whoever operates its subscription. Clones are the same.
#[derive(Clone)]
pub(crate) struct Partner {
    plan: Plan,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    known: BTreeSet<(String, String)>,
    /// In the order in which they came for the first time.
    events: Vec<(String, String)>,
}

impl Partner {
    /// Draws what will happen.
    pub(crate) fn draw(chance: &Ids) -> Self {
        let plan = Plan {
            fails_until_ms: 500 + chance.up_to(3_000),
            refused_percent: chance.up_to(25),
            failed_percent: chance.up_to(25),
            is_in_sequence: chance.up_to(1) == 0,
            paused_from_ms: 300 + chance.up_to(2_500),
            paused_for_ms: chance.up_to(900),
        };
        Self { plan, taken: Arc::default() }
    }

    /// What it serves.
    pub(crate) fn routes(&self) -> Router {
        let partner = self.clone();
        Router::new().route(
            "/events",
            post(move |body: Bytes| {
                let answer = partner.take(&body);
                async move { answer }
            }),
        )
    }

    /// Takes a batch, but for what it fails on.
    fn take(&self, body: &[u8]) -> Result<axum::Json<Value>, StatusCode> {
        let events: Vec<Envelope> = serde_json::from_slice(body).map_err(|_| StatusCode::BAD_REQUEST)?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut results = Vec::new();
        for event in events {
            let (source, id) = (event.source.clone(), event.id.as_str().to_owned());
            match self.temper(&id) {
                Some(status) => results.push(json!({"source": source, "id": id, "status": status})),
                None if taken.known.insert((source.clone(), id.clone())) => taken.events.push((source, id)),
                None => {}
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

    /// Registers the subscription, pauses and resumes it, and from then on redrives whatever was given up. `token` is an operator's.
    pub(crate) async fn operate(self, token: String, lifecycle: Lifecycle) {
        let operated = async {
            let client = Client::new(world::environment(0, Arc::default()).connect);
            let on_exhausted = if self.plan.is_in_sequence { "park" } else { "continue" };
            let terms = json!({
                "sink": format!("http://{PARTNER}:{PORT}/events"),
                "filters": [{"not": {"exact": {"type": NOT_WANTED}}}],
                "retry": {"attempts_max": 3, "backoff_ms": 20, "backoff_ms_max": 200},
                "on_exhausted": on_exhausted,
                "revision": 1,
            });
            insist(&client, &token, Method::PUT, "", &terms).await;
            wait_until(self.plan.paused_from_ms).await;
            insist(&client, &token, Method::POST, "/pause", &json!({})).await;
            wait_until(self.plan.paused_from_ms + self.plan.paused_for_ms).await;
            insist(&client, &token, Method::POST, "/resume", &json!({})).await;
            loop {
                tokio::time::sleep(PAUSE).await;
                insist(&client, &token, Method::POST, "/dead-letters/redrive", &json!({})).await;
            }
        };
        tokio::select! {
            biased;
            () = lifecycle.halted() => {}
            () = operated => {}
        }
    }

    /// What it asked for of `log` and does not have.
    pub(crate) fn missing(&self, log: &[Logged]) -> Vec<String> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = log.iter().map(Logged::event).filter(|event| event.ty != NOT_WANTED);
        let missing = wanted.filter(|event| !taken.known.contains(&(event.source.clone(), event.id.as_str().to_owned())));
        missing.map(|event| format!("the partner never got {} {} of order {}", event.ty, event.id, event.lane())).collect()
    }

    /// What came to it out of sequence, or was not asked for.
    pub(crate) fn check(&self, log: &[Logged]) -> Vec<String> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let events: BTreeMap<_, _> = log
            .iter()
            .map(Logged::event)
            .enumerate()
            .map(|(position, event)| ((event.source.as_str(), event.id.as_str()), (position, event)))
            .collect();
        let (mut wrong, mut last) = (Vec::new(), BTreeMap::new());
        for (source, id) in &taken.events {
            let Some((position, event)) = events.get(&(source.as_str(), id.as_str())) else {
                wrong.push(format!("the partner got event {id} of {source}, which the log does not have"));
                continue;
            };
            if event.ty == NOT_WANTED {
                wrong.push(format!("the partner got {id}, a {NOT_WANTED}"));
            }
            let before = last.insert(event.lane(), *position);
            if self.plan.is_in_sequence && before.is_some_and(|before| before > *position) {
                wrong.push(format!("the partner got events of order {} out of sequence", event.lane()));
            }
        }
        wrong
    }
}

async fn wait_until(at_ms: u64) {
    tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(world::elapsed_ms()))).await;
}

/// Asks the broker until it does it: it may be down.
async fn insist(client: &Client, token: &str, method: Method, path: &str, body: &Value) {
    let Ok(uri) = format!("http://broker:4005/api/subscriptions/{PARTNER}{path}").parse::<Uri>() else { return };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.extend(HeaderValue::try_from(format!("Bearer {token}")).ok().map(|value| (header::AUTHORIZATION, value)));
    loop {
        let answer = client.send(method.clone(), &uri, headers.clone(), body.to_string().into(), LIMITS).await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
