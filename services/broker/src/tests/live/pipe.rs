//! Connections in memory: they hold as little as a test wants, and time may be paused beside them.

use std::{io, net::SocketAddr};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue, header};
use kit::{
    BoxFuture,
    http::server::{Listener, Stream, serve},
};
use serde_json::Value;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

use super::super::{Shop, keyring, network::within};

/// More than any test says.
pub(super) const WIDE: usize = 1024 * 1024;

/// Where connections to a shop are made.
pub(super) struct Door(mpsc::UnboundedSender<DuplexStream>);

struct Arrivals(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Arrivals {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(stream) => Ok((Box::new(stream) as Box<dyn Stream>, SocketAddr::from(([127, 0, 0, 1], 1)))),
                None => std::future::pending().await,
            }
        })
    }
}

impl Door {
    pub(super) fn open(shop: &Shop) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        shop.lifecycle.spawn("server", serve(Arrivals(receiver), shop.router.clone(), shop.lifecycle.clone()));
        Self(sender)
    }

    /// A WebSocket of `owner`, on a connection that holds `bytes`; a refusal gives the status and the problem.
    pub(super) async fn try_socket(
        &self,
        path: &str,
        owner: &str,
        bytes: usize,
        headers: &[(&'static str, &'static str)],
    ) -> Result<Socket, (u16, Value)> {
        let (near, far) = tokio::io::duplex(bytes);
        self.0.send(far).unwrap();
        let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
        let cookie = format!("cascade_session={}", keyring().session(owner));
        request.headers_mut().insert(header::COOKIE, HeaderValue::try_from(cookie).unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        // It takes from the connection what it needs, and no more.
        let frugal = WebSocketConfig::default().read_buffer_size(256).write_buffer_size(0);
        match within(client_async_with_config(request, near, Some(frugal))).await {
            Ok((stream, _)) => Ok(Socket(stream)),
            Err(Error::Http(answer)) => {
                let problem = answer.body().as_deref().map(|body| serde_json::from_slice(body).unwrap_or_default());
                Err((answer.status().as_u16(), problem.unwrap_or_default()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn socket(&self, path: &str, owner: &str) -> Socket {
        self.try_socket(path, owner, WIDE, &[("sec-websocket-protocol", "cloudevents.json")]).await.unwrap()
    }
}

/// The end of a WebSocket at which a reader sits.
pub(super) struct Socket(pub(super) WebSocketStream<DuplexStream>);

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// An event at this position.
    Event(i64),
    /// A notice of this name, and its data.
    Notice(String, Value),
    /// A close frame: its code and reason.
    Close(u16, String),
    /// The end of the connection.
    Nothing,
}

/// What a text says.
pub(super) fn said(text: &str) -> Said {
    let value: Value = serde_json::from_str(text).unwrap();
    match value.get("position") {
        Some(position) => Said::Event(position.as_str().unwrap().parse().unwrap()),
        None => {
            let name = value["type"].as_str().unwrap().strip_prefix("cascade.live.").unwrap().strip_suffix(".v1").unwrap();
            Said::Notice(name.to_owned(), value["data"].clone())
        }
    }
}

impl Socket {
    /// What comes next, pings aside.
    pub(super) async fn next(&mut self) -> Said {
        loop {
            match within(self.0.next()).await {
                Some(Ok(Message::Text(text))) => return said(&text),
                Some(Ok(Message::Close(Some(frame)))) => return Said::Close(frame.code.into(), frame.reason.to_string()),
                Some(Ok(Message::Close(None))) => return Said::Close(1005, String::new()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Said::Nothing,
            }
        }
    }

    /// The data of the notice `name`, which must come next.
    pub(super) async fn notice(&mut self, name: &str) -> Value {
        match self.next().await {
            Said::Notice(said, data) if said == name => data,
            other => panic!("no {name}: {other:?}"),
        }
    }

    /// The positions of the next events; nothing else may come between.
    pub(super) async fn events(&mut self, count: usize) -> Vec<i64> {
        let mut positions = Vec::new();
        while positions.len() < count {
            match self.next().await {
                Said::Event(position) => positions.push(position),
                other => panic!("no event after {positions:?}: {other:?}"),
            }
        }
        positions
    }

    pub(super) async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }
}
