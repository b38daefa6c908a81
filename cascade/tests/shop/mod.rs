//! The shop as its users meet it: the real binary, in a folder and on a port of its own.
#![allow(dead_code, unreachable_pub, unused_macros, reason = "each test target uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail as tests do, and this world's clock is real"
)]

/// The shop's stores, read from outside as an auditor would.
pub mod books;

/// Events as they happen, as a browser gets them.
pub mod live;

/// Bytes on a socket: for requests that no HTTP client would send.
pub mod raw;

/// One process of the shop.
pub mod process;

/// What stands in front of five processes.
pub mod front;

/// The shop's own table of who answers which path.
#[path = "../../src/routes.rs"]
pub mod routes;

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use kit::http::client::{Client, ClientError, Limits, TcpConnect};
use serde_json::Value;

use front::Front;
use process::Process;
use routes::ServiceName;

/// How long anything may take that must come to be.
pub const PATIENCE: Duration = Duration::from_secs(90);
const LIMITS: Limits = Limits { timeout: Duration::from_secs(10), answer_bytes_max: 16 * 1024 * 1024 };

/// How the shop runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `cascade up`.
    OneProcess,
    /// `cascade serve`, five times, with a front that has the same paths.
    FiveProcesses,
}

/// Makes two tests of each of these functions from a [`Shape`]: one for the shop in one process, one for the shop in five.
macro_rules! in_both_shapes {
    ($($journey:ident),+ $(,)?) => {
        mod in_one_process {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $journey() {
                super::$journey(super::shop::Shape::OneProcess).await;
            })+
        }
        mod in_five_processes {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $journey() {
                super::$journey(super::shop::Shape::FiveProcesses).await;
            })+
        }
    };
}

/// A shop. Its processes are killed when it is dropped.
pub struct Shop {
    processes: BTreeMap<&'static str, Process>,
    front: Option<Front>,
}

impl Shop {
    /// Starts `cascade up` on a free port.
    pub fn open(folder: &Path, flags: &[&str]) -> Self {
        Self::open_as(Shape::OneProcess, folder, flags)
    }

    /// Starts the shop in this shape, and waits until it is ready.
    pub fn open_as(shape: Shape, folder: &Path, flags: &[&str]) -> Self {
        let mut shop = match shape {
            Shape::OneProcess => Self::one(folder, flags),
            Shape::FiveProcesses => Self::five(folder, flags),
        };
        shop.restart();
        shop.processes.values().for_each(Process::wait_until_ready);
        shop
    }

    /// `cascade up` under a `tracer`, a command that runs the command given to it.
    pub fn open_under(mut tracer: Command, folder: &Path, flags: &[&str]) -> Self {
        let mut shop = Self::one(folder, flags);
        let up = command(folder);
        tracer.env_clear().arg(up.get_program()).args(up.get_args()).args(flags);
        let process = shop.service("up");
        process.spawn_as(tracer);
        process.wait_until_open();
        shop
    }

    fn one(folder: &Path, flags: &[&str]) -> Self {
        let arguments = ["up", "--data-dir", folder.to_str().unwrap()].iter().chain(flags).map(|&argument| argument.to_owned()).collect();
        Self { processes: BTreeMap::from([("up", Process::new(arguments, 0))]), front: None }
    }

    /// Five services with a front; none of them is started yet.
    pub fn five(folder: &Path, flags: &[&str]) -> Self {
        Self::five_in(|_| folder.to_owned(), flags)
    }

    /// The same, each with a data folder of its own below `folder`, named for it.
    pub fn five_apart(folder: &Path, flags: &[&str]) -> Self {
        Self::five_in(|service| folder.join(service.as_str()), flags)
    }

    fn five_in(folder_of: impl Fn(ServiceName) -> PathBuf, flags: &[&str]) -> Self {
        let ports: BTreeMap<ServiceName, u16> = ServiceName::ALL.map(|service| (service, process::free_port())).into();
        let url = |service| format!("http://127.0.0.1:{}", ports[&service]);
        let (broker, order) = (url(ServiceName::Broker), url(ServiceName::Order));
        let processes = ports.iter().map(|(service, port)| {
            let folder = folder_of(*service);
            let own = ["serve", service.as_str(), "--data-dir", folder.to_str().unwrap(), "--broker-url", &broker, "--order-url", &order];
            let arguments = own.iter().chain(flags).map(|&argument| argument.to_owned()).collect();
            (service.as_str(), Process::new(arguments, *port))
        });
        Self { processes: processes.collect(), front: Some(Front::open(ports.clone())) }
    }

