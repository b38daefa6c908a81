//! The shop as five processes: any one of them is killed, stopped or started late, and every order still ends once.

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
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use kit::security::Keyring;
use serde_json::{Value, json};
use shop::{Customer, Shape, Shop, books, let_time_pass, name_of, routes::ServiceName, wait_until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// How many orders there are around each kill.
const ORDERS: u32 = 200;
/// How many customers order at once.
const BUYERS: u32 = 8;

/// Customers who order until they have what they want: the same key until it is acknowledged.
struct Rush {
    wanted: u32,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    failures: Arc<AtomicU32>,
    buyers: JoinSet<()>,
}

impl Rush {
    /// Starts it. `through` is who takes the orders: the storefront takes runs of a scenario.
    fn begin(customer: &Customer, wanted: u32, name: &str, through: ServiceName) -> Self {
        let (acknowledged, failures, next) =
            (Arc::<Mutex<BTreeSet<String>>>::default(), Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let mut buyers = JoinSet::new();
        for _ in 0..BUYERS {
            let (customer, name) = (customer.clone(), name.to_owned());
            let (acknowledged, failures, next) = (acknowledged.clone(), failures.clone(), next.clone());
            buyers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= wanted {
                        return;
                    }
                    let key = format!("{name}-{number}");
                    let order = loop {
                        let tried = match through {
                            ServiceName::Storefront => customer.try_run(1, &key).await,
                            _ => customer.try_order(&key).await,
                        };
                        match tried {
                            Some(order) => break order,
                            None => {
                                failures.fetch_add(1, Ordering::SeqCst);
                                let_time_pass(Duration::from_millis(50), "a service is away").await;
                            }
                        }
                    };
                    assert!(acknowledged.lock().unwrap().insert(order), "two keys, two orders");
                }
            });
        }
        Self { wanted, acknowledged, failures, buyers }
    }

    async fn reaches(&self, count: u32) {
        let is_reached = async || (self.acknowledged.lock().unwrap().len() >= count as usize).then_some(());
        wait_until(&format!("{count} orders are acknowledged"), is_reached).await;
    }

    /// Waits until a customer has met the service that is away.
    async fn meets_a_failure(&self) {
        let before = self.failures.load(Ordering::SeqCst);
        wait_until("an order fails", async || (self.failures.load(Ordering::SeqCst) > before).then_some(())).await;
    }

    /// Waits until all have what they want; gives the orders.
    async fn end(mut self) -> BTreeSet<String> {
        while let Some(buyer) = self.buyers.join_next().await {
            buyer.unwrap();
        }
        let orders = self.acknowledged.lock().unwrap().clone();
        assert_eq!(orders.len(), self.wanted as usize);
        orders
    }
}

/// Waits until all have ended, and checks the books.
async fn all_end(folder: &Path, customer: &Customer, orders: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut ends = BTreeMap::new();
    for order in orders {
        ends.insert(order.clone(), customer.end_of(order).await);
    }
    wait_until("nothing waits any more", async || books::are_settled(folder).then_some(())).await;
    books::check(folder, &ends);
    ends
}

/// What an operator, or a service, asks the broker.
struct Inside {
    keyring: Keyring,
    anybody: Customer,
}

impl Inside {
    fn of(shop: &Shop, folder: &Path) -> Self {
        Self { keyring: Keyring::load(&folder.join("secret")).unwrap(), anybody: Customer::stranger(shop) }
    }

    async fn send(&self, who: &str, method: Method, path: &str, body: &Value) -> shop::Answer {
        let bearer = format!("Bearer {}", self.keyring.service_token(who));
        let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
        self.anybody.send(method, path, &headers, body.to_string()).await.unwrap()
    }

    async fn subscription(&self, name: &str) -> Value {
        let answer = self.send("operator", Method::GET, &format!("/api/subscriptions/{name}"), &Value::Null).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json
    }

