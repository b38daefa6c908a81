//! Events as they happen, as a browser gets them: over a WebSocket, or as server-sent events.

use axum::http::{HeaderName, HeaderValue};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use super::{Customer, PATIENCE, Shop, raw};

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// With a close frame of this code.
    Code(u16),
    /// Without a word.
    Silent,
}

/// A WebSocket at `/api/live`.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What was said first.
    pub welcome: Value,
}

impl Socket {
    /// Opens it, and is welcomed; a refusal gives the status.
    pub async fn open(shop: &Shop, customer: &Customer, query: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        Self::try_open(shop, customer, query, headers).await.map_err(|status| status.expect("the connection broke"))
    }

    /// The same, where the shop may break down: then there is no status.
    pub async fn try_open(shop: &Shop, customer: &Customer, query: &str, headers: &[(&str, &str)]) -> Result<Self, Option<u16>> {
        let mut request = format!("ws://127.0.0.1:{}/api/live{query}", shop.port()).into_client_request().unwrap();
        let map = request.headers_mut();
        map.insert("sec-websocket-protocol", HeaderValue::from_static("cloudevents.json"));
        map.extend(customer.cookie().map(|cookie| (HeaderName::from_static("cookie"), cookie.clone())));
        for (name, value) in headers {
            map.insert(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        match tokio::time::timeout(PATIENCE, connect_async(request)).await.expect("no answer to the upgrade") {
            Ok((stream, answer)) => {
                assert_eq!(answer.headers().get("sec-websocket-protocol").unwrap(), "cloudevents.json");
                let mut socket = Self { stream, welcome: Value::Null };
                let Ok(welcome) = socket.next_text().await else { return Err(None) };
                assert_eq!(notice_name(&welcome), Some("welcome"), "a welcome comes first");
                socket.welcome = welcome["data"].clone();
                Ok(socket)
            }
            Err(Error::Http(answer)) => Err(Some(answer.status().as_u16())),
            Err(_) => Err(None),
        }
    }

    /// The next event, or reset; or how the stream ended.
    pub async fn next(&mut self) -> Result<Value, End> {
        loop {
            let next = self.next_text().await?;
            // What an end says, the close frame after it says too.
            if !matches!(notice_name(&next), Some("heartbeat" | "end")) {
                return Ok(next);
            }
        }
    }

    async fn next_text(&mut self) -> Result<Value, End> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("nothing comes over the socket");
            match message {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(Some(frame)))) => return Err(End::Code(frame.code.into())),
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Err(End::Silent),
                Some(Ok(_)) => {}
            }
        }
    }

    pub async fn send(&mut self, message: Message) {
        // The shop may have hung up on the message before.
        let _ = self.stream.send(message).await;
    }
}

/// Server-sent events from `/api/live`.
pub struct EventStream {
    stream: BufReader<TcpStream>,
    /// What was said first.
    pub welcome: Value,
}

/// One of them.
#[derive(Debug)]
pub struct Sent {
    pub id: Option<String>,
    pub name: String,
    pub data: String,
}

impl EventStream {
    /// Opens it, and is welcomed; a refusal gives the status.
    pub async fn open(shop: &Shop, customer: &Customer, query: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let mut stream = raw::connect(shop).await;
        stream.write_all(request(shop, customer, query, headers).as_bytes()).await.unwrap();
        let mut stream = Self { stream: BufReader::new(stream), welcome: Value::Null };
        let status = stream.line().await.unwrap();
        let status: u16 = status.split(' ').nth(1).unwrap().parse().unwrap();
        if status != 200 {
            return Err(status);
        }
        while !stream.line().await.unwrap().is_empty() {}
        let welcome = stream.next().await.expect("a welcome comes first");
        assert_eq!(welcome.name, "welcome");
        let welcome: Value = serde_json::from_str(&welcome.data).unwrap();
        stream.welcome = welcome["data"].clone();
        Ok(stream)
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_line(&mut line)).await.expect("nothing comes over the stream");
        matches!(read, Ok(1..)).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The next event or notice, heartbeats aside; none at the end.
    pub async fn next(&mut self) -> Option<Sent> {
        let mut sent = Sent { id: None, name: String::new(), data: String::new() };
        loop {
            let line = self.line().await?;
            // Lines between them are the sizes of chunks, and comments that keep the stream alive.
            match line.split_once(':').map(|(field, value)| (field, value.trim_start())) {
                Some(("id", id)) => sent.id = Some(id.to_owned()),
                Some(("event", name)) => sent.name = name.to_owned(),
                Some(("data", data)) => sent.data = data.to_owned(),
                _ if line.is_empty() && sent.name == "heartbeat" => sent = Sent { id: None, name: String::new(), data: String::new() },
                _ if line.is_empty() && !sent.data.is_empty() => return Some(sent),
                _ => {}
            }
        }
    }
}

/// The request that opens a stream of server-sent events.
pub fn request(shop: &Shop, customer: &Customer, query: &str, headers: &[(&str, &str)]) -> String {
    let port = shop.port();
    let mut text = format!("GET /api/live{query} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: text/event-stream\r\n");
    for (name, value) in headers.iter().copied().chain(customer.cookie().map(|cookie| ("cookie", cookie.to_str().unwrap()))) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

/// The request that opens a WebSocket.
pub fn upgrade(shop: &Shop, customer: &Customer, query: &str) -> String {
    let headers = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    request(shop, customer, query, &headers).replace("accept: text/event-stream\r\n", "")
}

/// The name of a notice, which is no event of the log; none for an event.
pub fn notice_name(message: &Value) -> Option<&str> {
    message["type"].as_str()?.strip_prefix("cascade.live.")?.strip_suffix(".v1")
}

/// Where in the log an event stands.
pub fn position_of(event: &Value) -> i64 {
    event.get("position").unwrap().as_str().unwrap().parse().unwrap()
}

/// Whether nothing more will come of the order.
pub fn is_end(event: &Value) -> bool {
    ["OrderCompleted", "OrderCancelled"].contains(&super::name_of(event))
}
