//! The routes: publishing, reading, subscriptions. Thin: extract, check, call, convert.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::{StatusCode, header};
use kit::{
    Envelope, Position, Problem, Recorded,
    envelope::{BATCH_JSON, EVENT_BYTES_MAX, EVENT_JSON},
    http::{
        Body, Caller, Gate, Params, Query,
        extract::{parse_json, read_bytes},
        identity::GateOf,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Shared,
    engine::{AppendError, EngineError},
    lanes::DeadLetter,
    live,
    publish::NotAllowed,
    subscriptions::{RegisterError, Subscription, Wanted},
};

/// The largest body of a publish request, in bytes.
const PUBLISH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most events in one publish request.
const PUBLISH_EVENTS_MAX: usize = 1_000;
/// How deep the JSON of an event may nest: every subscriber must be able to read it.
const DEPTH_MAX: usize = 64;
/// How many events a page holds, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// How many events of others are looked through for one page of a guest's own.
const SCAN_EVENTS_MAX: usize = 10_000;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/events", post(publish).layer(DefaultBodyLimit::max(PUBLISH_BYTES_MAX)).get(read))
        .route("/api/live", get(live::live))
        .route("/api/subscriptions", get(list_subscriptions))
        .route("/api/subscriptions/{name}", put(put_subscription).get(get_subscription))
        .route("/api/subscriptions/{name}/dead-letters", get(list_dead_letters))
        .route("/api/subscriptions/{name}/dead-letters/{position}/redrive", post(redrive))
        .route("/api/subscriptions/{name}/dead-letters/{position}/discard", post(discard))
        .with_state(shared)
}

pub(crate) fn subject_events(shared: Arc<Shared>, path: &str) -> Router {
    Router::new().route(path, get(read_subject)).with_state(shared)
}

#[derive(Serialize)]
struct Published {
    results: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    position: Position,
    duplicate: bool,
}

async fn publish(State(shared): State<Arc<Shared>>, caller: Caller, request: Request) -> Result<Response, Problem> {
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
        AppendError::Failed(_) => Problem::internal(),
        AppendError::Refused { landed, refusal } => {
            let landed = landed.len();
            Problem::conflict("other_content", format!("{refusal}; the {landed} events before it are in the log"))
                .field(format!("/{landed}"))
                .landed(landed)
        }
    }
}

