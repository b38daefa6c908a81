//! What the services say and take, as documents for programs: each describes its own part, and here they become one.

/// What is said in events.
mod asyncapi;

use std::sync::LazyLock;

use bytes::Bytes;
use kit::{describe::Api, http::health, metrics};
use serde_json::{Value, json};
use storefront::Contracts;

use crate::routes;

/// The parts of the HTTP API.
const TAGS: &[(&str, &str)] = &[
    ("orders", "Ordering, and what becomes of orders."),
    ("events", "The log of all events: publishing, reading, live."),
    ("subscriptions", "Who gets what, pushed to a URL."),
    ("operating", "Stopping and moving subscriptions, and why an event did not arrive."),
    ("dead letters", "Events that were given up."),
    ("replays", "Sending a part of the log again."),
    ("tokens", "What programs outside the shop may do."),
    ("scenarios", "Orders whose simulated parts follow a script."),
    ("pages", "For people."),
    ("process", "How a process is, and these documents."),
];

/// Both documents, each made once, for the first one who asks: most starts need neither.
pub(crate) const ALL: Contracts = Contracts { openapi: || OPENAPI.clone(), asyncapi: || ASYNCAPI.clone() };

static OPENAPI: LazyLock<Bytes> = LazyLock::new(|| openapi().to_string().into());
static ASYNCAPI: LazyLock<Bytes> = LazyLock::new(|| asyncapi::document().to_string().into());

/// The HTTP API of all services, as OpenAPI 3.1.
fn openapi() -> Value {
    let mut api = Api::new();
    order::describe(&mut api);
    broker::describe(&mut api);
    broker::describe_subject_events(&mut api, routes::ORDER_EVENTS, &order::order_id());
    storefront::describe(&mut api);
    health::describe(&mut api);
    metrics::describe(&mut api);
    api.document(&info("Cascade", "An event-driven shop over HTTP. What is said in events stands in `/asyncapi.json`."), TAGS)
}

fn info(title: &str, description: &str) -> Value {
    json!({
        "title": title,
        "version": env!("CARGO_PKG_VERSION"),
        "description": description,
        "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
    })
}
