//! What the log says of a request. Alone in its process: who listens to the log is asked once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, routing::get};
use kit::{
    http::{Gate, finish},
    security::Keyring,
};

mod raw;

const CLIENT: &str = "198.51.100.7";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_clients_address_is_in_the_requests_span_and_nowhere_else_in_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let gate =
        Gate { keyring: Keyring::from_secret([1; 32]), is_playground: false, hosts: Vec::new(), proxies: "private".parse().unwrap() };
    let routes = Router::new().route("/", get(async || tracing::info!("it is shown")));
    let server = raw::Server::start(finish(routes, Arc::new(gate), &testkit::world(1))).await;
    let mut connection = server.connect().await;
    connection.send(format!("GET / HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: {CLIENT}\r\n\r\n")).await;
    assert_eq!(connection.answer().await.status, 200);
    // Something that breaks is logged as well.
    connection.send("GET\r\n\r\n").await;
    connection.rest().await.unwrap();
    drop(connection);
    assert!(server.lifecycle.stop(Duration::from_secs(10)).await);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<_> = lines.iter().filter(|line| line["fields"]["message"] == "it is shown").collect();
    assert_eq!(shown.len(), 1);
    for line in shown {
        assert_eq!(line["span"]["client.address"], CLIENT, "{line}");
    }
    assert!(log.contains("a connection broke"), "{log}");
    for mut line in lines {
        line["span"]["client.address"].take();
        if let Some(spans) = line["spans"].as_array_mut() {
            spans.iter_mut().for_each(|span| drop(span["client.address"].take()));
        }
        let line = line.to_string();
        assert!(!line.contains(CLIENT) && !line.contains("127.0.0.1"), "{line}");
    }
}