pub(crate) fn engine_problem(error: &EngineError) -> Problem {
    match error {
        EngineError::VersionConflict { .. } => Problem::conflict("version_conflict", "somebody else changed it; try again"),
        EngineError::Busy => Problem::busy(),
        EngineError::Closed => Problem::unavailable("the broker is stopping"),
        EngineError::Failed(reason) => {
            tracing::error!(reason, "the log failed");
            Problem::internal()
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadQuery {
    subject: Option<String>,
    after: Option<i64>,
    limit: Option<usize>,
    share: Option<String>,
}

#[derive(Serialize)]
struct Page {
    items: Vec<Recorded>,
    /// What to give as `after` for more; none at the end of the log.
    next: Option<String>,
}

async fn read(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    GateOf(gate): GateOf,
    Query(query): Query<ReadQuery>,
) -> Result<Response, Problem> {
    let (after, limit) = (Position(query.after.unwrap_or(0).max(0)), page_size(query.limit)?);
    let page = match &query.subject {
        Some(subject) => subject_page(&shared, &caller, gate.as_deref(), subject, query.share.as_deref(), (after, limit)).await?,
        None => match &caller {
            Caller::Operator => full_page(&shared, after, limit).await?,
            Caller::Guest(owner) => own_page(&shared, owner, after, limit).await?,
            Caller::Anonymous => return Err(Problem::unauthorized()),
            Caller::Service(_) => return Err(Problem::forbidden("services get events by subscribing")),
        },
    };
    Ok(no_store(Json(page)))
}

async fn read_subject(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    GateOf(gate): GateOf,
    Params(subject): Params<String>,
    Query(query): Query<ReadQuery>,
) -> Result<Response, Problem> {
    if query.subject.is_some() {
        return Err(Problem::bad_request("invalid_query", "the subject is in the path"));
    }
    let window = (Position(query.after.unwrap_or(0).max(0)), page_size(query.limit)?);
    let page = subject_page(&shared, &caller, gate.as_deref(), &subject, query.share.as_deref(), window).await?;
    Ok(no_store(Json(page)))
}

fn page_size(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(PAGE) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(Problem::bad_request("invalid_query", "`limit` must be 1 to 1000").field("limit")),
    }
}

async fn subject_page(
    shared: &Shared,
    caller: &Caller,
    gate: Option<&Gate>,
    subject: &str,
    share: Option<&str>,
    (after, limit): (Position, usize),
) -> Result<Page, Problem> {
    let unknown = || Problem::not_found("no such subject");
    let gate = gate.ok_or_else(Problem::internal)?;
    let first = shared.engine.read_lane(subject, Position::START, 1).await.map_err(|error| engine_problem(&error))?;
    let may_read = match first.first() {
        Some(first) => caller.may_read(gate, first.event.owner.as_deref(), subject, share),
        // A share token is given out before the first event is in the log: until then its bearer sees that there is none.
        None => share.is_some_and(|token| gate.keyring.is_share_token(token, subject)),
    };
    if !may_read {
        return Err(unknown());
    }
    let items = shared.engine.read_lane(subject, after, limit).await.map_err(|error| engine_problem(&error))?;
    let last = items.last().map(|last| last.position);
    let more = match last {
        Some(last) => !shared.engine.read_lane(subject, last, 1).await.map_err(|error| engine_problem(&error))?.is_empty(),
        None => false,
    };
    Ok(Page { next: last.filter(|_| more).map(|last| last.to_string()), items })
}

async fn full_page(shared: &Shared, after: Position, limit: usize) -> Result<Page, Problem> {
    let items = shared.engine.read(after, limit).await.map_err(|error| engine_problem(&error))?;
    let next = items.last().filter(|last| last.position < shared.engine.tail().last()).map(|last| last.position.to_string());
    Ok(Page { items, next })
}

/// A guest's own events. What belongs to others is looked through up to a limit; then the page ends early.
async fn own_page(shared: &Shared, owner: &str, mut after: Position, limit: usize) -> Result<Page, Problem> {
    let (mut items, mut scanned) = (Vec::new(), 0);
    while items.len() < limit && scanned < SCAN_EVENTS_MAX {
        let page = shared.engine.read(after, PAGE_MAX).await.map_err(|error| engine_problem(&error))?;
        if page.is_empty() {
            return Ok(Page { items, next: None });
        }
        for recorded in page {
            if items.len() == limit {
                break;
            }
            scanned += 1;
            after = recorded.position;
            if recorded.event.owner.as_deref() == Some(owner) {
                items.push(recorded);
            }
        }
        tokio::task::yield_now().await;
    }
    let next = (after < shared.engine.tail().last()).then(|| after.to_string());
    Ok(Page { items, next })
}

fn no_store(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

#[derive(Serialize)]
struct List<T> {
    items: Vec<T>,
}

fn operators_only(caller: &Caller) -> Result<(), Problem> {
    match caller {
        Caller::Operator => Ok(()),
        Caller::Anonymous => Err(Problem::unauthorized()),
        Caller::Guest(_) | Caller::Service(_) => Err(Problem::forbidden("this is for operators")),
    }
}

async fn list_subscriptions(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Json<List<Subscription>>, Problem> {
    operators_only(&caller)?;
    Ok(Json(List { items: shared.subscriptions.list() }))
}

async fn get_subscription(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
) -> Result<Json<Subscription>, Problem> {
    operators_only(&caller)?;
    shared.subscriptions.get(&name).map(Json).ok_or_else(|| Problem::not_found("no such subscription"))
}

async fn put_subscription(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    body: Body<Wanted>,
) -> Result<Json<Subscription>, Problem> {
    match &caller {
        Caller::Operator => {}
        Caller::Service(service) if *service == name => {}
        Caller::Service(_) => return Err(Problem::forbidden("a service registers its own subscription only")),
        Caller::Anonymous | Caller::Guest(_) => return Err(Problem::unauthorized()),
    }
    if body.value.sink.is_none() {
        return Err(Problem::unprocessable("invalid_subscription", "`sink` must be a URL").field("sink"));
    }
    shared.subscriptions.register(&name, body.value, None).await.map(Json).map_err(|error| match &error {
        RegisterError::Invalid { field, .. } => Problem::unprocessable("invalid_subscription", error.to_string()).field(*field),
        RegisterError::RevisionTaken { .. } => Problem::conflict("revision_taken", error.to_string()).field("revision"),
        RegisterError::TooMany => Problem::conflict("too_many_subscriptions", error.to_string()),
        RegisterError::Engine(error) => engine_problem(error),
    })
}

async fn list_dead_letters(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
) -> Result<Json<List<DeadLetter>>, Problem> {
    operators_only(&caller)?;
    shared.subscriptions.get(&name).ok_or_else(|| Problem::not_found("no such subscription"))?;
    let items = shared.subscriptions.dead_letters(&name).await.map_err(|error| engine_problem(&error))?;
    Ok(Json(List { items }))
}

async fn redrive(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params((name, position)): Params<(String, i64)>,
) -> Result<StatusCode, Problem> {
    operators_only(&caller)?;
    let is_there = shared.subscriptions.redrive(&name, Position(position)).await;
    if is_there { Ok(StatusCode::ACCEPTED) } else { Err(Problem::not_found("no such dead letter")) }
}

async fn discard(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params((name, position)): Params<(String, i64)>,
) -> Result<StatusCode, Problem> {
    operators_only(&caller)?;
    let is_there = shared.subscriptions.discard(&name, Position(position)).await;
    if is_there { Ok(StatusCode::ACCEPTED) } else { Err(Problem::not_found("no such dead letter")) }
}
