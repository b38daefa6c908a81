//! Pausing, resuming and seeking.

use std::sync::Arc;

use axum::{Json, extract::State, response::Response};
use kit::{
    Position, Problem,
    http::{Body, Params},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{caller::Caller, may_operate, no_store, operate_problem, subscriptions};
use crate::{
    Shared,
    subscriptions::wanted::{Fields, Start, invalid},
};

pub(super) async fn pause(State(shared): State<Arc<Shared>>, caller: Caller, Params(name): Params<String>) -> Result<Response, Problem> {
    set_paused(&shared, &caller, &name, true).await
}

pub(super) async fn resume(State(shared): State<Arc<Shared>>, caller: Caller, Params(name): Params<String>) -> Result<Response, Problem> {
    set_paused(&shared, &caller, &name, false).await
}

async fn set_paused(shared: &Shared, caller: &Caller, name: &str, is_paused: bool) -> Result<Response, Problem> {
    may_operate(caller, name)?;
    shared.subscriptions.pause(name, is_paused).await.map_err(|error| operate_problem(&error))?;
    subscriptions::show(shared, name).await
}

/// What a seek does, or would do.
#[derive(Serialize, JsonSchema)]
pub(super) struct Sought {
    /// The subscription starts after this position.
    after: Position,
    /// How many lanes that were set aside are dissolved.
    lanes_dissolved: usize,
    /// How many dead letters are discarded, or forgotten because their events come again.
    dead_letters_dropped: usize,
    dry_run: bool,
}

pub(super) async fn seek(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    body: Body<Value>,
) -> Result<Response, Problem> {
    may_operate(&caller, &name)?;
    let Value::Object(map) = body.value else { return Err(Problem::unprocessable("invalid_body", "the body must be a JSON object")) };
    let mut fields = Fields(map);
    let read = (|| {
        let to: Option<Start> = fields.take("to")?;
        let dry_run: Option<bool> = fields.take("dry_run")?;
        fields.finish()?;
        let to = to.ok_or_else(|| invalid("to", "must be \"earliest\", \"latest\", {\"position\": …} or {\"time\": …}"))?;
        to.check("to")?;
        Ok((to, dry_run.unwrap_or(false)))
    })();
    let (to, dry_run) = read.map_err(|error| subscriptions::invalid_problem("invalid_seek", &error))?;
    let status = shared.subscriptions.get(&name).ok_or_else(subscriptions::unknown)?.status;
    let after =
        if dry_run { shared.subscriptions.resolve(to).await.map_err(Into::into) } else { shared.subscriptions.seek(&name, to).await };
    let after = after.map_err(|error| operate_problem(&error))?;
    let (lanes_dissolved, dead_letters_dropped) = (status.lanes_set_aside, status.dead_letters);
    Ok(no_store(Json(Sought { after, lanes_dissolved, dead_letters_dropped, dry_run })))
}
