//! Bytes on a socket: for requests that no HTTP client would send.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{PATIENCE, Shop};

/// So little that a server which writes to somebody who does not read has to wait soon.
const SMALL_BUFFER_BYTES: u32 = 4 * 1024;

pub async fn connect(shop: &Shop) -> TcpStream {
    TcpStream::connect(("127.0.0.1", shop.port())).await.unwrap()
}

/// Sends `bytes` from somebody who then reads nothing.
pub async fn send_and_never_read(shop: &Shop, bytes: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SMALL_BUFFER_BYTES).unwrap();
    let mut stream = socket.connect(([127, 0, 0, 1], shop.port()).into()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// Sends `bytes` and nothing more; gives the status of the answer, or none if the connection was closed without one.
pub async fn status_of(shop: &Shop, bytes: &[u8]) -> Option<u16> {
    let mut stream = connect(shop).await;
    // The shop may hang up before it has read all.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    let read = async {
        while !answer.windows(2).any(|window| window == b"\r\n") {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => answer.extend_from_slice(&buffer[..count]),
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("neither an answer nor the end of the connection");
    let text = String::from_utf8_lossy(&answer);
    text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).map(|status| status.parse().unwrap())
}

/// Whether the other side has ended the connection within `time`.
pub async fn is_closed_within(stream: &mut TcpStream, time: Duration) -> bool {
    let mut buffer = [0; 4096];
    let read = async { while matches!(stream.read(&mut buffer).await, Ok(1..)) {} };
    tokio::time::timeout(time, read).await.is_ok()
}
