//! What the storefront's routes look like from outside, and the shop's contracts, which it serves.

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use contract::api::ScenarioRun;
use http::header;
use kit::describe::{Api, Input, Operation, Who, schemas};
use serde_json::{Value, json};

use super::{Catalogue, KEY_BYTES_MAX};
use crate::scenarios::Scenario;

/// What all services together say and take, as documents. Each is made when it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Contracts {
    /// Their HTTP API, as OpenAPI 3.1 in JSON.
    pub openapi: fn() -> Bytes,
    /// Their events, as AsyncAPI 3.0 in JSON.
    pub asyncapi: fn() -> Bytes,
}

impl Contracts {
    /// Serves them.
    pub fn router(self) -> Router {
        let Self { openapi, asyncapi } = self;
        Router::new()
            .route("/openapi.json", get(async move || document(openapi())))
            .route("/asyncapi.json", get(async move || document(asyncapi())))
    }
}

fn document(json: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], json).into_response()
}

/// Describes the routes of [`router`](super::router) and of [`Contracts`].
pub fn describe(api: &mut Api) {
    pages(api);
    let number = Input { name: "number", says: "The scenario.", schema: json!({"type": "string", "pattern": "^[0-9]{1,9}$"}) };
    let catalogue = operation(("get", "/api/scenarios"), "listScenarios", "The catalogue of scenarios");
    api.add(catalogue.by_everybody().answers::<Catalogue>(200, "All of them."));
    let scenario = operation(("get", "/api/scenarios/{number}"), "readScenario", "A scenario: what it teaches, how it may end");
    api.add(scenario.by_everybody().with_path(&number).answers::<Scenario>(200, "The scenario."));
    let run = operation(("post", "/api/scenarios/{number}/runs"), "createRun", "Makes an order whose simulated parts follow a script");
    api.add(
        run.by(&[Who::Guest, Who::Everybody])
            .with_path(&number)
            .takes_what("application/json", json!({"type": "object", "maxProperties": 0}), vec![json!({})])
            .takes_nothing_too()
            .with_header(&schemas::idempotency_key(KEY_BYTES_MAX))
            .answers::<ScenarioRun>(201, "The run.")
            .with_headers(&["location", "set-cookie"])
            .problems(400, &["invalid_idempotency_key"])
            .problems(403, &["playground_only"])
            .problems(429, &["busy"]),
    );
    for (path, id, summary) in [
        ("/openapi.json", "readOpenApi", "This document"),
        ("/asyncapi.json", "readAsyncApi", "What is said in events, live streams and deliveries, as AsyncAPI 3.0"),
    ] {
        let operation = Operation::new(("get", path), id, summary).tag("process");
        api.add(operation.by_everybody().answers_with(200, "The document.", vec![("application/json", json!({"type": "object"}))]));
    }
}

/// Pages for people. Each opens a session for whoever has none.
fn pages(api: &mut Api) {
    let html = || ("text/html; charset=utf-8", json!({"type": "string"}));
    let page = |route, id, summary| {
        let operation = operation(route, id, summary).tag("pages").by(&[Who::Guest, Who::Everybody]);
        operation.answers_with(200, "The page.", vec![html()]).with_headers(&["set-cookie"])
    };
    api.add(page(("get", "/"), "showShop", "The shop"));
    api.add(page(("get", "/scenarios"), "showScenarios", "The scenarios"));
    let order_id = Input { name: "order_id", says: "The order.", schema: json!({"$ref": "#/components/schemas/OrderId"}) };
    api.add(page(("get", "/orders/{order_id}"), "showOrder", "An order, as it happens").with_path(&order_id));
    let number = Input { name: "number", says: "The scenario.", schema: json!({"type": "string", "pattern": "^[0-9]{1,9}$"}) };
    api.add(
        page(("get", "/scenario/{number}"), "showScenario", "A scenario, live; for programs that ask for JSON a run at once")
            .says("With `Accept: application/json` and nothing of HTML it starts a run, as `POST /api/scenarios/{number}/runs` does.")
            .with_path(&number)
            .with_header(&Input {
                name: "Idempotency-Key",
                says: "For a run, as `POST /api/scenarios/{number}/runs` takes it; for the page it means nothing.",
                schema: json!({"type": "string"}),
            })
            .answers::<ScenarioRun>(201, "The run.")
            .with_headers(&["location", "set-cookie"])
            .problems(400, &["invalid_idempotency_key"])
            .problems(403, &["forbidden", "playground_only"])
            .problems(429, &["busy"]),
    );
    let file = |route, id, summary| {
        let any: Vec<(&'static str, Value)> = vec![("*/*", json!({}))];
        Operation::new(route, id, summary).tag("pages").by_everybody().answers_with(200, "The file.", any)
    };
    let path = Input { name: "path", says: "The file's path.", schema: json!({"type": "string", "minLength": 1, "maxLength": 1_024}) };
    api.add(file(("get", "/assets/{path}"), "readAsset", "A file of the client app").with_path(&path));
    api.add(file(("get", "/favicon.ico"), "readIcon", "The shop's icon"));
}

fn operation(route: (&'static str, &'static str), id: &'static str, summary: &'static str) -> Operation {
    Operation::new(route, id, summary).tag("scenarios")
}
