//! Who does not speak HTTP as agreed, and a service that says what cannot be: the others notice nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail as tests do, and this world's clock is real"
)]

mod shop;

use std::time::Duration;

use axum::http::{Method, StatusCode};
use kit::security::Keyring;
use serde_json::{Value, json};
use shop::{Customer, Shop, books, books::Books, name_of, raw, wait_until};
use tokio::io::AsyncWriteExt;

/// How long a client may take to send a request's head; the shop hangs up after 10 s.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_cannot_be_parks_its_own_order_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &["--pace", "demo"]);
    let customer = Customer::visit(&shop).await;
    let keyring = Keyring::load(&folder.path().join("secret")).unwrap();
    let as_payment =
        [("content-type", kit::envelope::EVENT_JSON.to_owned()), ("authorization", format!("Bearer {}", keyring.service_token("payment")))];
    let as_operator = [("authorization", format!("Bearer {}", keyring.service_token("operator")))];
    let stranger = Customer::stranger(&shop);
    let ask = async |method, path: &str, headers: &[(&str, String)], body: String| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        stranger.send(method, path, &headers, body).await.unwrap()
    };

    // Paid, and for some seconds nothing else happens to it: nobody is free in scenario 11.
    let parked = customer.run(11).await;
    customer.wait_until_status(&parked, "confirmed").await;
    let impossible = json!({
        "specversion": "1.0", "id": "impossible-1", "source": "/payment", "type": "cascade.PaymentDeclined.v1", "subject": parked,
        "data": {"reason": "card_declined"},
    });
    let published = ask(Method::POST, "/api/events", &as_payment, impossible.to_string()).await;
    assert_eq!(published.status, StatusCode::ACCEPTED, "the right token and type: the broker cannot know better");
    let position = published.json["results"][0]["position"].as_str().unwrap();
    let again = ask(Method::POST, "/api/events", &as_payment, impossible.to_string()).await;
    assert_eq!(again.json["results"][0], json!({"position": position, "duplicate": true}));

    let letters =
        async || ask(Method::GET, "/api/subscriptions/order/dead-letters", &as_operator, String::new()).await.json["items"].clone();
    let letter = wait_until("a dead letter", async || letters().await.get(0).cloned()).await;
    let letter_text = letter.to_string();
    assert!(letter_text.contains(&parked) && letter_text.contains("contradicts"), "it says which order and why: {letter}");

    // Scenario 3's worker lets an offer expire, so that this takes longer than the parked order's search.
    let other = customer.run(3).await;
    assert_eq!(customer.end_of(&other).await, "completed");
    wait_until("delivery gave up the parked order", async || {
        customer.events_of(&parked).await.iter().any(|event| name_of(event) == "WorkerSearchExhausted").then_some(())
    })
    .await;
    shop.kill();
    shop.restart();
    customer.end_of(&customer.order("after").await.unwrap()).await;
    assert_eq!(customer.status(&parked).await, "confirmed", "nothing moved it");
    assert_eq!(letters().await.as_array().map(Vec::len), Some(1), "a dead letter outlives the process");

    let discard = format!("/api/subscriptions/order/dead-letters/{position}/discard");
    assert_eq!(ask(Method::POST, &discard, &as_operator, String::new()).await.status, StatusCode::OK);
    let events = customer.all_events_of(&parked).await;
    let last: Vec<&str> = events.iter().rev().take(3).map(name_of).collect();
    assert_eq!(last, ["OrderCancelled", "PaymentRefunded", "PaymentReversalRequested"]);
    assert_eq!(books::charges_and_refunds(folder.path(), &parked), (1, 1));
    wait_until("no dead letter is left", async || (letters().await == json!([])).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_no_http_are_refused_or_cut_off_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    customer.all_events_of(&customer.order("first").await.unwrap()).await;
    let before = Books::read(folder.path());
    let order = r#"{"lines":[{"product_id":"canoe","quantity":1}]}"#;
    let post = "POST /api/orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    let flood: String = (0..500).map(|number| format!("x-{number}: y\r\n")).collect();
    let mut wrong = Vec::new();
    for (what, bytes, expected) in [
        ("noise", String::from("\u{16}\u{3}\u{1} hello\r\n\r\n"), Some(400)),
        ("no version", String::from("GET /health\r\n\r\n"), Some(400)),
        ("another version", String::from("GET /health HTTP/7.3\r\nhost: localhost\r\n\r\n"), Some(400)),
        ("HTTP/2 without asking", String::from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), None),
        ("no host", String::from("GET /health HTTP/1.1\r\n\r\n"), Some(400)),
        ("no host, old", String::from("GET /health HTTP/1.0\r\n\r\n"), Some(400)),
        ("a space in a header's name", get("/health", "x y: z\r\n"), Some(400)),
        ("a folded header", get("/health", "x: y\r\n z\r\n"), Some(400)),
        ("a control character", get("/health", "x: \u{1}\r\n"), Some(400)),
        ("many headers", get("/health", &flood), Some(431)),
        ("a large header", get("/health", &format!("x: {}\r\n", "y".repeat(100_000))), Some(431)),
        ("a long URL", get(&format!("/{}", "x".repeat(20_000)), ""), Some(404)),
        ("a very long URL", get(&format!("/{}", "x".repeat(100_000)), ""), Some(431)),
        ("a space in the URL", get("/api /orders", ""), Some(400)),
        ("a proxy's request", get("http://evil.example/api/orders", ""), Some(401)),
        ("a tunnel", String::from("CONNECT localhost:22 HTTP/1.1\r\nhost: localhost\r\n\r\n"), Some(404)),
        ("a star", String::from("OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n"), Some(404)),
        ("two lengths", format!("{post}content-length: 47\r\ncontent-length: 2\r\n\r\n{order}"), Some(400)),
        ("a length that is none", format!("{post}content-length: -1\r\n\r\n{order}"), Some(400)),
        ("an endless length", format!("{post}content-length: 99999999999999999999999\r\n\r\n{order}"), Some(400)),
        ("a length that does not come", format!("{post}content-length: 9999\r\n\r\n{order}"), Some(408)),
        ("a chunk without size", format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n{order}\r\n0\r\n\r\n"), Some(400)),
        ("an endless chunk", format!("{post}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{order}"), Some(400)),
        ("an unknown encoding", format!("{post}transfer-encoding: gzip\r\n\r\n{order}"), Some(400)),
    ] {
        let answer = raw::status_of(&shop, bytes.as_bytes()).await;
        if answer != expected {
            wrong.push(format!("{what}: {answer:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(Books::read(folder.path()), before);
    customer.all_events_of(&customer.order("after").await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_requests_order_nothing_and_hold_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let order = r#"{"lines":[{"product_id":"canoe","quantity":1}]}"#;
    let post = "POST /api/orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let halves = [
        String::new(),
        String::from("POST /api/ord"),
        post.to_owned(),
        format!("{post}content-length: 47\r\n\r\n{}", &order[..40]),
        format!("{post}transfer-encoding: chunked\r\n\r\n2f\r\n{order}"),
    ];
    let mut waiting = Vec::new();
    for half in halves.iter().cycle().take(200) {
        let mut stream = raw::connect(&shop).await;
        stream.write_all(half.as_bytes()).await.unwrap();
        waiting.push((half, stream));
    }
    customer.all_events_of(&customer.order("meanwhile").await.unwrap()).await;
    // Half of those who wait go away; of the rest, those who began a head and do not end it are sent away. Who has sent nothing may be a
    // balancer's connection in reserve.
    waiting.truncate(100);
    for (half, mut stream) in waiting {
        if !half.is_empty() && !half.contains("\r\n\r\n") {
            assert!(raw::is_closed_within(&mut stream, HEAD_PATIENCE).await, "still waiting for the rest of {half:?}");
        }
    }
    customer.all_events_of(&customer.order("after").await.unwrap()).await;
    assert_eq!(books::count(folder.path(), "order", "select count(*) from orders"), 2);
    let listed = customer.get("/api/orders").await;
    assert_eq!(listed.json["items"].as_array().map(Vec::len), Some(2), "{:?}", Value::from(listed.text));
}
