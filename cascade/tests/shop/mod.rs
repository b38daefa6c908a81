//! The shop as its users meet it: the real binary, in a folder and on a port of its own.
#![allow(dead_code, unreachable_pub, reason = "each test target uses a part of it")]
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

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use kit::http::client::{Client, ClientError, Limits, TcpConnect};
use serde_json::Value;

/// How long anything may take that must come to be.
pub const PATIENCE: Duration = Duration::from_secs(90);
const LIMITS: Limits = Limits { timeout: Duration::from_secs(10), answer_bytes_max: 16 * 1024 * 1024 };

/// A running shop. It is killed when it is dropped.
pub struct Shop {
    child: Child,
    folder: PathBuf,
    port: u16,
    flags: Vec<String>,
}

impl Shop {
    /// Starts `cascade up` on a free port.
    pub fn open(folder: &Path, flags: &[&str]) -> Self {
        Self::open_on(0, command(folder), folder, flags.iter().map(|flag| (*flag).to_owned()).collect())
    }

    /// The same under a `tracer`, a command that runs the command given to it.
    pub fn open_under(mut tracer: Command, folder: &Path, flags: &[&str]) -> Self {
        let shop = command(folder);
        tracer.env_clear().arg(shop.get_program()).args(shop.get_args());
        Self::open_on(0, tracer, folder, flags.iter().map(|flag| (*flag).to_owned()).collect())
    }

    fn open_on(port: u16, mut command: Command, folder: &Path, flags: Vec<String>) -> Self {
        command.args(["--port", &port.to_string()]).args(&flags);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let port = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the shop ended: {said}");
            said.push_str(&line);
            if let Some((_, rest)) = line.split_once("http://localhost:") {
                break rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
            }
        };
        // What it says later must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, folder: folder.into(), port, flags }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on the same folder and port.
    pub fn restart(&mut self) {
        *self = Self::open_on(self.port, command(&self.folder), &self.folder, self.flags.clone());
    }

    /// Sends a signal, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until the process has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the shop does not end");
            std::thread::yield_now();
            pause();
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
        Self { client: Client::new(Arc::new(TcpConnect)), base: shop.base(), cookie: None }
    }

    /// Somebody who has looked at a page of the shop, and so has a session.
    pub async fn visit(shop: &Shop) -> Self {
        let mut customer = Self::stranger(shop);
        let answer = customer.send(Method::GET, "/", &[("accept", "text/html")], "").await.unwrap();
        let cookie = answer.headers.get(header::SET_COOKIE).unwrap().to_str().unwrap();
        customer.cookie = Some(HeaderValue::try_from(cookie.split(';').next().unwrap()).unwrap());
        customer
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
        let answer = self.client.send(method, &uri, map, body.into().into(), LIMITS).await?;
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
