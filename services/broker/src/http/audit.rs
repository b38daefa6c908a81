//! Checking the books of a subscription against the log.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, response::Response};
use kit::{
    Position, Problem,
    http::{Params, Query},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{caller::Caller, engine_problem, may_operate, no_store, subscriptions};
use crate::{
    Shared,
    audit::{AuditError, Check, Folding},
    lanes::Counts,
};

/// How long one request reads the log: well within the time until an answer must begin.
const PART_TIME: Duration = Duration::from_secs(10);

/// What an audit answers.
#[derive(Serialize, JsonSchema)]
pub(super) struct Audited<'a> {
    subscription: &'a str,
    /// Whether the log bears the books out; none while not all of it was read.
    agrees: Option<bool>,
    /// What became of the events up to here was counted.
    up_to: Position,
    /// What to give as `after` to go on; none when all was read.
    next: Option<Position>,
    /// What the books say became of them.
    books: Books,
    /// What was counted twice, and what the two counts came to; nothing while not all of the log was read.
    checks: &'a [Check],
}

/// An audit that was left before its end.
pub(crate) struct Unfinished {
    subscription: String,
    folding: Folding,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// Goes on with the audit that was left here.
    after: Option<Position>,
}

/// Like the `counts` of a subscription's status, which go on where these end.
#[derive(Serialize, JsonSchema)]
struct Books {
    matched: i64,
    delivered: i64,
    dead_lettered: i64,
    discarded: i64,
    expired: i64,
    pending: i64,
}

pub(super) async fn audit(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    Query(query): Query<AuditQuery>,
) -> Result<Response, Problem> {
    may_operate(&caller, &name)?;
    let Ok(mut last) = shared.auditing.try_lock() else {
        return Err(Problem::busy());
    };
    let clock = &shared.environment.clock;
    let began_at = clock.now();
    let is_enough = || clock.now().since(began_at) >= PART_TIME;
    answer_part(&shared, &mut last, (&name, query.after), is_enough).await
}

/// Reads until all is read or `is_enough`, and answers what came of it.
pub(crate) async fn answer_part(
    shared: &Shared,
    last: &mut Option<Unfinished>,
    (name, after): (&str, Option<Position>),
    is_enough: impl Fn() -> bool,
) -> Result<Response, Problem> {
    let folding = read_part(shared, last, (name, after), is_enough).await?;
    if !folding.is_done() {
        let ((up_to, books), next) = (folding.books(), Some(folding.after()));
        let audited = Audited { subscription: name, agrees: None, up_to, next, books: books.into(), checks: &[] };
        *last = Some(Unfinished { subscription: name.to_owned(), folding });
        return Ok(no_store(Json(audited)));
    }
    let report = folding.report();
    let agrees = report.agrees();
    if !agrees {
        tracing::error!(subscription = name, checks = ?report.checks, "the books are wrong");
    }
    let (up_to, books) = (report.up_to, report.books.into());
    let audited = Audited { subscription: name, agrees: Some(agrees), up_to, next: None, books, checks: &report.checks };
    Ok(no_store(Json(audited)))
}

/// Begins an audit of the subscription `name`, or goes on with the one that was left at `after`. An audit that was left is dropped once
/// another begins.
async fn read_part(
    shared: &Shared,
    last: &mut Option<Unfinished>,
    (name, after): (&str, Option<Position>),
    is_enough: impl Fn() -> bool,
) -> Result<Folding, Problem> {
    let Some(after) = after else {
        *last = None;
        return shared.subscriptions.begin_audit(name, is_enough).await.map_err(|error| match &error {
            AuditError::Unknown(_) => subscriptions::unknown(),
            AuditError::Engine(error) => engine_problem(error),
            AuditError::Wrong { .. } => Problem::internal(),
        });
    };
    if shared.subscriptions.get(name).is_none() {
        return Err(subscriptions::unknown());
    }
    let left = last.take_if(|left| left.subscription == name && left.folding.after() == after);
    let Some(Unfinished { mut folding, .. }) = left else {
        let detail = "no audit of this subscription was left at that place, or another one has begun since; begin anew without `after`";
        return Err(Problem::conflict("other_audit", detail).field("after"));
    };
    shared.subscriptions.go_on_with_audit(&mut folding, is_enough).await.map_err(|error| engine_problem(&error))?;
    Ok(folding)
}

impl From<Counts> for Books {
    fn from(counts: Counts) -> Self {
        let Counts { delivered, deferred, dead_lettered, discarded, expired } = counts;
        Self { matched: counts.total(), delivered, dead_lettered, discarded, expired, pending: deferred }
    }
}
