//! One kept connection: HTTP/1.1 as plainly as it can be, since it shares the processors with what it measures. One request is under way
//! at a time.

use std::{io::BufRead, net::SocketAddr, ops::Range, time::Duration};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer, in bytes: that of a subscriber that tells all delays.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The pause after a broker that is too busy.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// A connection to a server on this machine.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where in it the last answer's body is.
    body: Range<usize>,
}

/// An answer.
pub(super) struct Answer<'a> {
    /// Its status.
    pub(super) status: u16,
    /// Its body.
    pub(super) body: &'a [u8],
}

impl Connection {
    /// Connects to `address`.
    pub(super) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 16 * 1024], body: 0..0 })
    }

    /// Sends a whole request, head and body; gives its answer.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        let sent = tokio::time::timeout(TIMEOUT, self.send(request)).await;
        let status = sent.with_context(|| format!("no answer within {} s", TIMEOUT.as_secs()))??;
        Ok(Answer { status, body: self.body() })
    }

    /// Sends a request until it is answered `status`; it waits while the server is busy.
    pub(super) async fn expect(&mut self, request: &[u8], status: u16) -> anyhow::Result<&[u8]> {
        loop {
            let answer = self.exchange(request).await?;
            match answer.status {
                429 => tokio::time::sleep(BUSY_PAUSE).await,
                other if other == status => break,
                other => bail!("answered {other}: {}", String::from_utf8_lossy(answer.body)),
            }
        }
        Ok(self.body())
    }

    async fn send(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            if filled == self.buffer.len() {
                ensure!(filled < ANSWER_BYTES_MAX, "an answer of more than {ANSWER_BYTES_MAX} bytes");
                self.buffer.resize(2 * filled, 0);
            }
            let read = self.stream.read(self.buffer.get_mut(filled..).unwrap_or_default()).await?;
            ensure!(read > 0, "the connection was closed");
            filled += read;
            if let Some(head) = Head::read(self.buffer.get(..filled).unwrap_or_default())? {
                let end = head.body_at + head.body_bytes;
                ensure!(filled <= end, "more than one answer");
                if filled == end {
                    self.body = head.body_at..end;
                    return Ok(head.status);
                }
            }
        }
    }

    fn body(&self) -> &[u8] {
        self.buffer.get(self.body.clone()).unwrap_or_default()
    }
}

/// What the head of a message says about its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The status of an answer; 0 of a request.
    pub(super) status: u16,
    /// Where the body begins.
    pub(super) body_at: usize,
    /// How long it is.
    pub(super) body_bytes: usize,
}

impl Head {
    /// Reads the head that `message` begins with; none while it is not whole.
    pub(super) fn read(message: &[u8]) -> anyhow::Result<Option<Self>> {
        let mut head = Self { status: 0, body_at: 0, body_bytes: 0 };
        let mut rest = message;
        loop {
            let before = rest;
            let length = rest.skip_until(b'\n').unwrap_or(0);
            let Some(line) = before.get(..length).and_then(|line| line.strip_suffix(b"\r\n")) else { return Ok(None) };
            if line.is_empty() {
                head.body_at = message.len() - rest.len();
                return Ok(Some(head));
            }
            let line = std::str::from_utf8(line).context("a head that is no text")?;
            if let Some(status) = line.strip_prefix("HTTP/1.1 ") {
                head.status = status.get(..3).and_then(|status| status.parse().ok()).context("an answer without a status")?;
            }
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                head.body_bytes = value.trim().parse().context("a length that is no number")?;
            }
            ensure!(!name.eq_ignore_ascii_case("transfer-encoding"), "a message in chunks");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_where_its_body_is() {
        let answer = b"HTTP/1.1 202 Accepted\r\nContent-Type: a\r\ncontent-LENGTH: 12\r\n\r\n{\"a\":";
        assert_eq!(Head::read(answer).unwrap(), Some(Head { status: 202, body_at: answer.len() - 5, body_bytes: 12 }));
        let request = b"POST /events HTTP/1.1\r\nhost: a:1\r\n\r\n";
        assert_eq!(Head::read(request).unwrap(), Some(Head { status: 0, body_at: request.len(), body_bytes: 0 }));
        assert_eq!(Head::read(b"HTTP/1.1 202 Accepted\r\nContent-Le").unwrap(), None);
        assert!(Head::read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(Head::read(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n").is_err());
    }
}
