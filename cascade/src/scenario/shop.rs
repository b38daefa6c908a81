//! The requests, and what is wrong when they fail: every answer is a thing to work with, or a reason in one line.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use contract::api::ScenarioRun;
use kit::{
    Environment,
    http::{
        client::{Client, Limits},
        identity::SESSION_COOKIE,
    },
};
use serde::{Deserialize, Serialize};

use super::{drawing::printable, feed::Feed};
use crate::operator::beginning_of;

const LIMITS: Limits = Limits { timeout: Duration::from_secs(10), answer_bytes_max: 1024 * 1024 };
/// A shop proves a silent stream alive every 20 seconds: one that is silent for longer is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// A scenario as the shop's catalogue describes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) number: u32,
    pub(crate) title: String,
    pub(crate) teaches: String,
    pub(crate) look_for: Vec<String>,
    pub(crate) ends: Vec<String>,
}

/// All of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    pub(crate) items: Vec<Scenario>,
}

/// Why something could not be had from the shop; one line.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may be had later.
    Passing(String),
    /// It will not be had by asking again.
    Lasting(String),
}

/// A shop somewhere else.
pub(crate) struct Shop {
    client: Client,
    base: String,
    session: Option<HeaderValue>,
    /// One for the whole run: repeating the start makes no second order.
    key: String,
}

impl Shop {
    /// The shop at `base`, a URL without a slash at its end.
    pub(crate) fn at(base: &str, environment: &Environment) -> Self {
        let key = environment.ids.uuid_v7(environment.clock.now()).to_string();
        Self { client: Client::new(environment.connect.clone()), base: base.to_owned(), session: None, key }
    }

    /// The URL of a link that the shop gave.
    pub(crate) fn url_of(&self, link: &str) -> String {
        let is_whole = link.starts_with("http://") || link.starts_with("https://");
        printable(&if is_whole { link.to_owned() } else { format!("{}{link}", self.base) })
    }

    /// The catalogue: also how a shop is known to be one.
    pub(crate) async fn scenarios(&self) -> anyhow::Result<Vec<Scenario>> {
        let uri = self.uri("/api/scenarios").map_err(|reason| anyhow!(reason))?;
        let answer = self
            .client
            .send(Method::GET, &uri, headers(&[(header::ACCEPT, "application/json")]), "".into(), LIMITS)
            .await
            .with_context(|| format!("no shop answers at {}; `cascade up` opens one", self.base))?;
        match (answer.status(), serde_json::from_slice::<Catalogue>(answer.body())) {
            (StatusCode::OK, Ok(catalogue)) => Ok(catalogue.items),
            (status, _) => match detail_of(answer.body()) {
                Some(detail) => bail!("the shop at {} does not show its scenarios: {detail}", self.base),
                None => bail!("what answers at {} is no shop: it has no catalogue of scenarios ({status})", self.base),
            },
        }
    }

    /// Starts a run.
    pub(crate) async fn start(&mut self, number: u32) -> Result<ScenarioRun, Trouble> {
        if self.session.is_none() {
            self.session = self.open_session().await?;
        }
        let mut headers = headers(&[(header::ACCEPT, "application/json"), (header::CONTENT_TYPE, "application/json")]);
        headers.extend(HeaderValue::try_from(&self.key).map(|key| (HeaderName::from_static("idempotency-key"), key)));
        headers.extend(self.session.clone().map(|session| (header::COOKIE, session)));
        let uri = self.uri(&format!("/api/scenarios/{number}/runs")).map_err(Trouble::Lasting)?;
        let answer = self.client.send(Method::POST, &uri, headers, "".into(), LIMITS).await.map_err(|error| passing(&error))?;
        match answer.status() {
            StatusCode::CREATED | StatusCode::OK => serde_json::from_slice(answer.body())
                .map_err(|error| Trouble::Lasting(format!("the shop's answer to the start of a run cannot be read: {error}"))),
            status => Err(refusal(status, answer.body(), "the shop does not run the scenario")),
        }
    }

