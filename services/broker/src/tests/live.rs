//! Live streams: WebSockets and server-sent events.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use kit::{Envelope, http::server::serve, transport::Publisher};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tower::ServiceExt;

use super::{
    DEADLINE, Shop, event, keyring,
    network::{listen, within},
    shop,
};
use pipe::{Said, said};

/// Connections in memory.
mod pipe;

/// Over WebSocket, while time is paused.
mod socket;

/// As server-sent events, while time is paused.
mod sent;

/// How many are open, and why others were closed.
mod counted;

/// An event of `owner`.
fn of(id: &str, subject: &str, owner: &str) -> Envelope {
    Envelope { owner: Some(owner.into()), ..event("/tester", id, subject) }
}

/// A body of server-sent events, read event by event.
struct Sent {
    body: axum::body::Body,
    text: String,
}

/// One of them.
#[derive(Debug)]
struct One {
    name: String,
    id: Option<String>,
    said: Said,
}

impl Sent {
    /// Opens it; a refusal gives the status and the problem.
    async fn try_open(shop: &Shop, path: &str, owner: Option<&str>, headers: &[(&str, &str)]) -> Result<Self, (u16, Value)> {
        let mut request = http::Request::builder().uri(path).header(header::HOST, "localhost").header(header::ACCEPT, "text/event-stream");
        if let Some(owner) = owner {
            request = request.header(header::COOKIE, format!("cascade_session={}", keyring().session(owner)));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = shop.router.clone().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        let (status, body) = (answer.status(), answer.into_body());
        if status != StatusCode::OK {
            let problem = body.collect().await.unwrap().to_bytes();
            return Err((status.as_u16(), serde_json::from_slice(&problem).unwrap()));
        }
        Ok(Self { body, text: String::new() })
    }

    async fn open(shop: &Shop, path: &str, owner: &str, headers: &[(&str, &str)]) -> Self {
        Self::try_open(shop, path, Some(owner), headers).await.unwrap()
    }

    /// The next one; none at the end.
    async fn next(&mut self) -> Option<One> {
        loop {
            if let Some((one, rest)) = self.text.split_once("\n\n") {
                let fields: BTreeMap<_, _> = one.lines().filter_map(|line| line.split_once(": ")).collect();
                let text = |name: &str| fields.get(name).map(|value| (*value).to_owned());
                let one = One { name: text("event").unwrap(), id: text("id"), said: said(fields["data"]) };
                self.text = rest.to_owned();
                return Some(one);
            }
            let frame = within(self.body.frame()).await?;
            self.text += std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap();
        }
    }

    /// The data of the notice `name`, which must come next.
    async fn notice(&mut self, name: &str) -> Value {
        match self.next().await {
            Some(One { name: of, said: Said::Notice(said, data), .. }) if of == name && said == name => data,
            other => panic!("no {name}: {other:?}"),
        }
    }

    /// The positions of the next events; nothing else may come between.
    async fn events(&mut self, count: usize) -> Vec<i64> {
        let mut positions = Vec::new();
        while positions.len() < count {
            match self.next().await {
                Some(One { name, id, said: Said::Event(position) }) => {
                    assert_eq!((name.as_str(), id), ("message", Some(position.to_string())));
                    positions.push(position);
                }
                other => panic!("no event after {positions:?}: {other:?}"),
            }
        }
        positions
    }
}

#[tokio::test]
async fn a_web_socket_shows_an_owner_their_events_as_they_happen_and_nobody_elses() {
    let shop = shop().await;
    let (listener, address) = listen().await;
    shop.lifecycle.spawn("server", serve(listener, shop.router.clone(), shop.lifecycle.clone()));
    let publisher = shop.broker.publisher();
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
    let texts =
        async |socket: &mut (dyn futures_util::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Send + Unpin),
               count| {
            let mut texts = Vec::new();
            while texts.len() < count {
                if let Message::Text(text) = within(socket.next()).await.unwrap().unwrap() {
                    let event: Value = serde_json::from_str(&text).unwrap();
                    texts.push(match event["position"].as_str() {
                        Some(position) => format!("{}@{position}", event["id"].as_str().unwrap()),
                        None => event["type"].as_str().unwrap().to_owned(),
                    });
                }
            }
            texts
        };
    assert_eq!(texts(&mut mine, 4).await, ["cascade.live.welcome.v1", "1@1", "4@4", "5@5"]);
    assert_eq!(texts(&mut one, 3).await, ["cascade.live.welcome.v1", "1@1", "5@5"]);
    // A stop tells every reader.
    let stop = shop.lifecycle.clone();
    let (stopped, bye) = futures_util::join!(stop.stop(DEADLINE), async { (texts(&mut mine, 1).await, within(mine.next()).await) });
    assert!(stopped);
    assert_eq!(bye.0, ["cascade.live.end.v1"]);
    assert!(matches!(bye.1, Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == 1001), "the socket is closed in order");
}

#[tokio::test]
async fn server_sent_events_resume_after_the_last_one_that_was_seen() {
    let shop = shop().await;
    let events: Vec<_> = (1..=5).map(|n| event("/tester", &n.to_string(), "o-1")).collect();
    shop.broker.publisher().publish(&events).await.unwrap();
    let shared = format!("/api/live?subject=o-1&share={}", keyring().share_token("o-1"));
    let mut stream = Sent::try_open(&shop, &shared, None, &[("last-event-id", "3")]).await.unwrap();
    assert_eq!(stream.notice("welcome").await["after"], json!("3"));
    assert_eq!(stream.events(2).await, [4, 5]);
    // What the browser says when it comes back counts more than the address that it was given first.
    let mut stream = Sent::try_open(&shop, &format!("{shared}&after=1"), None, &[("last-event-id", "4")]).await.unwrap();
    assert_eq!(stream.notice("welcome").await["after"], json!("4"));
    assert_eq!(stream.events(1).await, [5]);
    for (path, status) in [("/api/live?subject=o-1", 404), ("/api/live", 401)] {
        assert_eq!(Sent::try_open(&shop, path, None, &[]).await.err().map(|refused| refused.0), Some(status));
    }
    // A stop ends the stream.
    let stop = shop.lifecycle.clone();
    let (stopped, end) = futures_util::join!(stop.stop(DEADLINE), async { (stream.notice("end").await, stream.next().await.is_none()) });
    assert_eq!((stopped, end), (true, (json!({"reason": "stopping", "after": "5"}), true)));
}

#[tokio::test]
async fn a_cursor_a_query_or_a_caller_that_is_not_right_is_refused_in_words() {
    let shop = shop().await;
    shop.broker.publisher().publish(&[of("1", "o-1", "ann")]).await.unwrap();
    for (query, code, field) in [
        ("after=x", "invalid_query", Some("after")),
        ("after=-1", "invalid_query", Some("after")),
        ("after=9223372036854775808", "invalid_query", Some("after")),
        ("after=", "invalid_query", Some("after")),
        ("owner=ann", "invalid_query", Some("owner")),
        ("subject=a&subject=b", "invalid_query", Some("subject")),
    ] {
        let (status, problem) = Sent::try_open(&shop, &format!("/api/live?{query}"), Some("ann"), &[]).await.err().unwrap();
        assert_eq!((status, problem["code"].as_str(), problem["field"].as_str()), (400, Some(code), field), "{query}");
    }
    for id in ["x", "-1", "1.0"] {
        let (status, problem) = Sent::try_open(&shop, "/api/live", Some("ann"), &[("last-event-id", id)]).await.err().unwrap();
        assert_eq!((status, &problem["code"], &problem["field"]), (400, &json!("invalid_cursor"), &json!("last-event-id")), "{id}");
    }
    let evil = [("origin", "http://evil.example")];
    assert_eq!(Sent::try_open(&shop, "/api/live", Some("ann"), &evil).await.err().unwrap().0, 403, "from a page of another site");
    let bearer = |name: &str| format!("Bearer {}", keyring().service_token(name));
    for (name, path, expected) in [
        ("tester", "/api/live", Some(403)),
        ("tester", "/api/live?subject=o-1", Some(404)),
        ("operator", "/api/live", None),
        ("operator", "/api/live?subject=o-1", None),
    ] {
        let refused = Sent::try_open(&shop, path, None, &[("authorization", &bearer(name))]).await.err();
        assert_eq!(refused.map(|refused| refused.0), expected, "{name} {path}");
    }
}

/// Reads `path` in pieces of a few events, each on a stream of its own that goes on from the one before, up to position `last`.
async fn read_in_pieces(shop: &Shop, path: &str, headers: &[(&str, &str)], piece: usize, last: i64) -> Vec<i64> {
    let mut seen = vec![0];
    loop {
        let after = seen.last().unwrap().to_string();
        let headers: Vec<_> = headers.iter().copied().chain([("last-event-id", after.as_str())]).collect();
        let mut stream = Sent::try_open(shop, path, None, &headers).await.unwrap();
        assert_eq!(stream.notice("welcome").await["after"], json!(after));
        for _ in 0..piece {
            seen.extend(stream.events(1).await);
            if *seen.last().unwrap() == last {
                return seen.split_off(1);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_and_goes_while_events_happen_gets_all_of_theirs_once() {
    const EVENTS: i64 = 1_500;
    let shop = shop().await;
    let owners = ["ann", "bob", "cat"];
    let owner_of = |number: i64| owners[usize::try_from(number * number % 7).unwrap() % 3];
    let publish = async |publisher: &dyn Publisher| {
        let numbers: Vec<_> = (1..EVENTS).collect();
        for batch in numbers.chunks(7) {
            let events: Vec<_> =
                batch.iter().map(|number| of(&number.to_string(), &format!("o-{}", number % 5), owner_of(*number))).collect();
            publisher.publish(&events).await.unwrap();
        }
        // The last one is for everybody in turn: it ends their streams.
        publisher.publish(&[of("last", "o-0", "ann")]).await.unwrap();
    };
    let publisher = shop.broker.publisher();
    let all: Vec<_> = (1..=EVENTS).collect();
    let anns: Vec<_> = (1..=EVENTS).filter(|number| *number == EVENTS || owner_of(*number) == "ann").collect();
    let of_subject: Vec<_> = (1..=EVENTS).filter(|number| number % 5 == 0).collect();
    let cookie = format!("cascade_session={}", keyring().session("ann"));
    let bearer = format!("Bearer {}", keyring().service_token("operator"));
    let (ann, operator) = ([("cookie", cookie.as_str())], [("authorization", bearer.as_str())]);
    let shared = format!("/api/live?subject=o-0&share={}", keyring().share_token("o-0"));
    let read = async |path: &str, headers: &[(&str, &str)], piece| read_in_pieces(&shop, path, headers, piece, EVENTS).await;
    let (_, whole, pieces, anns_whole, anns_pieces, subject) = futures_util::join!(
        publish(publisher.as_ref()),
        read("/api/live", &operator, usize::MAX),
        read("/api/live", &operator, 40),
        read("/api/live", &ann, usize::MAX),
        read("/api/live", &ann, 3),
        read(&shared, &[], 2),
    );
    assert_eq!((whole, pieces), (all.clone(), all));
    assert_eq!((anns_whole, anns_pieces), (anns.clone(), anns));
    assert_eq!(subject, of_subject);
}
