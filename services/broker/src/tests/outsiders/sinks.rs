//! Sinks of outsiders over real sockets: where they may be, what signs, TLS, consent, and what ends with a token.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, routing::post};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use kit::{BoxFuture, Lifecycle, http::server::serve};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::{io::AsyncReadExt, net::TcpListener};

use super::{OPERATOR, Shop, TYPE, Who, loyalty};
use crate::{
    Settings,
    engine::memory::MemoryDisk,
    sink::outward::{Resolve, Rules},
    tests::{DEADLINE, event, settings, shop_on},
};

const PATH: &str = "/api/subscriptions/loyalty";

/// What a broker is told that lets outsiders' sinks be in `networks`.
pub(super) fn open_to(networks: &str) -> Settings {
    Settings { sinks: Rules::new(networks.parse().unwrap(), None, "shop.example").unwrap(), ..settings() }
}

/// Names that mean what a test says, each time that they are asked for: the last answer stays.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>);

impl Names {
    fn mean(self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().rev().map(|address| address.parse().unwrap()).collect();
        self.0.lock().unwrap().insert(name.into(), addresses);
        self
    }
}

impl Resolve for Names {
    fn resolve(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        if let Ok(address) = host.parse() {
            return Box::pin(std::future::ready(Ok(vec![address])));
        }
        let mut names = self.0.lock().unwrap();
        let answer = names.get_mut(&host).map(|addresses| if addresses.len() > 1 { addresses.pop().unwrap() } else { addresses[0] });
        Box::pin(std::future::ready(answer.map(|address| vec![address]).ok_or_else(|| io::ErrorKind::NotFound.into())))
    }
}

fn resolving(settings: Settings, names: Names) -> Settings {
    Settings { sinks: settings.sinks.resolving(Arc::new(names)), ..settings }
}

/// A subscriber that keeps what it is sent, and answers OPTIONS with `consent`.
struct Receiver {
    url: String,
    seen: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    lifecycle: Lifecycle,
}

