//! Sending a part of the log again.

use std::sync::Arc;

use axum::{Json, extract::State, response::Response};
use http::{StatusCode, header};
use kit::{
    Problem,
    http::{Body, Caller, Params},
};
use serde_json::Value;

use super::{List, no_store, operate_problem, operators_only, subscriptions};
use crate::{
    Shared,
    subscriptions::replays::{Asked, ReplayError},
};

pub(super) async fn create_replay(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    body: Body<Value>,
) -> Result<Response, Problem> {
    operators_only(&caller)?;
    let Value::Object(map) = body.value else { return Err(Problem::unprocessable("invalid_body", "the body must be a JSON object")) };
    let asked = Asked::parse(map).map_err(|error| subscriptions::invalid_problem("invalid_replay", &error))?;
    let shown = shared.subscriptions.replay(&name, asked).await.map_err(|error| replay_problem(&error))?;
    let location = format!("/api/subscriptions/{name}/replays/{}", shown.id);
    Ok(no_store((StatusCode::CREATED, [(header::LOCATION, location)], Json(shown))))
}

pub(super) async fn list_replays(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
) -> Result<Response, Problem> {
    operators_only(&caller)?;
    let items = shared.subscriptions.replays(&name).map_err(|error| replay_problem(&error))?;
    Ok(no_store(Json(List { items })))
}

pub(super) async fn read_replay(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params((name, id)): Params<(String, String)>,
) -> Result<Response, Problem> {
    operators_only(&caller)?;
    let shown = shared.subscriptions.one_replay(&name, &id).map_err(|error| replay_problem(&error))?;
    Ok(no_store(Json(shown)))
}

pub(super) async fn cancel_replay(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params((name, id)): Params<(String, String)>,
) -> Result<Response, Problem> {
    operators_only(&caller)?;
    let shown = shared.subscriptions.cancel_replay(&name, &id).await.map_err(|error| replay_problem(&error))?;
    Ok(no_store(Json(shown)))
}

fn replay_problem(error: &ReplayError) -> Problem {
    match error {
        ReplayError::Empty => Problem::unprocessable("invalid_replay", error.to_string()).field("from"),
        ReplayError::TooMany => Problem::conflict("too_many_replays", error.to_string()),
        ReplayError::Unknown(_) => Problem::not_found("no such replay"),
        ReplayError::Subscription(error) => operate_problem(error),
    }
}
