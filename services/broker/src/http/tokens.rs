//! Tokens for outsiders: making, listing, replacing and revoking them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use kit::{
    Problem,
    http::{Body, Params},
};
use serde_json::Value;

use super::{
    List, body_or_nothing,
    caller::{Caller, operators_or},
    engine_problem, no_store,
    subscriptions::invalid_problem,
};
use crate::{
    Shared,
    tokens::{NewToken, Rotation, TokenError},
};

pub(super) async fn create(State(shared): State<Arc<Shared>>, caller: Caller, body: Body<Value>) -> Result<Response, Problem> {
    managers_only(&caller)?;
    let new = NewToken::parse(body.value, &shared.rights, shared.environment.clock.now());
    let made = shared.tokens.create(new.map_err(|error| token_problem(&error.into()))?).await;
    let made = made.map_err(|error| token_problem(&error))?;
    let location = format!("/api/tokens/{}", made.shown.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], no_store(Json(made))).into_response())
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Response, Problem> {
    managers_only(&caller)?;
    Ok(no_store(Json(List { items: shared.tokens.list() })))
}

pub(super) async fn show(State(shared): State<Arc<Shared>>, caller: Caller, Params(name): Params<String>) -> Result<Response, Problem> {
    managers_only(&caller)?;
    Ok(no_store(Json(shared.tokens.get(&name).map_err(|error| token_problem(&error))?)))
}

pub(super) async fn rotate(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    request: Request,
) -> Result<Response, Problem> {
    managers_only(&caller)?;
    let rotation = Rotation::parse(body_or_nothing(request).await?, shared.environment.clock.now());
    let made = shared.tokens.rotate(&name, rotation.map_err(|error| token_problem(&error.into()))?).await;
    Ok(no_store(Json(made.map_err(|error| token_problem(&error))?)))
}

pub(super) async fn revoke(State(shared): State<Arc<Shared>>, caller: Caller, Params(name): Params<String>) -> Result<StatusCode, Problem> {
    managers_only(&caller)?;
    shared.tokens.revoke(&name).await.map_err(|error| token_problem(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

fn managers_only(caller: &Caller) -> Result<(), Problem> {
    operators_or(caller, |grant| grant.scopes.may_make_tokens())
}

fn token_problem(error: &TokenError) -> Problem {
    match error {
        TokenError::Invalid(error) => invalid_problem("invalid_token", error),
        TokenError::Exists(_) => Problem::conflict("token_exists", error.to_string()).field("name"),
        TokenError::NoSuchToken(_) => Problem::not_found(error.to_string()),
        TokenError::TooMany => Problem::conflict("too_many_tokens", error.to_string()),
        TokenError::Engine(error) => engine_problem(error),
    }
}
