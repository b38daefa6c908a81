//! The load balancer's own rules, on the real Caddy, before services that say who they are and what they were asked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail as tests do, and this world's clock is real"
)]

mod shop;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{
        ConnectInfo, FromRequestParts, Request,
        ws::{Message, WebSocketUpgrade},
    },
    http::{Method, StatusCode},
    response::{IntoResponse, Response, Sse, sse::Event},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use shop::{
    Customer, Shop,
    live::{EventStream, Socket},
    process,
    routes::{self, Reach, ServiceName},
    wait_until,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};

/// What installs it is `cargo xtask test --install`.
const CADDY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.testbed/python/bin/caddy");
const CADDYFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/Caddyfile");

/// Caddy with our rules, in front of services on these ports. It ends when it is dropped.
struct Balancer {
    child: Child,
    shop: Shop,
    _folder: TempDir,
}

impl Balancer {
    async fn start(ports: &BTreeMap<ServiceName, u16>, patience: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = process::free_port();
        let mut rules = adapted();
        let server = &mut rules["apps"]["http"]["servers"]["srv0"];
        server["listen"] = json!([format!("127.0.0.1:{port}")]);
        point_to(server, ports, patience);
        rules["admin"] = json!({"disabled": true});
        let file = folder.path().join("rules.json");
        std::fs::write(&file, rules.to_string()).unwrap();
        let child = caddy(folder.path()).arg("run").arg("--config").arg(&file).spawn().unwrap();
        let balancer = Self { child, shop: Shop::elsewhere(port), _folder: folder };
        let customer = Customer::stranger(&balancer.shop);
        wait_until("the balancer answers", async || customer.send(Method::GET, "/health", &[], "").await.ok()).await;
        balancer
    }

