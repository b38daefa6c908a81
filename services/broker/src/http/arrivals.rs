//! Why an event did or did not arrive, and whether one would be asked for.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, extract::State, response::Response};
use kit::{
    Envelope, Position, Problem, Recorded,
    http::{Body, Params},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{caller::Caller, engine_problem, may_operate, no_store, operators_only, subscriptions};
use crate::{
    Shared,
    filters::{self, Clause, Selection},
    subscriptions::{
        arrivals::Arrival,
        wanted::{Fields, Invalid, check_types, invalid},
    },
};

#[derive(Serialize, JsonSchema)]
pub(super) struct Deliveries {
    event: Recorded,
    items: Vec<Arrival>,
}

pub(super) async fn read_deliveries(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(position): Params<Position>,
) -> Result<Response, Problem> {
    operators_only(&caller)?;
    let event = find(&shared, position).await?;
    let items = shared.subscriptions.arrivals(&event).await.map_err(|error| engine_problem(&error))?;
    Ok(no_store(Json(Deliveries { event, items })))
}

/// Whether an event is asked for.
#[derive(Serialize, JsonSchema)]
pub(super) struct Explained {
    matches: bool,
    /// What does not hold for it.
    clause: Option<Clause>,
    event: Value,
}

/// What is to be explained.
struct Question {
    position: Option<Position>,
    event: Option<Envelope>,
    /// What to ask for, instead of what the subscription does.
    types: Option<Option<BTreeSet<String>>>,
    filters: Option<Vec<filters::Filter>>,
}

impl Question {
    fn parse(json: Value) -> Result<Self, Invalid> {
        let Value::Object(map) = json else { return Err(invalid("", "the body must be a JSON object")) };
        let mut fields = Fields(map);
        let filters = match fields.0.remove("filters") {
            Some(Value::Null) => Some(Vec::new()),
            Some(json) => Some(filters::parse(&json, "/filters")?),
            None => None,
        };
        let types = if fields.0.contains_key("types") { Some(fields.take("types")?) } else { None };
        let question = Self { position: fields.take("position")?, event: fields.take("event")?, types, filters };
        fields.finish()?;
        if let Some(Some(types)) = &question.types {
            check_types(types)?;
        }
        if let Some(error) = question.event.as_ref().and_then(|event| event.check().err()) {
            return Err(invalid("event", &format!("is none: {error}")));
        }
        match (&question.position, &question.event) {
            (Some(_), None) | (None, Some(_)) => Ok(question),
            (Some(_), Some(_)) | (None, None) => Err(invalid("position", "or `event` must say which event is meant; not both")),
        }
    }
}

pub(super) async fn explain(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    body: Body<Value>,
) -> Result<Response, Problem> {
    may_operate(&caller, &name)?;
    let question = Question::parse(body.value).map_err(|error| subscriptions::invalid_problem("invalid_question", &error))?;
    let asked = shared.subscriptions.get(&name).ok_or_else(subscriptions::unknown)?.wanted.selection;
    let selection = Selection { types: question.types.unwrap_or(asked.types), filters: question.filters.unwrap_or(asked.filters) };
    let (event, shown) = match (question.event, question.position) {
        (Some(event), _) => {
            let shown = serde_json::to_value(&event);
            (Arc::new(event), shown)
        }
        (None, position) => {
            let recorded = find(&shared, position.unwrap_or(Position::START)).await?;
            // Whoever asks about an event by its place must be allowed to see it.
            if !may_see(&caller, &recorded) {
                return Err(no_such_event());
            }
            let shown = serde_json::to_value(&recorded);
            (recorded.event, shown)
        }
    };
    let clause = selection.matches(&event).err();
    // An event that was read as JSON can be written as JSON.
    Ok(no_store(Json(Explained { matches: clause.is_none(), clause, event: shown.unwrap_or_default() })))
}

async fn find(shared: &Shared, position: Position) -> Result<Recorded, Problem> {
    let found = shared.engine.read_one(position).await.map_err(|error| engine_problem(&error))?;
    found.ok_or_else(no_such_event)
}

fn may_see(caller: &Caller, recorded: &Recorded) -> bool {
    match caller {
        Caller::Operator => true,
        Caller::Outsider(grant) => grant.scopes.read.as_ref().is_some_and(|read| read.shows(&recorded.event)),
        Caller::Anonymous | Caller::Guest(_) | Caller::Service(_) => false,
    }
}

fn no_such_event() -> Problem {
    Problem::not_found("no such event")
}
