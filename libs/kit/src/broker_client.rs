//! The way to a broker in another process: publishing, and registering a subscription.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};

use crate::{
    BoxFuture, Envelope, Environment, Lifecycle,
    envelope::BATCH_JSON,
    http::client::{Client, Limits},
    transport::{PublishError, Publisher},
};

/// How long a publish may take before it is tried again.
const PUBLISH: Limits = Limits { timeout: Duration::from_secs(10), answer_bytes_max: 1024 * 1024 };
/// How long a registration may take before it is tried again.
const REGISTER: Limits = Limits { timeout: Duration::from_secs(5), answer_bytes_max: 64 * 1024 };
/// The pause between two tries to register, in milliseconds, before jitter.
const REGISTER_PAUSE_MS: u64 = 500;

/// A broker in another process.
#[derive(Clone)]
pub struct RemoteBroker {
    client: Client,
    base: Arc<str>,
    authorization: HeaderValue,
    trouble: Arc<Trouble>,
}

/// What does not work just now, and was said: an outage is logged once, by whoever meets it first.
#[derive(Default)]
struct Trouble {
    is_registering: AtomicBool,
    is_publishing: AtomicBool,
}

impl std::fmt::Debug for RemoteBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteBroker({})", self.base)
    }
}

/// A subscription as a service wants it (CloudEvents Subscriptions API draft, in our terms).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Where events go: a URL that stands for the service, never for one instance of it.
    pub sink: String,
    /// The event types that are wanted.
    pub types: Vec<String>,
    /// Rises with each change of the registration: a lower one changes nothing.
    pub revision: i64,
}

impl RemoteBroker {
    /// The broker at `base` (`http://host:port`), for the service whose bearer token is `token`.
    ///
    /// # Errors
    /// When the token cannot stand in a header.
    pub fn new(client: Client, base: &str, token: &str) -> Result<Self, http::header::InvalidHeaderValue> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))?;
        authorization.set_sensitive(true);
        Ok(Self { client, base: base.trim_end_matches('/').into(), authorization, trouble: Arc::default() })
    }

    /// Registers the subscription `name`, again and again until the broker has accepted it or the lifecycle halts.
    pub async fn register(self, name: &'static str, registration: Registration, environment: Environment, lifecycle: Lifecycle) {
        loop {
            let tried = tokio::select! {
                biased;
                () = lifecycle.halted() => return,
                tried = self.try_register(name, &registration) => tried,
            };
            let Err(reason) = tried else {
                self.trouble.is_registering.store(false, Ordering::Relaxed);
                tracing::info!(subscription = name, "the subscription is registered");
                return;
            };
            if !self.trouble.is_publishing.load(Ordering::Relaxed) && !self.trouble.is_registering.swap(true, Ordering::Relaxed) {
                self.complain(&reason);
            }
            let pause_ms = REGISTER_PAUSE_MS / 2 + environment.ids.up_to(REGISTER_PAUSE_MS);
            tokio::select! {
                biased;
                () = lifecycle.halted() => return,
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            }
        }
    }

    /// Publishing failed or works; an outage is logged at its begin.
    fn note_publishing(&self, trouble: Option<&str>) {
        let is_known = self.trouble.is_publishing.swap(trouble.is_some(), Ordering::Relaxed);
        if let Some(reason) = trouble
            && !is_known
            && !self.trouble.is_registering.load(Ordering::Relaxed)
        {
            self.complain(reason);
        }
    }

    fn complain(&self, reason: &str) {
        tracing::warn!(broker = &*self.base, reason, "the broker cannot be used; events wait, and it is tried again");
    }

    async fn try_register(&self, name: &str, registration: &Registration) -> Result<(), String> {
        let body = serde_json::to_vec(registration).map_err(|error| error.to_string())?;
        let (status, answer) = self.send(Method::PUT, &format!("/api/subscriptions/{name}"), "application/json", body, REGISTER).await?;
        if status.is_success() { Ok(()) } else { Err(explain(status, &answer)) }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: &'static str,
        body: Vec<u8>,
        limits: Limits,
    ) -> Result<(StatusCode, Bytes), String> {
        let uri = Uri::try_from(format!("{}{path}", self.base)).map_err(|error| error.to_string())?;
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, self.authorization.clone());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        let answer = self.client.send(method, &uri, headers, body.into(), limits).await.map_err(|error| error.to_string())?;
        Ok((answer.status(), answer.into_body()))
    }
}

impl Publisher for RemoteBroker {
    fn publish<'a>(&'a self, events: &'a [Envelope]) -> BoxFuture<'a, Result<(), PublishError>> {
        Box::pin(async move {
            let body = serde_json::to_vec(events).map_err(|error| PublishError::Unavailable(error.to_string()))?;
            let published = match self.send(Method::POST, "/api/events", BATCH_JSON, body, PUBLISH).await {
                Ok((status, _)) if status.is_success() => Ok(()),
                // Only what the broker says of one event is that event's fault.
                Ok((status, answer)) => match landed(&answer).filter(|_| status.is_client_error()) {
                    Some(landed) => Err(PublishError::Refused { landed, reason: explain(status, &answer) }),
                    None => Err(PublishError::Unavailable(explain(status, &answer))),
                },
                Err(reason) => Err(PublishError::Unavailable(reason)),
            };
            self.note_publishing(match &published {
                Err(PublishError::Unavailable(reason)) => Some(reason),
                Err(PublishError::Refused { .. }) | Ok(()) => None,
            });
            published
        })
    }
}

/// How many events of a refused batch are durable, as the broker's problem document says.
fn landed(answer: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Refusal {
        landed: usize,
    }
    serde_json::from_slice::<Refusal>(answer).ok().map(|refusal| refusal.landed)
}

fn explain(status: StatusCode, answer: &[u8]) -> String {
    if status == StatusCode::UNAUTHORIZED {
        return String::from("401: it does not know us, so its shared secret is another one");
    }
    #[derive(Deserialize)]
    struct Detail {
        detail: String,
    }
    match serde_json::from_slice::<Detail>(answer) {
        Ok(Detail { detail }) => format!("{}: {detail}", status.as_u16()),
        Err(_) => status.to_string(),
    }
}
