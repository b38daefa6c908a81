//! Live events with libraries that we did not write: a WebSocket and server-sent events, across a cut line, a killed shop and a lost past.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod clients;

mod shop;

use axum::http::{Method, StatusCode};
use clients::{Program, Stage, line::Line, make_token};
use serde_json::{Value, json};
use shop::{Customer, Shop, wait_until};

/// The smallest log that the shop may keep, in bytes.
const RETENTION_BYTES: &str = "67108864";
/// A request with as many events as it may have, so many of which are more than the log keeps.
const EVENTS_OF_A_REQUEST: usize = 40;
const EVENT_BYTES: usize = 200_000;
const REQUESTS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_go_on_where_they_were_when_the_line_is_cut_or_the_shop_killed_and_are_told_when_the_past_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &["--pace", "instant", "--retention-bytes", RETENTION_BYTES]);
    let scopes = ["--read", "cascade.*", "--read-owners", "--publish-as", "/client", "--publish", "client.*"];
    let token = make_token(&shop, folder.path(), "client", &scopes);
    let (line, stage, customer) = (Line::to(shop.port()).await, Stage::of("cascade/tests/clients"), Customer::visit(&shop).await);
    let port = line.port().to_string();
    let mut readers = ["socket", "sent"].map(|kind| stage.start("live.mjs", &[kind, &port, &token], &[]));
    for (reader, protocol) in readers.iter_mut().zip(["cloudevents.json", "text/event-stream"]) {
        let said = reader.wait_for("a welcome", |said| (said.len() > 1).then(|| said.to_vec())).await;
        assert_eq!(said[0], json!({"open": protocol}));
        assert_eq!((&said[1]["event"]["type"], &said[1]["event"]["source"]), (&json!("cascade.live.welcome.v1"), &json!("/broker")));
    }

    all_see(&mut readers, &customer, "at-first").await;
    line.cut();
    for reader in &mut readers {
        reader.wait_for("the cut", |said| said.iter().any(|line| line.get("closed").is_some()).then_some(())).await;
    }
    let missed = customer.all_events_of(&customer.order("while-the-line-is-cut").await.unwrap()).await;
    line.mend();
    all_have(&mut readers, &missed).await;
    shop.kill();
    shop.restart();
    all_see(&mut readers, &customer, "after-the-kill").await;
    let log = read(&shop, &token, "").await.json["items"].as_array().unwrap().clone();
    for reader in &readers {
        assert_eq!(shown(&reader.said()), log, "no event is left out, none comes twice");
        assert!(notices(reader, "reset").is_empty());
    }

    line.cut();
    let last = log.last().unwrap()["position"].as_str().unwrap();
    lose_the_past(&shop, &token, last).await;
    line.mend();
    all_see(&mut readers, &customer, "after-the-loss").await;
    for reader in &readers {
        let resets = notices(reader, "reset");
        assert_eq!(resets.len(), 1, "{resets:?}");
        assert_eq!((&resets[0]["reason"], &resets[0]["asked"]), (&json!("trimmed"), &json!(last)));
    }
}

/// Somebody orders, and every reader is shown all of it.
async fn all_see(readers: &mut [Program], customer: &Customer, key: &str) {
    let events = customer.all_events_of(&customer.order(key).await.unwrap()).await;
    all_have(readers, &events).await;
}

async fn all_have(readers: &mut [Program], events: &[Value]) {
    for reader in readers {
        reader.wait_for("an order's events", |said| shown(said).ends_with(events).then_some(())).await;
    }
}

fn shown(said: &[Value]) -> Vec<Value> {
    said.iter().filter_map(|line| line.get("event")).filter(|event| event.get("position").is_some()).cloned().collect()
}

/// What the notices of this name said.
fn notices(reader: &Program, name: &str) -> Vec<Value> {
    let events = reader.said().into_iter().map(|line| line["event"].clone());
    events.filter(|event| event["type"] == format!("cascade.live.{name}.v1")).map(|event| event["data"].clone()).collect()
}

async fn read(shop: &Shop, token: &str, query: &str) -> shop::Answer {
    let bearer = format!("Bearer {token}");
    Customer::stranger(shop).send(Method::GET, &format!("/api/events{query}"), &[("authorization", &bearer)], "").await.unwrap()
}

/// Publishes more than the log keeps, and waits until what comes after `position` is gone.
async fn lose_the_past(shop: &Shop, token: &str, position: &str) {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/cloudevents-batch+json")];
    for request in 0..REQUESTS {
        let event = |number| {
            let id = format!("{request}-{number}");
            json!({"specversion": "1.0", "id": id, "source": "/client", "type": "client.Much.v1", "data": "x".repeat(EVENT_BYTES)})
        };
        let events: Vec<_> = (0..EVENTS_OF_A_REQUEST).map(event).collect();
        let answer = Customer::stranger(shop).send(Method::POST, "/api/events", &headers, json!(events).to_string()).await.unwrap();
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }
    wait_until("the past is lost", async || {
        let answer = read(shop, token, &format!("?after={position}")).await;
        (answer.status == StatusCode::GONE && answer.json["code"] == "trimmed").then_some(())
    })
    .await;
}
