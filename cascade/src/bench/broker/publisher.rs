//! Publishes events as the order service.

use std::{cell::Cell, net::SocketAddr, ops::Range, time::Duration};

use anyhow::Context;
use futures_util::future::try_join_all;
use tokio::{sync::mpsc, time::Instant};

use super::{
    connection::Connection,
    event::{EVENT_BYTES, Mark, Orders, Template},
    now_us,
};

/// Over how many connections events are sent on time.
const ON_TIME_CONNECTIONS: usize = 32;
/// How many events that are late may wait for a connection.
const WAITING_MAX: usize = 4_096;
/// The time until the first event that is sent on time.
const LEAD: Duration = Duration::from_millis(20);

/// How much is sent: so many events, for so long, whichever ends first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) events: u64,
    pub(super) time: Duration,
}

/// How a load is put on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// How many connections are used at once, each with one request at a time.
    pub(super) connections: usize,
    /// How many events a request holds.
    pub(super) batch: u64,
}

/// What was sent and acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// How many events.
    pub(super) events: u64,
    /// When the first was sent, in microseconds of [`now_us`].
    pub(super) began_us: u64,
    /// From then until the last was acknowledged.
    pub(super) took: Duration,
}

/// One publisher; it numbers its events.
pub(super) struct Publisher {
    address: SocketAddr,
    /// A request's head up to the media type.
    head: String,
    next: Cell<u64>,
}

impl Publisher {
    /// Publishes at `address`, with the token of the order service.
    pub(super) fn new(address: SocketAddr, token: &str) -> Self {
        let head = format!("POST /api/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: ");
        Self { address, head, next: Cell::new(0) }
    }

    /// Sends events of type `ty` as fast as they are acknowledged.
    pub(super) async fn send(&self, ty: &str, orders: Orders, limit: Limit, shape: Shape) -> anyhow::Result<Sent> {
        let connections = try_join_all((0..shape.connections).map(|_| Connection::open(self.address))).await?;
        let (template, left, began, began_us) = (Template::new(ty), Cell::new(limit.events), Instant::now(), now_us());
        let work = connections.into_iter().map(async |mut connection| {
            let (mut request, mut body, mut sent) = (Vec::new(), Vec::new(), 0);
            while left.get() > 0 && began.elapsed() < limit.time {
                let count = shape.batch.min(left.get());
                left.set(left.get() - count);
                let marks = self.take_numbers(count).map(|number| Mark { number, order: orders.of(number), due_us: 0 });
                body.clear();
                template.write_batch(marks, &mut body);
                self.write_request(shape.batch, &body, &mut request);
                connection.expect(&request, 202).await.context("a publish request")?;
                sent += count;
            }
            anyhow::Ok(sent)
        });
        let events = try_join_all(work).await?.iter().sum();
        Ok(Sent { events, began_us, took: began.elapsed() })
    }

    /// Sends `rate` events a second, each alone and at its time: one that is late does not make the next one late. Gives their numbers.
    pub(super) async fn send_on_time(&self, ty: &str, orders: Orders, rate: u32, time: Duration) -> anyhow::Result<Range<u64>> {
        let connections = try_join_all((0..ON_TIME_CONNECTIONS).map(|_| Connection::open(self.address))).await?;
        let (senders, receivers): (Vec<_>, Vec<_>) = connections.iter().map(|_| mpsc::channel(WAITING_MAX)).unzip();
        let count = (f64::from(rate) * time.as_secs_f64()) as u64;
        let numbers = self.take_numbers(count);
        // A thread of its own: the runtime's timers are exact to a millisecond only.
        let to_send = numbers.clone();
        std::thread::spawn(move || keep_time(to_send, rate, &senders));
        let template = Template::new(ty);
        let work = connections.into_iter().zip(receivers).map(async |(mut connection, mut due)| {
            let (mut request, mut body) = (Vec::new(), Vec::new());
            while let Some((number, due_us)) = due.recv().await {
                body.clear();
                template.write(Mark { number, order: orders.of(number), due_us }, &mut body);
                self.write_request(1, &body, &mut request);
                connection.expect(&request, 202).await.context("a publish request")?;
            }
            anyhow::Ok(())
        });
        try_join_all(work).await?;
        Ok(numbers)
    }

    /// How many events it has sent.
    pub(super) fn sent(&self) -> u64 {
        self.next.get()
    }

    fn take_numbers(&self, count: u64) -> Range<u64> {
        let first = self.next.get();
        self.next.set(first + count);
        first..first + count
    }

    fn write_request(&self, batch: u64, body: &[u8], request: &mut Vec<u8>) {
        // An array of one event is that event between brackets.
        let (media, body) = match (batch, body) {
            (1, [b'[', event @ .., b']']) => ("application/cloudevents+json", event),
            (1, event) => ("application/cloudevents+json", event),
            _ => ("application/cloudevents-batch+json", body),
        };
        request.clear();
        request.reserve(self.head.len() + EVENT_BYTES + body.len());
        request.extend_from_slice(self.head.as_bytes());
        request.extend_from_slice(format!("{media}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
    }
}

/// Says of each number when it is time.
fn keep_time(numbers: Range<u64>, rate: u32, senders: &[mpsc::Sender<(u64, u64)>]) {
    let begin_us = now_us() + u64::try_from(LEAD.as_micros()).unwrap_or(0);
    for ((index, number), sender) in (0..).zip(numbers).zip(senders.iter().cycle()) {
        let due_us = begin_us + index * 1_000_000 / u64::from(rate.max(1));
        let early_us = due_us.saturating_sub(now_us());
        if early_us > 0 {
            std::thread::sleep(Duration::from_micros(early_us));
        }
        if sender.blocking_send((number, due_us)).is_err() {
            return;
        }
    }
}
