//! What stands in front of five processes: it forwards each request to its service, by the table that the shop itself goes by.

use std::{collections::BTreeMap, io};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::routes::{self, ServiceName};

/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The front. It closes when it is dropped.
pub struct Front {
    port: u16,
    /// None for one that somebody else opened.
    _open: Option<oneshot::Sender<()>>,
}

impl Front {
    /// Opens it, for services on these ports.
    pub fn open(ports: BTreeMap<ServiceName, u16>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, closed) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    biased;
                    _ = closed => {}
                    () = serve(listener, ports) => {}
                }
            });
        });
        Self { port, _open: Some(open) }
    }

    /// One that is there already.
    pub fn elsewhere(port: u16) -> Self {
        Self { port, _open: None }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn serve(listener: TcpListener, ports: BTreeMap<ServiceName, u16>) {
    while let Ok((client, _)) = listener.accept().await {
        let ports = ports.clone();
        drop(tokio::spawn(async move { forward(client, &ports).await }));
    }
}

/// Forwards one request, and the bytes that follow in both directions: an answer, a stream or a WebSocket.
async fn forward(mut client: TcpStream, ports: &BTreeMap<ServiceName, u16>) -> io::Result<()> {
    let Some((head, rest)) = read_head(&mut client).await? else { return Ok(()) };
    let path = head.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let Some(service) = routes::find(path) else { return answer(client, "404 Not Found").await };
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", ports[&service])).await else { return answer(client, "502 Bad Gateway").await };
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    server.write_all(&[one_request(&head).as_bytes(), &rest].concat()).await?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.split(), server.split());
    let upwards = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        () = upwards => {}
    }
    to_client.shutdown().await
}

/// The head of a request, its empty line included, and what came after it.
async fn read_head(client: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), rest)));
        }
        if bytes.len() > HEAD_BYTES_MAX || client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}

/// The same head, for a connection that serves this request only.
fn one_request(head: &str) -> String {
    let is_named = |line: &str, name: &str| line.split(':').next().is_some_and(|header| header.eq_ignore_ascii_case(name));
    if head.lines().any(|line| is_named(line, "upgrade")) {
        return head.to_owned();
    }
    let lines = head.trim_end().lines().filter(|line| !is_named(line, "connection"));
    lines.chain(["connection: close", "", ""]).collect::<Vec<_>>().join("\r\n")
}

async fn answer(mut client: TcpStream, status: &str) -> io::Result<()> {
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await
}
