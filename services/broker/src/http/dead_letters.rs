//! What was given up, and what becomes of it.

use std::sync::Arc;

use axum::{Json, extract::State, response::Response};
use kit::{
    EventId, Position, Problem, Recorded, Timestamp,
    http::{Body, Params, Query},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{caller::Caller, may_operate, no_store, operate_problem, page_size, subscriptions};
use crate::{
    Shared,
    dispatcher::Decision,
    lanes::{DeadLetter, LetterState},
    subscriptions::{
        arrivals::Tried,
        letters::{Choice, Chosen, Letter},
    },
    wire,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    after: Option<Position>,
    limit: Option<usize>,
    #[serde(default)]
    state: Listed,
}

/// Which dead letters are listed.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Listed {
    #[default]
    Waiting,
    Redriving,
    Discarded,
    All,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetterPage")]
pub(super) struct Page {
    items: Vec<Item>,
    /// What to give as `after` for more; none at the end.
    next: Option<Position>,
}

/// A dead letter.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetterSummary")]
struct Summary {
    position: Position,
    lane: String,
    state: &'static str,
    #[serde(with = "wire::optional_time")]
    #[schemars(with = "Option<Timestamp>")]
    discarded_at: Option<Timestamp>,
    status: Option<u16>,
    reason: String,
    attempts: u32,
    #[serde(with = "wire::optional_time")]
    #[schemars(with = "Option<Timestamp>")]
    first_attempt_at: Option<Timestamp>,
    #[serde(with = "wire::time")]
    #[schemars(with = "Timestamp")]
    given_up_at: Timestamp,
}

/// A dead letter in a list.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ListedDeadLetter")]
struct Item {
    #[serde(flatten)]
    summary: Summary,
    /// Which event it is; none if the log has lost it.
    event: Option<Named>,
}

/// An event, by what it is called.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventName")]
struct Named {
    source: String,
    id: EventId,
    #[serde(rename = "type")]
    ty: String,
    subject: Option<String>,
}

/// A dead letter with all that is known of it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
pub(super) struct Full {
    #[serde(flatten)]
    summary: Summary,
    /// The event; none if the log has lost it.
    event: Option<Recorded>,
    /// The first attempt and the last nine.
    last_attempts: Vec<Tried>,
    /// The first KiB of the last answer.
    answer: Option<String>,
}

pub(super) async fn list_dead_letters(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    may_operate(&caller, &name)?;
    let (after, limit) = (query.after.unwrap_or(Position::START), page_size(query.limit)?);
    let is_wanted: fn(LetterState) -> bool = match query.state {
        Listed::Waiting => |state| state == LetterState::Waiting,
        Listed::Redriving => |state| state == LetterState::Redriving,
        Listed::Discarded => |state| matches!(state, LetterState::Discarded { .. }),
        Listed::All => |_| true,
    };
    let (letters, is_more) =
        shared.subscriptions.letters(&name, (after, limit), is_wanted).await.map_err(|error| operate_problem(&error))?;
    let next = letters.last().map(|last| last.letter.position).filter(|_| is_more);
    Ok(no_store(Json(Page { items: letters.into_iter().map(item).collect(), next })))
}

pub(super) async fn read_dead_letter(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params((name, position)): Params<(String, Position)>,
) -> Result<Response, Problem> {
    may_operate(&caller, &name)?;
    let found = shared.subscriptions.letter(&name, position).await.map_err(|error| operate_problem(&error))?;
    let found = found.ok_or_else(unknown)?;
    let Letter { letter, event } = found;
    let summary = summary(&letter);
    let last_attempts = letter.history.attempts.into_iter();
    let last_attempts = last_attempts.map(|one| Tried { at: one.at, status: one.status, reason: one.reason }).collect();
    let answer = letter.history.answer.map(String::from);
    Ok(no_store(Json(Full { summary, event, last_attempts, answer })))
}

pub(super) async fn redrive(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params((name, position)): Params<(String, Position)>,
) -> Result<Response, Problem> {
    may_operate(&caller, &name)?;
    decide_one(&shared, &name, Decision::Redrive, position).await
}

pub(super) async fn discard(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params((name, position)): Params<(String, Position)>,
) -> Result<Response, Problem> {
    may_operate(&caller, &name)?;
    decide_one(&shared, &name, Decision::Discard, position).await
}

pub(super) async fn redrive_some(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    body: Body<Value>,
) -> Result<Response, Problem> {
    may_operate(&caller, &name)?;
    decide_some(&shared, &name, Decision::Redrive, body.value).await
}

pub(super) async fn discard_some(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    body: Body<Value>,
) -> Result<Response, Problem> {
    may_operate(&caller, &name)?;
    decide_some(&shared, &name, Decision::Discard, body.value).await
}

/// What was decided, or would be.
#[derive(Serialize, JsonSchema)]
pub(super) struct Decided {
    /// The dead letters that it was decided on.
    positions: Vec<Position>,
    /// What to give as `after` for more; none at the end.
    next: Option<Position>,
    dry_run: bool,
}

async fn decide_one(shared: &Shared, name: &str, decision: Decision, position: Position) -> Result<Response, Problem> {
    let count = shared.subscriptions.decide(name, decision, vec![position]).await.map_err(|error| operate_problem(&error))?;
    if count == 0 {
        return Err(unknown());
    }
    Ok(no_store(Json(Decided { positions: vec![position], next: None, dry_run: false })))
}

async fn decide_some(shared: &Shared, name: &str, decision: Decision, body: Value) -> Result<Response, Problem> {
    let Value::Object(map) = body else { return Err(Problem::unprocessable("invalid_body", "the body must be a JSON object")) };
    let (choice, dry_run) = Choice::parse(map).map_err(|error| subscriptions::invalid_problem("invalid_choice", &error))?;
    let Chosen { positions, next } = shared.subscriptions.choose(name, &choice).await.map_err(|error| operate_problem(&error))?;
    if !dry_run {
        shared.subscriptions.decide(name, decision, positions.clone()).await.map_err(|error| operate_problem(&error))?;
    }
    Ok(no_store(Json(Decided { positions, next, dry_run })))
}

fn unknown() -> Problem {
    Problem::not_found("no such dead letter")
}

fn item(Letter { letter, event }: Letter) -> Item {
    let event = event.map(|one| Named {
        source: one.event.source.clone(),
        id: one.event.id.clone(),
        ty: one.event.ty.clone(),
        subject: one.event.subject.clone(),
    });
    Item { summary: summary(&letter), event }
}

fn summary(letter: &DeadLetter) -> Summary {
    let (state, discarded_at) = match letter.state {
        LetterState::Waiting => ("waiting", None),
        LetterState::Redriving => ("redriving", None),
        LetterState::Discarded { at } => ("discarded", Some(at)),
    };
    Summary {
        position: letter.position,
        lane: letter.lane.as_str().to_owned(),
        state,
        discarded_at,
        status: letter.status,
        reason: letter.reason.clone(),
        attempts: letter.attempts,
        first_attempt_at: letter.history.since,
        given_up_at: letter.given_up_at,
    }
}