    /// A session makes the idempotency key ours alone. A shop that gives none is used without.
    async fn open_session(&self) -> Result<Option<HeaderValue>, Trouble> {
        let uri = self.uri("/").map_err(Trouble::Lasting)?;
        let headers = headers(&[(header::ACCEPT, "text/html")]);
        let answer = self.client.send(Method::GET, &uri, headers, "".into(), LIMITS).await.map_err(|error| passing(&error))?;
        let cookies = answer.headers().get_all(header::SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
        let mut pairs = cookies.filter_map(|cookie| cookie.split(';').next());
        let session = pairs.find(|pair| pair.split_once('=').is_some_and(|(name, _)| name == SESSION_COOKIE));
        Ok(session.and_then(|pair| HeaderValue::try_from(pair).ok()))
    }

    /// Opens the stream of an order's events, behind position `last`.
    pub(crate) async fn follow(&self, live: &str, last: Option<i64>) -> Result<Feed, Trouble> {
        let uri: Uri = self.url_of(live).parse().map_err(|_| Trouble::Lasting(format!("the shop's link `{}` is none", printable(live))))?;
        let mut headers = headers(&[(header::ACCEPT, "text/event-stream")]);
        headers.extend(last.map(|last| (HeaderName::from_static("last-event-id"), HeaderValue::from(last))));
        let answer = self.client.stream(&uri, headers, SILENCE_MAX).await.map_err(|error| passing(&error))?;
        match answer.status() {
            StatusCode::OK => Ok(Feed::new(answer.into_body())),
            status => Err(refusal(status, &beginning_of(answer.into_body()).await, "the shop does not show the order's events")),
        }
    }

    fn uri(&self, path: &str) -> Result<Uri, String> {
        format!("{}{path}", self.base).parse().map_err(|_| format!("`{}` is no URL", self.base))
    }
}

fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
}

fn passing(error: &kit::http::client::ClientError) -> Trouble {
    Trouble::Passing(format!("the shop does not answer: {error}"))
}

/// A shop that is starting, stopping or too busy answers with 429 or 5xx; what else it refuses, it will refuse again.
fn refusal(status: StatusCode, body: &[u8], what: &str) -> Trouble {
    let reason = format!("{what}: {}", detail_of(body).unwrap_or_else(|| format!("it answered {status}")));
    match status {
        StatusCode::TOO_MANY_REQUESTS => Trouble::Passing(reason),
        status if status.is_server_error() => Trouble::Passing(reason),
        _ => Trouble::Lasting(reason),
    }
}

/// What a problem document says.
fn detail_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Document {
        detail: String,
    }
    serde_json::from_slice::<Document>(body).ok().map(|document| printable(&document.detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let problem = br#"{"status":403,"code":"playground_only","detail":"scenarios run in playground mode only"}"#;
        for (status, is_passing) in [(403, false), (404, false), (400, false), (429, true), (500, true), (502, true), (503, true)] {
            let trouble = refusal(StatusCode::from_u16(status).unwrap(), problem, "no run");
            assert_eq!(matches!(trouble, Trouble::Passing(_)), is_passing, "{status}");
            let (Trouble::Passing(reason) | Trouble::Lasting(reason)) = trouble;
            assert_eq!(reason, "no run: scenarios run in playground mode only");
        }
        let Trouble::Passing(reason) = refusal(StatusCode::BAD_GATEWAY, b"<html>", "no run") else { panic!("it may pass") };
        assert_eq!(reason, "no run: it answered 502 Bad Gateway");
    }

    #[test]
    fn a_link_may_be_a_path_or_lead_to_another_place() {
        let shop = Shop::at("http://localhost:4000", &Environment::real().unwrap());
        assert_eq!(shop.url_of("/api/live?subject=1"), "http://localhost:4000/api/live?subject=1");
        assert_eq!(shop.url_of("http://localhost:4001/api/live"), "http://localhost:4001/api/live");
    }
}
