//! Over real sockets: signed deliveries, WebSockets and server-sent events.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, routing::post};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use kit::{Envelope, Lifecycle, Timestamp, http::server::serve};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tower::ServiceExt;

use super::{DEADLINE, TYPE, delivery::dead_letters, event, keyring, shop};
use crate::{
    filters::Selection,
    subscriptions::{Expected, wanted::Wanted},
};

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn within<T>(what: impl Future<Output = T>) -> T {
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
    shop.broker.shared.subscriptions.register("tester", wanted, None, Expected::Anything).await.unwrap();
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
    shop.broker.shared.subscriptions.register("tester", wanted, None, Expected::Anything).await.unwrap();
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

#[tokio::test]
async fn a_web_socket_shows_an_owner_their_events_as_they_happen_and_nobody_elses() {
    let shop = shop().await;
    let (listener, address) = listen().await;
    shop.lifecycle.spawn("server", serve(listener, shop.router.clone(), shop.lifecycle.clone()));
    let publisher = shop.broker.publisher();
    let of = |id: &str, subject: &str, owner: &str| Envelope { owner: Some(owner.into()), ..event("/tester", id, subject) };
    publisher.publish(&[of("1", "o-1", "ann"), of("2", "o-2", "bob")]).await.unwrap();
    let connect = |path: &str, owner: &str, origin: Option<&str>| {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert(header::COOKIE, HeaderValue::try_from(format!("cascade_session={}", keyring().session(owner))).unwrap());
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("cloudevents.json"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::try_from(origin).unwrap());
        }
        tokio_tungstenite::connect_async(request)
    };
    let own = format!("http://{address}");
    let (mut mine, answer) = connect("/api/live?after=0", "ann", Some(&own)).await.unwrap();
    assert_eq!(answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL).unwrap(), "cloudevents.json");
    let (mut one, _) = connect("/api/live?subject=o-1", "ann", None).await.unwrap();
    assert!(connect("/api/live?subject=o-1", "bob", None).await.is_err());
    assert!(connect("/api/live", "ann", Some("http://evil.example")).await.is_err());
    publisher.publish(&[of("3", "o-2", "bob"), of("4", "o-3", "ann"), of("5", "o-1", "ann")]).await.unwrap();
    let ids =
        async |socket: &mut (dyn futures_util::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Send + Unpin),
               count| {
            let mut ids = Vec::new();
            while ids.len() < count {
                if let Message::Text(text) = within(socket.next()).await.unwrap().unwrap() {
                    let event: Value = serde_json::from_str(&text).unwrap();
                    ids.push(format!("{}@{}", event["id"].as_str().unwrap(), event["position"].as_str().unwrap()));
                }
            }
            ids
        };
    assert_eq!(ids(&mut mine, 3).await, ["1@1", "4@4", "5@5"]);
    assert_eq!(ids(&mut one, 2).await, ["1@1", "5@5"]);
    let (mut lost, _) = connect("/api/live?after=999", "ann", None).await.unwrap();
    assert!(matches!(within(lost.next()).await, Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == 4410));
    // A stop tells every reader.
    let stop = shop.lifecycle.clone();
    let (stopped, bye) = futures_util::join!(stop.stop(DEADLINE), within(mine.next()));
    assert!(stopped);
    assert!(matches!(bye, Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == 1001), "the socket is closed in order");
}

#[tokio::test]
async fn server_sent_events_resume_after_the_last_one_that_was_seen() {
    let shop = shop().await;
    let events: Vec<_> = (1..=5).map(|n| event("/tester", &n.to_string(), "o-1")).collect();
    shop.broker.publisher().publish(&events).await.unwrap();
    let share = keyring().share_token("o-1");
    let ask = async |path: String, last: Option<&str>| {
        let mut request = http::Request::builder().uri(path).header(header::HOST, "localhost").header(header::ACCEPT, "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        shop.router.clone().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap()
    };
    let mut body = ask(format!("/api/live?subject=o-1&share={share}"), Some("3")).await.into_body();
    let mut text = String::new();
    while text.matches("\n\n").count() < 2 {
        text += std::str::from_utf8(within(body.frame()).await.unwrap().unwrap().data_ref().unwrap()).unwrap();
    }
    assert!(
        text.contains("id: 4\n") && text.contains("id: 5\n") && text.contains("event: message\n") && !text.contains("id: 3\n"),
        "{text}"
    );
    let mut body = ask(format!("/api/live?subject=o-1&share={share}"), Some("77")).await.into_body();
    let first = within(body.frame()).await.unwrap().unwrap();
    assert!(std::str::from_utf8(first.data_ref().unwrap()).unwrap().contains("event: reset"));
    assert_eq!(ask("/api/live?subject=o-1".into(), None).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask("/api/live".into(), None).await.status(), StatusCode::UNAUTHORIZED);
    // A stop ends the stream.
    let stop = shop.lifecycle.clone();
    let (stopped, end) = futures_util::join!(stop.stop(DEADLINE), within(body.frame()));
    assert!(stopped && end.is_none());
}

/// Simulated time, or the pace of a sink.
async fn let_time_pass(duration: std::time::Duration) {
    tokio::time::sleep(duration).await;
}
