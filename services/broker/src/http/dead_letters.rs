//! What was given up, and what becomes of it.

use std::sync::Arc;

use axum::{Json, extract::State};
use http::StatusCode;
use kit::{
    Position, Problem,
    http::{Caller, Params},
};

use super::{List, engine_problem, operators_only};
use crate::{Shared, lanes::DeadLetter};

pub(super) async fn list_dead_letters(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
) -> Result<Json<List<DeadLetter>>, Problem> {
    operators_only(&caller)?;
    shared.subscriptions.get(&name).ok_or_else(|| Problem::not_found("no such subscription"))?;
    let items = shared.subscriptions.dead_letters(&name).await.map_err(|error| engine_problem(&error))?;
    Ok(Json(List { items }))
}

pub(super) async fn redrive(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params((name, position)): Params<(String, i64)>,
) -> Result<StatusCode, Problem> {
    operators_only(&caller)?;
    let is_there = shared.subscriptions.redrive(&name, Position(position)).await;
    if is_there { Ok(StatusCode::ACCEPTED) } else { Err(Problem::not_found("no such dead letter")) }
}

pub(super) async fn discard(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params((name, position)): Params<(String, i64)>,
) -> Result<StatusCode, Problem> {
    operators_only(&caller)?;
    let is_there = shared.subscriptions.discard(&name, Position(position)).await;
    if is_there { Ok(StatusCode::ACCEPTED) } else { Err(Problem::not_found("no such dead letter")) }
}
