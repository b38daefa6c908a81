//! Requests, counted and timed: by the template of their route, never by what stands in a path.

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::Response,
};
use http::Method;
use prometheus::{Error, HistogramOpts, HistogramVec, IntCounterVec, Opts};
use tokio::time::Instant;

/// The route of a request that has none.
const UNMATCHED: &str = "unmatched";
/// The method of a request whose method has no name here.
const OTHER: &str = "other";
/// Seconds.
const BUCKETS_S: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

pub(super) fn counted() -> Result<IntCounterVec, Error> {
    let opts = Opts::new("cascade_http_requests_total", "Requests that were answered.");
    IntCounterVec::new(opts, &["service", "method", "route", "status"])
}

pub(super) fn timed() -> Result<HistogramVec, Error> {
    let help = "Time from the head of a request until its answer began.";
    let opts = HistogramOpts::new("cascade_http_request_duration_seconds", help).buckets(BUCKETS_S.to_vec());
    HistogramVec::new(opts, &["service", "method", "route"])
}

#[derive(Clone)]
struct Counting {
    service: &'static str,
    requests: IntCounterVec,
    durations: HistogramVec,
}

pub(super) fn count(router: Router, service: &'static str, requests: IntCounterVec, durations: HistogramVec) -> Router {
    router.layer(middleware::from_fn_with_state(Counting { service, requests, durations }, around))
}

async fn around(State(counting): State<Counting>, request: Request, next: Next) -> Response {
    let method = method_name(request.method());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let began = Instant::now();
    let response = next.run(request).await;
    let route = path.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let Counting { service, requests, durations } = &counting;
    durations.with_label_values(&[*service, method, route]).observe(began.elapsed().as_secs_f64());
    requests.with_label_values(&[*service, method, route, response.status().as_str()]).inc();
    response
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}
