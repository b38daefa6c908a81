//! The routes: pages, the client app's files, the catalogue of scenarios and their runs.

/// What the routes look like from outside.
mod described;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use contract::{OrderId, api::ScenarioRun};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use kit::{
    Problem,
    http::{
        Caller, Gate, Params, Remote,
        extract::{parse_json, read_bytes},
        identity::{GateOf, session_cookie},
    },
};
use schemars::JsonSchema;
use serde::Serialize;

pub use described::{Contracts, describe};

use crate::{
    Storefront, pages,
    runs::{self, IDEMPOTENCY_KEY, KEY_BYTES_MAX, RunError},
    scenarios::{self, CATALOGUE, Scenario},
};

/// The storefront's routes, unfinished: [`kit::http::finish`] gives them the gate.
pub fn router(storefront: Storefront) -> Router {
    Router::new()
        .route("/", get(show_shop))
        .route("/scenarios", get(show_scenarios))
        .route("/scenario/{number}", get(show_scenario))
        .route("/orders/{order_id}", get(show_order))
        .route("/assets/{*path}", get(send_asset))
        .route("/favicon.ico", get(send_icon))
        .route("/api/scenarios", get(list_scenarios))
        .route("/api/scenarios/{number}", get(read_scenario))
        .route("/api/scenarios/{number}/runs", post(create_run))
        // Last of all: whatever no service has.
        .route("/{*path}", any(show_lost))
        .with_state(storefront)
}

async fn show_shop(
    State(storefront): State<Storefront>,
    GateOf(gate): GateOf,
    caller: Caller,
    remote: Remote,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let visitor = Visitor::of(&storefront, &gate.ok_or_else(Problem::internal)?, &caller, remote);
    Ok(visitor.welcome(pages::shop, headers))
}

async fn show_scenarios(
    State(storefront): State<Storefront>,
    GateOf(gate): GateOf,
    caller: Caller,
    remote: Remote,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let visitor = Visitor::of(&storefront, &gate.ok_or_else(Problem::internal)?, &caller, remote);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost:4000");
    let origin = format!("{}://{host}", remote.scheme);
    Ok(visitor.welcome(|headers| pages::scenarios(headers, &origin), headers))
}

