//! Whoever operates the outsider's subscription: registers, pauses and resumes it, decides on what was given up, has some of it sent
//! again, and asks what became of single events.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Response, Uri, header};
use kit::{
    Lifecycle,
    http::client::{Client, Limits},
};
use serde_json::{Value, json};

use super::{NOT_WANTED, PARTNER, PORT, Partner};
use crate::{losses::Witness, partner::inquiry, world};

/// The operator's patience with one request, and the pause before the next one.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(2), answer_bytes_max: 256 * 1024 };
const PAUSE: Duration = Duration::from_millis(200);
/// Events that a replay sends in a second: so few that the log loses some before their turn.
const REPLAY_RATE_PER_S: u32 = 30;

/// The operator.
pub(crate) struct Operator {
    partner: Partner,
    witness: Witness,
    client: Client,
    authorization: Option<HeaderValue>,
}

impl Operator {
    /// Whoever has `token`.
    pub(crate) fn new(partner: Partner, witness: Witness, token: &str) -> Self {
        let client = Client::new(world::environment(0, Arc::default()).connect);
        Self { partner, witness, client, authorization: HeaderValue::try_from(format!("Bearer {token}")).ok() }
    }

    /// Works until the lifecycle halts.
    pub(crate) async fn work(self, lifecycle: Lifecycle) {
        tokio::select! {
            biased;
            () = lifecycle.halted() => {}
            () = self.operate() => {}
        }
    }

    async fn operate(&self) {
        let plan = self.partner.plan;
        let on_exhausted = if plan.is_in_sequence { "park" } else { "continue" };
        let terms = json!({
            "sink": format!("http://{PARTNER}:{PORT}/events"),
            "filters": [{"not": {"exact": {"type": NOT_WANTED}}}],
            "retry": {"attempts_max": 3, "backoff_ms": 20, "backoff_ms_max": 200},
            "on_exhausted": on_exhausted,
            "required": false,
            "revision": 1,
        });
        self.insist(Method::PUT, "", &terms).await;
        let (paused_from_ms, paused_for_ms) = match plan.retention.and_then(|retention| retention.pause()) {
            Some(pause) => pause,
            None => (plan.paused_from_ms, plan.paused_for_ms),
        };
        tokio::join!(self.pause(paused_from_ms, paused_for_ms), self.decide(), self.watch_losses());
    }

    async fn pause(&self, from_ms: u64, for_ms: u64) {
        wait_until(from_ms).await;
        self.insist(Method::POST, "/pause", &json!({})).await;
        wait_until(from_ms + for_ms).await;
        self.insist(Method::POST, "/resume", &json!({})).await;
    }

    /// Decides on what was given up, from the end of the pause on.
    async fn decide(&self) {
        let plan = self.partner.plan;
        wait_until(plan.paused_from_ms + plan.paused_for_ms).await;
        loop {
            tokio::time::sleep(PAUSE).await;
            let is_discarding = plan.retention.is_some_and(|retention| retention.is_discarding_at(world::elapsed_ms()));
            let decision = if is_discarding { "/dead-letters/discard" } else { "/dead-letters/redrive" };
            self.insist(Method::POST, decision, &json!({})).await;
        }
    }

    /// Where the log forgets: has what is left of it sent again, once, and asks about events that are going.
    async fn watch_losses(&self) {
        let Some(retention) = self.partner.plan.retention else { return };
        let mut is_replayed = false;
        loop {
            tokio::time::sleep(PAUSE).await;
            if !is_replayed && world::elapsed_ms() >= retention.replays_from_ms() {
                let asked = json!({"from": "earliest", "rate_per_s": REPLAY_RATE_PER_S});
                is_replayed = self.ask(Method::POST, "/replays", &asked).await.is_some_and(|answer| answer.status().is_success());
            }
            if let Some(answer) = self.ask(Method::GET, "", &Value::Null).await {
                let body = serde_json::from_slice(answer.body()).unwrap_or_default();
                self.witness.archive.blame(inquiry::check_status(answer.status(), &body));
            }
            for name in [PARTNER, "order", "payment", "delivery"] {
                let uri = format!("http://broker:4005/api/subscriptions/{name}/audit");
                if let Some(answer) = self.send(Method::GET, &uri, String::new()).await {
                    let body = serde_json::from_slice(answer.body()).unwrap_or_default();
                    self.witness.archive.blame(inquiry::check_audit(answer.status(), &body));
                }
            }
            for position in inquiry::positions(&self.witness.archive) {
                let forgotten = self.witness.archive.told_and_forgotten().1;
                let uri = format!("http://broker:4005/api/events/{position}/deliveries");
                if let Some(answer) = self.send(Method::GET, &uri, String::new()).await {
                    let body = serde_json::from_slice(answer.body()).unwrap_or_default();
                    self.witness.archive.blame(inquiry::check(&self.witness, (position, forgotten), answer.status(), &body));
                }
            }
        }
    }

    /// Asks the broker until it does it: it may be down.
    async fn insist(&self, method: Method, path: &str, body: &Value) {
        while !self.ask(method.clone(), path, body).await.is_some_and(|answer| answer.status().is_success()) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks the broker once.
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Option<Response<bytes::Bytes>> {
        self.send(method, &format!("http://broker:4005/api/subscriptions/{PARTNER}{path}"), body.to_string()).await
    }

    async fn send(&self, method: Method, uri: &str, body: String) -> Option<Response<bytes::Bytes>> {
        let uri: Uri = uri.parse().ok()?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.authorization.clone().map(|value| (header::AUTHORIZATION, value)));
        self.client.send(method, &uri, headers, body.into(), LIMITS).await.ok()
    }
}

async fn wait_until(at_ms: u64) {
    tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(world::elapsed_ms()))).await;
}
