//! `/asyncapi.json` against what the shop really says: in its log, to browsers, and to a subscriber. And with AsyncAPI's own parser.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]
#![allow(clippy::disallowed_methods, reason = "a subscriber of a test is no part of the shop")]

mod contracts;
mod shop;

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    http::{HeaderMap, Method, StatusCode},
    routing::post,
};
use contracts::{Cases, Draft, INSTALL};
use kit::{http::identity::OPERATOR, security::Keyring};
use serde_json::{Map, Value, json};
use shop::{Customer, Shop, live::Socket, wait_until};

async fn document(shop: &Shop) -> Value {
    let answer = Customer::stranger(shop).get("/asyncapi.json").await;
    assert_eq!((answer.status, &answer.headers["content-type"]), (StatusCode::OK, &"application/json".parse().unwrap()));
    answer.json
}

/// The schema of a message.
fn payload<'a>(document: &'a Value, wire_type: &Value) -> &'a Value {
    &document["components"]["messages"][wire_type.as_str().unwrap()]["payload"]
}

/// Asks whether an event fits the message of its type.
fn add(cases: &mut Cases<'_>, document: &Value, event: &Value) {
    cases.add(payload(document, &event["type"]), event, event.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asyncapis_own_parser_finds_no_fault_in_the_document() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &[]);
    let text = document(&shop).await.to_string();
    let mut parser = Command::new("node");
    parser.arg(contracts::file("asyncapi.mjs")).arg(contracts::testbed("node_modules/"));
    parser.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut parser = parser.spawn().unwrap_or_else(|error| panic!("node {INSTALL}: {error}"));
    parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = parser.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // 23 events, 4 notices, a delivery, its answer, and what others publish.
    assert_eq!(said.trim(), "30 messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_that_the_shop_says_fits_the_published_schema_of_its_type() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let (document, customer) = (document(&shop).await, Customer::visit(&shop).await);
    let (mut seen, mut cases) = (BTreeSet::new(), Cases::of(&document, Draft::Seven));
    for scenario in [1, 2, 3, 11, 12] {
        let order = customer.run(scenario).await;
        if scenario == 12 {
            customer.cancel(&order).await;
        }
        customer.end_of(&order).await;
        for event in customer.events_of(&order).await {
            add(&mut cases, &document, &event);
            seen.insert(event["type"].as_str().unwrap().to_owned());
        }
    }
    assert!(seen.len() >= 12, "{seen:?}");
    // Live, too; what is said beside events comes first.
    let mut socket = Socket::open(&shop, &customer, "?after=0", &[]).await.unwrap();
    for _ in 0..seen.len() {
        add(&mut cases, &document, &socket.next().await.unwrap());
    }
    let welcome = json!({
        "specversion": "1.0", "id": "1", "source": "/broker", "type": "cascade.live.welcome.v1", "time": "2026-01-31T12:00:00Z",
        "datacontenttype": "application/json", "data": socket.welcome,
    });
    add(&mut cases, &document, &welcome);
    cases.fit();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_says_something_else_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let (document, customer) = (document(&shop).await, Customer::visit(&shop).await);
    let order = customer.run(2).await;
    customer.end_of(&order).await;
    let created = customer.events_of(&order).await.remove(0);
    let mut cases = Cases::of(&document, Draft::Seven);
    for (pointer, value) in [
        ("/type", json!("cascade.OrderCompleted.v1")),
        ("/source", json!("/payment")),
        ("/subject", json!("seven")),
        ("/position", json!("first")),
        ("/time", json!("noon")),
        ("/data", json!({})),
        ("/data/lines", json!([])),
        ("/data/lines/0/quantity", json!(0)),
        ("/data/total/amount_minor", json!(-1)),
        ("/data/total/currency", json!("euro")),
    ] {
        let mut other = created.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        cases.add(payload(&document, &created["type"]), &other, pointer);
    }
    cases.fail();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_gets_what_the_document_says_of_a_delivery() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let document = document(&shop).await;
    let deliveries: Arc<Mutex<Vec<(HeaderMap, Value)>>> = Arc::default();
    let taken = deliveries.clone();
    let sink = Router::new().route(
        "/events",
        post(async move |headers: HeaderMap, body: String| {
            taken.lock().unwrap().push((headers, serde_json::from_str(&body).unwrap()));
            StatusCode::NO_CONTENT
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wanted = json!({"sink": format!("http://{}/events", listener.local_addr().unwrap()), "revision": 1}).to_string();
    drop(tokio::spawn(async move { axum::serve(listener, sink).await }));
    let token = format!("Bearer {}", Keyring::load(&folder.path().join("secret")).unwrap().service_token(OPERATOR));
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let answer = Customer::stranger(&shop).send(Method::PUT, "/api/subscriptions/loyalty", &headers, wanted).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let customer = Customer::visit(&shop).await;
    let order = customer.run(2).await;
    customer.end_of(&order).await;
    wait_until("three events at the sink", async || {
        let count: usize = deliveries.lock().unwrap().iter().map(|(_, events)| events.as_array().unwrap().len()).sum();
        (count >= 3).then_some(())
    })
    .await;
    let message = &document["components"]["messages"]["delivery"];
    let mut cases = Cases::of(&document, Draft::Seven);
    for (headers, events) in deliveries.lock().unwrap().iter() {
        let headers: Map<_, _> = headers.iter().map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap()))).collect();
        cases.add(&message["headers"], &headers.into(), "headers");
        cases.add(&message["payload"], events, "body");
        events.as_array().unwrap().iter().for_each(|event| add(&mut cases, &document, event));
    }
    cases.fit();
}
