//! Customers who order, look, and listen, at a rate. What goes wrong is counted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::http::Method;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::shop::{
    Customer, Shop, let_time_pass,
    live::{self, Socket},
    wait_until,
};

/// How many customers there are, each with a live stream of their own.
pub const CUSTOMERS: u32 = 50;
/// The time from one request to the next: 200 a second.
const PAUSE: Duration = Duration::from_millis(5);

/// The load. It stops when it is told to.
pub struct Load {
    stopping: Arc<AtomicBool>,
    told: Arc<Told>,
    asking: tokio::task::JoinHandle<()>,
    listeners: Vec<Listener>,
}

#[derive(Default)]
struct Told {
    requests: AtomicU32,
    slowest_ms: Mutex<BTreeMap<String, u128>>,
    failures: Mutex<BTreeMap<String, u32>>,
    /// Orders that were acknowledged, and who ordered.
    orders: Mutex<BTreeMap<String, usize>>,
}

/// A customer with a live stream.
struct Listener {
    customer: Customer,
    seen: Arc<Mutex<Vec<(i64, Value)>>>,
    sockets: Arc<AtomicU32>,
    _listening: tokio::task::JoinHandle<()>,
}

/// What the load met.
pub struct Met {
    pub requests: u32,
    /// The slowest answer to each kind of request.
    pub slowest_ms: BTreeMap<String, u128>,
    /// What went wrong, and how often.
    pub failures: BTreeMap<String, u32>,
    pub orders: BTreeMap<String, usize>,
}

impl Load {
    /// Starts it; all streams are open when this ends.
    pub async fn begin(port: u16) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..CUSTOMERS {
            let customer = Customer::visit(&Shop::elsewhere(port)).await.patient();
            listeners.push(Listener::open(customer, port));
        }
        for listener in &listeners {
            wait_until("a stream is open", async || (listener.sockets.load(Ordering::SeqCst) > 0).then_some(())).await;
        }
        let (stopping, told) = (Arc::<AtomicBool>::default(), Arc::<Told>::default());
        let customers = listeners.iter().map(|listener| listener.customer.clone()).collect();
        let asking = tokio::spawn(ask(customers, stopping.clone(), told.clone()));
        Self { stopping, told, asking, listeners }
    }

    /// How many orders have been acknowledged.
    pub fn orders(&self) -> usize {
        self.told.orders.lock().unwrap().len()
    }

    /// Waits for so many more orders.
    pub async fn goes_on(&self, orders: usize) {
        let before = self.orders();
        wait_until("orders are taken", async || (self.orders() >= before + orders).then_some(())).await;
    }

    /// Stops asking, and waits until every order has ended and every stream has shown all of it: nothing twice, nothing out of
    /// sequence, no gap. `reconnections` is how often each stream must have come back at least.
    pub async fn end(self, reconnections: u32) -> Met {
        self.stopping.store(true, Ordering::SeqCst);
        self.asking.await.unwrap();
        let orders = self.told.orders.lock().unwrap().clone();
        for (order, customer) in &orders {
            self.listeners[*customer].customer.all_events_of(order).await;
        }
        for listener in &self.listeners {
            let events = events_of(&listener.customer).await;
            wait_until("a stream shows everything", async || (listener.seen.lock().unwrap().len() >= events.len()).then_some(())).await;
            assert_eq!(*listener.seen.lock().unwrap(), events, "a stream has a gap, or repeats something");
            assert!(listener.sockets.load(Ordering::SeqCst) > reconnections, "the stream was never closed");
        }
        Met {
            requests: self.told.requests.load(Ordering::SeqCst),
            slowest_ms: std::mem::take(&mut self.told.slowest_ms.lock().unwrap()),
            failures: std::mem::take(&mut self.told.failures.lock().unwrap()),
            orders,
        }
    }
}

impl Listener {
    fn open(customer: Customer, port: u16) -> Self {
        let (seen, sockets) = (Arc::<Mutex<Vec<(i64, Value)>>>::default(), Arc::<AtomicU32>::default());
        let listening = tokio::spawn(listen(customer.clone(), port, seen.clone(), sockets.clone()));
        Self { customer, seen, sockets, _listening: listening }
    }
}