impl Receiver {
    async fn start(consent: &[(&'static str, &str)]) -> Self {
        let (lifecycle, seen) = (Lifecycle::new(), Arc::new(Mutex::new(Vec::new())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let consent: HeaderMap =
            consent.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect();
        let log = seen.clone();
        let take = post(async move |headers: HeaderMap, body: Bytes| {
            log.lock().unwrap().push((headers, body));
            StatusCode::NO_CONTENT
        });
        let router = Router::new().route("/events", take.options(async move || (consent, StatusCode::NO_CONTENT)));
        lifecycle.spawn("receiver", serve(listener, router, lifecycle.clone()));
        Self { url, seen, lifecycle }
    }

    async fn deliveries(&self, count: usize) -> Vec<(HeaderMap, Bytes)> {
        wait_until(|| self.seen.lock().unwrap().len() >= count).await;
        self.seen.lock().unwrap().clone()
    }
}

async fn wait_until(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("in time");
}

impl Shop {
    async fn happen(&self, ids: &[&str]) {
        let events: Vec<_> = ids.iter().map(|id| event("/tester", id, id)).collect();
        self.broker.publisher().publish(&events).await.unwrap();
    }

    async fn held(&self) -> String {
        let reason = || {
            let status = self.broker.subscription("loyalty").unwrap().status;
            status.last_error.filter(|_| status.state == crate::dispatcher::State::Holding).map(|error| error.reason.as_str().to_owned())
        };
        wait_until(|| reason().is_some()).await;
        reason().unwrap()
    }
}

fn registration(sink: &str, revision: i64) -> Value {
    json!({"sink": sink, "types": [TYPE], "revision": revision})
}

fn is_signed(secret: &str, (headers, body): &(HeaderMap, Bytes)) -> Vec<bool> {
    let text = |name: &str| headers[name].to_str().unwrap();
    let signed = Webhook::new(secret).unwrap().sign(text("webhook-id"), text("webhook-timestamp").parse().unwrap(), body).unwrap();
    text("webhook-signature").split(' ').map(|signature| signature == signed).collect()
}

#[tokio::test]
async fn an_outsiders_sink_is_on_the_internet_or_where_it_was_allowed() {
    let names = Names::default()
        .mean("intern.example", &["10.0.0.7"])
        .mean("far.example", &["93.184.215.14"])
        .mean("metadata.example", &["169.254.169.254"]);
    let closed = shop_on(MemoryDisk::default(), resolving(open_to("none"), names.clone())).await;
    let open = shop_on(MemoryDisk::default(), resolving(open_to("10.0.0.0/8"), names)).await;
    let refused = async |shop: &Shop, token: &str, sink: &str| {
        let (status, problem) = shop.put(Who::Token(token), PATH, &registration(sink, 1)).await;
        assert_eq!((status, &problem["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("sink")), "{sink} {problem}");
        (problem["code"].as_str().unwrap().to_owned(), problem["detail"].as_str().unwrap().to_owned())
    };
    let token = closed.token("loyalty", &loyalty()).await;
    for sink in [
        "http://127.0.0.1:4005/api/tokens",
        "http://[::1]/",
        "https://10.0.0.7/",
        "https://intern.example/",
        "http://metadata.example/latest/",
        "http://0.0.0.0/",
        "http://[::ffff:127.0.0.1]/",
    ] {
        let (code, detail) = refused(&closed, &token, sink).await;
        assert!(code == "sink_not_allowed" && detail.contains("closed to sinks of outsiders"), "{sink}: {detail}");
        assert!(!detail.contains("10.0.0.7"), "whoever asks does not learn what names mean inside");
    }
    let (code, detail) = refused(&closed, &token, "http://far.example/").await;
    assert!(code == "sink_not_allowed" && detail.contains("https://"), "{detail}");
    let (code, detail) = refused(&closed, &token, "https://nowhere.example/").await;
    assert!(code == "sink_not_allowed" && detail.contains("no address"), "{detail}");
    assert_eq!(closed.get(OPERATOR, PATH).await.0, StatusCode::NOT_FOUND, "nothing was registered");
    // Whom the shop trusts may be anywhere.
    assert_eq!(closed.put(Who::Service("loyalty"), PATH, &registration("http://10.0.0.7/", 1)).await.0, StatusCode::OK);
    let token = open.token("loyalty", &loyalty()).await;
    assert_eq!(refused(&open, &token, "http://127.0.0.1/").await.0, "sink_not_allowed");
    assert_eq!(open.put(Who::Token(&token), PATH, &registration("http://intern.example:81/", 1)).await.0, StatusCode::OK);
    let patch = open.send_as(Who::Token(&token), Method::PATCH, PATH, &json!({"sink": "http://127.0.0.1/"})).await;
    assert_eq!(patch.0, StatusCode::PRECONDITION_REQUIRED);
    let builder = Who::Token(&token).ask(Method::PATCH, PATH).header("if-match", "*").header("content-type", "application/json");
    let (status, problem) = open.call(builder.body(json!({"sink": "http://127.0.0.1/"}).to_string().into()).unwrap()).await;
    assert_eq!((status, &problem["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("sink_not_allowed")));
}

#[tokio::test]
async fn a_name_that_means_something_else_later_leads_nowhere() {
    let receiver = Receiver::start(&[]).await;
    let port = receiver.url.parse::<Uri>().unwrap().port_u16().unwrap();
    // What was allowed at first is not where the name leads when a connection is opened.
    let names = Names::default().mean("rebind.example", &["10.0.0.7", "127.0.0.1"]);
    let shop = shop_on(MemoryDisk::default(), resolving(open_to("10.0.0.0/8"), names)).await;
    let token = shop.token("loyalty", &loyalty()).await;
    let sink = format!("http://rebind.example:{port}/events");
    assert_eq!(shop.put(Who::Token(&token), PATH, &registration(&sink, 1)).await.0, StatusCode::OK);
    shop.happen(&["1"]).await;
    assert!(shop.held().await.contains("closed to sinks of outsiders"));
    assert!(receiver.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_an_endless_answer_is_cut() {
    let inner = Receiver::start(&[]).await;
    let (lifecycle, listener) = (Lifecycle::new(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("http://{}", listener.local_addr().unwrap());
    let to = inner.url.clone();
    let router = Router::new()
        .route("/moved", post(async move || (StatusCode::TEMPORARY_REDIRECT, [("location", to)])))
        .route("/endless", post(async || "x".repeat(1024 * 1024)));
    lifecycle.spawn("outer", serve(listener, router, lifecycle.clone()));
    let shop = shop_on(MemoryDisk::default(), open_to("private")).await;
    let token = shop.token("loyalty", &loyalty()).await;
    shop.put(Who::Token(&token), PATH, &registration(&format!("{url}/moved"), 1)).await;
    shop.happen(&["1"]).await;
    assert!(shop.held().await.starts_with("307"));
    assert!(inner.seen.lock().unwrap().is_empty());
    shop.put(Who::Token(&token), PATH, &registration(&format!("{url}/endless"), 2)).await;
    wait_until(|| {
        let error = shop.broker.subscription("loyalty").unwrap().status.last_error;
        error.is_some_and(|error| error.reason.as_str().contains("length limit exceeded"))
    })
    .await;
}

#[tokio::test]
async fn an_outsider_is_told_a_secret_once_and_a_new_one_signs_beside_it() {
    let receiver = Receiver::start(&[]).await;
    let shop = shop_on(MemoryDisk::default(), open_to("private")).await;
    let token = shop.token("loyalty", &loyalty()).await;
    let (_, first) = shop.put(Who::Token(&token), PATH, &registration(&receiver.url, 1)).await;
    let old = first["secret"].as_str().unwrap().to_owned();
    assert!(old.starts_with("whsec_"));
    let (_, again) = shop.put(Who::Token(&token), PATH, &registration(&receiver.url, 1)).await;
    assert_eq!(again["secret"], Value::Null);
    assert_eq!(shop.get(Who::Token(&token), PATH).await.1["secret"], Value::Null);
    for entry in shop.broker.engine().state_list("").await.unwrap() {
        assert!(!entry.value.contains(&old[6..]), "{}", entry.value);
    }
    shop.happen(&["1"]).await;
    assert_eq!(is_signed(&old, &receiver.deliveries(1).await[0]), [true]);
    let rotate = async |body: Value| shop.send_as(Who::Token(&token), Method::POST, &format!("{PATH}/secret/rotate"), &body).await;
    let (status, rotated) = rotate(json!({"grace_s": 600})).await;
    let new = rotated["secret"].as_str().unwrap().to_owned();
    assert_eq!((status, &rotated["security"]["previous_secret_until"].is_string()), (StatusCode::OK, &true));
    shop.happen(&["2"]).await;
    let second = receiver.deliveries(2).await[1].clone();
    assert_eq!((is_signed(&new, &second), is_signed(&old, &second)), (vec![true, false], vec![false, true]));
    let newest = rotate(json!({"grace_s": 0})).await.1["secret"].as_str().unwrap().to_owned();
    shop.happen(&["3"]).await;
    let third = receiver.deliveries(3).await[2].clone();
    assert_eq!((is_signed(&newest, &third), is_signed(&new, &third)), (vec![true], vec![false]));
    for body in [json!({"grace_s": 9_999_999}), json!({"grace": 1})] {
        assert_eq!(rotate(body).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    }
    // Who comes after them under the same name has another secret.
    shop.send_as(OPERATOR, Method::DELETE, PATH, &json!({})).await;
    let (_, later) = shop.put(Who::Service("loyalty"), PATH, &registration(&receiver.url, 1)).await;
    assert!(![&old, &new, &newest].contains(&&later["secret"].as_str().unwrap().to_owned()));
}

#[tokio::test]
async fn a_service_of_the_shop_works_its_secret_out_and_nobody_replaces_it() {
    let receiver = Receiver::start(&[]).await;
    let shop = shop_on(MemoryDisk::default(), settings()).await;
    let path = "/api/subscriptions/tester";
    let (_, made) = shop.put(Who::Service("tester"), path, &registration(&receiver.url, 1)).await;
    assert_eq!((&made["secret"], &made["security"]["secret_since"]), (&Value::Null, &Value::Null));
    shop.happen(&["1"]).await;
    let own = crate::tests::keyring().webhook_secret("tester", None).to_text();
    assert_eq!(is_signed(&own, &receiver.deliveries(1).await[0]), [true]);
    let (status, problem) = shop.send_as(OPERATOR, Method::POST, &format!("{path}/secret/rotate"), &json!({})).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("derived_secret")));
    assert_eq!(shop.send_as(OPERATOR, Method::POST, "/api/subscriptions/none/secret/rotate", &json!({})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_a_token_registered_ends_with_it_and_goes_on_with_the_next_one() {
    let receiver = Receiver::start(&[]).await;
    let shop = shop_on(MemoryDisk::default(), open_to("private")).await;
    let token = shop.token("loyalty", &loyalty()).await;
    shop.put(Who::Token(&token), PATH, &registration(&receiver.url, 1)).await;
    shop.happen(&["1"]).await;
    receiver.deliveries(1).await;
    shop.send_as(OPERATOR, Method::DELETE, "/api/tokens/loyalty", &json!({})).await;
    shop.happen(&["2"]).await;
    assert!(shop.held().await.contains("token `loyalty`"));
    // Another token of the same name has not registered anything yet.
    let next = shop.token("loyalty", &loyalty()).await;
    shop.happen(&["3"]).await;
    assert!(shop.held().await.contains("token `loyalty`"));
    assert_eq!(receiver.seen.lock().unwrap().len(), 1);
    shop.put(Who::Token(&next), PATH, &registration(&receiver.url, 1)).await;
    receiver.deliveries(2).await;
    wait_until(|| shop.broker.subscription("loyalty").unwrap().status.floor == kit::Position(3)).await;
}

#[tokio::test]
async fn a_sink_that_is_asked_for_consent_is_sent_nothing_without_it() {
    let shop = shop_on(MemoryDisk::default(), open_to("private")).await;
    let token = shop.token("loyalty", &loyalty()).await;
    let asking = |sink: &str, revision| {
        let mut body = registration(sink, revision);
        body["consent"] = json!(true);
        body
    };
    for consent in
        [&[][..], &[("webhook-allowed-origin", "other.example")], &[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "0")]]
    {
        let receiver = Receiver::start(consent).await;
        let (status, problem) = shop.put(Who::Token(&token), PATH, &asking(&receiver.url, 1)).await;
        let found = (status, problem["code"].as_str(), problem["field"].as_str());
        assert_eq!(found, (StatusCode::UNPROCESSABLE_ENTITY, Some("consent_refused"), Some("sink")), "{problem}");
    }
    assert_eq!(shop.get(OPERATOR, PATH).await.0, StatusCode::NOT_FOUND);
    let receiver = Receiver::start(&[("webhook-allowed-origin", "shop.example"), ("webhook-allowed-rate", "60")]).await;
    let (status, body) = shop.put(Who::Token(&token), PATH, &asking(&receiver.url, 1)).await;
    let consent = json!({"origin": "shop.example", "rate_per_minute": 60, "at": body["security"]["consent"]["at"]});
    assert_eq!((status, &body["security"]["consent"]), (StatusCode::OK, &consent));
    shop.happen(&["1"]).await;
    assert_eq!(receiver.deliveries(1).await[0].0["webhook-request-origin"], "shop.example");
    // A sink that agreed once is not asked again; one that it is moved to is.
    receiver.lifecycle.stop(DEADLINE).await;
    assert_eq!(shop.put(Who::Token(&token), PATH, &asking(&receiver.url, 1)).await.0, StatusCode::OK);
    let other = Receiver::start(&[]).await;
    assert_eq!(shop.put(Who::Token(&token), PATH, &asking(&other.url, 2)).await.1["code"], json!("consent_refused"));
}

#[tokio::test]
async fn a_sink_gets_no_more_requests_than_it_agreed_to() {
    let receiver = Receiver::start(&[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "30")]).await;
    let shop = shop_on(MemoryDisk::default(), settings()).await;
    let mut body = registration(&receiver.url, 1);
    (body["consent"], body["batch"]) = (json!(true), json!({"events_max": 1}));
    assert_eq!(shop.put(OPERATOR, PATH, &body).await.0, StatusCode::OK, "for all who ask for it");
    shop.happen(&["1", "2"]).await;
    receiver.deliveries(1).await;
    wait_until(|| {
        let error = shop.broker.subscription("loyalty").unwrap().status.last_error;
        error.is_some_and(|error| error.status == Some(429) && error.reason.as_str().contains("30 requests a minute"))
    })
    .await;
    assert_eq!(receiver.seen.lock().unwrap().len(), 1);
    let sent_s = |(headers, _): &(HeaderMap, Bytes)| headers["webhook-timestamp"].to_str().unwrap().parse::<i64>().unwrap();
    let deliveries = receiver.deliveries(2).await;
    assert!(sent_s(&deliveries[1]) - sent_s(&deliveries[0]) >= 1);
}

#[tokio::test]
async fn over_the_internet_a_sink_must_agree() {
    // Nobody on the internet is asked here: when it comes to that, the name leads elsewhere.
    let names = Names::default().mean("far.example", &["1.1.1.1", "127.0.0.1"]);
    let shop = shop_on(MemoryDisk::default(), resolving(open_to("none"), names)).await;
    let token = shop.token("loyalty", &loyalty()).await;
    let (status, problem) = shop.put(Who::Token(&token), PATH, &registration("https://far.example/", 1)).await;
    assert_eq!((status, &problem["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("consent_refused")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("could not be asked"), "{problem}");
    assert_eq!(shop.get(OPERATOR, PATH).await.0, StatusCode::NOT_FOUND);
}

/// A server that speaks TLS with a certificate for `name`, and answers 204; gives its port, and the authority's certificate as a file.
async fn tls_server(name: &str) -> (u16, tempfile::NamedTempFile, Arc<Mutex<usize>>) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority.pem()).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, requests) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(0)));
    let count = requests.clone();
    let lifecycle = Lifecycle::new();
    lifecycle.spawn("tls", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut buffer = vec![0; 64 * 1024];
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            if read > 0 {
                *count.lock().unwrap() += 1;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
            }
        }
    });
    (port, file, requests)
}

#[tokio::test]
async fn a_sink_that_speaks_tls_is_who_its_certificate_says() {
    let (port, authority, requests) = tls_server("sink.example").await;
    let names = || Names::default().mean("sink.example", &["127.0.0.1"]).mean("other.example", &["127.0.0.1"]);
    let rules = |authority| Rules::new("127.0.0.1".parse().unwrap(), authority, "shop.example").unwrap().resolving(Arc::new(names()));
    let shop = shop_on(MemoryDisk::default(), Settings { sinks: rules(Some(authority.path())), ..settings() }).await;
    let token = shop.token("loyalty", &loyalty()).await;
    let sink = |name: &str| format!("https://{name}:{port}/events");
    assert_eq!(shop.put(Who::Token(&token), PATH, &registration(&sink("sink.example"), 1)).await.0, StatusCode::OK);
    shop.happen(&["1"]).await;
    wait_until(|| shop.broker.subscription("loyalty").unwrap().status.floor == kit::Position(1)).await;
    assert_eq!(*requests.lock().unwrap(), 1);
    shop.put(Who::Token(&token), PATH, &registration(&sink("other.example"), 2)).await;
    shop.happen(&["2"]).await;
    assert!(shop.held().await.contains("certificate not valid for name"), "{}", shop.held().await);
    // Whom nobody vouches for is not spoken to at all; this holds for services of the shop too.
    let shop = shop_on(MemoryDisk::default(), Settings { sinks: rules(None), ..settings() }).await;
    let token = shop.token("loyalty", &loyalty()).await;
    shop.put(Who::Token(&token), PATH, &registration(&sink("sink.example"), 1)).await;
    shop.happen(&["1"]).await;
    assert!(shop.held().await.contains("UnknownIssuer"), "{}", shop.held().await);
    let local = format!("https://127.0.0.1:{port}/events");
    shop.put(Who::Service("loyalty"), PATH, &registration(&local, 2)).await;
    wait_until(|| {
        let error = shop.broker.subscription("loyalty").unwrap().status.last_error;
        error.is_some_and(|error| error.reason.as_str().contains("invalid peer certificate"))
    })
    .await;
    assert_eq!(*requests.lock().unwrap(), 1);
}

#[test]
fn a_file_that_holds_no_certificates_is_said_to_at_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let said = |path: &std::path::Path| Rules::new(crate::sink::networks::Networks::default(), Some(path), "x").unwrap_err().to_string();
    assert!(said(file.path()).contains("there is none in it"));
    std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(said(file.path()).starts_with("certificates in"));
    assert!(said(std::path::Path::new("/nowhere")).contains("/nowhere"));
}