/// A page for browsers, which starts nothing by itself; for programs that ask for JSON a run at once.
async fn show_scenario(
    State(storefront): State<Storefront>,
    GateOf(gate): GateOf,
    caller: Caller,
    remote: Remote,
    Params(number): Params<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let gate = gate.ok_or_else(Problem::internal)?;
    let visitor = Visitor::of(&storefront, &gate, &caller, remote);
    let mut response = match (scenarios::find(&number), wants(&headers)) {
        // Asking what a GET would answer must not do what it does.
        (Some(_), Wants::Json) if method != Method::GET => Json(()).into_response(),
        (Some(scenario), Wants::Json) => {
            refuse_accidents(&headers)?;
            run(&storefront, &gate, visitor, scenario, &headers).await?
        }
        (Some(scenario), Wants::Page | Wants::Anything) => visitor.welcome(|headers| pages::scenario(headers, scenario), headers),
        (None, Wants::Page) => visitor.welcome(|headers| pages::not_found(headers, &format!("There is no scenario {number}.")), headers),
        (None, Wants::Json | Wants::Anything) => unknown_scenario(&number).into_response(),
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// The page asks the order's API itself: whether the order is there, and for whom, is not the storefront's to say.
async fn show_order(
    State(storefront): State<Storefront>,
    GateOf(gate): GateOf,
    caller: Caller,
    remote: Remote,
    Params(order_id): Params<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let visitor = Visitor::of(&storefront, &gate.ok_or_else(Problem::internal)?, &caller, remote);
    match (order_id.parse::<OrderId>(), wants(&headers)) {
        (Ok(_), _) => Ok(visitor.welcome(pages::order, headers)),
        (Err(_), Wants::Page) => Ok(visitor.welcome(|headers| pages::not_found(headers, "There is no order of this number."), headers)),
        (Err(error), Wants::Json | Wants::Anything) => Err(Problem::not_found(error.to_string())),
    }
}

async fn send_asset(Params(path): Params<String>, headers: HeaderMap) -> Result<Response, Problem> {
    pages::asset(&headers, &path).ok_or_else(|| Problem::not_found("the client app has no such file"))
}

/// Browsers ask for it by this name where no page says otherwise, e.g. beside an answer in JSON.
async fn send_icon(headers: HeaderMap) -> Result<Response, Problem> {
    pages::asset(&headers, "app/icon.ico").ok_or_else(Problem::internal)
}

/// What stands under no path: a page for people, a problem for programs.
async fn show_lost(
    State(storefront): State<Storefront>,
    GateOf(gate): GateOf,
    caller: Caller,
    remote: Remote,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let is_read = matches!(method, Method::GET | Method::HEAD);
    let mut response = match wants(&headers) {
        Wants::Page if is_read => {
            let visitor = Visitor::of(&storefront, &gate.ok_or_else(Problem::internal)?, &caller, remote);
            visitor.welcome(|headers| pages::not_found(headers, &format!("There is nothing at {}.", uri.path())), headers)
        }
        Wants::Page | Wants::Json | Wants::Anything => Problem::not_found("nothing can be found under this path").into_response(),
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

#[derive(Serialize, JsonSchema)]
struct Catalogue {
    items: &'static [Scenario],
}

async fn list_scenarios() -> Json<Catalogue> {
    Json(Catalogue { items: CATALOGUE })
}

async fn read_scenario(Params(number): Params<String>) -> Result<Json<Scenario>, Problem> {
    scenarios::find(&number).copied().map(Json).ok_or_else(|| unknown_scenario(&number))
}

async fn create_run(
    State(storefront): State<Storefront>,
    GateOf(gate): GateOf,
    caller: Caller,
    remote: Remote,
    Params(number): Params<String>,
    request: Request,
) -> Result<Response, Problem> {
    let gate = gate.ok_or_else(Problem::internal)?;
    let scenario = scenarios::find(&number).ok_or_else(|| unknown_scenario(&number))?;
    let headers = request.headers().clone();
    // Also without a body: no form of another site can send this type.
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media.split(';').next().unwrap_or_default().trim() != "application/json" {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "the content type must be application/json",
        ));
    }
    let body = read_bytes(request, &()).await?;
    if !body.is_empty() {
        let options: serde_json::Map<String, serde_json::Value> = parse_json(&body)?;
        if !options.is_empty() {
            return Err(Problem::unprocessable("invalid_body", "a run takes no options"));
        }
    }
    let visitor = Visitor::of(&storefront, &gate, &caller, remote);
    run(&storefront, &gate, visitor, scenario, &headers).await
}

async fn run(
    storefront: &Storefront,
    gate: &Gate,
    visitor: Visitor,
    scenario: &Scenario,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    if !gate.is_playground {
        return Err(Problem::new(StatusCode::FORBIDDEN, "playground_only", "scenarios run in playground mode only"));
    }
    let key = idempotency_key(storefront, headers)?;
    let run = runs::start(storefront, &gate.keyring, &visitor.owner, scenario, &key).await.map_err(|error| {
        tracing::warn!(scenario = scenario.number, %error, "a run could not be started");
        match error {
            RunError::Busy => Problem::busy(),
            RunError::Unavailable(_) => Problem::unavailable(
                "the order service does not answer; nothing was ordered, or it will be found by the same idempotency key",
            ),
        }
    })?;
    let location = HeaderValue::try_from(run.links.order.as_str()).ok();
    let mut response = visitor.open_session((StatusCode::CREATED, Json::<ScenarioRun>(run)).into_response());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().extend(location.map(|location| (header::LOCATION, location)));
    Ok(response)
}

/// The client's own key, so that it may send its request again; otherwise a new one.
fn idempotency_key(storefront: &Storefront, headers: &HeaderMap) -> Result<String, Problem> {
    match headers.get(IDEMPOTENCY_KEY) {
        None => Ok(new_id(storefront)),
        Some(key) => match key.to_str() {
            Ok(key) if (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(key.to_owned()),
            _ => Err(Problem::bad_request("invalid_idempotency_key", "the key must be 1 to 128 visible ASCII characters")
                .field("Idempotency-Key")),
        },
    }
}

/// A GET that starts something must be meant: not loaded ahead of a click, not embedded in another site's page.
fn refuse_accidents(headers: &HeaderMap) -> Result<(), Problem> {
    let says = |name: &str, word: &str| {
        headers.get_all(name).iter().any(|value| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains(word)))
    };
    if says("sec-fetch-site", "cross-site") {
        return Err(Problem::forbidden("a run cannot be started from another site"));
    }
    if ["sec-purpose", "purpose", "x-moz"].iter().any(|name| says(name, "prefetch")) {
        return Err(Problem::forbidden("a run cannot be started ahead of time"));
    }
    Ok(())
}

enum Wants {
    Page,
    Json,
    Anything,
}

/// A browser names HTML, a program JSON; a browser that names both is still a browser.
fn wants(headers: &HeaderMap) -> Wants {
    let accepts = |media: &str| {
        headers.get_all(header::ACCEPT).iter().any(|value| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains(media)))
    };
    if accepts("text/html") {
        Wants::Page
    } else if accepts("application/json") {
        Wants::Json
    } else {
        Wants::Anything
    }
}

/// Who visits: by the session they came with, or by one that the answer opens.
struct Visitor {
    owner: String,
    new_session: Option<HeaderValue>,
}

impl Visitor {
    fn of(storefront: &Storefront, gate: &Arc<Gate>, caller: &Caller, remote: Remote) -> Self {
        match caller.owner() {
            Some(owner) => Self { owner: owner.to_owned(), new_session: None },
            None => {
                let owner = format!("guest-{}", new_id(storefront));
                let new_session = session_cookie(&gate.keyring, &owner, remote.scheme);
                Self { owner, new_session }
            }
        }
    }

    /// Shows a page, and opens a session with it where there is none. That answer is whole and kept by no cache: a copy of it would
    /// hand the session to somebody else.
    fn welcome(self, page: impl FnOnce(&HeaderMap) -> Response, mut headers: HeaderMap) -> Response {
        if self.new_session.is_some() {
            headers.remove(header::IF_NONE_MATCH);
        }
        self.open_session(page(&headers))
    }

    fn open_session(self, mut response: Response) -> Response {
        if let Some(cookie) = self.new_session {
            response.headers_mut().append(header::SET_COOKIE, cookie);
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        response
    }
}

fn new_id(storefront: &Storefront) -> String {
    storefront.environment.ids.uuid_v7(storefront.environment.clock.now()).simple().to_string()
}

fn unknown_scenario(number: &str) -> Problem {
    let number: String = number.chars().take(32).collect();
    Problem::not_found(format!("there is no scenario `{number}`; GET /api/scenarios lists them"))
}