/// Follows a customer's events, and goes on after the last one whenever the stream ends.
async fn listen(customer: Customer, port: u16, seen: Arc<Mutex<Vec<(i64, Value)>>>, sockets: Arc<AtomicU32>) {
    let shop = Shop::elsewhere(port);
    loop {
        let after = seen.lock().unwrap().last().map_or(0, |(position, _)| *position);
        let opened = Socket::try_open(&shop, &customer, &format!("?after={after}"), &[]).await;
        let Ok(mut socket) = opened else {
            let_time_pass(Duration::from_millis(100), "the shop is away").await;
            continue;
        };
        sockets.fetch_add(1, Ordering::SeqCst);
        while let Ok(event) = socket.next().await {
            seen.lock().unwrap().push((live::position_of(&event), event["id"].clone()));
        }
    }
}

/// All events of a customer, as the API tells them.
async fn events_of(customer: &Customer) -> Vec<(i64, Value)> {
    let (mut events, mut after) = (Vec::new(), String::from("0"));
    loop {
        let page = customer.get(&format!("/api/events?limit=1000&after={after}")).await;
        assert!(page.status.is_success(), "{page:?}");
        events.extend(page.json["items"].as_array().unwrap().iter().map(|event| (live::position_of(event), event["id"].clone())));
        match page.json["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return events,
        }
    }
}

/// Sends a request each 5 ms, whatever becomes of those before.
async fn ask(customers: Vec<Customer>, stopping: Arc<AtomicBool>, told: Arc<Told>) {
    let mut ticks = tokio::time::interval(PAUSE);
    let mut asked = JoinSet::new();
    for number in 0_usize.. {
        ticks.tick().await;
        if stopping.load(Ordering::SeqCst) {
            break;
        }
        let who = number % customers.len();
        asked.spawn(ask_once(number, who, customers[who].clone(), told.clone()));
        while asked.try_join_next().is_some() {}
    }
    while let Some(one) = asked.join_next().await {
        one.unwrap();
    }
}

/// One request in five is an order; the others look at what each service shows.
async fn ask_once(number: usize, who: usize, customer: Customer, told: Arc<Told>) {
    let began = tokio::time::Instant::now();
    let json = ("content-type", "application/json");
    let key = format!("order-{number}");
    // As the page does it: without a key, an order would not be sent twice by whoever stands in between.
    let (method, path, headers, body) = match number % 5 {
        0 => (
            Method::POST,
            "/api/orders",
            vec![json, ("idempotency-key", key.as_str())],
            r#"{"lines":[{"product_id":"canoe","quantity":1}]}"#,
        ),
        1 => (Method::GET, "/api/products", vec![], ""),
        2 => (Method::GET, "/api/events?limit=10", vec![], ""),
        3 => (Method::GET, "/", vec![("accept", "text/html")], ""),
        // A body, and no key: it is refused, and nobody but its service can say so.
        _ => (Method::POST, "/api/orders", vec![json], r#"{"lines":[]}"#),
    };
    let answer = customer.send(method, path, &headers, body).await;
    told.requests.fetch_add(1, Ordering::SeqCst);
    let took_ms = began.elapsed().as_millis();
    told.slowest_ms.lock().unwrap().entry(path.to_owned()).and_modify(|slowest| *slowest = took_ms.max(*slowest)).or_insert(took_ms);
    let is_as_expected = match (&answer, number % 5) {
        (Ok(answer), 0) => answer.status.as_u16() == 201,
        (Ok(answer), 4) => answer.status.as_u16() == 422,
        (Ok(answer), _) => answer.status.as_u16() == 200,
        (Err(_), _) => false,
    };
    let failure = match answer {
        Ok(answer) if is_as_expected => {
            if let Some(order) = answer.json["order_id"].as_str().filter(|_| number.is_multiple_of(5)) {
                told.orders.lock().unwrap().insert(order.to_owned(), who);
            }
            return;
        }
        Ok(answer) => format!("{path}: {} {}", answer.status, answer.text),
        Err(error) => format!("{path}: {error}"),
    };
    *told.failures.lock().unwrap().entry(failure).or_default() += 1;
}
