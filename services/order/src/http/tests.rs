//! The API over a real service: writer, store and outbox, without a socket.

use std::net::SocketAddr;

use axum::{body::Body as HttpBody, extract::ConnectInfo};
use contract::events::CATALOGUE;
use http::{Method, Request};
use http_body_util::BodyExt;
use kit::{
    Envelope, Lifecycle, Position, Recorded, Service,
    http::{finish, identity::OPERATOR},
    security::Keyring,
    transport::Sink,
};
use serde_json::{Value, json};
use testkit::{RecordingPublisher, eventually, world};
use tower::ServiceExt;

use super::*;

/// Two pairs of socks and a canoe.
const TOTAL_MINOR: i64 = 2 * 1_120 + 189_000;

struct Shop {
    router: Router,
    orders: Handle<Orders>,
    intake: Arc<dyn Sink>,
    published: Arc<RecordingPublisher>,
    keyring: Keyring,
    folder: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Shop {
    fn open() -> Self {
        Self::open_with(true)
    }

    fn open_with(is_playground: bool) -> Self {
        let (folder, environment) = (tempfile::tempdir().unwrap(), world(7));
        let published = Arc::new(RecordingPublisher::new());
        let service = Service::start(Orders, folder.path(), &environment, published.clone(), &Lifecycle::new()).unwrap();
        let keyring = Keyring::from_secret([7; 32]);
        let gate = Arc::new(Gate { keyring: keyring.clone(), is_playground, hosts: Vec::new(), proxies: "private".parse().unwrap() });
        let router = finish(router(service.handle().clone()), gate, &environment);
        Self { router, orders: service.handle().clone(), intake: service.intake(), published, keyring, folder }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<HttpBody>) -> Answer {
        let proxy = ConnectInfo(SocketAddr::from(([172, 18, 0, 2], 40_000)));
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost").extension(proxy);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn create(&self, headers: &[(&str, &str)], order: &Value) -> Answer {
        let mut headers = headers.to_vec();
        headers.push(("content-type", "application/json"));
        self.send(Method::POST, "/api/orders", &headers, order.to_string()).await
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.send(Method::GET, path, &[("cookie", cookie)], "").await
    }

    fn session(&self, owner: &str) -> String {
        format!("cascade_session={}", self.keyring.session(owner))
    }

    /// The broker delivers an event about `order_id`; answers the status of what was not accepted.
    async fn deliver(&self, ty: &str, order_id: &str, data: Value) -> Option<u16> {
        let (_, source) = CATALOGUE.iter().find(|(wire_type, _)| *wire_type == ty).unwrap();
        let id = self.orders.new_uuid().to_string();
        let event = json!({"specversion": "1.0", "id": id, "source": source, "type": ty, "subject": order_id, "data": data});
        let event: Envelope = serde_json::from_value(event).unwrap();
        let answers = self.intake.deliver(&[Recorded { position: Position(1), event: Arc::new(event) }]).await.unwrap();
        answers.first().map(|answer| answer.status)
    }

    async fn decline(&self, order_id: &str) {
        assert_eq!(self.deliver("cascade.PaymentDeclined.v1", order_id, json!({"reason": "card_declined"})).await, None);
    }

    async fn complete(&self, order_id: &str) {
        let amount = json!({"amount": {"amount_minor": TOTAL_MINOR, "currency": "EUR"}});
        assert_eq!(self.deliver("cascade.PaymentAccepted.v1", order_id, amount).await, None);
        let attempt = json!({"worker_id": "w-1", "attempt": 1});
        assert_eq!(self.deliver("cascade.DeliveryStarted.v1", order_id, attempt.clone()).await, None);
        assert_eq!(self.deliver("cascade.DeliveryCompleted.v1", order_id, attempt).await, None);
    }

    async fn emitted(&self, order_id: &str, types: &[&str]) {
        eventually(&format!("{order_id} emitted {types:?}"), || self.published.types_of(order_id) == types).await;
    }

    fn stored_orders(&self) -> i64 {
        let count = |db: &rusqlite::Connection| db.query_row("select count(*) from orders", [], |row| row.get(0));
        self.orders.readers().read(|db| count(db).map_err(StoreError::from)).unwrap()
    }
}

impl Answer {
    fn problem(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }

