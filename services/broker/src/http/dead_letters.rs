//! What was given up, and what becomes of it.

use std::sync::Arc;

use axum::{Json, extract::State};
use http::StatusCode;
use kit::{Position, Problem, http::Params};

use super::{List, caller::Caller, engine_problem, may_operate, operate_problem};
use crate::{Shared, dispatcher::Decision, lanes::DeadLetter};

pub(super) async fn list_dead_letters(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
) -> Result<Json<List<DeadLetter>>, Problem> {
    may_operate(&caller, &name)?;
    shared.subscriptions.get(&name).ok_or_else(|| Problem::not_found("no such subscription"))?;
    let items = shared.subscriptions.dead_letters(&name).await.map_err(|error| engine_problem(&error))?;
    Ok(Json(List { items }))
}

pub(super) async fn redrive(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params((name, position)): Params<(String, i64)>,
) -> Result<StatusCode, Problem> {
    may_operate(&caller, &name)?;
    decide(&shared, &name, Decision::Redrive, position).await
}

pub(super) async fn discard(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params((name, position)): Params<(String, i64)>,
) -> Result<StatusCode, Problem> {
    may_operate(&caller, &name)?;
    decide(&shared, &name, Decision::Discard, position).await
}

async fn decide(shared: &Shared, name: &str, decision: Decision, position: i64) -> Result<StatusCode, Problem> {
    match shared.subscriptions.decide(name, decision, vec![Position(position)]).await {
        Ok(0) => Err(Problem::not_found("no such dead letter")),
        Ok(_) => Ok(StatusCode::ACCEPTED),
        Err(error) => Err(operate_problem(&error)),
    }
}