    /// A shop that somebody else runs, behind a front on this port.
    pub fn elsewhere(port: u16) -> Self {
        Self { processes: BTreeMap::new(), front: Some(Front::elsewhere(port)) }
    }

    /// One of the services that run apart.
    pub fn service(&mut self, name: &str) -> &mut Process {
        self.processes.get_mut(name).unwrap()
    }

    pub fn port(&self) -> u16 {
        self.front.as_ref().map_or_else(|| self.processes["up"].port(), Front::port)
    }

    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    pub fn pid(&self) -> u32 {
        self.processes["up"].pid()
    }

    /// What the shop in one process said on stderr since its last start.
    pub fn said(&self) -> String {
        self.processes["up"].said()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.processes.values_mut().for_each(Process::kill);
    }

    /// Starts it again, on the same folder and ports.
    pub fn restart(&mut self) {
        self.processes.values_mut().for_each(Process::spawn);
        self.processes.values_mut().for_each(Process::wait_until_open);
    }

    /// Sends a signal, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        self.processes.values().for_each(|process| process.signal(name));
    }

    /// Waits until the shop has ended; gives the exit status, of several the first that is no success.
    pub fn wait(&mut self) -> ExitStatus {
        let ended: Vec<_> = self.processes.values_mut().map(Process::wait).collect();
        ended.iter().find(|status| !status.success()).copied().unwrap_or(ended[0])
    }
}

/// `cascade up` with its data in `folder`, and nothing from this process's environment.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
    command.env_clear().arg("up").arg("--data-dir").arg(folder).stdin(Stdio::null());
    command
}

/// Runs a command that is expected to end by itself; gives its exit status and what it said on stderr.
pub fn run_to_end(command: &mut Command) -> (ExitStatus, String) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end: {command:?}");
        }
        pause();
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status, said)
}

/// Looks until there is what was looked for, named `what`; gives it.
pub async fn wait_until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn pause() {
    std::thread::park_timeout(Duration::from_millis(5));
}

/// Somebody with a browser, or without.
#[derive(Clone)]
pub struct Customer {
    client: Client,
    base: String,
    cookie: Option<HeaderValue>,
    limits: Limits,
}

/// An answer with a JSON body, or none.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub json: Value,
    pub text: String,
}

impl Customer {
    /// Somebody without a session.
    pub fn stranger(shop: &Shop) -> Self {
        Self { client: Client::new(Arc::new(TcpConnect)), base: shop.base(), cookie: None, limits: LIMITS }
    }

    /// Somebody who has looked at a page of the shop, and so has a session.
    pub async fn visit(shop: &Shop) -> Self {
        let mut customer = Self::stranger(shop);
        let answer = customer.send(Method::GET, "/", &[("accept", "text/html")], "").await.unwrap();
        let cookie = answer.headers.get(header::SET_COOKIE).unwrap().to_str().unwrap();
        customer.cookie = Some(HeaderValue::try_from(cookie.split(';').next().unwrap()).unwrap());
        customer
    }

    /// The same, who waits for longer: behind a balancer that waits for a service.
    pub fn patient(self) -> Self {
        Self { limits: Limits { timeout: PATIENCE, ..LIMITS }, ..self }
    }

    /// The same with another session.
    pub fn with_cookie(self, cookie: Option<&HeaderValue>) -> Self {
        Self { cookie: cookie.cloned(), ..self }
    }

    pub fn cookie(&self) -> Option<&HeaderValue> {
        self.cookie.as_ref()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", "application/json")], "").await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], body).await.unwrap()
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<String>) -> Result<Answer, ClientError> {
        let uri: Uri = format!("{}{path}", self.base).parse().unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        if let Some(cookie) = &self.cookie {
            map.insert(header::COOKIE, cookie.clone());
        }
        let answer = self.client.send(method, &uri, map, body.into().into(), self.limits).await?;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        Ok(Answer {
            status: answer.status(),
            headers: answer.headers().clone(),
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        })
    }

