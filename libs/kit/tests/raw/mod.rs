//! HTTP as it looks on a connection: a client that shows when a connection is closed, and a server to talk to.
#![allow(dead_code, unreachable_pub, reason = "each test target uses a part of it")]

use std::{io, net::SocketAddr, time::Duration};

use axum::Router;
use kit::{
    BoxFuture, Lifecycle,
    http::server::{self, Accepted, Listener, Stream},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// Longer than any limit of a server.
const PATIENCE: Duration = Duration::from_secs(600);

/// A server on a free port of this machine.
pub struct Server {
    pub address: SocketAddr,
    pub lifecycle: Lifecycle,
}

impl Server {
    pub async fn start(router: Router) -> Self {
        Self::start_with(router, Lifecycle::new()).await
    }

    pub async fn start_with(router: Router, lifecycle: Lifecycle) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), router, lifecycle)
    }

    pub fn serve(listener: TcpListener, router: Router, lifecycle: Lifecycle) -> Self {
        let address = listener.local_addr().unwrap();
        lifecycle.spawn("http", server::serve(listener, router, lifecycle.clone()));
        Self { address, lifecycle }
    }

    pub async fn connect(&self) -> Connection<TcpStream> {
        Connection::over(TcpStream::connect(self.address).await.unwrap())
    }
}

/// A server without a network, for tests whose time is paused.
pub struct Pipes(mpsc::UnboundedSender<DuplexStream>);

struct PipeListener(mpsc::UnboundedReceiver<DuplexStream>);

impl Pipes {
    pub fn serve(router: Router, lifecycle: &Lifecycle) -> Self {
        let (pipes, accepted) = mpsc::unbounded_channel();
        lifecycle.spawn("http", server::serve(PipeListener(accepted), router, lifecycle.clone()));
        Self(pipes)
    }

    pub fn connect(&self) -> Connection<DuplexStream> {
        let (client, server) = tokio::io::duplex(64 * 1024);
        self.0.send(server).unwrap();
        Connection::over(client)
    }
}

impl PipeListener {
    fn accepted(stream: DuplexStream) -> Accepted {
        (Box::new(stream) as Box<dyn Stream>, SocketAddr::from(([127, 0, 0, 1], 1)))
    }
}

impl Listener for PipeListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(stream) => Ok(Self::accepted(stream)),
                None => std::future::pending().await,
            }
        })
    }

    fn accept_waiting(&mut self) -> io::Result<Option<Accepted>> {
        Ok(self.0.try_recv().ok().map(Self::accepted))
    }
}

/// A client's end of a connection.
pub struct Connection<S>(BufReader<S>);

/// An answer whose length was said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Whether the server said that the connection ends with it.
    pub fn closes(&self) -> bool {
        self.head.contains("\r\nconnection: close\r\n")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    pub async fn send_get(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send_get(path).await;
        self.answer().await
    }

    /// The head of the next answer.
    pub async fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let length = tokio::time::timeout(PATIENCE, self.0.read_line(&mut head)).await.unwrap().unwrap();
            assert!(length > 0, "the connection ended after `{head}`");
        }
        head.to_ascii_lowercase()
    }

    pub async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.split("\r\ncontent-length: ").nth(1).map_or("0", |rest| rest.split('\r').next().unwrap());
        let body = self.read(length.parse().unwrap()).await;
        Answer { status, head, body: String::from_utf8(body).unwrap() }
    }

    pub async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.unwrap()?;
        Ok(bytes)
    }

    /// Waits until the server closes the connection, in order and without a word.
    pub async fn closed(&mut self) {
        assert_eq!(self.rest().await.unwrap(), b"");
    }
}
