//! Over real sockets: signed deliveries.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, routing::post};
use http::HeaderMap;
use kit::{Lifecycle, Timestamp, http::server::serve};
use serde_json::Value;
use tokio::net::TcpListener;

use super::{DEADLINE, TYPE, event, keyring, shop};
use crate::subscriptions::Wanted;

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
    let wanted = Wanted { sink: Some(format!("http://{address}/events")), types: [TYPE.to_owned()].into(), revision: 1 };
    shop.broker.shared.subscriptions.register("tester", wanted, None).await.unwrap();
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
    for (headers, body) in seen {
        let text = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(text("content-type"), "application/cloudevents-batch+json");
        let sent_s: i64 = text("webhook-timestamp").parse().unwrap();
        let now = Timestamp::from_ms(sent_s * 1_000);
        assert!(keyring().is_delivery_signature(&text("webhook-signature"), &text("webhook-id"), sent_s, &body, now));
    }
}

/// Simulated time, or the pace of a sink.
async fn let_time_pass(duration: std::time::Duration) {
    tokio::time::sleep(duration).await;
}
