//! What stands around every route.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::BodyExt;
use kit::{
    Lifecycle, Problem,
    http::{
        Body, Caller, Gate, Proxies, Scheme,
        client::{Client, ClientError, Limits, TcpConnect},
        finish, health,
        identity::session_cookie,
        server,
    },
    security::Keyring,
};
use serde::Deserialize;
use tokio::{net::TcpListener, sync::Notify};
use tower::ServiceExt;

fn keyring() -> Keyring {
    Keyring::from_secret([1; 32])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[expect(dead_code, reason = "only its shape is read")]
    count: u8,
}

fn router() -> Router {
    let routes = Router::new()
        .route("/who", get(async |caller: Caller| format!("{caller:?}")))
        .route("/wish", post(async |body: Body<Wish>| body.bytes.len().to_string()))
        .route("/panic", get(async || -> Result<(), Problem> { panic!("on purpose") }));
    let gate = Gate { keyring: keyring(), is_playground: true, hosts: vec![String::from("shop.example")], proxies: Proxies::none() };
    finish(routes, Arc::new(gate), &testkit::world(1))
}

async fn ask(request: Request<axum::body::Body>) -> (StatusCode, HeaderMap, String) {
    let (head, body) = router().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<axum::body::Body>) -> Request<axum::body::Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:4000");
    }
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(body.into()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_error_is_a_problem_document_with_a_request_id() {
    let json = ("content-type", "application/json");
    let deep = "[".repeat(100_000);
    for (request, status, code) in [
        (request(Method::GET, "/nowhere", &[], ""), 404, "not_found"),
        (request(Method::DELETE, "/who", &[], ""), 405, "method_not_allowed"),
        (request(Method::GET, "/panic", &[], ""), 500, "internal"),
        (request(Method::POST, "/wish", &[json], "{"), 400, "malformed_json"),
        (request(Method::POST, "/wish", &[json], deep), 422, "invalid_body"),
        (request(Method::POST, "/wish", &[json], "{\"count\": -1}"), 422, "invalid_body"),
        (request(Method::POST, "/wish", &[json], "{\"count\": 1, \"more\": 2}"), 422, "invalid_body"),
        (request(Method::POST, "/wish", &[("content-type", "text/plain")], "{}"), 415, "unsupported_media_type"),
        (request(Method::POST, "/wish", &[json], " ".repeat(300 * 1024)), 413, "body_too_large"),
        (request(Method::GET, "/who", &[("host", "evil.example")], ""), 421, "unknown_host"),
        (request(Method::POST, "/wish", &[json, ("origin", "http://evil.example")], "{\"count\": 1}"), 403, "forbidden"),
        (request(Method::POST, "/wish", &[json, ("origin", "null")], "{\"count\": 1}"), 403, "forbidden"),
        (request(Method::GET, "/who", &[("authorization", "Bearer order.forged")], ""), 401, "unauthorized"),
    ] {
        let shown = format!("{} {}", request.method(), request.uri());
        let (found, headers, body) = ask(request).await;
        assert_eq!(found.as_u16(), status, "{shown}: {body}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json", "{shown}");
        assert!(headers.contains_key("x-request-id"), "{shown}");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((problem["code"].as_str().unwrap(), problem["status"].as_u64().unwrap()), (code, u64::from(status)), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_are_known_by_their_cookie_or_token() {
    let cookie = session_cookie(&keyring(), "guest-1", Scheme::Http).unwrap();
    let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
    let forged = cookie.replace("guest-1", "guest-2");
    let token = |name: &str| format!("Bearer {}", keyring().service_token(name));
    for (name, value, expected) in [
        ("cookie", cookie, "Guest(\"guest-1\")"),
        ("cookie", &forged, "Anonymous"),
        ("cookie", &format!("other=1; {cookie}"), "Guest(\"guest-1\")"),
        ("authorization", &token("payment"), "Service(\"payment\")"),
        ("authorization", &token("operator"), "Operator"),
        ("x-none", "", "Anonymous"),
    ] {
        let (_, _, body) = ask(request(Method::GET, "/who", &[(name, value)], "")).await;
        assert_eq!(body, expected);
    }
    let (status, _, _) = ask(request(Method::GET, "/who", &[("host", "shop.example:80")], "")).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_stop_finishes_the_requests_that_it_has_and_takes_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let lifecycle = Lifecycle::new();
    let slow = Router::new()
        .route("/slow", get(async || let_time_pass(Duration::from_millis(300), "the stop begins meanwhile").await))
        .merge(health::routes(lifecycle.clone()));
    lifecycle.spawn("http", server::serve(listener, slow, lifecycle.clone()));
    let client = Client::new(Arc::new(TcpConnect));
    let limits = Limits { timeout: Duration::from_secs(5), answer_bytes_max: 1_024 };
    let get = |path: &str| {
        let (client, uri) = (client.clone(), format!("{base}{path}").parse::<Uri>().unwrap());
        async move { client.send(Method::GET, &uri, HeaderMap::new(), Bytes::new(), limits).await.map(|answer| answer.status()) }
    };
    assert_eq!(get("/ready").await.unwrap(), StatusCode::OK);
    let mut slow = std::pin::pin!(get("/slow"));
    assert!(tokio::time::timeout(Duration::from_millis(100), slow.as_mut()).await.is_err(), "the request is under way");
    let (is_stopped, answer) = tokio::join!(lifecycle.stop(Duration::from_secs(5)), slow);
    assert!(is_stopped);
    assert_eq!(answer.unwrap(), StatusCode::OK);
    assert!(matches!(get("/ready").await, Err(ClientError::Connection(_))));
}

#[tokio::test]
async fn a_stream_is_read_while_it_comes_and_its_silence_and_its_breaking_are_noticed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let client = Client::new(Arc::new(TcpConnect));
    // Each connection sends this much of a body without an end, and then is silent, or closed.
    for (sent, is_silent) in [("5\r\nfirst\r\n", true), ("5\r\nfirst\r\n6\r\nsec", false)] {
        let (answer, connection) = tokio::join!(client.stream(&uri, HeaderMap::new(), Duration::from_millis(300)), async {
            let (mut connection, _) = listener.accept().await.unwrap();
            assert!(connection.read(&mut [0; 1_024]).await.unwrap() > 0);
            let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{sent}");
            connection.write_all(answer.as_bytes()).await.unwrap();
            is_silent.then_some(connection)
        });
        let mut pieces = answer.unwrap().into_body();
        assert_eq!(pieces.next().await.unwrap().as_deref(), Some(&b"first"[..]));
        let mut broken = pieces.next().await;
        if let Ok(Some(rest)) = &broken {
            assert_eq!(rest, "sec");
            broken = pieces.next().await;
        }
        match broken {
            Err(ClientError::Timeout(_)) => assert!(is_silent),
            Err(ClientError::Answer(_)) => assert!(!is_silent),
            other => panic!("{other:?}"),
        }
        drop(connection);
    }
}

#[tokio::test]
async fn a_handler_is_finished_although_its_client_has_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (begun, finished) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (goes, lifecycle) = (Arc::new(Notify::new()), Lifecycle::new());
    let handler = {
        let (begun, finished, goes) = (begun.clone(), finished.clone(), goes.clone());
        async move || {
            begun.notify_one();
            goes.notified().await;
            finished.notify_one();
        }
    };
    lifecycle.spawn("http", server::serve(listener, Router::new().route("/", get(handler)), lifecycle.clone()));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    begun.notified().await;
    drop(client);
    // By the time that another client has been served several times, the server has seen the first one go.
    let other = Client::new(Arc::new(TcpConnect));
    let limits = Limits { timeout: Duration::from_secs(5), answer_bytes_max: 1_024 };
    for _ in 0..20 {
        let uri = format!("http://{address}/other").parse::<Uri>().unwrap();
        other.send(Method::GET, &uri, HeaderMap::new(), Bytes::new(), limits).await.unwrap();
    }
    goes.notify_one();
    tokio::time::timeout(Duration::from_secs(5), finished.notified()).await.unwrap();
}

async fn let_time_pass(duration: Duration, _why: &str) {
    tokio::time::sleep(duration).await;
}
