//! Checking the books of a subscription against the log.

use std::sync::Arc;

use axum::{Json, extract::State, response::Response};
use kit::{Position, Problem, http::Params};
use schemars::JsonSchema;
use serde::Serialize;

use super::{caller::Caller, engine_problem, may_operate, no_store, subscriptions};
use crate::{
    Shared,
    audit::{AuditError, Check},
    lanes::Counts,
};

/// What an audit answers.
#[derive(Serialize, JsonSchema)]
pub(super) struct Audited<'a> {
    subscription: &'a str,
    /// Whether the log bears the books out.
    agrees: bool,
    /// What became of the events up to here was counted.
    up_to: Position,
    /// What the books say became of them.
    books: Books,
    /// What was counted twice, and what the two counts came to.
    checks: &'a [Check],
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

pub(super) async fn audit(State(shared): State<Arc<Shared>>, caller: Caller, Params(name): Params<String>) -> Result<Response, Problem> {
    may_operate(&caller, &name)?;
    let Ok(_one_at_a_time) = shared.auditing.try_lock() else {
        return Err(Problem::busy());
    };
    let report = shared.subscriptions.audit(&name).await.map_err(|error| match &error {
        AuditError::Unknown(_) => subscriptions::unknown(),
        AuditError::Engine(error) => engine_problem(error),
        AuditError::Wrong { .. } => Problem::internal(),
    })?;
    let agrees = report.agrees();
    if !agrees {
        tracing::error!(subscription = name, checks = ?report.checks, "the books are wrong");
    }
    let audited = Audited { subscription: &name, agrees, up_to: report.up_to, books: report.books.into(), checks: &report.checks };
    Ok(no_store(Json(audited)))
}

impl From<Counts> for Books {
    fn from(counts: Counts) -> Self {
        let Counts { delivered, deferred, dead_lettered, discarded, expired } = counts;
        Self { matched: counts.total(), delivered, dead_lettered, discarded, expired, pending: deferred }
    }
}
