//! What a client can get wrong, or do on purpose: each gets a clear answer, and nothing changes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail as tests do, and this world's clock is real"
)]

mod shop;

use std::path::Path;

use axum::http::{Method, StatusCode};
use kit::security::Keyring;
use serde_json::{Value, json};
use shop::{Customer, Shop, books::Books};

/// A request that is refused: what is wrong with it, and how it is answered.
struct Bad {
    what: String,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
    answer: (u16, &'static str),
}

fn bad(what: &str, method: &'static str, path: &str, status: u16, code: &'static str) -> Bad {
    let (what, path) = (what.chars().take(80).collect(), path.to_owned());
    Bad { what, method, path, headers: Vec::new(), body: String::new(), answer: (status, code) }
}

impl Bad {
    fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }

    fn json(self, body: impl Into<String>) -> Self {
        Self { body: body.into(), ..self.with("content-type", "application/json") }
    }

    /// Published as an event by whoever has `token`.
    fn event(self, token: &str, body: &impl ToString) -> Self {
        let token = format!("Bearer {token}");
        Self { body: body.to_string(), ..self.with("content-type", kit::envelope::EVENT_JSON).with("authorization", token) }
    }
}

/// Somebody's ended order, and somebody else who wants to do harm.
struct World {
    shop: Shop,
    folder: tempfile::TempDir,
    customer: Customer,
    order_id: String,
    events: Vec<Value>,
    attacker: Customer,
    keyring: Keyring,
}

