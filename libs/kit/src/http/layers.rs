//! What stands around every route: request ids, checks of `Host` and `Origin`, limits, problem documents for whatever went wrong.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tracing::Instrument;

use super::{Gate, Remote, Scheme};
use crate::{Environment, Problem};

/// The largest body, in bytes, where a route sets no other limit.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// How long an answer may take to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Names a request, in the answer and in logs.
pub const REQUEST_ID: &str = "x-request-id";

/// Finishes a router: gives it the gate and everything that stands around its routes.
pub fn finish(router: Router, gate: Arc<Gate>, environment: &Environment) -> Router {
    let shell = Arc::new(Shell { gate: gate.clone(), environment: environment.clone() });
    router
        .fallback(async || Problem::not_found("nothing can be found under this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not know the method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::Extension(gate))
        .layer(middleware::from_fn_with_state(shell, around))
}

struct Shell {
    gate: Arc<Gate>,
    environment: Environment,
}

async fn around(State(shell): State<Arc<Shell>>, mut request: Request, next: Next) -> Response {
    let remote = Remote::read(&shell.gate.proxies, request.extensions(), request.headers());
    request.extensions_mut().insert(remote);
    let id = shell.environment.ids.uuid_v7(shell.environment.clock.now()).simple().to_string();
    let span = tracing::info_span!(
        "request",
        request.id = %id,
        http.method = %request.method(),
        http.path = request.uri().path(),
        client.address = remote.address.map(tracing::field::display),
    );
    let mut response = match check(&shell.gate, &request, remote.scheme) {
        Ok(()) => {
            let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
            match tokio::time::timeout(ANSWER_TIMEOUT, answer).instrument(span).await {
                Ok(Ok(response)) => response,
                Ok(Err(_)) => {
                    tracing::error!(request.id = %id, "a handler panicked");
                    Problem::internal().into_response()
                }
                Err(_) => Problem::unavailable("this took too long").into_response(),
            }
        }
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    response
}

/// A page of another site can make a browser send requests here: the `Host` must be one of ours (DNS rebinding), and the `Origin` of
/// an unsafe request must be the host it was sent to (request forgery).
fn check(gate: &Gate, request: &Request, scheme: Scheme) -> Result<(), Problem> {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    let Some(host) = host else { return Err(Problem::bad_request("missing_host", "the request names no host")) };
    if !is_ours(gate, host) {
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", "this is not a name of this shop"));
    }
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_safe && !is_same_origin(request.headers(), host, scheme) {
        return Err(Problem::forbidden("requests from other sites are not taken"));
    }
    Ok(())
}

/// Whether a browser that sends these headers does so for a page of `host`. Programs send no `Origin`: they carry no cookies by accident.
/// To what is reached encrypted, a page from the clear is another site (anybody in between may have written it). The other way round
/// nothing is known: a proxy that we were not told of may have decrypted the request.
pub fn is_same_origin(headers: &HeaderMap, host: &str, scheme: Scheme) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Some((origin_scheme, origin_host)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else { return false };
    let is_scheme = match scheme {
        Scheme::Http => matches!(origin_scheme, "http" | "https"),
        Scheme::Https => origin_scheme == "https",
    };
    is_scheme && origin_host == host
}

fn is_ours(gate: &Gate, host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]") || gate.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}
