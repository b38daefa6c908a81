//! Where a subscription's events go: a service of this process, or a URL that takes batches of CloudEvents over HTTP, signed as Standard
//! Webhooks are.

/// Whether a sink agrees to be sent events.
pub(crate) mod consent;

/// Which addresses an outsider's sink may have.
pub mod networks;

/// How connections to sinks are opened.
pub mod outward;

/// Sends no faster than a sink agreed to.
mod pace;

/// What all sinks behind URLs share.
mod ways;

/// What a delivery looks like to whoever takes it.
pub(crate) mod described;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use kit::{
    Position, Recorded, Timestamp,
    envelope::BATCH_JSON,
    http::client::{ClientError, Limits},
    security::webhook,
    transport::{
        ItemAnswer, Sink, SinkError,
        log_first::{self, LOG_FIRST, LOG_SIGNATURE},
    },
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    lanes::Words,
    subscriptions::trust::Trust,
    verdict::{Answer, TIMEOUT_STATUS},
};

use consent::REQUEST_ORIGIN;
use pace::{Pace, Turn};
pub(crate) use ways::Ways;

/// How long a subscriber may take to answer a batch.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How much of an answer is kept as a reason, in characters.
const REASON_CHARS_MAX: usize = 160;
/// How much of an answer is kept beside that, in bytes.
const BEGINNING_BYTES_MAX: usize = 1_024;

/// Headers of a delivery: which subscription it is for, how often its events were sent (this time included; of a batch the highest),
/// until when an answer is waited for, and the replay that it belongs to.
const SUBSCRIPTION: HeaderName = HeaderName::from_static("cascade-subscription");
const ATTEMPT: HeaderName = HeaderName::from_static("cascade-attempt");
const DEADLINE: HeaderName = HeaderName::from_static("cascade-deadline");
const REPLAY: HeaderName = HeaderName::from_static("cascade-replay");
/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Where a subscription's events go.
#[derive(Clone)]
pub(crate) enum Target {
    /// A service of this process.
    Handle(Arc<dyn Sink>),
    /// A subscriber behind a URL.
    Url(Arc<HttpSink>),
}

/// What a delivery says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    pub(crate) subscription: String,
    pub(crate) attempt: u32,
    /// Where the log begins: no event before it is put into a delivery after this one.
    pub(crate) log_first: Position,
    pub(crate) replay: Option<String>,
}

impl Target {
    /// Delivers within [`DELIVERY_TIMEOUT`], whatever kind of target it is.
    pub(crate) async fn deliver(&self, events: &[Recorded], manner: &Manner) -> Answer {
        let delivery = async {
            match self {
                Self::Handle(sink) => {
                    sink.hear_log_first(manner.log_first);
                    sink.deliver(events).await.into()
                }
                Self::Url(sink) => sink.send(events, manner).await,
            }
        };
        tokio::time::timeout(DELIVERY_TIMEOUT + Duration::from_secs(1), delivery).await.unwrap_or_else(|_| {
            let reason = String::from("no answer in time");
            Err(SinkError { status: Some(TIMEOUT_STATUS), retry_after_s: None, reason }).into()
        })
    }
}

/// A subscriber behind a URL.
pub(crate) struct HttpSink {
    ways: Arc<Ways>,
    subscription: String,
    url: Uri,
    trust: Trust,
    pace: Mutex<Pace>,
}

