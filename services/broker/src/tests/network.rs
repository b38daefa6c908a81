//! Over real sockets: signed deliveries.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, routing::post};
use http::{HeaderMap, StatusCode, header};
use kit::{Envelope, Lifecycle, Timestamp, http::server::serve};
use serde_json::Value;
use tokio::net::TcpListener;

use super::{DEADLINE, TYPE, delivery::dead_letters, event, keyring, shop};
use crate::{
    filters::Selection,
    subscriptions::{By, Expected, wanted::Wanted},
};

pub(super) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

pub(super) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

#[tokio::test]
async fn a_subscriber_behind_a_url_gets_signed_batches_and_answers_for_each_event() {
    type Seen = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;
    let (shop, seen) = (shop().await, Seen::default());
    let (listener, address) = listen().await;
    let log = seen.clone();
    let subscriber = Router::new().route(
        "/events",
        post(async move |headers: HeaderMap, body: Bytes| {
            log.lock().unwrap().push((headers, body.clone()));
            let events: Vec<Value> = serde_json::from_slice(&body).unwrap();
            // The first time, event 2 is not taken.
            let is_first = log.lock().unwrap().len() == 1;
            let not_taken = events.iter().filter(|one| is_first && one["id"] == "2");
            let results: Vec<_> =
                not_taken.map(|one| serde_json::json!({"source": one["source"], "id": one["id"], "status": 503})).collect();
            axum::Json(serde_json::json!({ "results": results }))
        }),
    );
    let lifecycle = Lifecycle::new();
    lifecycle.spawn("subscriber", serve(listener, subscriber, lifecycle.clone()));
    shop.broker.publisher().publish(&[event("/tester", "1", "a"), event("/tester", "2", "b")]).await.unwrap();
    let sink = Some(format!("http://{address}/events"));
    let wanted = Wanted { sink, selection: Selection::of_types([TYPE]), revision: 1, ..Wanted::default() };
    shop.broker.shared.subscriptions.register("tester", wanted, By::Shop, Expected::Anything).await.unwrap();
    within(async {
        while shop.broker.subscription("tester").unwrap().status.floor.0 < 2 {
            let_time_pass(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let seen = seen.lock().unwrap().clone();
    let ids = |body: &Bytes| {
        let events: Vec<Value> = serde_json::from_slice(body).unwrap();
        events.iter().map(|one| format!("{}@{}", one["id"].as_str().unwrap(), one["position"].as_str().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(seen.iter().map(|(_, body)| ids(body)).collect::<Vec<_>>(), [vec!["1@1", "2@2"], vec!["2@2"]]);
    let secret = keyring().webhook_secret("tester", None);
    for (headers, body) in seen {
        let text = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(text("content-type"), "application/cloudevents-batch+json");
        let sent_s: i64 = text("webhook-timestamp").parse().unwrap();
        let now = Timestamp::from_ms(sent_s * 1_000);
        assert!(secret.has_signed(&text("webhook-signature"), &text("webhook-id"), sent_s, &body, now));
        assert_eq!(kit::transport::log_first::read(&headers, &secret, now), Some(kit::Position(1)));
    }
}

#[tokio::test]
async fn a_delivery_says_which_attempt_it_is_and_until_when_an_answer_counts_and_what_was_answered_is_kept() {
    let (shop, seen) = (shop().await, Arc::new(Mutex::new(Vec::new())));
    let (listener, address) = listen().await;
    let log = seen.clone();
    let subscriber = Router::new().route(
        "/events",
        post(async move |headers: HeaderMap| {
            let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
            let shown = ["cascade-subscription", "cascade-attempt", "traceparent"].map(text);
            let left_ms = Timestamp::from_rfc3339(&text("cascade-deadline")).unwrap().as_ms()
                - text("webhook-timestamp").parse::<i64>().unwrap() * 1_000;
            log.lock().unwrap().push((shown, left_ms));
            match log.lock().unwrap().len() {
                // A date that has passed asks for a retry at once.
                1 => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "Sun, 06 Nov 1994 08:49:37 GMT")], "first".to_owned()),
                _ => (StatusCode::UNPROCESSABLE_ENTITY, [(header::RETRY_AFTER, "1")], format!("second {}", "x".repeat(5_000))),
            }
        }),
    );
    let lifecycle = Lifecycle::new();
    lifecycle.spawn("subscriber", serve(listener, subscriber, lifecycle.clone()));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = Envelope { traceparent: Some(trace.into()), ..event("/tester", "1", "a") };
    shop.broker.publisher().publish(&[traced]).await.unwrap();
    let wanted = Wanted { sink: Some(format!("http://{address}/events")), revision: 1, ..Wanted::default() };
    shop.broker.shared.subscriptions.register("tester", wanted, By::Shop, Expected::Anything).await.unwrap();
    let letter = within(async {
        loop {
            if let Some(letter) = dead_letters(&shop.broker).await.pop() {
                return letter;
            }
            let_time_pass(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let shown = |attempt: &str| ["tester".to_owned(), attempt.to_owned(), trace.to_owned()];
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.iter().map(|(shown, _)| shown.clone()).collect::<Vec<_>>(), [shown("1"), shown("2")]);
    assert!(seen.iter().all(|(_, left_ms)| (10_000..11_000).contains(left_ms)), "{seen:?}");
    let attempts: Vec<_> = letter.history.attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!((attempts, letter.attempts), (vec![Some(503), Some(422)], 2));
    let answer = letter.history.answer.unwrap();
    assert!(answer.as_str().starts_with("second xxx") && answer.as_str().len() == 1_024);
}

/// Simulated time, or the pace of a sink.
async fn let_time_pass(duration: std::time::Duration) {
    tokio::time::sleep(duration).await;
}
