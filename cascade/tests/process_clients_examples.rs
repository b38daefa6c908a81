//! The examples of `examples/`, run as their readers would run them: they join a shop, and are killed while it is busy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod clients;

mod shop;

use std::collections::BTreeMap;

use axum::http::Method;
use clients::{Program, Stage, ask, logged, make_token};
use serde_json::{Value, json};
use shop::{Customer, Shop, process::free_port, wait_until};

/// How many orders of one piece there are: enough to make the stock run low, once.
const ORDERS: usize = 18;
/// After how many of them both services are killed.
const KILLS: [usize; 3] = [4, 9, 14];
/// How much the stock example has of a product at first.
const PIECES_AT_FIRST: usize = 20;

/// One of the examples.
struct Example {
    name: &'static str,
    file: &'static str,
    stage: Stage,
    token: String,
    port: u16,
    program: Program,
}

impl Example {
    async fn start(shop: &Shop, data: &std::path::Path, name: &'static str, folder: &str, file: &'static str, scopes: &[&str]) -> Self {
        let (stage, token, port) = (Stage::of(folder), make_token(shop, data, name, scopes), free_port());
        std::fs::write(stage.path(&format!("{name}.token")), &token).unwrap();
        let program = stage.start(file, &[], &variables(shop, port));
        let mut example = Self { name, file, stage, token, port, program };
        example.wait_until_joined().await;
        example
    }

    async fn kill_and_start_again(&mut self, shop: &Shop) {
        self.program.kill();
        self.program = self.stage.start(self.file, &[], &variables(shop, self.port));
        self.wait_until_joined().await;
    }

    async fn wait_until_joined(&mut self) {
        let joined = |said: &[Value]| said.iter().any(|line| line.as_str().is_some_and(|line| line.starts_with("joined"))).then_some(());
        self.program.wait_for("that it has joined", joined).await;
    }

    /// What it shows of itself.
    async fn look(&self, path: &str) -> Value {
        let elsewhere = Shop::elsewhere(self.port);
        Customer::stranger(&elsewhere).get(path).await.json
    }

    /// Waits until the shop has nothing for it any more; gives how many events it took.
    async fn wait_until_all_is_taken(&self, shop: &Shop, events: usize) {
        let path = format!("/api/subscriptions/{}", self.name);
        wait_until(&format!("{} has taken {events} events", self.name), async || {
            let answer = ask(shop, &self.token, Method::GET, &path, &Value::Null).await;
            let counts = &answer.json["status"]["counts"];
            assert_eq!(counts["dead_lettered"], 0, "{answer:?}");
            (counts["delivered"] == events && counts["pending"] == 0).then_some(())
        })
        .await;
    }
}

fn variables(shop: &Shop, port: u16) -> [(&'static str, &'static str); 2] {
    // A handful of short texts, kept for as long as the test.
    [("SHOP", shop.base().leak()), ("PORT", port.to_string().leak())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_are_awarded_and_stock_is_kept_once_for_each_order_although_both_services_are_killed() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant", "--luck", "always"]);
    let (data, customer) = (folder.path(), Customer::visit(&shop).await);
    let operator = make_token(&shop, data, "operator", &["--read", "*", "--read-owners", "--operate", "*"]);
    let scopes = ["--publish-as", "/loyalty", "--publish", "loyalty.*", "--subscribe-as", "loyalty"];
    let scopes = [&scopes[..], &["--subscribe", "cascade.OrderCompleted.v1"]].concat();
    let mut loyalty = Example::start(&shop, data, "loyalty", "examples/loyalty-points", "loyalty.js", &scopes).await;
    let scopes = ["--publish-as", "/stock", "--publish", "stock.*", "--subscribe-as", "stock", "--subscribe"];
    let types = "cascade.OrderCreated.v1,cascade.OrderCancelled.v1,cascade.OrderCompleted.v1";
    let mut stock = Example::start(&shop, data, "stock", "examples/stock-keeping", "stock.py", &[&scopes[..], &[types]].concat()).await;

    // Its card is declined: what was reserved for it is released.
    assert_eq!(customer.end_of(&customer.run(2).await).await, "cancelled");
    let mut orders = Vec::new();
    for number in 0..ORDERS {
        orders.push(customer.order(&format!("order-{number}")).await.unwrap());
        if KILLS.contains(&number) {
            loyalty.kill_and_start_again(&shop).await;
            stock.kill_and_start_again(&shop).await;
        }
    }
    for order in &orders {
        assert_eq!(customer.end_of(order).await, "completed");
    }
    loyalty.wait_until_all_is_taken(&shop, ORDERS).await;
    stock.wait_until_all_is_taken(&shop, 2 * (ORDERS + 1)).await;
    assert_all_is_right(&shop, &operator, &customer, &orders, &loyalty, &stock).await;

    for example in [&loyalty, &stock] {
        send_all_again(&shop, &operator, example.name).await;
    }
    assert_all_is_right(&shop, &operator, &customer, &orders, &loyalty, &stock).await;
    for example in [&mut loyalty, &mut stock] {
        assert!(example.program.stop().await.success(), "{} stops in order", example.name);
    }
}

/// Every order earned its points once, and took its piece once; each was said once.
async fn assert_all_is_right(shop: &Shop, operator: &str, customer: &Customer, orders: &[String], loyalty: &Example, stock: &Example) {
    let total = customer.get(&format!("/api/orders/{}", orders[0])).await.json["total"]["amount_minor"].as_u64().unwrap();
    let said = logged(shop, operator, "loyalty.PointsAwarded.v1").await;
    let awarded: Vec<_> =
        said.iter().map(|event| (event["subject"].as_str().unwrap(), event["data"]["points"].as_u64().unwrap())).collect();
    let expected: BTreeMap<_, _> = orders.iter().map(|order| (order.as_str(), total / 100)).collect();
    assert_eq!(awarded.len(), orders.len(), "each award is said once");
    assert_eq!(awarded.into_iter().collect::<BTreeMap<_, _>>(), expected);
    let completed = logged(shop, operator, "cascade.OrderCompleted.v1").await;
    let member = completed[0]["owner"].as_str().unwrap();
    assert_eq!(loyalty.look("/points").await, json!({member: total / 100 * u64::try_from(orders.len()).unwrap()}));

    let low = logged(shop, operator, "stock.StockLow.v1").await;
    assert_eq!(low.len(), 1, "it ran low once");
    let left = PIECES_AT_FIRST - orders.len();
    let product = low[0]["data"]["product_id"].as_str().unwrap();
    assert_eq!(low[0]["data"]["available"], 5);
    assert_eq!(stock.look("/stock").await, json!({product: {"on_hand": left, "available": left}}));
}

/// Sends the subscription all that it has had, and waits until it is taken.
async fn send_all_again(shop: &Shop, operator: &str, subscription: &str) {
    let path = format!("/api/subscriptions/{subscription}/replays");
    let replay = ask(shop, operator, Method::POST, &path, &json!({"rate_per_s": 10_000})).await.json;
    let path = format!("{path}/{}", replay["id"].as_str().unwrap());
    wait_until("everything was sent again", async || {
        let replay = ask(shop, operator, Method::GET, &path, &Value::Null).await.json;
        assert_eq!(replay["counts"]["dead_lettered"], 0, "{replay}");
        (replay["state"] == "completed" && replay["counts"]["delivered"].as_u64() > Some(0)).then_some(())
    })
    .await;
}
