//! Reading the log.

use std::sync::Arc;

use axum::{Json, extract::State, response::Response};
use kit::{
    Position, Problem, Recorded,
    http::{Caller, Gate, Params, Query, identity::GateOf},
};
use serde::{Deserialize, Serialize};

use super::{engine_problem, no_store};
use crate::Shared;

/// How many events a page holds, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;
/// How many events of others are looked through for one page of a guest's own.
const SCAN_EVENTS_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
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

pub(super) async fn read(
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

pub(super) async fn read_subject(
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