impl HttpSink {
    async fn send(&self, events: &[Recorded], manner: &Manner) -> Answer {
        let broken = |reason: String| Err(SinkError { status: None, retry_after_s: None, reason }).into();
        if let Err(error) = self.wait_for_turn().await {
            return Err(error).into();
        }
        let body = match serde_json::to_vec(events) {
            Ok(body) => body,
            Err(error) => return broken(error.to_string()),
        };
        let headers = match self.headers(events, manner, &body) {
            Ok(headers) => headers,
            Err(error) => return broken(error.to_string()),
        };
        let limits = Limits { timeout: DELIVERY_TIMEOUT, answer_bytes_max: ANSWER_BYTES_MAX };
        let client = self.ways.client(self.trust.token.is_some());
        match client.send(Method::POST, &self.url, headers, body.into(), limits).await {
            Ok(answer) => read(&answer, events, self.ways.environment.clock.now()),
            Err(error) => Err(SinkError {
                // Without an answer in time nobody knows what happened; without a connection nothing did.
                status: matches!(error, ClientError::Timeout(_)).then_some(TIMEOUT_STATUS),
                retry_after_s: None,
                reason: error.to_string(),
            })
            .into(),
        }
    }

    /// Nothing goes out on the word of a token that ended, nor faster than the sink agreed to.
    async fn wait_for_turn(&self) -> Result<(), SinkError> {
        if let Some(token) = self.trust.token.as_ref().filter(|token| !self.ways.tokens.is_valid(token)) {
            let reason =
                format!("the token `{}` that registered this sink was revoked or has expired; register with a valid one", token.name);
            return Err(SinkError { status: None, retry_after_s: None, reason });
        }
        let Some(rate) = self.trust.consent.as_ref().and_then(|consent| consent.rate_per_minute) else { return Ok(()) };
        let now = self.ways.environment.clock.now();
        let turn = self.pace.lock().unwrap_or_else(PoisonError::into_inner).turn(rate, now);
        match turn {
            Turn::In(wait) => tokio::time::sleep(wait).await,
            Turn::After(after_s) => {
                let status = Some(StatusCode::TOO_MANY_REQUESTS.as_u16());
                let reason = format!("the sink agreed to {rate} requests a minute");
                return Err(SinkError { status, retry_after_s: Some(after_s), reason });
            }
        }
        Ok(())
    }

    fn headers(&self, events: &[Recorded], manner: &Manner, body: &[u8]) -> Result<HeaderMap, http::header::InvalidHeaderValue> {
        let now = self.ways.environment.clock.now();
        let (id, sent_s) = (self.ways.environment.ids.uuid_v7(now).to_string(), now.as_ms() / 1_000);
        let secrets = self.trust.secrets(&self.ways.keyring, &self.subscription, now);
        let signatures: Vec<_> = secrets.iter().map(|secret| secret.sign(&id, sent_s, body)).collect();
        let log_signatures: Vec<_> = secrets.iter().map(|secret| log_first::sign(secret, &id, sent_s, manner.log_first)).collect();
        let deadline_ms = u64::try_from(DELIVERY_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(BATCH_JSON));
        for (name, value) in [
            (HeaderName::from_static(webhook::ID), id),
            (HeaderName::from_static(webhook::TIMESTAMP), sent_s.to_string()),
            (HeaderName::from_static(webhook::SIGNATURE), signatures.join(" ")),
            (SUBSCRIPTION, manner.subscription.clone()),
            (ATTEMPT, manner.attempt.to_string()),
            (DEADLINE, now.plus_ms(deadline_ms).to_rfc3339()),
            (HeaderName::from_static(LOG_FIRST), manner.log_first.to_string()),
            (HeaderName::from_static(LOG_SIGNATURE), log_signatures.join(" ")),
        ] {
            headers.insert(name, HeaderValue::try_from(value)?);
        }
        if let Some(replay) = &manner.replay {
            headers.insert(REPLAY, HeaderValue::try_from(replay)?);
        }
        if let Some(consent) = &self.trust.consent {
            headers.insert(REQUEST_ORIGIN, HeaderValue::try_from(&consent.origin)?);
        }
        // A request has one trace: the events' own, if they agree on it.
        if let Some(trace) = common_trace(events) {
            headers.insert(TRACEPARENT, HeaderValue::try_from(trace)?);
        }
        Ok(headers)
    }
}

fn common_trace(events: &[Recorded]) -> Option<&str> {
    let first = events.first()?.event.traceparent.as_deref()?;
    events.iter().all(|one| one.event.traceparent.as_deref() == Some(first)).then_some(first)
}