    /// What all subscriptions ask for.
    async fn wanted(&self) -> BTreeMap<&'static str, Value> {
        let mut all = BTreeMap::new();
        for name in ["order", "payment", "delivery"] {
            let subscription = self.subscription(name).await;
            all.insert(name, json!([subscription["sink"], subscription["types"], subscription["revision"]]));
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_one_service_killed_in_the_middle_of_200_orders_comes_back_and_all_of_them_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_as(Shape::FiveProcesses, folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    for victim in ServiceName::ALL {
        let rush = Rush::begin(&customer, ORDERS, victim.as_str(), victim);
        rush.reaches(ORDERS / 4).await;
        shop.service(victim.as_str()).kill();
        match victim {
            // Customers meet these, and try again.
            ServiceName::Order | ServiceName::Storefront => rush.meets_a_failure().await,
            // Nobody notices that these are away: orders are accepted, and wait.
            ServiceName::Broker | ServiceName::Payment | ServiceName::Delivery => {
                rush.reaches(ORDERS).await;
                assert!(!books::are_settled(folder.path()), "without {victim:?} all of them ended");
            }
        }
        shop.service(victim.as_str()).start();
        let orders = rush.end().await;
        let ends = all_end(folder.path(), &customer, &orders).await;
        assert!(ends.values().any(|end| end == "completed") && ends.values().any(|end| end == "cancelled"), "{victim:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_payment_is_away_orders_are_accepted_and_wait() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_as(Shape::FiveProcesses, folder.path(), &["--pace", "instant"]);
    let (customer, inside) = (Customer::visit(&shop).await, Inside::of(&shop, folder.path()));
    shop.service("payment").kill();
    let mut orders = BTreeSet::new();
    for number in 0..20 {
        orders.insert(customer.order(&format!("key-{number}")).await.unwrap());
    }
    let held = wait_until("the broker holds what is for payment", async || {
        let subscription = inside.subscription("payment").await;
        (subscription["status"]["state"] == "holding" && subscription["status"]["lag_events"].as_i64() >= Some(20)).then_some(subscription)
    })
    .await;
    assert!(held["status"]["last_error"]["reason"].is_string(), "it says why: {held}");
    for order in &orders {
        assert_eq!(customer.status(order).await, "pending");
        assert_eq!(customer.events_of(order).await.iter().map(name_of).collect::<Vec<_>>(), ["OrderCreated"]);
    }
    assert_eq!(shop.service("order").readiness(), Some(200), "another one's absence is not its own");
    shop.service("payment").start();
    all_end(folder.path(), &customer, &orders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_any_one_service_loses_no_acknowledged_order_and_no_cascade() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_as(Shape::FiveProcesses, folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    for victim in ServiceName::ALL {
        let rush = Rush::begin(&customer, ORDERS / 2, victim.as_str(), victim);
        rush.reaches(ORDERS / 8).await;
        let process = shop.service(victim.as_str());
        let asked = Instant::now();
        process.signal("TERM");
        let status = process.wait();
        assert!(status.success(), "{victim:?}: {status}, {}", process.said());
        assert!(asked.elapsed() < Duration::from_secs(10), "{victim:?} took {:?}", asked.elapsed());
        process.start();
        let orders = rush.end().await;
        all_end(folder.path(), &customer, &orders).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_answered_before_its_service_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_as(Shape::FiveProcesses, folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let cookie = customer.cookie().unwrap().to_str().unwrap().to_owned();
    let process = shop.service("order");
    let body = r#"{"lines":[{"product_id":"canoe","quantity":1}]}"#;
    let (begin, rest) = body.split_at(10);
    let head = format!(
        "POST /api/orders HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\ncontent-type: application/json\r\n\
         idempotency-key: key\r\ncontent-length: {}\r\n\r\n{begin}",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", process.port())).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let_time_pass(Duration::from_millis(200), "the request's head arrives").await;
    process.signal("TERM");
    wait_until("it takes no new connection", async || process.readiness().is_none().then_some(())).await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(process.wait().success());
    process.start();
    let listed = customer.get("/api/orders").await.json;
    let order = listed["items"][0]["order_id"].as_str().unwrap().to_owned();
    all_end(folder.path(), &customer, &BTreeSet::from([order])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_starts_again_still_knows_its_subscriptions() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_as(Shape::FiveProcesses, folder.path(), &["--pace", "instant"]);
    let (customer, inside) = (Customer::visit(&shop).await, Inside::of(&shop, folder.path()));
    let before = inside.wanted().await;
    customer.end_of(&customer.order("before").await.unwrap()).await;
    for kill in 0..3 {
        shop.service("broker").kill();
        let order = customer.order(&format!("away-{kill}")).await.unwrap();
        shop.service("broker").start();
        assert_eq!(inside.wanted().await, before, "nobody registered again");
        all_end(folder.path(), &customer, &BTreeSet::from([order])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_registrations_and_an_older_revision_that_joins_late_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_as(Shape::FiveProcesses, folder.path(), &["--pace", "instant"]);
    let (customer, inside) = (Customer::visit(&shop).await, Inside::of(&shop, folder.path()));
    let mut orders = BTreeSet::from([customer.order("first").await.unwrap()]);
    let before = inside.wanted().await;
    let (sink, types) = (&before["payment"][0], &before["payment"][1]);
    let register = async |sink: &Value, revision: i64| {
        let registration = json!({"sink": sink, "types": types, "revision": revision});
        inside.send("payment", Method::PUT, "/api/subscriptions/payment", &registration).await
    };
    for _ in 0..3 {
        assert_eq!(register(sink, 1).await.status, StatusCode::OK);
    }
    assert_eq!(inside.wanted().await, before);
    orders.insert(customer.order("after-three").await.unwrap());

    assert_eq!(register(sink, 2).await.json["revision"], 2);
    let old = register(&json!("http://127.0.0.1:1/events"), 1).await;
    assert_eq!((old.status, &old.json["revision"], &old.json["sink"]), (StatusCode::OK, &json!(2), sink), "it is told what counts");
    // The service itself registers with revision 1 when it starts.
    shop.service("payment").kill();
    orders.insert(customer.order("away").await.unwrap());
    shop.service("payment").start();
    shop.service("payment").wait_until_ready();
    assert_eq!(inside.subscription("payment").await["revision"], 2);
    orders.insert(customer.order("last").await.unwrap());
    all_end(folder.path(), &customer, &orders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_goes_from_one_process_to_five_and_back_with_its_orders() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--pace", "demo", "--workers", "100"];
    let mut one = Shop::open(folder.path(), &flags);
    let customer = Customer::visit(&one).await;
    let mut orders = BTreeSet::from([customer.order("in-one").await.unwrap()]);
    one.kill();
    let mut five = Shop::open_as(Shape::FiveProcesses, folder.path(), &flags);
    let customer = customer.at(&five);
    orders.insert(customer.order("in-five").await.unwrap());
    five.kill();
    one.restart();
    let customer = customer.at(&one);
    orders.insert(customer.order("again-in-one").await.unwrap());
    all_end(folder.path(), &customer, &orders).await;
}
