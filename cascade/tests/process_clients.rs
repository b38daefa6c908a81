//! Publishers and subscribers with libraries that we did not write, in Node and in Python: what they send is taken, what they get is what was
//! sent, and our signatures are theirs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod clients;

mod shop;

use std::collections::BTreeMap;

use axum::http::Method;
use clients::{Program, Stage, ask, make_token};
use serde_json::{Value, json};
use shop::Shop;

/// How many events the clients publish in each mode.
const EVENTS: usize = 3;

/// A shop, and a client of it with the rights that it needs.
struct Joined {
    shop: Shop,
    /// Where the shop's data is.
    _folder: tempfile::TempDir,
    stage: Stage,
    program: &'static str,
    token: String,
}

impl Joined {
    fn open(program: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shop = Shop::open(folder.path(), &["--pace", "instant"]);
        let scopes = ["--publish-as", "/client", "--publish", "client.*", "--subscribe-as", "client", "--subscribe", "client.*"];
        let token = make_token(&shop, folder.path(), "client", &[&scopes[..], &["--read", "client.*"]].concat());
        Self { shop, _folder: folder, stage: Stage::of("cascade/tests/clients"), program, token }
    }

    /// Publishes the client's events in this mode; gives them as the client's library has them, and their positions.
    async fn publish(&self, mode: &str) -> Vec<(Value, String)> {
        let said = self.stage.start(self.program, &["publish", &self.shop.base(), &self.token, mode], &[]).end().await;
        let (answers, events): (Vec<_>, Vec<_>) = said.into_iter().partition(|line| line.get("status").is_some());
        assert!(answers.iter().all(|answer| answer["status"] == 202), "{answers:?}");
        let results = answers.iter().flat_map(|answer| answer["answer"]["results"].as_array().unwrap());
        let positions: Vec<_> = results.map(|result| result["position"].as_str().unwrap().to_owned()).collect();
        let events: Vec<_> = events.into_iter().map(|line| line["event"].clone()).collect();
        assert_eq!((events.len(), positions.len()), (EVENTS, EVENTS));
        events.into_iter().zip(positions).collect()
    }

    /// Starts a receiver, subscribes it, and tells it the secret.
    async fn receive(&self) -> Program {
        let mut receiver = self.stage.start(self.program, &["receive"], &[]);
        let port = receiver.wait_for("its port", |said| said.first()?["port"].as_u64()).await;
        let wanted = json!({"sink": format!("http://127.0.0.1:{port}/"), "types": ["client.Thing.v1"], "revision": 1});
        let answer = ask(&self.shop, &self.token, Method::PUT, "/api/subscriptions/client", &wanted).await;
        tell(&mut receiver, answer.json["secret"].as_str().unwrap()).await;
        receiver
    }

    async fn rotate(&self, grace_s: u64) -> String {
        let body = json!({"grace_s": grace_s});
        let answer = ask(&self.shop, &self.token, Method::POST, "/api/subscriptions/client/secret/rotate", &body).await;
        answer.json["secret"].as_str().unwrap().to_owned()
    }
}

/// Gives a receiver one more secret, and waits until it has it.
async fn tell(receiver: &mut Program, secret: &str) {
    let secrets = |said: &[Value]| said.iter().filter_map(|line| line["secrets"].as_u64()).next_back().unwrap_or_default();
    let before = secrets(&receiver.said());
    receiver.tell(secret);
    receiver.wait_for("another secret", |said| (secrets(said) > before).then_some(())).await;
}

fn deliveries(said: &[Value]) -> Vec<Value> {
    said.iter().filter(|line| line.get("verified").is_some()).cloned().collect()
}

/// The events of deliveries by their ids, without what the broker adds.
fn received(deliveries: &[Value]) -> BTreeMap<String, Value> {
    let events = deliveries.iter().flat_map(|delivery| delivery["events"].as_array().unwrap()).cloned();
    events.map(|event| (event["id"].as_str().unwrap().to_owned(), without_position(event))).collect()
}

fn without_position(mut event: Value) -> Value {
    assert!(event.as_object_mut().unwrap().remove("position").is_some_and(|position| position.is_string()), "{event}");
    event
}

async fn what_is_published_in_each_mode_is_what_is_delivered_and_read(program: &'static str) {
    let joined = Joined::open(program);
    let mut receiver = joined.receive().await;
    let mut published = BTreeMap::new();
    for mode in ["structured", "binary", "batch"] {
        for (event, position) in joined.publish(mode).await {
            let read = joined.stage.start(program, &["read", &joined.shop.base(), &joined.token, &position], &[]).end().await;
            assert_eq!(without_position(read[0]["event"].clone()), event, "{mode}: read as one event in structured mode");
            published.insert(event["id"].as_str().unwrap().to_owned(), event);
        }
    }
    assert_eq!(published.len(), 3 * EVENTS);
    let all = published.len();
    let is_all = |said: &[Value]| Some(deliveries(said)).filter(|deliveries| received(deliveries).len() == all);
    let deliveries = receiver.wait_for("all events", is_all).await;
    assert_eq!(received(&deliveries), published, "delivered in batches");
    assert!(deliveries.iter().all(|delivery| delivery["media"] == "application/cloudevents-batch+json"));
}

async fn signatures_are_theirs_also_while_secrets_change_and_no_byte_may_differ(program: &'static str) {
    let joined = Joined::open(program);
    let mut receiver = joined.receive().await;
    // What each of the secrets so far says: the first alone; two while the old one lasts; after it has ended, the new one alone.
    let rounds = [("structured", json!([true])), ("binary", json!([true, true])), ("batch", json!([false, false, true]))];
    for (round, (mode, verdicts)) in rounds.into_iter().enumerate() {
        if round > 0 {
            let grace_s = if round == 1 { 3_600 } else { 0 };
            tell(&mut receiver, &joined.rotate(grace_s).await).await;
        }
        let before = deliveries(&receiver.said()).len();
        joined.publish(mode).await;
        let arrived = (round + 1) * EVENTS;
        receiver.wait_for("the events", |said| (received(&deliveries(said)).len() == arrived).then_some(())).await;
        for delivery in &deliveries(&receiver.said())[before..] {
            assert_eq!(delivery["verified"], verdicts, "{mode}");
            assert_eq!(delivery["tampered"], json!([false, false, false]), "another body, id or time is refused");
        }
    }
}

mod in_node {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_published_in_each_mode_is_what_is_delivered_and_read() {
        super::what_is_published_in_each_mode_is_what_is_delivered_and_read("events.mjs").await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn signatures_are_theirs_also_while_secrets_change_and_no_byte_may_differ() {
        super::signatures_are_theirs_also_while_secrets_change_and_no_byte_may_differ("events.mjs").await;
    }
}

mod in_python {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_published_in_each_mode_is_what_is_delivered_and_read() {
        super::what_is_published_in_each_mode_is_what_is_delivered_and_read("events.py").await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn signatures_are_theirs_also_while_secrets_change_and_no_byte_may_differ() {
        super::signatures_are_theirs_also_while_secrets_change_and_no_byte_may_differ("events.py").await;
    }
}