/// What a 200 may say.
#[derive(Deserialize, JsonSchema)]
struct Body {
    /// The events that were not taken, and why.
    #[serde(default)]
    results: Vec<Item>,
}

/// An event that was not taken.
#[derive(Deserialize, JsonSchema)]
struct Item {
    source: String,
    id: String,
    /// 429: later. 400, 413, 422: never. Any other: tried again.
    status: u16,
    retry_after_s: Option<u32>,
    #[serde(alias = "detail")]
    reason: Option<String>,
}

/// A 2xx answer acknowledges all, but for what its body lists; a body that is not JSON says nothing.
fn read(answer: &Response<bytes::Bytes>, events: &[Recorded], now: Timestamp) -> Answer {
    let retry_after_s = answer.headers().get(header::RETRY_AFTER).and_then(|value| retry_after_s(value.to_str().ok()?, now));
    let text = String::from_utf8_lossy(answer.body());
    let beginning = (!text.is_empty()).then(|| Words::from(begin(&text)));
    let failed =
        |status, reason| Answer { answered: Err(SinkError { status: Some(status), retry_after_s, reason }), beginning: beginning.clone() };
    if !answer.status().is_success() {
        return failed(answer.status().as_u16(), format!("{}: {}", answer.status(), shorten(&text)));
    }
    let media = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if answer.body().is_empty() || !media.starts_with("application/json") {
        return Ok(Vec::new()).into();
    }
    // An answer that cannot be read may have said that something was not taken.
    let Ok(read) = serde_json::from_slice::<Body>(answer.body()) else {
        return failed(StatusCode::BAD_GATEWAY.as_u16(), format!("the answer cannot be read: {}", shorten(&text)));
    };
    let places = events.iter().enumerate().map(|(index, one)| ((one.event.source.as_str(), one.event.id.as_str()), index));
    let places: BTreeMap<_, _> = places.collect();
    let items = read.results.into_iter().filter_map(|item| {
        let index = *places.get(&(item.source.as_str(), item.id.as_str()))?;
        let reason = item.reason.map_or_else(|| format!("status {}", item.status), |reason| shorten(&reason));
        Some(ItemAnswer { index, status: item.status, retry_after_s: item.retry_after_s, reason })
    });
    Answer { answered: Ok(items.collect()), beginning }
}

/// `Retry-After` is a number of seconds or a date (RFC 9110, section 10.2.3).
fn retry_after_s(text: &str, now: Timestamp) -> Option<u32> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().unwrap_or(u32::MAX));
    }
    let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let wait_ms = i64::try_from(at.as_millis()).ok()?.saturating_sub(now.as_ms()).max(0);
    u32::try_from(wait_ms.saturating_add(999) / 1_000).ok()
}

fn shorten(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(REASON_CHARS_MAX).collect()
}

fn begin(text: &str) -> &str {
    text.get(..text.floor_char_boundary(BEGINNING_BYTES_MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_asked_for_in_seconds_or_by_date() {
        // 2026-01-31T12:00:00.500Z
        let now = Timestamp::from_ms(1_769_860_800_500);
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999999", Some(u32::MAX)),
            ("Sat, 31 Jan 2026 12:00:10 GMT", Some(10)),
            ("Saturday, 31-Jan-26 12:00:10 GMT", Some(10)),
            ("Sat, 31 Jan 2026 11:00:00 GMT", Some(0)),
            ("", None),
            ("soon", None),
            ("-7", None),
            ("1.5", None),
        ] {
            assert_eq!(retry_after_s(text, now), expected, "{text}");
        }
    }

    #[test]
    fn the_beginning_of_an_answer_ends_with_a_whole_letter() {
        assert_eq!(begin("short"), "short");
        assert_eq!(begin(&"ä".repeat(1_000)).len(), 1_024);
        assert_eq!(begin(&format!("x{}", "ä".repeat(1_000))).len(), 1_023);
    }
}
