//! Whether a service is alive, and whether it wants requests.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    Lifecycle, Problem,
    describe::{Api, Operation},
};

/// Something that a service waits for before it wants requests. Clones are the same.
#[derive(Debug, Clone)]
pub struct Awaited {
    what: &'static str,
    is_there: Arc<AtomicBool>,
}

impl Awaited {
    /// Waits for `what`, which `/ready` names until it is there.
    pub fn new(what: &'static str) -> Self {
        Self { what, is_there: Arc::default() }
    }

    /// It is there, for as long as the process lives.
    pub fn arrived(&self) {
        self.is_there.store(true, Ordering::Release);
    }
}

/// The routes `/health` (the process answers) and `/ready` (it takes new work: not while it stops).
pub fn routes(lifecycle: Lifecycle) -> Router {
    routes_awaiting(None, lifecycle)
}

/// How a process is, in a word.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Process")]
struct Standing {
    status: &'static str,
}

/// Describes the two routes.
pub fn describe(api: &mut Api) {
    for (path, id, summary) in
        [("/health", "readHealth", "Whether the process answers"), ("/ready", "readReadiness", "Whether it wants requests")]
    {
        let operation = Operation::new(("get", path), id, summary).tag("process").by_everybody();
        api.add(operation.answers::<Standing>(200, "It does."));
    }
}

/// The same for a service that is not ready before `awaited` is there.
pub fn routes_awaiting(awaited: Option<Awaited>, lifecycle: Lifecycle) -> Router {
    Router::new()
        .route("/health", get(async || Json(Standing { status: "ok" })))
        .route("/ready", get(ready))
        .with_state(Arc::new((awaited, lifecycle)))
}

async fn ready(State(state): State<Arc<(Option<Awaited>, Lifecycle)>>) -> Result<impl IntoResponse, Problem> {
    let (awaited, lifecycle) = &*state;
    if lifecycle.is_leaving() {
        return Err(Problem::unavailable("the service is stopping"));
    }
    match awaited {
        Some(awaited) if !awaited.is_there.load(Ordering::Acquire) => {
            Err(Problem::unavailable(format!("the service waits for {}", awaited.what)))
        }
        _ => Ok((StatusCode::OK, Json(Standing { status: "ready" }))),
    }
}
