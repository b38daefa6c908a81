//! Registering subscriptions, and how they stand.

use std::sync::Arc;

use axum::{Json, extract::State};
use kit::{
    Problem,
    http::{Body, Caller, Params},
};

use super::{List, engine_problem, operators_only};
use crate::{
    Shared,
    subscriptions::{RegisterError, Subscription, Wanted},
};

pub(super) async fn list_subscriptions(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Json<List<Subscription>>, Problem> {
    operators_only(&caller)?;
    Ok(Json(List { items: shared.subscriptions.list() }))
}

pub(super) async fn get_subscription(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
) -> Result<Json<Subscription>, Problem> {
    operators_only(&caller)?;
    shared.subscriptions.get(&name).map(Json).ok_or_else(|| Problem::not_found("no such subscription"))
}

pub(super) async fn put_subscription(
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