impl World {
    async fn open(pace: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shop = Shop::open(folder.path(), &["--pace", pace]);
        let (customer, attacker) = (Customer::visit(&shop).await, Customer::visit(&shop).await);
        let order_id = customer.order("first").await.unwrap();
        let events = customer.all_events_of(&order_id).await;
        let keyring = Keyring::load(&folder.path().join("secret")).unwrap();
        Self { shop, folder, customer, order_id, events, attacker, keyring }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Sends it; says what is not as it should be with the answer.
    async fn refuse(&self, bad: &Bad) -> Result<(), String> {
        // A client of its own: no connection that an earlier answer closed.
        let client = Customer::stranger(&self.shop).with_cookie(self.attacker.cookie());
        let headers: Vec<_> = bad.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let method = Method::from_bytes(bad.method.as_bytes()).unwrap();
        let answer = client.send(method, &bad.path, &headers, bad.body.as_str()).await.map_err(|error| error.to_string())?;
        let check = |is_met: bool, what: &str| if is_met { Ok(()) } else { Err(format!("{what}: {} {}", answer.status, answer.text)) };
        let text = |field: &str| answer.json[field].as_str().unwrap_or_default();
        check((answer.status.as_u16(), text("code")) == bad.answer, &format!("not {:?}", bad.answer))?;
        check(answer.headers.get("content-type").is_some_and(|media| media == "application/problem+json"), "no problem document")?;
        check(answer.json["status"] == answer.status.as_u16(), "another status")?;
        check(!text("title").is_empty() && !text("detail").is_empty(), "it does not say what is wrong")?;
        check(answer.text.len() < 2_000, "it says too much")?;
        // RFC 9110, section 15.5.6.
        check(answer.status != StatusCode::METHOD_NOT_ALLOWED || answer.headers.contains_key("allow"), "no `Allow`")
    }

    async fn refuses_all_and_nothing_changes(&self, all: Vec<Bad>) {
        let before = Books::read(self.path());
        let mut wrong = Vec::new();
        for bad in all {
            if let Err(reason) = self.refuse(&bad).await {
                let path: String = bad.path.chars().take(80).collect();
                wrong.push(format!("{} ({} {path} {:?}): {reason}", bad.what, bad.method, bad.headers));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(Books::read(self.path()), before);
        self.still_sells("after").await;
    }

    /// The shop is well, and an order comes to its end.
    async fn still_sells(&self, key: &str) {
        for path in ["/health", "/ready"] {
            assert_eq!(self.customer.get(path).await.status, StatusCode::OK);
        }
        let order_id = self.customer.order(key).await.unwrap();
        self.customer.all_events_of(&order_id).await;
    }
}

fn order_of(product: &str, quantity: &str) -> String {
    format!(r#"{{"lines":[{{"product_id":"{product}","quantity":{quantity}}}]}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_cannot_be_is_refused() {
    let world = World::open("instant").await;
    let good = order_of("canoe", "1");
    let line = r#"{"product_id":"canoe","quantity":1}"#;
    let lines = |count: usize| format!(r#"{{"lines":[{}]}}"#, vec![line; count].join(","));
    let nested = |count: usize| "[".repeat(count) + &"]".repeat(count);
    let mut all = Vec::new();
    for (body, status, code) in [
        (order_of("submarine", "1"), 422, "unknown_product"),
        (order_of("../../etc/passwd", "1"), 422, "invalid_body"),
        (order_of("", "1"), 422, "invalid_body"),
        (order_of("canoe", "0"), 422, "invalid_quantity"),
        (order_of("canoe", "-1"), 422, "invalid_body"),
        (order_of("canoe", "1001"), 422, "invalid_quantity"),
        (order_of("canoe", "4294967295"), 422, "invalid_quantity"),
        (order_of("canoe", "4294967296"), 422, "invalid_body"),
        (order_of("canoe", "18446744073709551617"), 422, "invalid_body"),
        (order_of("canoe", "1e999"), 400, "malformed_json"),
        (order_of("canoe", "1.5"), 422, "invalid_body"),
        (order_of("canoe", "\"1\""), 422, "invalid_body"),
        (order_of("canoe", "null"), 422, "invalid_body"),
        (lines(0), 422, "empty_order"),
        (lines(51), 422, "too_many_lines"),
        (lines(5_000), 422, "too_many_lines"),
        (lines(20_000), 413, "body_too_large"),
        (String::from("{}"), 422, "invalid_body"),
        (String::from("null"), 422, "invalid_body"),
        (String::from("7"), 422, "invalid_body"),
        (format!("[[{line}]]"), 422, "invalid_body"),
        (String::from(r#"{"lines":[["canoe",1]]}"#), 422, "invalid_body"),
        (format!(r#"{{"lines":[{line}],"recipient":["Ada","x"]}}"#), 422, "invalid_body"),
        (String::new(), 400, "malformed_json"),
        (String::from(r#"{"lines":["#), 400, "malformed_json"),
        (String::from("lines=canoe"), 400, "malformed_json"),
        (format!("{good} x"), 400, "malformed_json"),
        (format!("\u{feff}{good}"), 400, "malformed_json"),
        (nested(100_000), 422, "invalid_body"),
        (format!(r#"{{"lines":{}}}"#, nested(100_000)), 422, "invalid_body"),
        (format!(r#"{{"lines":[],"x":{}}}"#, nested(100_000)), 422, "invalid_body"),
        (format!(r#"{{"lines":[{line}],"total":{{"amount_minor":1,"currency":"EUR"}}}}"#), 422, "invalid_body"),
        (String::from(r#"{"lines":[{"product_id":"canoe","quantity":1,"unit_price":1}]}"#), 422, "invalid_body"),
        (format!(r#"{{"lines":[{line}],"lines":[{line}]}}"#), 422, "invalid_body"),
        (format!(r#"{{"lines":[{line}],"recipient":{{"name":"Ada"}}}}"#), 422, "invalid_body"),
        (format!(r#"{{"lines":[{line}],"recipient":{{"name":"{}","address":"x"}}}}"#, "a".repeat(501)), 422, "text_too_long"),
        (format!(r#"{{"lines":[{line}],"recipient":{{"name":"Ada\u0000","address":"x"}}}}"#), 422, "control_character"),
    ] {
        all.push(bad(&body, "POST", "/api/orders", status, code).json(body.as_str()));
    }
    for media in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", ""] {
        let wrong = bad(media, "POST", "/api/orders", 415, "unsupported_media_type").with("content-type", media);
        all.push(Bad { body: good.clone(), ..wrong });
    }
    for key in ["", "two words", &"k".repeat(256)] {
        all.push(bad("a bad key", "POST", "/api/orders", 400, "invalid_idempotency_key").json(&good).with("idempotency-key", key));
    }
    let twice = bad("two keys", "POST", "/api/orders", 400, "invalid_idempotency_key").json(&good);
    all.push(twice.with("idempotency-key", "a").with("idempotency-key", "b"));
    for script in ["", "UPPER", "../x", &"1".repeat(65)] {
        all.push(bad("a bad script", "POST", "/api/orders", 400, "invalid_scenario").json(&good).with("cascade-scenario", script));
    }
    for origin in ["http://evil.example", "null", "http://localhost:1", ""] {
        all.push(bad("another origin", "POST", "/api/orders", 403, "forbidden").json(&good).with("origin", origin));
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "shop@localhost", ""] {
        all.push(bad("another host", "POST", "/api/orders", 421, "unknown_host").json(&good).with("host", host));
    }
    world.refuses_all_and_nothing_changes(all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_or_is_anothers_is_not_found() {
    let world = World::open("instant").await;
    let (mine, unknown) = (world.order_id.as_str(), "01890a5d-ac96-774b-bcce-b302099a8057");
    let mut all = Vec::new();
    let upper = mine.to_uppercase();
    let ids = [mine, unknown, "17", "..%2f..%2fsecret", "%00", "%ff%fe", "' or 1=1 --", &upper, &"9".repeat(9_000)];
    for id in ids.map(|id| id.replace(' ', "%20")) {
        for (method, path) in
            [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/events"), ("GET", "?share=made-up"), ("GET", "/x")]
        {
            all.push(bad("not theirs", method, &format!("/api/orders/{id}{path}"), 404, "not_found"));
        }
    }
    all.push(bad("another's live events", "GET", &format!("/api/live?subject={mine}"), 404, "not_found"));
    for path in ["/nowhere", "/api", "/api/orders/", "/assets/..%2f..%2fCargo.toml", "/assets/%2e%2e/pages/live.html", "/events", "//"] {
        all.push(bad("no such path", "GET", path, 404, "not_found"));
    }
    for number in ["0", "99", "-1", "01", "x", "1%00", "99999999999999999999"] {
        all.push(bad("unknown scenario", "GET", &format!("/scenario/{number}"), 404, "not_found").with("accept", "application/json"));
        all.push(bad("unknown scenario", "GET", &format!("/api/scenarios/{number}"), 404, "not_found"));
        all.push(bad("unknown scenario", "POST", &format!("/api/scenarios/{number}/runs"), 404, "not_found").json(""));
    }
    for (body, status, code) in [("[]", 422, "invalid_body"), ("{", 400, "malformed_json"), (r#"{"seed":1}"#, 422, "invalid_body")] {
        all.push(bad("options of a run", "POST", "/api/scenarios/1/runs", status, code).json(body));
    }
    all.push(bad("a form starts a run", "POST", "/api/scenarios/1/runs", 415, "unsupported_media_type"));
    for (method, path) in [
        ("PUT", "/api/orders"),
        ("DELETE", "/api/orders"),
        ("PATCH", "/api/orders/x"),
        ("GET", "/api/orders/x/cancel"),
        ("POST", "/api/orders/x/events"),
        ("POST", "/api/products"),
        ("POST", "/scenario/1"),
        ("PUT", "/api/events"),
        ("POST", "/api/live"),
        ("POST", "/api/subscriptions/order"),
        ("POST", "/health"),
        ("BREW", "/api/orders"),
        ("TRACE", "/api/orders"),
        ("OPTIONS", "/api/orders"),
    ] {
        all.push(bad("wrong method", method, path, 405, "method_not_allowed"));
    }
    for query in
        ["after=x", "after=17", "limit=0", "limit=101", "limit=-1", "limit=x", "limit=18446744073709551616", "status=lost", "page=2"]
    {
        all.push(bad("a bad query", "GET", &format!("/api/orders?{query}"), 400, "invalid_query"));
    }
    for query in ["after=x", "after=9223372036854775808", "limit=0", "limit=1001", "limit=x", "page=2"] {
        all.push(bad("a bad query", "GET", &format!("/api/events?{query}"), 400, "invalid_query"));
    }
    for query in ["after=x", "subject=a&subject=b", "page=2"] {
        all.push(bad("a bad query", "GET", &format!("/api/live?{query}"), 400, "invalid_query"));
    }
    all.push(bad("no socket", "GET", "/api/live", 426, "upgrade_required"));
    world.refuses_all_and_nothing_changes(all).await;

    let forged = world.attacker.cookie().unwrap().to_str().unwrap().replace("guest-", "guest-0");
    for cookie in [forged.as_str(), "cascade_session=", "cascade_session=guest-1.", "cascade_session=x; cascade_session=y", ";;;=;"] {
        let thief = Customer::stranger(&world.shop);
        let answer = thief.send(Method::GET, "/api/orders", &[("cookie", cookie)], "").await.unwrap();
        assert_eq!((answer.status, &answer.json["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")), "{cookie}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_event_is_refused() {
    let world = World::open("instant").await;
    let (payment, operator) = (world.keyring.service_token("payment"), world.keyring.service_token("operator"));
    let event = json!({
        "specversion": "1.0", "id": "e-1", "source": "/payment", "type": "cascade.PaymentAccepted.v1", "subject": world.order_id,
        "data": {"amount": {"amount_minor": 1490, "currency": "EUR"}},
    });
    let but = |field: &str, value: Value| {
        let mut event = event.clone();
        event[field] = value;
        event
    };
    let publish = |what: &str, status, code| bad(what, "POST", "/api/events", status, code);
    let as_guest = publish("a guest", 401, "unauthorized").with("content-type", kit::envelope::EVENT_JSON);
    let mut all = vec![
        Bad { body: event.to_string(), ..as_guest },
        publish("a made-up token", 401, "unauthorized").event("payment.AAAA", &event),
        publish("another's signature", 401, "unauthorized").event(&payment.replace("payment", "delivery"), &event),
        publish("an operator", 403, "forbidden").event(&operator, &event),
        publish("another source", 403, "forbidden").event(&payment, &but("source", json!("/delivery"))),
        publish("another type", 403, "forbidden").event(&payment, &but("type", json!("cascade.OrderCompleted.v1"))),
        publish("an unknown type", 422, "unknown_event_type").event(&payment, &but("type", json!("cascade.PaymentForgotten.v1"))),
        publish("an unknown version", 422, "unknown_event_type").event(&payment, &but("type", json!("cascade.PaymentAccepted.v2"))),
        publish("another specversion", 422, "invalid_body").event(&payment, &but("specversion", json!("0.3"))),
        publish("no id", 422, "invalid_body").event(&payment, &but("id", json!(null))),
        publish("an empty id", 422, "invalid_event").event(&payment, &but("id", json!(""))),
        publish("an endless id", 422, "invalid_event").event(&payment, &but("id", json!("x".repeat(1_025)))),
        publish("a sequence from 0", 422, "invalid_event").event(&payment, &but("sequence", json!("0"))),
        publish("no time", 422, "invalid_body").event(&payment, &but("time", json!("noon"))),
        publish("no CloudEvents name", 422, "invalid_body").event(&payment, &but("Camel_Case", json!(1))),
        publish("binary data", 422, "invalid_body").event(&payment, &but("data_base64", json!("aGk="))),
        publish("too large", 413, "event_too_large").event(&payment, &but("data", json!("x".repeat(300 * 1024)))),
        publish("no JSON", 400, "malformed_json").event(&payment, &"{"),
        publish("no object", 422, "invalid_body").event(&payment, &"[]"),
        publish("no body", 400, "malformed_json").event(&payment, &""),
        publish("a batch without its type", 422, "invalid_body").event(&payment, &json!([event])),
    ];
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    all.push(publish("100,000 arrays", 400, "too_deep").event(&payment, &event.to_string().replace("1490", &deep)));
    let batch = |what, status, code, events: Vec<Value>| {
        let bad = publish(what, status, code).with("content-type", kit::envelope::BATCH_JSON);
        Bad { body: json!(events).to_string(), ..bad.with("authorization", format!("Bearer {payment}")) }
    };
    all.push(batch("a batch begins with a forged one", 403, "forbidden", vec![but("source", json!("/order")), event.clone()]));
    all.push(batch("too many", 413, "too_many_events", vec![event.clone(); 1_001]));
    let known = world.events.iter().find(|event| event["source"] == "/payment").unwrap();
    let changed = json!({"specversion": "1.0", "id": known["id"], "source": "/payment", "type": "cascade.PaymentAccepted.v1", "data": {}});
    all.push(publish("a known id, other content", 409, "other_content").event(&payment, &changed));
    let media = publish("another media type", 415, "unsupported_media_type").json(event.to_string());
    all.push(media.with("authorization", format!("Bearer {payment}")));

    for path in ["/api/subscriptions", "/api/subscriptions/order", "/api/subscriptions/order/dead-letters"] {
        all.push(bad("a guest operates", "GET", path, 403, "forbidden"));
    }
    for act in ["redrive", "discard"] {
        let path = format!("/api/subscriptions/order/dead-letters/1/{act}");
        all.push(bad("a guest operates", "POST", &path, 403, "forbidden"));
        all.push(bad("nothing to act on", "POST", &path, 404, "not_found").with("authorization", format!("Bearer {operator}")));
    }
    let wanted = json!({"sink": "http://127.0.0.1:9/x", "types": ["cascade.OrderCreated.v1"], "revision": 9}).to_string();
    let subscribe = |what: &str, name: &str, status, code| bad(what, "PUT", &format!("/api/subscriptions/{name}"), status, code);
    all.push(subscribe("a guest subscribes", "spy", 403, "forbidden").json(&wanted));
    let by_payment = |bad: Bad| bad.with("authorization", format!("Bearer {payment}"));
    all.push(by_payment(subscribe("for another", "order", 403, "forbidden").json(&wanted)));
    for (sink, revision) in [("ftp://x/", "9"), ("http://u:p@x/", "9"), ("nowhere", "9"), ("http://127.0.0.1/", "0")] {
        let wanted = format!(r#"{{"sink":"{sink}","types":["a"],"revision":{revision}}}"#);
        all.push(by_payment(subscribe("no subscription", "payment", 422, "invalid_subscription").json(wanted)));
    }
    world.refuses_all_and_nothing_changes(all).await;

    let stranger = Customer::stranger(&world.shop);
    let headers = [("content-type", kit::envelope::EVENT_JSON)];
    let answer = stranger.send(Method::POST, "/api/events", &headers, event.to_string()).await.unwrap();
    assert_eq!((answer.status, &answer.json["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")));
}
