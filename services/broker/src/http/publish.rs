//! Publishing: `POST /api/events`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use kit::{
    Envelope, Position, Problem,
    envelope::{BATCH_JSON, EVENT_BYTES_MAX, EVENT_JSON},
    http::extract::read_bytes,
};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    caller::{Caller, missing_scope},
    disk_full,
};
use crate::{
    Shared,
    engine::{AppendError, Refusal},
    publish::{NotAllowed, TakeError},
};

/// What a request says, in whichever mode.
mod content;

/// One event, or where it is at fault.
mod event;

use content::{Content, Mode};
use event::Place;

/// The largest body of a publish request, in bytes.
pub(super) const PUBLISH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most events in one publish request.
pub(super) const PUBLISH_EVENTS_MAX: usize = 1_000;
/// How deep the JSON of an event may nest: every subscriber must be able to read it.
const DEPTH_MAX: usize = 64;
/// How much of publish requests may be in memory at once, in KiB.
const BODIES_KIB_MAX: u32 = 64 * 1024;
/// How long a publisher waits before it tries again when the log is full, in seconds.
const LOG_FULL_RETRY_AFTER_S: u32 = 5;

/// Room in memory for the bodies of publish requests.
pub(crate) struct Bodies(Semaphore);

impl Bodies {
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(BODIES_KIB_MAX as usize))
    }

    /// Takes room for a body; 429 when there is none.
    fn room(&self, headers: &HeaderMap) -> Result<SemaphorePermit<'_>, Problem> {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        // One that does not say how long it is may be as long as any.
        let bytes = length.unwrap_or(PUBLISH_BYTES_MAX).min(PUBLISH_BYTES_MAX);
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(BODIES_KIB_MAX);
        self.0.try_acquire_many(kib).map_err(|_| Problem::busy())
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Published {
    results: Vec<Landed>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Landed {
    position: Position,
    duplicate: bool,
}

/// What a publisher may send.
#[derive(Serialize, JsonSchema)]
pub(super) struct Limits {
    media_types: [&'static str; 2],
    event_bytes_max: usize,
    batch_events_max: usize,
    batch_bytes_max: usize,
    json_depth_max: usize,
}

const LIMITS: Limits = Limits {
    media_types: [EVENT_JSON, BATCH_JSON],
    event_bytes_max: EVENT_BYTES_MAX,
    batch_events_max: PUBLISH_EVENTS_MAX,
    batch_bytes_max: PUBLISH_BYTES_MAX,
    json_depth_max: DEPTH_MAX,
};

/// `OPTIONS /api/events`: the limits, before anybody meets them.
pub(super) async fn limits() -> Response {
    let mut response = Json(LIMITS).into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    response.headers_mut().insert("accept-post", const { HeaderValue::from_static(ACCEPT_POST) });
    response
}

/// As [`EVENT_JSON`] and [`BATCH_JSON`]; any JSON is data in binary mode.
const ACCEPT_POST: &str = "application/cloudevents+json, application/cloudevents-batch+json, application/json";

pub(super) async fn publish(State(shared): State<Arc<Shared>>, caller: Caller, request: Request) -> Result<Response, Problem> {
    match &caller {
        Caller::Service(_) => {}
        Caller::Outsider(grant) => grant.scopes.may_publish_any().map(drop).map_err(|missing| missing_scope(&missing))?,
        Caller::Anonymous | Caller::Guest(_) => return Err(Problem::unauthorized()),
        Caller::Operator => return Err(Problem::forbidden("events are published by services only")),
    }
    let mode = Mode::of(request.headers())?;
    let _room = shared.bodies.room(request.headers())?;
    let headers = request.headers().clone();
    let body = read_bytes(request, &()).await?;
    let content = Content::read(mode, &headers, &body)?;
    let mut events = Vec::with_capacity(content.events.len());
    let mut refused = None;
    for (index, raw) in content.events.iter().enumerate() {
        let place = Place { mode, index };
        match event::parse(raw.get(), place).and_then(|event| may_publish(&shared, &caller, event, place)) {
            Ok(event) => events.push(event),
            Err(problem) => {
                refused = Some(problem.landed(index));
                break;
            }
        }
    }
    // What stands before the event at fault lands: whoever publishes can go on behind it.
    let landed = match events.is_empty() {
        true => Vec::new(),
        false => shared.inlet.take(events).await.map_err(|error| take_problem(error, mode))?,
    };
    if let Some(problem) = refused {
        return Err(problem);
    }
    let results = landed.into_iter().map(|place| Landed { position: place.position, duplicate: place.is_duplicate }).collect();
    Ok((StatusCode::ACCEPTED, Json(Published { results })).into_response())
}

/// The events of a request, as far as they are read before anybody asks who sent them.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_events(headers: &HeaderMap, body: &bytes::Bytes) -> Result<Vec<Envelope>, Problem> {
    let mode = Mode::of(headers)?;
    let content = Content::read(mode, headers, body)?;
    content.events.iter().enumerate().map(|(index, raw)| event::parse(raw.get(), Place { mode, index })).collect()
}

fn may_publish(shared: &Shared, caller: &Caller, event: Envelope, place: Place) -> Result<Envelope, Problem> {
    let checked = match caller {
        Caller::Service(service) => shared.rights.check(service, &event),
        Caller::Outsider(grant) => match grant.scopes.may_publish(&event) {
            Ok(()) => shared.rights.check_outsider(&event),
            Err(missing) => return Err(place.blame(missing_scope(&missing), missing.field)),
        },
        Caller::Anonymous | Caller::Guest(_) | Caller::Operator => return Err(Problem::forbidden("events are published by services only")),
    };
    match checked {
        Ok(()) => Ok(event),
        Err(error @ NotAllowed::ForeignSource { .. }) => Err(place.blame(Problem::forbidden(error.to_string()), Some("source"))),
        Err(error @ NotAllowed::ForeignType { .. }) => Err(place.blame(Problem::forbidden(error.to_string()), Some("type"))),
        Err(error @ NotAllowed::Reserved { attribute, .. }) => Err(place.blame(Problem::forbidden(error.to_string()), Some(attribute))),
        Err(error @ NotAllowed::UnknownType { .. }) => {
            Err(place.blame(Problem::unprocessable("unknown_event_type", error.to_string()), Some("type")))
        }
    }
}

fn take_problem(error: TakeError, mode: Mode) -> Problem {
    match error {
        TakeError::LogFull => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "log_full", error.to_string()).retry_after_s(LOG_FULL_RETRY_AFTER_S)
        }
        TakeError::Append(AppendError::Busy) => Problem::busy(),
        TakeError::Append(AppendError::Closed) => Problem::unavailable("the broker is stopping"),
        TakeError::Append(AppendError::DiskFull) => disk_full(),
        TakeError::Append(AppendError::Failed(reason)) => {
            tracing::error!(reason, "events could not be appended");
            Problem::internal()
        }
        TakeError::Append(AppendError::Refused { landed, refusal }) => {
            let place = Place { mode, index: landed.len() };
            let detail = match landed.len() {
                0 => refusal.to_string(),
                landed => format!("{refusal}; the {landed} events before it are in the log"),
            };
            let problem = match refusal {
                Refusal::OtherContent { .. } => place.blame(Problem::conflict("other_content", detail), Some("id")),
                Refusal::Invalid(fault) => place.blame(Problem::unprocessable("invalid_event", detail), Some(event::attribute(fault))),
                Refusal::TooLarge { .. } => place.blame(event::too_large(), None),
            };
            problem.landed(landed.len())
        }
    }
}
