//! A subscriber behind a URL: batches of CloudEvents over HTTP, signed as Standard Webhooks are.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use kit::{
    BoxFuture, Environment, Recorded,
    envelope::BATCH_JSON,
    http::client::{Client, ClientError, Limits},
    security::Keyring,
    transport::{ItemAnswer, Sink, SinkError},
};
use serde::Deserialize;

use crate::verdict::TIMEOUT_STATUS;

/// How long a subscriber may take to answer a batch.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How much of an answer is kept as a reason, in characters.
const REASON_CHARS_MAX: usize = 300;

/// A subscriber behind a URL.
pub struct HttpSink {
    client: Client,
    url: Uri,
    keyring: Keyring,
    environment: Environment,
}

impl HttpSink {
    /// Delivers to `url`, through `client`.
    pub fn new(client: Client, url: Uri, keyring: Keyring, environment: Environment) -> Self {
        Self { client, url, keyring, environment }
    }

    async fn send(&self, events: &[Recorded]) -> Result<Vec<ItemAnswer>, SinkError> {
        let broken = |reason: String| SinkError { status: None, retry_after_s: None, reason };
        let body = serde_json::to_vec(events).map_err(|error| broken(error.to_string()))?;
        let now = self.environment.clock.now();
        let (id, sent_s) = (self.environment.ids.uuid_v7(now).to_string(), now.as_ms() / 1_000);
        let signature = self.keyring.sign_delivery(&id, sent_s, &body);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(BATCH_JSON));
        for (name, value) in [("webhook-id", id), ("webhook-timestamp", sent_s.to_string()), ("webhook-signature", signature)] {
            headers.insert(name, HeaderValue::try_from(value).map_err(|error| broken(error.to_string()))?);
        }
        let limits = Limits { timeout: DELIVERY_TIMEOUT, answer_bytes_max: ANSWER_BYTES_MAX };
        let answer = self.client.send(Method::POST, &self.url, headers, body.into(), limits).await.map_err(|error| SinkError {
            // Without an answer in time nobody knows what happened; without a connection nothing did.
            status: matches!(error, ClientError::Timeout(_)).then_some(TIMEOUT_STATUS),
            retry_after_s: None,
            reason: error.to_string(),
        })?;
        read(&answer, events)
    }
}

impl Sink for HttpSink {
    fn deliver<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<Vec<ItemAnswer>, SinkError>> {
        Box::pin(self.send(events))
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    source: String,
    id: String,
    status: u16,
    retry_after_s: Option<u32>,
    #[serde(alias = "detail")]
    reason: Option<String>,
}

/// A 2xx answer acknowledges all, but for what its body lists; a body that is not JSON says nothing.
fn read(answer: &Response<bytes::Bytes>, events: &[Recorded]) -> Result<Vec<ItemAnswer>, SinkError> {
    let retry_after_s = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let failed = |status, reason| Err(SinkError { status: Some(status), retry_after_s, reason });
    let text = String::from_utf8_lossy(answer.body());
    if !answer.status().is_success() {
        return failed(answer.status().as_u16(), format!("{}: {}", answer.status(), shorten(&text)));
    }
    let media = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if answer.body().is_empty() || !media.starts_with("application/json") {
        return Ok(Vec::new());
    }
    // An answer that cannot be read may have said that something was not taken.
    let Ok(read) = serde_json::from_slice::<Answer>(answer.body()) else {
        return failed(StatusCode::BAD_GATEWAY.as_u16(), format!("the answer cannot be read: {}", shorten(&text)));
    };
    let places = events.iter().enumerate().map(|(index, one)| ((one.event.source.as_str(), one.event.id.as_str()), index));
    let places: BTreeMap<_, _> = places.collect();
    let items = read.results.into_iter().filter_map(|item| {
        let index = *places.get(&(item.source.as_str(), item.id.as_str()))?;
        let reason = item.reason.map_or_else(|| format!("status {}", item.status), |reason| shorten(&reason));
        Some(ItemAnswer { index, status: item.status, retry_after_s: item.retry_after_s, reason })
    });
    Ok(items.collect())
}

fn shorten(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(REASON_CHARS_MAX).collect()
}

/// Delivers within [`DELIVERY_TIMEOUT`], whatever kind of sink it is.
pub(crate) async fn deliver(sink: Arc<dyn Sink>, events: &[Recorded]) -> Result<Vec<ItemAnswer>, SinkError> {
    match tokio::time::timeout(DELIVERY_TIMEOUT + Duration::from_secs(1), sink.deliver(events)).await {
        Ok(answer) => answer,
        Err(_) => Err(SinkError { status: Some(TIMEOUT_STATUS), retry_after_s: None, reason: "no answer in time".into() }),
    }
}