    fn customer(&self) -> Customer {
        Customer::stranger(&self.shop)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn caddy(folder: &Path) -> Command {
    let mut command = Command::new(CADDY);
    command.env_clear().env("HOME", folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Our rules as Caddy understands them.
fn adapted() -> Value {
    let folder = tempfile::tempdir().unwrap();
    let output = caddy(folder.path())
        .args(["adapt", "--config", CADDYFILE])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("Caddy cannot be started; `cargo xtask test --install` installs it");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("not formatted"), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Puts ports of this machine where the rules name services, and `patience` where they wait for one.
fn point_to(rules: &mut Value, ports: &BTreeMap<ServiceName, u16>, patience: Duration) {
    match rules {
        Value::Array(items) => items.iter_mut().for_each(|item| point_to(item, ports, patience)),
        Value::Object(fields) => {
            if let Some(dynamic) = fields.remove("dynamic_upstreams") {
                assert_eq!((&dynamic["name"], &dynamic["port"]), (&json!("storefront"), &json!("4004")));
                fields.insert("upstreams".into(), json!([{"dial": "storefront:4004"}]));
            }
            if let Some(duration) = fields.get_mut("try_duration") {
                *duration = json!(u64::try_from(patience.as_nanos()).unwrap());
            }
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "dial") {
                    Some(dial) => {
                        let service = ServiceName::ALL.into_iter().find(|one| format!("{}:{}", one.as_str(), one.port()) == dial);
                        *value = json!(format!("127.0.0.1:{}", ports[&service.unwrap_or_else(|| panic!("who is {dial}?"))]));
                    }
                    None => point_to(value, ports, patience),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Five services that answer who they are and what they were asked.
async fn services(more: &Arc<Notify>) -> BTreeMap<ServiceName, u16> {
    let mut ports = BTreeMap::new();
    for service in ServiceName::ALL {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ports.insert(service, listener.local_addr().unwrap().port());
        serve(listener, service, more.clone());
    }
    ports
}

fn serve(listener: TcpListener, service: ServiceName, more: Arc<Notify>) {
    let router = Router::new().fallback(async move |request: Request| answer(service, request, more).await);
    let router = router.into_make_service_with_connect_info::<std::net::SocketAddr>();
    drop(tokio::spawn(async move { axum::serve(listener, router).await }));
}

async fn answer(service: ServiceName, request: Request, more: Arc<Notify>) -> Response {
    let (mut parts, _) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    if header("accept").as_deref() == Some("text/event-stream") {
        let welcome = Event::default().event("welcome").data(json!({"data": {}}).to_string());
        let events = futures_util::stream::iter([1, 2]).then(move |number| {
            let more = more.clone();
            async move {
                if number > 1 {
                    more.notified().await;
                }
                Ok::<_, Infallible>(Event::default().data(number.to_string()))
            }
        });
        return Sse::new(futures_util::stream::iter([Ok(welcome)]).chain(events)).into_response();
    }
    if header("upgrade").is_some() {
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.unwrap().protocols(["cloudevents.json"]);
        return upgrade.on_upgrade(async move |mut socket| {
            let welcome = json!({"type": "cascade.live.welcome.v1", "data": {}}).to_string();
            if socket.send(Message::Text(welcome.into())).await.is_err() {
                return;
            }
            for number in 1.. {
                if socket.send(Message::Text(number.to_string().into())).await.is_err() || socket.recv().await.is_none() {
                    return;
                }
            }
        });
    }
    let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>().copied().unwrap();
    let headers: BTreeMap<_, _> = parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap())).collect();
    Json(json!({"service": service.as_str(), "path": parts.uri.to_string(), "headers": headers, "peer": peer.to_string()})).into_response()
}

/// A path for each thing that a rule says, and some that almost fit.
fn paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/",
        "/orders/o-1",
        "/scenario/1",
        "/assets/app.js",
        "/api",
        "/api/scenarios/1/runs",
        "/openapi.json",
        "/asyncapi.json",
        "/favicon.ico",
    ]
    .map(str::to_owned)
    .into();
    for (pattern, reach, _) in routes::RULES {
        let path = pattern.replace("{}", "o-1");
        paths.extend([
            format!("{path}?after=3"),
            format!("{path}x"),
            format!("{path}/"),
            format!("{path}/more/of/it"),
            format!("/x{path}"),
        ]);
        if *reach == Reach::Exact {
            paths.push(pattern.replace("{}", "o-1/o-2"));
        }
        paths.push(path);
    }
    for own in routes::OWN {
        paths.extend([(*own).to_owned(), format!("{own}/x"), format!("{own}x"), format!("/api{own}")]);
    }
    paths
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_goes_to_the_service_that_the_shops_own_table_names() {
    let balancer = Balancer::start(&services(&Arc::default()).await, Duration::from_secs(5)).await;
    let customer = balancer.customer();
    for path in paths() {
        let answer = customer.get(&path).await;
        match routes::find(path.split('?').next().unwrap()) {
            Some(service) => assert_eq!((&answer.json["service"], &answer.json["path"]), (&json!(service.as_str()), &json!(path))),
            None => {
                assert_eq!((answer.status, &answer.json["code"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{path}: {answer:?}");
                assert_eq!(answer.headers["content-type"], "application/problem+json");
            }
        }
    }
    // However it is written, what is a service's own is not reached.
    for path in ["/%65vents", "//events", "/./events", "/x/../events", "/EVENTS", "/ready?a=/x"] {
        let answer = customer.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_learns_who_asks_and_no_client_can_lie_about_it() {
    let balancer = Balancer::start(&services(&Arc::default()).await, Duration::from_secs(5)).await;
    let lies = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank.example"),
        ("forwarded", "for=203.0.113.9"),
        ("x-real-ip", "203.0.113.9"),
    ];
    for path in ["/api/orders", "/"] {
        let headers = balancer.customer().send(Method::POST, path, &lies, "{}").await.unwrap().json["headers"].clone();
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], format!("127.0.0.1:{}", balancer.shop.port()));
        assert_eq!(headers["host"], format!("127.0.0.1:{}", balancer.shop.port()));
        assert_eq!((&headers["forwarded"], &headers["x-real-ip"]), (&Value::Null, &Value::Null));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_sockets_pass_without_waiting_for_more() {
    let more = Arc::new(Notify::new());
    let balancer = Balancer::start(&services(&more).await, Duration::from_secs(5)).await;
    let customer = balancer.customer();
    let mut stream = EventStream::open(&balancer.shop, &customer, "", &[]).await.unwrap();
    // The second event is sent only when the first has arrived.
    assert_eq!(stream.next().await.unwrap().data, "1");
    more.notify_one();
    assert_eq!(stream.next().await.unwrap().data, "2");
    let mut socket = Socket::open(&balancer.shop, &customer, "", &[]).await.unwrap();
    for number in 1..=3 {
        assert_eq!(socket.next().await.unwrap(), json!(number));
        socket.send(tokio_tungstenite::tungstenite::Message::Text("go on".into())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_a_service_that_is_away() {
    let mut ports = services(&Arc::default()).await;
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = away.local_addr().unwrap();
    drop(away);
    for service in [ServiceName::Order, ServiceName::Storefront] {
        ports.insert(service, address.port());
    }
    let balancer = Balancer::start(&ports, Duration::from_secs(60)).await;
    let customer = balancer.customer();
    let waiting = ["/api/orders", "/"].map(|path| {
        let customer = customer.clone();
        tokio::spawn(async move { customer.send(Method::POST, path, &[], "{}").await })
    });
    // The others go on meanwhile.
    assert_eq!(customer.get("/api/payments/p-1").await.json["service"], "payment");
    assert!(waiting.iter().all(|one| !one.is_finished()));
    serve(TcpListener::bind(address).await.unwrap(), ServiceName::Order, Arc::default());
    for one in waiting {
        assert_eq!(one.await.unwrap().unwrap().status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_got_through_is_never_sent_twice_and_people_and_programs_are_told() {
    let mut ports = services(&Arc::default()).await;
    let asked = Arc::new(AtomicU32::new(0));
    // It takes a request, and dies.
    let dying = TcpListener::bind("127.0.0.1:0").await.unwrap();
    ports.insert(ServiceName::Order, dying.local_addr().unwrap().port());
    ports.insert(ServiceName::Storefront, dying.local_addr().unwrap().port());
    let counted = asked.clone();
    drop(tokio::spawn(async move {
        while let Ok((mut stream, _)) = dying.accept().await {
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            let _ = stream.shutdown().await;
        }
    }));
    let balancer = Balancer::start(&ports, Duration::from_secs(5)).await;
    let customer = balancer.customer();
    for (method, path) in [(Method::POST, "/api/orders"), (Method::GET, "/scenario/1")] {
        let before = asked.load(Ordering::SeqCst);
        let answer = customer.send(method, path, &[("accept", "application/json")], "").await.unwrap();
        assert_eq!((answer.status, &answer.json["code"]), (StatusCode::BAD_GATEWAY, &json!("unavailable")), "{answer:?}");
        assert_eq!((&answer.json["status"], &answer.headers["retry-after"]), (&json!(502), &"5".parse().unwrap()));
        assert_eq!(asked.load(Ordering::SeqCst), before + 1, "{path}");
    }
    let answer = customer.send(Method::GET, "/", &[("accept", "text/html")], "").await.unwrap();
    assert!(answer.text.contains("One moment") && answer.headers["content-type"].to_str().unwrap().starts_with("text/html"), "{answer:?}");
}
