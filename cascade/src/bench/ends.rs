//! Sees orders end, through one live stream of server-sent events.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use axum::http::{HeaderValue, StatusCode, header};
use tokio::{sync::Notify, time::Instant};

use super::{
    load::{Load, Sent},
    subject::Subject,
};

/// How long the stream may be silent: it proves that it is alive more often than that.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What was seen so far.
#[derive(Clone)]
pub(crate) struct Ends(Arc<Seen>);

struct Seen {
    ends: Mutex<BTreeMap<String, Instant>>,
    count: AtomicU64,
    events: AtomicU64,
    moved: Notify,
}

impl Ends {
    /// Opens the stream of the customer's own events, and reads it from now on.
    pub(crate) async fn watch(subject: &Subject, load: &Load) -> anyhow::Result<Self> {
        let (client, headers) = load.session();
        let (uri, mut headers) = (subject.url("/api/live")?, headers.clone());
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let answer = client.stream(&uri, headers, SILENCE_MAX).await.context("the live stream cannot be opened")?;
        if answer.status() != StatusCode::OK {
            bail!("the live stream was answered {}", answer.status());
        }
        let seen = Seen { ends: Mutex::default(), count: AtomicU64::new(0), events: AtomicU64::new(0), moved: Notify::new() };
        let ends = Self(Arc::new(seen));
        let (seen, mut pieces) = (ends.clone(), answer.into_body());
        let read = async move {
            let mut rest = Vec::new();
            while let Ok(Some(piece)) = pieces.next().await {
                rest.extend_from_slice(&piece);
                let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let now = Instant::now();
                for line in rest.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n') {
                    seen.take(line, now);
                }
                rest.drain(..whole);
                seen.0.moved.notify_waiters();
            }
        };
        #[expect(clippy::disallowed_methods, reason = "it ends with the process, which holds nothing that a stop could lose")]
        drop(tokio::spawn(read));
        Ok(ends)
    }

    /// One line of the stream. Only what is needed is looked at: the reader shares the processors with the shop.
    fn take(&self, line: &[u8], now: Instant) {
        let Some(data) = line.strip_prefix(b"data:").and_then(|data| std::str::from_utf8(data).ok()) else { return };
        // The stream speaks of itself.
        if data.contains("\"type\":\"cascade.live.") {
            return;
        }
        self.0.events.fetch_add(1, Ordering::Relaxed);
        let is_end = data.contains("\"type\":\"cascade.OrderCompleted.") || data.contains("\"type\":\"cascade.OrderCancelled.");
        if let Some(subject) = is_end.then(|| text_of(data, "\"subject\":\"")).flatten() {
            self.ends().insert(subject.to_owned(), now);
            self.0.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many orders have ended.
    pub(crate) fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// How many events were seen.
    pub(crate) fn events(&self) -> u64 {
        self.0.events.load(Ordering::Relaxed)
    }

    /// Waits until `count` orders have ended.
    pub(crate) async fn reached(&self, count: u64) {
        loop {
            let moved = self.0.moved.notified();
            if self.count() >= count {
                return;
            }
            moved.await;
        }
    }

    /// Forgets the ends and events so far.
    pub(crate) fn forget(&self) {
        self.ends().clear();
        self.0.events.store(0, Ordering::Relaxed);
    }

    /// From sending to end, of each order, in milliseconds, ascending.
    pub(crate) fn cascades_ms(&self, sent: &[Sent]) -> Vec<f64> {
        let ends = self.ends();
        let took = |sent: &Sent| Some(ends.get(&sent.order_id)?.saturating_duration_since(sent.at).as_secs_f64() * 1_000.0);
        let mut times: Vec<f64> = sent.iter().filter_map(took).collect();
        times.sort_by(f64::total_cmp);
        times
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text that follows `before`, up to the next quotation mark: enough for ids, which hold none.
fn text_of<'a>(data: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = data.split_once(before)?;
    rest.split_once('"').map(|(text, _)| text)
}