    fn order_id(&self) -> String {
        self.body["order_id"].as_str().unwrap().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

fn an_order() -> Value {
    json!({
        "lines": [{"product_id": "trout-socks", "quantity": 2}, {"product_id": "canoe", "quantity": 1}],
        "recipient": {"name": "Ada Lovelace", "address": "12 St James's Square", "note": "ring twice"},
    })
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_is_open_to_everybody() {
    let answer = Shop::open().get("/api/products", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["items"][0]["price"], json!({"amount_minor": 1_490, "currency": "EUR"}));
}

#[tokio::test(start_paused = true)]
async fn an_order_is_created_at_the_catalogues_prices_and_its_event_says_no_personal_data() {
    let shop = Shop::open();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("cookie", &*shop.session("guest-1")), ("traceparent", trace), ("cascade-scenario", "picky-workers")];
    let created = shop.create(&headers, &an_order()).await;
    let order_id = created.order_id();

    assert_eq!((created.status, created.body["status"].as_str()), (201, Some("pending")));
    assert_eq!(created.body["total"]["amount_minor"], TOTAL_MINOR);
    assert_eq!(created.body["recipient"]["name"], "Ada Lovelace");
    assert_eq!((created.header("location"), created.header("set-cookie")), (created.body["links"]["self"].as_str(), None));
    assert_eq!(created.header("cache-control"), Some("no-store"));

    shop.emitted(&order_id, &["cascade.OrderCreated.v1"]).await;
    let events = shop.published.events();
    let json = serde_json::to_string(&events).unwrap();
    assert!(!json.contains("Ada") && !json.contains("James") && !json.contains("twice"), "{json}");
    let event = &events[0];
    assert_eq!((event.source.as_str(), event.owner.as_deref()), ("/order", Some("guest-1")));
    assert_eq!((event.scenario.as_deref(), event.traceparent.as_deref()), (Some("picky-workers"), Some(trace)));
}

#[tokio::test(start_paused = true)]
async fn somebody_without_a_session_becomes_a_guest_with_one() {
    let shop = Shop::open();
    let created = shop.create(&[], &an_order()).await;
    let cookie = created.header("set-cookie").unwrap().split(';').next().unwrap();
    let path = format!("/api/orders/{}", created.order_id());
    assert_eq!(shop.get(&path, cookie).await.body["recipient"]["name"], "Ada Lovelace");
    assert_eq!(shop.get("/api/orders", cookie).await.body["items"].as_array().unwrap().len(), 1);
    shop.emitted(&created.order_id(), &["cascade.OrderCreated.v1"]).await;
    assert!(shop.published.events()[0].traceparent.is_some());
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_guest_who_orders_encrypted_is_secure() {
    let shop = Shop::open();
    for (scheme, is_secure) in [("http", false), ("https", true)] {
        let created = shop.create(&[("x-forwarded-proto", scheme)], &an_order()).await;
        assert_eq!(created.header("set-cookie").unwrap().ends_with("; Secure"), is_secure, "{scheme}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_key_and_body_give_the_same_order_and_another_body_is_refused() {
    let shop = Shop::open();
    let session = shop.session("guest-1");
    let headers = [("cookie", session.as_str()), ("idempotency-key", "k-1")];
    let first = shop.create(&headers, &an_order()).await;
    let again = shop.create(&headers, &an_order()).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, None));
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
    assert_eq!(again.body, first.body);

    let other = json!({"lines": [{"product_id": "canoe", "quantity": 1}]});
    assert_eq!(shop.create(&headers, &other).await.problem(), (422, "idempotency_mismatch"));
    let somebody_else = [("cookie", &*shop.session("guest-2")), ("idempotency-key", "k-1")];
    assert_eq!(shop.create(&somebody_else, &other).await.status, 201);
    assert_eq!(shop.stored_orders(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_anonymous_repeat_finds_the_order_but_gets_nobodys_session_and_no_personal_data() {
    let shop = Shop::open();
    let first = shop.create(&[("idempotency-key", "k-1")], &an_order()).await;
    assert!(first.header("set-cookie").is_some());
    let again = shop.create(&[("idempotency-key", "k-1")], &an_order()).await;
    assert_eq!((again.status, again.order_id()), (200, first.order_id()));
    assert_eq!((again.header("set-cookie"), &again.body["recipient"]), (None, &Value::Null));
    assert_eq!(shop.stored_orders(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_is_paged_newest_first_and_has_the_callers_orders_only() {
    let shop = Shop::open();
    let session = shop.session("guest-1");
    let mut newest_first = Vec::new();
    for _ in 0..5 {
        newest_first.insert(0, shop.create(&[("cookie", &session)], &an_order()).await.order_id());
        tokio::time::advance(std::time::Duration::from_millis(10)).await;
    }
    shop.create(&[("cookie", &shop.session("guest-2"))], &an_order()).await;

    let (mut listed, mut path, mut pages) = (Vec::new(), String::from("/api/orders?limit=2"), 0);
    loop {
        let page = shop.get(&path, &session).await;
        pages += 1;
        let items = page.body["items"].as_array().unwrap();
        listed.extend(items.iter().map(|item| item["order_id"].as_str().unwrap().to_owned()));
        match page.body["next"].as_str() {
            Some(next) => path = format!("/api/orders?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!((listed, pages), (newest_first.clone(), 3));

    shop.decline(&newest_first[1]).await;
    let cancelled = shop.get("/api/orders?status=cancelled", &session).await;
    assert_eq!(cancelled.body["items"][0]["order_id"], newest_first[1].as_str());
    assert_eq!(cancelled.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(shop.get("/api/orders", "").await.problem(), (401, "unauthorized"));
    for bad in ["limit=0", "limit=101", "limit=-1", "limit=many", "after=1", "status=lost", "page=2"] {
        assert_eq!(shop.get(&format!("/api/orders?{bad}"), &session).await.problem(), (400, "invalid_query"), "{bad}");
    }
    let misspelt = shop.get(&format!("/api/orders/{}?shared=1", newest_first[0]), &session).await;
    assert_eq!(misspelt.problem(), (400, "invalid_query"));
}

#[tokio::test(start_paused = true)]
async fn an_order_is_seen_by_its_owner_the_operator_and_whoever_has_its_link() {
    let shop = Shop::open();
    let created = shop.create(&[("cookie", &shop.session("guest-1"))], &an_order()).await;
    let other = shop.create(&[("cookie", &shop.session("guest-2"))], &an_order()).await;
    let path = format!("/api/orders/{}", created.order_id());

    assert_eq!(shop.get(&path, &shop.session("guest-1")).await.body["recipient"]["name"], "Ada Lovelace");
    let operator = format!("Bearer {}", shop.keyring.service_token(OPERATOR));
    assert_eq!(shop.send(Method::GET, &path, &[("authorization", &operator)], "").await.body["recipient"]["name"], "Ada Lovelace");
    let shared = shop.get(created.body["links"]["self"].as_str().unwrap(), "").await;
    assert_eq!((shared.status, shared.order_id(), &shared.body["recipient"]), (200, created.order_id(), &Value::Null));

    let (_, others_token) = other.body["links"]["self"].as_str().unwrap().split_once('?').unwrap();
    for (path, cookie) in [
        (path.clone(), String::new()),
        (path.clone(), shop.session("guest-2")),
        (format!("{path}?{others_token}"), String::new()),
        (String::from("/api/orders/01890a5d-ac96-774b-bcce-b302099a8057"), shop.session("guest-1")),
        (String::from("/api/orders/1"), shop.session("guest-1")),
        (path.to_uppercase().replace("/API/ORDERS", "/api/orders"), shop.session("guest-1")),
    ] {
        assert_eq!(shop.get(&path, &cookie).await.problem(), (404, "not_found"), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_asked_for_by_the_owner_and_seen_through() {
    let shop = Shop::open();
    let session = shop.session("guest-1");
    let created = shop.create(&[("cookie", &session), ("cascade-scenario", "6")], &an_order()).await;
    let order_id = created.order_id();
    let path = format!("/api/orders/{order_id}/cancel");
    let (_, share) = created.body["links"]["self"].as_str().unwrap().split_once('?').unwrap();
    for (path, cookie) in [(path.clone(), shop.session("guest-2")), (format!("{path}?{share}"), String::new())] {
        assert_eq!(shop.send(Method::POST, &path, &[("cookie", &cookie)], "").await.problem(), (404, "not_found"));
    }

    for _ in 0..2 {
        let asked = shop.send(Method::POST, &path, &[("cookie", &session)], "").await;
        assert_eq!((asked.status, asked.body["status"].as_str()), (202, Some("cancelling")));
        assert_eq!(asked.body["cancel_reason"], "customer_request");
        assert!(asked.body["waiting_for"].as_str().unwrap().starts_with("delivery"));
    }
    assert_eq!(shop.deliver("cascade.DeliveryCancelled.v1", &order_id, json!({})).await, None);
    assert_eq!(shop.deliver("cascade.PaymentNothingTaken.v1", &order_id, json!({"reason": "never_charged"})).await, None);
    assert_eq!(shop.get(&format!("/api/orders/{order_id}"), &session).await.body["status"], "cancelled");
    let emitted = [
        "cascade.OrderCreated.v1",
        "cascade.OrderCancellationRequested.v1",
        "cascade.PaymentReversalRequested.v1",
        "cascade.OrderCancelled.v1",
    ];
    shop.emitted(&order_id, &emitted).await;
    let requested = shop.published.events().into_iter().nth(1).unwrap();
    assert_eq!((requested.owner.as_deref(), requested.sequence), (Some("guest-1"), Some(2)));
    assert_eq!(requested.scenario.as_deref(), Some("6"), "the simulated parts still follow the order's script");
}

#[tokio::test(start_paused = true)]
async fn a_delivered_order_is_not_cancelled() {
    let shop = Shop::open();
    let session = shop.session("guest-1");
    let order_id = shop.create(&[("cookie", &session)], &an_order()).await.order_id();
    shop.complete(&order_id).await;
    let path = format!("/api/orders/{order_id}/cancel");
    let refused = shop.send(Method::POST, &path, &[("cookie", &session), ("content-type", "application/json")], "{}").await;
    assert_eq!(refused.problem(), (409, "already_delivered"));
    shop.emitted(&order_id, &["cascade.OrderCreated.v1", "cascade.OrderCompleted.v1"]).await;
    let completed = shop.published.events().pop().unwrap();
    assert!(completed.data.unwrap().get().contains("\"canoe\""));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_takes_no_fields() {
    let shop = Shop::open();
    let session = shop.session("guest-1");
    let order_id = shop.create(&[("cookie", &session)], &an_order()).await.order_id();
    let path = format!("/api/orders/{order_id}/cancel");
    for (media, body, problem) in [
        (Some("application/json"), r#"{"reason": "x"}"#, (422, "invalid_body")),
        (Some("application/json"), "[]", (422, "invalid_body")),
        (Some("application/json"), "{", (400, "malformed_json")),
        (Some("text/plain"), "{}", (415, "unsupported_media_type")),
        (Some("application/x-www-form-urlencoded"), "", (415, "unsupported_media_type")),
        (None, "{}", (415, "unsupported_media_type")),
    ] {
        let mut headers = vec![("cookie", session.as_str())];
        headers.extend(media.map(|media| ("content-type", media)));
        assert_eq!(shop.send(Method::POST, &path, &headers, body).await.problem(), problem, "{media:?} {body}");
    }
    assert_eq!(shop.get(&format!("/api/orders/{order_id}"), &session).await.body["status"], "pending");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_order_keeps_its_books_and_its_personal_data_is_in_no_file() {
    let shop = Shop::open();
    let session = shop.session("guest-1");
    let order_id = shop.create(&[("cookie", &session)], &an_order()).await.order_id();
    let path = format!("/api/orders/{order_id}");
    let delete = async |cookie: &str| shop.send(Method::DELETE, &path, &[("cookie", cookie)], "").await;
    let is_in_a_file = || {
        std::fs::read_dir(shop.folder.path()).unwrap().any(|file| {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            bytes.windows(12).any(|window| window == b"Ada Lovelace")
        })
    };
    assert_eq!(delete(&session).await.problem(), (409, "order_not_ended"));
    assert!(is_in_a_file(), "or the test could not fail");
    shop.complete(&order_id).await;
    assert_eq!(delete(&shop.session("guest-2")).await.problem(), (404, "not_found"));
    for _ in 0..2 {
        assert_eq!(delete(&session).await.status, 204);
    }
    let seen = shop.get(&path, &session).await;
    assert_eq!((seen.body["status"].as_str(), &seen.body["recipient"]), (Some("deleted"), &Value::Null));
    assert_eq!(seen.body["total"]["amount_minor"], TOTAL_MINOR);
    assert_eq!(shop.get("/api/orders", &session).await.body["items"], json!([]));
    let cancel = shop.send(Method::POST, &format!("{path}/cancel"), &[("cookie", &session)], "").await;
    assert_eq!(cancel.problem(), (410, "order_deleted"));
    shop.emitted(&order_id, &["cascade.OrderCreated.v1", "cascade.OrderCompleted.v1", "cascade.OrderDeleted.v1"]).await;
    eventually("the personal data is in no file", || !is_in_a_file()).await;
}

#[tokio::test(start_paused = true)]
async fn bad_input_gets_a_clear_problem_and_stores_nothing() {
    let shop = Shop::open();
    let socks = |quantity: Value| json!({"lines": [{"product_id": "trout-socks", "quantity": quantity}]}).to_string();
    let json = "application/json";
    for (media, body, problem) in [
        (json, String::new(), (400, "malformed_json")),
        (json, String::from("{\"lines\":"), (400, "malformed_json")),
        (json, "[".repeat(100_000), (422, "invalid_body")),
        (json, String::from("{\"lines\":") + &"[".repeat(100_000), (422, "invalid_body")),
        (json, String::from("null"), (422, "invalid_body")),
        (json, String::from("{}"), (422, "invalid_body")),
        (json, String::from(r#"{"lines": []}"#), (422, "empty_order")),
        (json, String::from(r#"{"lines": [], "total": 1}"#), (422, "invalid_body")),
        (json, String::from(r#"{"lines": [{"product_id": "canoe", "quantity": 1, "unit_price": 1}]}"#), (422, "invalid_body")),
        (json, String::from(r#"{"lines": [{"product_id": "../canoe", "quantity": 1}]}"#), (422, "invalid_body")),
        (json, String::from(r#"{"lines": [{"product_id": "submarine", "quantity": 1}]}"#), (422, "unknown_product")),
        (json, socks(json!(0)), (422, "invalid_quantity")),
        (json, socks(json!(-1)), (422, "invalid_body")),
        (json, socks(json!(1.5)), (422, "invalid_body")),
        (json, socks(json!("1")), (422, "invalid_body")),
        (json, socks(json!(1_001)), (422, "invalid_quantity")),
        (json, socks(json!(u64::MAX)), (422, "invalid_body")),
        (json, json!({"lines": vec![json!({"product_id": "canoe", "quantity": 1}); 51]}).to_string(), (422, "too_many_lines")),
        (json, format!("{{\"lines\": [], \"x\": \"{}\"}}", "x".repeat(300_000)), (413, "body_too_large")),
        ("text/plain", an_order().to_string(), (415, "unsupported_media_type")),
        ("application/x-www-form-urlencoded", String::from("lines=1"), (415, "unsupported_media_type")),
    ] {
        let shown: String = body.chars().take(80).collect();
        let answer = shop.send(Method::POST, "/api/orders", &[("content-type", media)], body).await;
        assert_eq!(answer.problem(), problem, "{shown}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(answer.header("set-cookie").is_none());
    }
    for (name, value, problem) in [
        ("idempotency-key", "a b", (400, "invalid_idempotency_key")),
        ("cascade-scenario", "No Such Thing", (400, "invalid_scenario")),
        ("origin", "http://evil.example", (403, "forbidden")),
        ("authorization", "Bearer operator.forged", (401, "unauthorized")),
    ] {
        assert_eq!(shop.create(&[(name, value)], &an_order()).await.problem(), problem, "{name}");
    }
    assert_eq!(shop.send(Method::PUT, "/api/orders", &[], "").await.problem(), (405, "method_not_allowed"));
    assert_eq!((shop.stored_orders(), shop.published.events().len()), (0, 0));

    let no_playground = Shop::open_with(false);
    assert_eq!(no_playground.create(&[("cascade-scenario", "1")], &an_order()).await.problem(), (403, "forbidden"));
    assert_eq!(no_playground.stored_orders(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_is_refused_and_changes_nothing() {
    let shop = Shop::open();
    let session = shop.session("guest-1");
    let order_id = shop.create(&[("cookie", &session)], &an_order()).await.order_id();
    let attempt = json!({"worker_id": "w-1", "attempt": 1});
    let amount = |amount_minor: i64| json!({"amount": {"amount_minor": amount_minor, "currency": "EUR"}});
    assert_eq!(shop.deliver("cascade.DeliveryStarted.v1", &order_id, attempt.clone()).await, Some(422));
    assert_eq!(shop.deliver("cascade.PaymentAccepted.v1", &order_id, amount(1)).await, Some(422));
    let nowhere = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert_eq!(shop.deliver("cascade.PaymentAccepted.v1", nowhere, amount(TOTAL_MINOR)).await, Some(422));
    assert_eq!(shop.get(&format!("/api/orders/{order_id}"), &session).await.body["version"], 1);

    shop.complete(&order_id).await;
    assert_eq!(shop.deliver("cascade.DeliveryCompleted.v1", &order_id, attempt).await, None, "a repeated fact is not refused");
    shop.emitted(&order_id, &["cascade.OrderCreated.v1", "cascade.OrderCompleted.v1"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_order_without_a_broker_is_kept_and_its_event_waits() {
    let shop = Shop::open();
    shop.published.set_away(true);
    let created = shop.create(&[], &an_order()).await;
    assert_eq!(created.status, 201);
    assert!(shop.published.events().is_empty());
    shop.published.set_away(false);
    shop.emitted(&created.order_id(), &["cascade.OrderCreated.v1"]).await;
}
