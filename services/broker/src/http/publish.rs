//! Publishing.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use kit::{
    Envelope, Position, Problem,
    envelope::{BATCH_JSON, EVENT_BYTES_MAX, EVENT_JSON},
    http::{
        Caller,
        extract::{parse_json, read_bytes},
    },
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::disk_full;
use crate::{Shared, engine::AppendError, publish::NotAllowed};

/// The largest body of a publish request, in bytes.
pub(super) const PUBLISH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most events in one publish request.
const PUBLISH_EVENTS_MAX: usize = 1_000;
/// How deep the JSON of an event may nest: every subscriber must be able to read it.
const DEPTH_MAX: usize = 64;
#[derive(Serialize)]
struct Published {
    results: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    position: Position,
    duplicate: bool,
}

pub(super) async fn publish(State(shared): State<Arc<Shared>>, caller: Caller, request: Request) -> Result<Response, Problem> {
    let service = match caller {
        Caller::Service(name) => name,
        Caller::Anonymous | Caller::Guest(_) => return Err(Problem::unauthorized()),
        Caller::Operator => return Err(Problem::forbidden("events are published by services only")),
    };
    let media = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_batch = media == BATCH_JSON;
    if !is_batch && media != EVENT_JSON {
        let detail = format!("the body must be {EVENT_JSON} or {BATCH_JSON}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let body = read_bytes(request, &()).await?;
    let raw: Vec<Box<RawValue>> = if is_batch { parse_json(&body)? } else { vec![parse_json(&body)?] };
    if raw.len() > PUBLISH_EVENTS_MAX {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", "a batch holds at most 1000 events"));
    }
    let mut events = Vec::with_capacity(raw.len());
    let mut refused = None;
    for (index, raw) in raw.into_iter().enumerate() {
        match parse_event(&raw, index)
            .and_then(|event| shared.rights.check(&service, &event).map(|()| event).map_err(|error| not_allowed(&error, index)))
        {
            Ok(event) => events.push(event),
            Err(problem) => {
                refused = Some(problem.landed(index));
                break;
            }
        }
    }
    // What stands before the event at fault lands: whoever publishes can go on behind it.
    let places = if events.is_empty() { Vec::new() } else { shared.engine.append(events).await.map_err(append_problem)? };
    if let Some(problem) = refused {
        return Err(problem);
    }
    let results = places.into_iter().map(|place| Place { position: place.position, duplicate: place.is_duplicate }).collect();
    Ok((StatusCode::ACCEPTED, Json(Published { results })).into_response())
}

fn parse_event(raw: &RawValue, index: usize) -> Result<Envelope, Problem> {
    let field = format!("/{index}");
    if raw.get().len() > EVENT_BYTES_MAX {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "event_too_large", "an event holds at most 256 KiB").field(field));
    }
    if depth(raw.get().as_bytes()) > DEPTH_MAX {
        return Err(Problem::bad_request("too_deep", "the JSON of an event nests at most 64 deep").field(field));
    }
    let event: Envelope = parse_json(raw.get().as_bytes()).map_err(|problem| problem.field(field.clone()))?;
    event.check().map_err(|error| Problem::unprocessable("invalid_event", error.to_string()).field(field))?;
    Ok(event)
}

/// How deep JSON nests. It is known to be JSON: a bracket outside of a text opens or closes.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut is_text, mut is_escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn not_allowed(error: &NotAllowed, index: usize) -> Problem {
    let problem = match error {
        NotAllowed::ForeignSource { .. } | NotAllowed::ForeignType { .. } => Problem::forbidden(error.to_string()),
        NotAllowed::UnknownType { .. } => Problem::unprocessable("unknown_event_type", error.to_string()),
    };
    problem.field(format!("/{index}"))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where `map_err` wants it")]
fn append_problem(error: AppendError) -> Problem {
    match &error {
        AppendError::Busy => Problem::busy(),
        AppendError::Closed => Problem::unavailable("the broker is stopping"),
        AppendError::DiskFull => disk_full(),
        AppendError::Failed(_) => Problem::internal(),
        AppendError::Refused { landed, refusal } => {
            let landed = landed.len();
            Problem::conflict("other_content", format!("{refusal}; the {landed} events before it are in the log"))
                .field(format!("/{landed}"))
                .landed(landed)
        }
    }
}
