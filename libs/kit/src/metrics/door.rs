//! `GET /metrics`, and who may look: how many orders a shop has is not for everybody. Loopback is no authorisation.

use std::{fmt, fs::File, io::Read, path::Path, sync::Arc};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, header};
use serde_json::json;
use subtle::ConstantTimeEq;

use super::Metrics;
use crate::{
    Problem,
    describe::{Api, Operation, Who},
    http::{Caller, identity::bearer},
};

/// What is shown, as Prometheus names it.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long a token may be, in bytes: at least, and at most.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=1_024;

/// A token that opens `/metrics` and nothing else.
#[derive(Clone)]
pub struct ScrapeToken(String);

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Its file cannot be read.
    #[error("file `{path}`: {cause}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        cause: std::io::Error,
    },
    /// It is too short to be a secret, too long, or no text that a header can hold.
    #[error("file `{0}` must hold a token of 16 to 1024 letters, digits or signs, and nothing else")]
    Malformed(String),
}

impl ScrapeToken {
    /// Reads the token that the file at `path` holds.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let name = || path.display().to_string();
        let limit = u64::try_from(TOKEN_BYTES.end() + 2).unwrap_or(u64::MAX);
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text));
        read.map_err(|cause| TokenError::File { path: name(), cause })?;
        let token = text.trim();
        if !TOKEN_BYTES.contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Malformed(name()));
        }
        Ok(Self(token.to_owned()))
    }

    fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl fmt::Debug for ScrapeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScrapeToken")
    }
}

struct Door {
    metrics: Arc<Metrics>,
    token: Option<ScrapeToken>,
}

/// The route `/metrics`: for operators, and for whoever has `token`.
pub fn route(metrics: Arc<Metrics>, token: Option<ScrapeToken>) -> Router {
    Router::new().route("/metrics", get(show)).with_state(Arc::new(Door { metrics, token }))
}

/// Describes the route.
pub fn describe(api: &mut Api) {
    let operation = Operation::new(("get", "/metrics"), "readMetrics", "What is counted and measured of the process");
    api.add(
        operation
            .says("For operators, and for whoever has the token that the setting `metrics_token_file` names.")
            .tag("process")
            .by(&[Who::Operator])
            .answers_with(200, "The numbers, in Prometheus' text format.", vec![("text/plain", json!({"type": "string"}))])
            .problems(403, &["forbidden"]),
    );
}

async fn show(State(door): State<Arc<Door>>, headers: HeaderMap, caller: Result<Caller, Problem>) -> Result<Response, Problem> {
    let is_scraper = door.token.as_ref().zip(bearer(&headers)).is_some_and(|(token, given)| token.is(given));
    if !is_scraper {
        match caller? {
            Caller::Operator => {}
            Caller::Anonymous => return Err(Problem::unauthorized()),
            Caller::Guest(_) | Caller::Service(_) => return Err(Problem::forbidden("this is for operators")),
        }
    }
    let text = door.metrics.show().await.map_err(|error| {
        tracing::error!(%error, "the metrics cannot be shown");
        Problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, "no-store")], text).into_response())
}
