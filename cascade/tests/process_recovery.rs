//! kill -9 at any instant, and a stop in order: nothing acknowledged is lost, nothing is done twice.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test fails by a panic, and waits by the real clock")]

mod shop;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use shop::{
    Customer, Shop,
    books::{self, count},
    let_time_pass, name_of,
};

/// How many times the shop is killed.
const KILLS: u32 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_the_shop_ends_every_acknowledged_order_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let is_over = Arc::new(AtomicBool::new(false));
    let number = Arc::new(AtomicU32::new(0));
    let buyers: Vec<_> = (0..8)
        .map(|_| {
            let (customer, acknowledged, is_over, number) = (customer.clone(), acknowledged.clone(), is_over.clone(), number.clone());
            tokio::spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let key = format!("key-{}", number.fetch_add(1, Ordering::SeqCst));
                    // The same key until it is acknowledged: whether the lost try was written or not, there is one order.
                    loop {
                        match customer.order(&key).await {
                            Ok(order) => {
                                assert!(acknowledged.lock().unwrap().insert(order), "two keys, two orders");
                                break;
                            }
                            Err(_) if is_over.load(Ordering::SeqCst) => return,
                            Err(_) => let_time_pass(Duration::from_millis(20), "the shop starts again").await,
                        }
                    }
                    let_time_pass(Duration::from_millis(15), "a buyer thinks").await;
                }
            })
        })
        .collect();
    for kill in 0..KILLS {
        let_time_pass(Duration::from_millis(120 + 77 * u64::from(kill)), "orders are under way at the kill").await;
        shop.kill();
        shop.restart();
    }
    is_over.store(true, Ordering::SeqCst);
    for buyer in buyers {
        buyer.await.unwrap();
    }
    let orders = acknowledged.lock().unwrap().clone();
    assert!(orders.len() > 50, "only {} orders were acknowledged", orders.len());
    let mut ends = BTreeMap::new();
    for order in &orders {
        ends.insert(order.clone(), customer.end_of(order).await);
    }
    assert!(ends.values().any(|end| end == "completed") && ends.values().any(|end| end == "cancelled"));
    let created = count(folder.path(), "order", "select count(*) from orders");
    assert!(created >= i64::try_from(orders.len()).unwrap());
    let deadline = Instant::now() + shop::PATIENCE;
    while count(folder.path(), "order", "select count(*) from orders where status not in ('completed', 'cancelled')") > 0
        || ["order", "payment", "delivery"].iter().any(|service| count(folder.path(), service, "select count(*) from outbox") > 0)
    {
        assert!(Instant::now() < deadline, "orders that were not acknowledged must end too");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    books::check(folder.path(), &ends);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_under_way_goes_on_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &["--pace", "demo", "--seed", "3"]);
    let customer = Customer::visit(&shop).await;
    let mut orders = Vec::new();
    for number in 0..12 {
        orders.push(customer.order(&format!("key-{number}")).await.unwrap());
    }
    let deadline = Instant::now() + shop::PATIENCE;
    let under_way = loop {
        let mut statuses = Vec::new();
        for order in &orders {
            statuses.push(customer.status(order).await);
        }
        if let Some(index) = statuses.iter().position(|status| status == "in_delivery") {
            break orders[index].clone();
        }
        assert!(Instant::now() < deadline, "no delivery begins: {statuses:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let before: Vec<_> = customer.events_of(&under_way).await;
    shop.kill();
    shop.restart();
    for order in &orders {
        customer.end_of(order).await;
    }
    let after = customer.events_of(&under_way).await;
    assert_eq!(after[..before.len()], before[..], "what was seen before is still there");
    assert!(["OrderCompleted", "OrderCancelled"].contains(&name_of(after.last().unwrap())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_order_loses_no_request_and_no_cascade() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &["--pace", "demo"]);
    let customer = Customer::visit(&shop).await;
    let stopping = Arc::new(AtomicBool::new(false));
    let buyers: Vec<_> = (0..6)
        .map(|buyer| {
            let (customer, stopping) = (customer.clone(), stopping.clone());
            tokio::spawn(async move {
                let mut orders = Vec::new();
                for number in 0.. {
                    match customer.order(&format!("{buyer}-{number}")).await {
                        Ok(order) => orders.push(order),
                        // A connection that is refused lost nothing; before the signal there is no reason for one.
                        Err(error) => {
                            assert!(stopping.load(Ordering::SeqCst), "{error}");
                            break;
                        }
                    }
                }
                orders
            })
        })
        .collect();
    let_time_pass(Duration::from_millis(400), "requests are under way at the stop").await;
    stopping.store(true, Ordering::SeqCst);
    let asked = Instant::now();
    shop.signal("TERM");
    assert!(shop.wait().success());
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
    let mut orders = Vec::new();
    for buyer in buyers {
        orders.extend(buyer.await.unwrap());
    }
    assert!(orders.len() > 10);
    shop.restart();
    for order in &orders {
        assert_eq!(customer.get(&format!("/api/orders/{order}")).await.status, StatusCode::OK);
    }
    customer.end_of(orders.last().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_signal_leaves_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &["--pace", "demo"]);
    // A client that never finishes its request holds the stop up.
    let mut slow = tokio::net::TcpStream::connect(("127.0.0.1", shop.port())).await.unwrap();
    let head = b"POST /api/orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
    tokio::io::AsyncWriteExt::write_all(&mut slow, head).await.unwrap();
    let_time_pass(Duration::from_millis(200), "the request's head arrives").await;
    shop.signal("INT");
    let_time_pass(Duration::from_millis(300), "the stop waits for the request").await;
    let asked = Instant::now();
    shop.signal("INT");
    assert!(!shop.wait().success());
    assert!(asked.elapsed() < Duration::from_secs(2), "it took {:?}", asked.elapsed());
}
