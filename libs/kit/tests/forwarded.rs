//! What a service makes of a proxy in front of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    routing::{get, post},
};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use kit::{
    http::{Gate, Proxies, Remote, Scheme, finish, identity::session_cookie},
    security::Keyring,
};
use tower::ServiceExt;

mod raw;

const BALANCER: &str = "172.18.0.2";
const CLIENT: &str = "198.51.100.7";
const HTTPS: [(&str, &str); 2] = [("x-forwarded-for", CLIENT), ("x-forwarded-proto", "https")];
const HTTP: [(&str, &str); 2] = [("x-forwarded-for", CLIENT), ("x-forwarded-proto", "http")];

fn router(proxies: Proxies) -> Router {
    let show = async |remote: Remote| {
        format!("{} over {}", remote.address.map_or(String::from("nobody"), |address| address.to_string()), remote.scheme)
    };
    let routes = Router::new().route("/", get(show)).route("/", post(async || "done"));
    let gate = Gate { keyring: Keyring::from_secret([1; 32]), is_playground: false, hosts: vec![String::from("shop.example")], proxies };
    finish(routes, Arc::new(gate), &testkit::world(1))
}

fn request(method: &str, peer: Option<&str>, headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::builder().method(method).uri("/").header("host", "shop.example");
    let mut request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(Body::empty()).unwrap();
    if let Some(peer) = peer {
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer.parse::<IpAddr>().unwrap(), 40_000)));
    }
    request
}

async fn ask(proxies: &str, request: Request<Body>) -> (StatusCode, String) {
    let (head, body) = router(proxies.parse().unwrap()).oneshot(request).await.unwrap().into_parts();
    (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn handlers_learn_the_clients_address_and_scheme_from_a_trusted_proxy_alone() {
    for (proxies, peer, expected) in [
        ("private", Some(BALANCER), "198.51.100.7 over https"),
        ("172.18.0.0/16", Some(BALANCER), "198.51.100.7 over https"),
        ("none", Some(BALANCER), "172.18.0.2 over http"),
        ("private", Some("203.0.113.9"), "203.0.113.9 over http"),
        ("private", None, "nobody over http"),
    ] {
        assert_eq!(ask(proxies, request("GET", peer, &HTTPS)).await, (StatusCode::OK, expected.to_owned()), "{proxies} {peer:?}");
    }
}

#[tokio::test]
async fn a_real_connection_shows_its_own_address() {
    let server = raw::Server::start(router(Proxies::none())).await;
    let mut connection = server.connect().await;
    connection.send("GET / HTTP/1.1\r\nhost: shop.example\r\nx-forwarded-for: 198.51.100.7\r\n\r\n").await;
    assert_eq!(connection.answer().await.body, "127.0.0.1 over http");
    let server = raw::Server::start(router("private".parse().unwrap())).await;
    let mut connection = server.connect().await;
    connection.send("GET / HTTP/1.1\r\nhost: shop.example\r\nx-forwarded-for: 198.51.100.7\r\n\r\n").await;
    assert_eq!(connection.answer().await.body, "198.51.100.7 over http");
}

#[tokio::test]
async fn to_a_shop_that_is_reached_encrypted_a_page_from_the_clear_is_another_site() {
    for (forwarded, origin, status) in [
        (HTTPS, "https://shop.example", StatusCode::OK),
        (HTTPS, "http://shop.example", StatusCode::FORBIDDEN),
        (HTTPS, "https://evil.example", StatusCode::FORBIDDEN),
        (HTTP, "http://shop.example", StatusCode::OK),
        // A proxy that nobody told of may stand before the one that is trusted.
        (HTTP, "https://shop.example", StatusCode::OK),
        (HTTP, "ftp://shop.example", StatusCode::FORBIDDEN),
        (HTTP, "null", StatusCode::FORBIDDEN),
        (HTTP, "shop.example", StatusCode::FORBIDDEN),
    ] {
        let headers = [forwarded[0], forwarded[1], ("origin", origin)];
        assert_eq!(ask("private", request("POST", Some(BALANCER), &headers)).await.0, status, "{forwarded:?} {origin}");
        // What a stranger forwards says nothing about the scheme.
        let is_of_shop = matches!(origin, "http://shop.example" | "https://shop.example");
        let status = if is_of_shop { StatusCode::OK } else { StatusCode::FORBIDDEN };
        assert_eq!(ask("none", request("POST", Some(BALANCER), &headers)).await.0, status, "{forwarded:?} {origin}");
    }
    assert_eq!(ask("private", request("POST", Some(BALANCER), &HTTPS)).await.0, StatusCode::OK, "programs send no origin");
}

#[test]
fn the_session_of_who_came_encrypted_is_never_sent_in_the_clear() {
    let cookie = |scheme| {
        let cookie = session_cookie(&Keyring::from_secret([1; 32]), "guest-1", scheme).unwrap();
        cookie.to_str().unwrap().split("; ").map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!cookie(Scheme::Http).contains(&String::from("Secure")));
    assert!(cookie(Scheme::Https).contains(&String::from("Secure")));
    assert!(cookie(Scheme::Https).contains(&String::from("HttpOnly")));
}