    /// Orders one piece of the first product; gives the order's id.
    pub async fn order(&self, key: &str) -> Result<String, ClientError> {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let products = self.send(Method::GET, "/api/products", &[], "").await?;
        let product =
            products.json.get("items").unwrap_or(&products.json).get(0).unwrap().get("product_id").unwrap().as_str().unwrap().to_owned();
        let body = format!(r#"{{"lines":[{{"product_id":"{product}","quantity":1}}]}}"#);
        let answer = self.send(Method::POST, "/api/orders", &headers, body).await?;
        assert!(answer.status.is_success(), "{answer:?}");
        Ok(answer.json.get("order_id").unwrap().as_str().unwrap().to_owned())
    }

    /// The same, where the shop may break down: none if it gave no order.
    pub async fn try_order(&self, key: &str) -> Option<String> {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let body = r#"{"lines":[{"product_id":"canoe","quantity":1}]}"#;
        let answer = self.send(Method::POST, "/api/orders", &headers, body).await.ok()?;
        answer.json.get("order_id").filter(|_| answer.status.is_success()).and_then(Value::as_str).map(str::to_owned)
    }

    /// The same with a run of the scenario.
    pub async fn try_run(&self, scenario: u32, key: &str) -> Option<String> {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let answer = self.send(Method::POST, &format!("/api/scenarios/{scenario}/runs"), &headers, "").await.ok()?;
        answer.json.get("order_id").filter(|_| answer.status.is_success()).and_then(Value::as_str).map(str::to_owned)
    }

    /// The same customer, at another shop that knows them.
    pub fn at(&self, shop: &Shop) -> Self {
        Self { base: shop.base(), ..self.clone() }
    }

    /// Runs a scenario; gives its order's id.
    pub async fn run(&self, scenario: u32) -> String {
        let answer = self.post(&format!("/api/scenarios/{scenario}/runs"), "").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.json.get("order_id").unwrap().as_str().unwrap().to_owned()
    }

    /// Asks for the order to be cancelled.
    pub async fn cancel(&self, order_id: &str) -> Answer {
        self.send(Method::POST, &format!("/api/orders/{order_id}/cancel"), &[], "").await.unwrap()
    }

    pub async fn delete(&self, order_id: &str) -> Answer {
        self.send(Method::DELETE, &format!("/api/orders/{order_id}"), &[], "").await.unwrap()
    }

    /// Waits until the order is `status`.
    pub async fn wait_until_status(&self, order_id: &str, status: &str) {
        wait_until(&format!("order {order_id} is {status}"), async || (self.status(order_id).await == status).then_some(())).await;
    }

    /// Waits until the order has ended and its last event is in the log; gives all of them.
    pub async fn all_events_of(&self, order_id: &str) -> Vec<Value> {
        self.end_of(order_id).await;
        wait_until(&format!("the last event of {order_id}"), async || {
            let events = self.events_of(order_id).await;
            events.last().is_some_and(live::is_end).then_some(events)
        })
        .await
    }

    pub async fn status(&self, order_id: &str) -> String {
        let answer = self.get(&format!("/api/orders/{order_id}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json.get("status").unwrap().as_str().unwrap().to_owned()
    }

    /// Waits until the order has ended; gives the end.
    pub async fn end_of(&self, order_id: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(order_id).await;
            if ["completed", "cancelled"].contains(&status.as_str()) {
                return status;
            }
            assert!(Instant::now() < deadline, "order {order_id} does not end: {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The names of the order's events, in sequence.
    pub async fn events_of(&self, order_id: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/orders/{order_id}/events?limit=1000")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json.get("items").unwrap().as_array().unwrap().clone()
    }
}

/// An event's bare name, e.g. `OrderCreated`.
pub fn name_of(event: &Value) -> &str {
    event.get("type").unwrap().as_str().unwrap().split('.').nth(1).unwrap()
}

/// Lets time go by where time itself is the matter: `why` says what happens meanwhile.
pub async fn let_time_pass(duration: Duration, _why: &str) {
    tokio::time::sleep(duration).await;
}
