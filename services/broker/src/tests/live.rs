//! Live streams: WebSockets and server-sent events.

use futures_util::StreamExt;
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use kit::{Envelope, http::server::serve};
use serde_json::Value;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tower::ServiceExt;

use super::{
    DEADLINE, event, keyring,
    network::{listen, within},
    shop,
};

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
