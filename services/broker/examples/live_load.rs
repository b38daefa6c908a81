//! Opens thousands of live streams at a shop that runs in another process, and says what each costs and how fast an event comes.
//!
//! ```text
//! cascade up --data-dir /tmp/shop --port 4000 &
//! cargo run --release -p broker --example live_load -- 127.0.0.1:4000 /tmp/shop/secret $! 10000 socket
//! ```
//!
//! The arguments: where the shop is, its secret, the process id of the one that serves the streams, how many, and `socket` or `sent`
//! (server-sent events). Each stream is a customer's own. More than 10,000 need a higher `ulimit -n` than is usual.

use std::{error::Error, io::Write, path::Path, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use kit::{envelope::EVENT_JSON, ids::Ids, security::Keyring};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::Instant,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// How many streams are being opened at once.
const OPENING_MAX: usize = 64;
/// How many events are sent, one after the other, to measure how long they take.
const ROUNDS: usize = 2_000;
/// Longer than the shop is silent.
const QUIET: Duration = Duration::from_secs(25);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What is being measured.
struct Target {
    address: String,
    keyring: Keyring,
    server: u32,
    is_socket: bool,
}

/// One customer's stream.
enum Live {
    Socket(Box<WebSocketStream<TcpStream>>),
    Sent(BufReader<TcpStream>),
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, secret, server, count, transport] = arguments.as_slice() else {
        return Err("arguments: address, secret file, process id, how many, `socket` or `sent`".into());
    };
    let target = Target {
        address: address.clone(),
        keyring: Keyring::load(Path::new(secret))?,
        server: server.parse()?,
        is_socket: match transport.as_str() {
            "socket" => true,
            "sent" => false,
            _ => return Err("the last argument is `socket` or `sent`".into()),
        },
    };
    let count: usize = count.parse()?;
    let mut out = std::io::stdout();

    // What the shop allocates once, it has allocated after this.
    drop(open(&target, 200.min(count)).await?);
    let_time_pass(Duration::from_secs(2)).await;
    let before = resident_kib(target.server)?;
    let begun = Instant::now();
    let mut streams = open(&target, count).await?;
    writeln!(out, "{count} streams open after {:.1} s", begun.elapsed().as_secs_f64())?;
    let_time_pass(Duration::from_secs(2)).await;
    report(&mut out, "open", before, resident_kib(target.server)?, count)?;
    let alone = count.min(1);
    let latencies = measure(&target, streams.get_mut(..alone).unwrap_or_default()).await?;
    writeln!(out, "always the same reader: {latencies}")?;
    let latencies = measure(&target, &mut streams).await?;
    writeln!(out, "one of {count} readers:  {latencies}")?;
    report(&mut out, "after events", before, resident_kib(target.server)?, count)?;
    let_time_pass(QUIET).await;
    report(&mut out, "after heartbeats", before, resident_kib(target.server)?, count)?;
    drop(streams);
    let_time_pass(Duration::from_secs(2)).await;
    report(&mut out, "closed again", before, resident_kib(target.server)?, count)?;
    Ok(())
}

fn report(out: &mut impl Write, when: &str, before: u64, after: u64, count: usize) -> Outcome<()> {
    let each = after.saturating_sub(before) as f64 / count as f64;
    Ok(writeln!(out, "{when}: {before} KiB before, {after} KiB now, {each:.1} KiB each")?)
}

async fn open(target: &Target, count: usize) -> Outcome<Vec<Live>> {
    stream::iter(0..count).map(|number| Live::open(target, number)).buffered(OPENING_MAX).try_collect().await
}

fn owner(number: usize) -> String {
    format!("load-{number}")
}

impl Live {
    /// Opens the stream of customer `number`, and waits for its welcome.
    async fn open(target: &Target, number: usize) -> Outcome<Self> {
        let cookie = format!("cascade_session={}", target.keyring.session(&owner(number)));
        let mut tcp = TcpStream::connect(&target.address).await?;
        let mut live = if target.is_socket {
            let mut request = format!("ws://{}/api/live", target.address).into_client_request()?;
            request.headers_mut().insert("cookie", cookie.parse()?);
            request.headers_mut().insert("sec-websocket-protocol", "cloudevents.json".parse()?);
            let small = WebSocketConfig::default().read_buffer_size(512).write_buffer_size(0);
            Self::Socket(Box::new(client_async_with_config(request, tcp, Some(small)).await?.0))
        } else {
            let head =
                format!("GET /api/live HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\ncookie: {cookie}\r\n\r\n", target.address);
            tcp.write_all(head.as_bytes()).await?;
            Self::Sent(BufReader::with_capacity(512, tcp))
        };
        live.read_until("cascade.live.welcome.v1").await?;
        Ok(live)
    }

    /// Reads until something comes with `text` in it.
    async fn read_until(&mut self, text: &str) -> Outcome<()> {
        loop {
            let read = match self {
                Self::Socket(socket) => match socket.next().await.ok_or("the socket was closed")?? {
                    Message::Text(read) => read.to_string(),
                    Message::Close(frame) => return Err(format!("the socket was closed: {frame:?}").into()),
                    _ => continue,
                },
                Self::Sent(reader) => {
                    let mut line = String::new();
                    if reader.read_line(&mut line).await? == 0 {
                        return Err("the stream was closed".into());
                    }
                    line
                }
            };
            if read.contains(text) {
                return Ok(());
            }
        }
    }
}

/// How long events took: from before they were sent until their owner had them.
struct Latencies(Vec<Duration>);

impl std::fmt::Display for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |share: f64| {
            let index = ((self.0.len() as f64 - 1.0) * share).round() as usize;
            self.0.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
        };
        write!(f, "{:.2} ms median, {:.2} ms 99 %, {:.2} ms longest, of {}", of(0.5), of(0.99), of(1.0), self.0.len())
    }
}

/// Publishes events for one customer at a time, and waits until each has come.
async fn measure(target: &Target, streams: &mut [Live]) -> Outcome<Latencies> {
    let ids = Ids::from_system()?;
    let token = target.keyring.service_token("order");
    let mut publisher = TcpStream::connect(&target.address).await?;
    publisher.set_nodelay(true)?;
    let mut latencies = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let number = usize::try_from(ids.up_to(u64::try_from(streams.len() - 1)?))?;
        let id = format!("load-{round}-{:016x}", ids.up_to(u64::MAX));
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/order","type":"cascade.OrderCompleted.v1","subject":"{id}","owner":"{}","data":{{"padding":"{}"}}}}"#,
            owner(number),
            "x".repeat(400)
        );
        let request = format!(
            "POST /api/events HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\ncontent-type: {EVENT_JSON}\r\ncontent-length: {}\r\n\r\n{event}",
            target.address,
            event.len()
        );
        let sent = Instant::now();
        publisher.write_all(request.as_bytes()).await?;
        let reader = streams.get_mut(number).ok_or("no such stream")?;
        tokio::time::timeout(QUIET, reader.read_until(&id)).await.map_err(|_| "an event did not come")??;
        latencies.push(sent.elapsed());
        let mut answer = [0; 2_048];
        let length = publisher.read(&mut answer).await?;
        if !answer.get(..length).unwrap_or_default().starts_with(b"HTTP/1.1 202") {
            return Err(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into());
        }
    }
    latencies.sort();
    Ok(Latencies(latencies))
}

/// How much memory a process has, in KiB.
fn resident_kib(process: u32) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

async fn let_time_pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}
