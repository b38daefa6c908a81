//! Whether a service is alive, and whether it wants requests.

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::StatusCode;
use serde_json::json;

use crate::{Lifecycle, Problem};

/// The routes `/health` (the process answers) and `/ready` (it takes new work: not while it stops).
pub fn routes(lifecycle: Lifecycle) -> Router {
    Router::new().route("/health", get(async || Json(json!({"status": "ok"})))).route("/ready", get(ready)).with_state(lifecycle)
}

async fn ready(State(lifecycle): State<Lifecycle>) -> Result<impl IntoResponse, Problem> {
    if lifecycle.is_draining() {
        Err(Problem::unavailable("the service is stopping"))
    } else {
        Ok((StatusCode::OK, Json(json!({"status": "ready"}))))
    }
}
