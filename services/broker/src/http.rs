//! The routes. Thin: extract, check, call, convert.

/// Who is asking.
pub(crate) mod caller;

/// Publishing.
pub(crate) mod publish;

/// Reading the log.
pub(crate) mod events;

/// Registering subscriptions, and how they stand.
mod subscriptions;

/// Pausing, resuming and seeking.
mod operate;

/// Checking the books against the log.
pub(crate) mod audit;

/// What was given up, and what becomes of it.
mod dead_letters;

/// Why an event did or did not arrive.
mod arrivals;

/// Sending a part of the log again.
mod replays;

/// Tokens for outsiders.
mod tokens;

/// What the routes look like from outside.
pub(crate) mod described;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequest, Request},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::{StatusCode, header};
use kit::{
    Problem,
    http::{Body, extract::read_bytes},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::{Shared, engine::EngineError, live, subscriptions::OperateError};
use caller::{Caller, operators_or};

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(
            "/api/events",
            post(publish::publish).layer(DefaultBodyLimit::max(publish::PUBLISH_BYTES_MAX)).get(events::read).options(publish::limits),
        )
        .route("/api/events/{position}", get(events::read_one))
        .route("/api/events/{position}/deliveries", get(arrivals::read_deliveries))
        .route("/api/live", get(live::live))
        .route("/api/subscriptions", get(subscriptions::list_subscriptions))
        .route(
            "/api/subscriptions/{name}",
            put(subscriptions::put_subscription)
                .get(subscriptions::get_subscription)
                .patch(subscriptions::patch_subscription)
                .delete(subscriptions::delete_subscription),
        )
        .route("/api/subscriptions/{name}/secret/rotate", post(subscriptions::rotate_secret))
        .route("/api/subscriptions/{name}/pause", post(operate::pause))
        .route("/api/subscriptions/{name}/resume", post(operate::resume))
        .route("/api/subscriptions/{name}/seek", post(operate::seek))
        .route("/api/subscriptions/{name}/audit", get(audit::audit))
        .route("/api/subscriptions/{name}/dead-letters", get(dead_letters::list_dead_letters))
        .route("/api/subscriptions/{name}/explain", post(arrivals::explain))
        .route("/api/subscriptions/{name}/dead-letters/redrive", post(dead_letters::redrive_some))
        .route("/api/subscriptions/{name}/dead-letters/discard", post(dead_letters::discard_some))
        .route("/api/subscriptions/{name}/dead-letters/{position}", get(dead_letters::read_dead_letter))
        .route("/api/subscriptions/{name}/dead-letters/{position}/redrive", post(dead_letters::redrive))
        .route("/api/subscriptions/{name}/dead-letters/{position}/discard", post(dead_letters::discard))
        .route("/api/subscriptions/{name}/replays", get(replays::list_replays).post(replays::create_replay))
        .route("/api/subscriptions/{name}/replays/{id}", get(replays::read_replay))
        .route("/api/subscriptions/{name}/replays/{id}/cancel", post(replays::cancel_replay))
        .route("/api/tokens", get(tokens::list).post(tokens::create))
        .route("/api/tokens/{name}", get(tokens::show).delete(tokens::revoke))
        .route("/api/tokens/{name}/rotate", post(tokens::rotate))
        .with_state(shared)
}

pub(crate) fn subject_events(shared: Arc<Shared>, path: &str) -> Router {
    Router::new().route(path, get(events::read_subject)).with_state(shared)
}

pub(crate) fn engine_problem(error: &EngineError) -> Problem {
    match error {
        EngineError::VersionConflict { .. } => Problem::conflict("version_conflict", "somebody else changed it; try again"),
        EngineError::Trimmed { .. } => Problem::new(StatusCode::GONE, "trimmed", error.to_string()),
        EngineError::LeaseHeld { .. } | EngineError::LeaseLost { .. } => Problem::unavailable("another broker has taken over"),
        EngineError::Busy => Problem::busy(),
        EngineError::Closed => Problem::unavailable("the broker is stopping"),
        EngineError::DiskFull => disk_full(),
        EngineError::Damaged { .. } => {
            tracing::error!(%error, "the log is damaged");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "log_damaged", error.to_string())
        }
        EngineError::Failed(reason) => {
            tracing::error!(reason, "the log failed");
            Problem::internal()
        }
    }
}

/// How long a publisher waits before it tries again when there is no room, in seconds.
const FULL_RETRY_AFTER_S: u32 = 5;

fn disk_full() -> Problem {
    let detail = "the disk of the broker is full; try again when there is room";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "disk_full", detail).retry_after_s(FULL_RETRY_AFTER_S)
}

fn operate_problem(error: &OperateError) -> Problem {
    match error {
        OperateError::Unknown(_) => subscriptions::unknown(),
        OperateError::Engine(error) => engine_problem(error),
    }
}

/// What a request says, where it need not say anything.
async fn body_or_nothing(request: Request) -> Result<Value, Problem> {
    if request.headers().contains_key(header::CONTENT_TYPE) {
        return Ok(Body::from_request(request, &()).await?.value);
    }
    if read_bytes(request, &()).await?.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "the body must be application/json"))
}

/// How many dead letters a page holds, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

fn page_size(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(PAGE) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(Problem::bad_request("invalid_query", "`limit` must be 1 to 1000").field("limit")),
    }
}

fn no_store(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub(crate) struct List<T> {
    items: Vec<T>,
}

/// Whoever may operate all subscriptions.
fn operators_only(caller: &Caller) -> Result<(), Problem> {
    operators_or(caller, |grant| grant.scopes.may_operate_all())
}

/// Whoever may operate the subscription `name`.
fn may_operate(caller: &Caller, name: &str) -> Result<(), Problem> {
    operators_or(caller, |grant| grant.scopes.may_operate(name))
}
