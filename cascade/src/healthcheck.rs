//! `cascade healthcheck`: whether a service on this machine is ready, for whoever watches its container.
//!
//! It is started again and again, so it has no runtime and reads nothing but the settings.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{cli::HealthcheckFlags, process::from_here, settings::SHOP_PORT};

/// How long it may take in all.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Every service answers to this name.
const REQUEST: &[u8] = b"GET /ready HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\nconnection: close\r\n\r\n";

/// Asks; an error says why it is not ready.
pub(crate) fn run(flags: &HealthcheckFlags) -> anyhow::Result<()> {
    let name = flags.service.map_or("the shop", |service| service.as_str());
    let port = flags.port.unwrap_or_else(|| flags.service.map_or(SHOP_PORT, |service| service.port()));
    let address = from_here(SocketAddr::new(flags.host, port));
    let answer = ask(address, Instant::now() + TIMEOUT).map_err(|error| match error.kind() {
        // A socket says that it would block when its time is over.
        ErrorKind::TimedOut | ErrorKind::WouldBlock => anyhow::anyhow!("no answer within {} s", TIMEOUT.as_secs()),
        _ => error.into(),
    });
    judge(&answer.with_context(|| format!("{name} does not answer at {address}"))?).with_context(|| format!("{name} at {address}"))
}

/// The whole answer, as bytes.
fn ask(address: SocketAddr, deadline: Instant) -> std::io::Result<Vec<u8>> {
    let left = || Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero()).ok_or(ErrorKind::TimedOut);
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(REQUEST)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        stream.set_read_timeout(Some(left()?))?;
        let read = stream.read(&mut buffer)?;
        answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if read == 0 || answer.len() > ANSWER_BYTES_MAX {
            return Ok(answer);
        }
    }
}

/// What is read of a problem document.
#[derive(Deserialize)]
struct Document {
    detail: String,
}

fn judge(answer: &[u8]) -> anyhow::Result<()> {
    let answer = String::from_utf8_lossy(answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    match status {
        Some("200") => Ok(()),
        Some(status) => match serde_json::from_str::<Document>(body) {
            Ok(document) => bail!("not ready: {}", document.detail.replace(char::is_control, " ")),
            Err(_) => bail!("not ready: it answers {status}"),
        },
        None => bail!("what answers there is no service of the shop"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(answer: &str) -> Result<(), String> {
        judge(answer.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn only_200_is_ready_and_everything_else_says_why_not() {
        assert_eq!(judged("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Ok(()));
        let starting = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"status\":503,\"detail\":\"the service waits for\\nthe broker\"}";
        assert_eq!(judged(starting), Err("not ready: the service waits for the broker".into()));
        assert_eq!(judged("HTTP/1.1 404 Not Found\r\n\r\n<html>"), Err("not ready: it answers 404".into()));
        for none in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 2"] {
            assert_eq!(judged(none), Err("what answers there is no service of the shop".into()), "{none}");
        }
    }
}
