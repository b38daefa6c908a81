//! Brings committed events to the broker, in sequence.
//!
//! Rows come straight from the writer after its commit; the table is what survives a crash. A row is deleted, in a later transaction,
//! when the broker has acknowledged it.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    Envelope, Environment, Lifecycle,
    planted::{Bug, is_planted},
    transport::{PublishError, Publisher},
};

/// How many events are published at once.
const BATCH_MAX: usize = 512;
/// About how many bytes are published at once: a batch stops at the event that goes past it.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// About how many bytes an event has beside its data.
const ENVELOPE_BYTES: usize = 512;
/// The longest pause after a failure, in milliseconds, doubled from the shortest.
const PAUSE_MS: std::ops::Range<u64> = 20..2_000;

/// An event that is committed and not yet acknowledged by the broker.
pub(crate) struct OutboxRow {
    pub(crate) id: i64,
    pub(crate) event: Envelope,
}

/// Publishes what comes in until the lifecycle halts; ids of acknowledged rows go back to the writer through `relayed`.
pub(crate) async fn run(
    mut rows: mpsc::UnboundedReceiver<Vec<OutboxRow>>,
    publisher: Arc<dyn Publisher>,
    relayed: mpsc::UnboundedSender<Vec<i64>>,
    environment: Environment,
    lifecycle: Lifecycle,
    service: &'static str,
) {
    let mut queue = VecDeque::new();
    let mut parked = BTreeSet::new();
    let mut failures = 0_u32;
    loop {
        if queue.is_empty() {
            tokio::select! {
                biased;
                () = lifecycle.halted() => return,
                next = rows.recv() => match next {
                    Some(next) => queue.extend(next),
                    None => return,
                },
            }
        }
        while let Ok(next) = rows.try_recv() {
            queue.extend(next);
        }
        let (ids, events) = next_batch(&mut queue, &parked);
        if events.is_empty() {
            continue;
        }
        let published = tokio::select! {
            biased;
            () = lifecycle.halted() => return,
            published = publisher.publish(&events) => published,
        };
        let landed = match published {
            Ok(()) => {
                failures = 0;
                events.len()
            }
            Err(PublishError::Refused { landed, reason }) => {
                failures = 0;
                if let Some(refused) = events.get(landed) {
                    tracing::error!(event.id = %refused.id, event.type = %refused.ty, subject = refused.lane(), reason, "the broker refused an event: its order waits, the others go on");
                    parked.insert(refused.lane().to_owned());
                }
                landed
            }
            Err(PublishError::Unavailable(reason)) => {
                // Whoever publishes over a network says so once.
                tracing::debug!(service, reason, "the broker cannot be reached; events wait and are sent again");
                failures = failures.saturating_add(1);
                0
            }
        };
        let _ = relayed.send(ids.iter().take(landed).copied().collect());
        for row in ids.into_iter().zip(events).skip(landed).rev() {
            queue.push_front(OutboxRow { id: row.0, event: row.1 });
        }
        if failures > 0 {
            let pause_ms = (PAUSE_MS.start << failures.min(10)).min(PAUSE_MS.end);
            tokio::select! {
                biased;
                () = lifecycle.halted() => return,
                () = tokio::time::sleep(Duration::from_millis(environment.ids.up_to(pause_ms))) => {}
            }
        }
    }
}

/// The next rows in the order of their commits, which is the order of their sequence. Rows of parked subjects stay in the table alone,
/// until the next start.
fn next_batch(queue: &mut VecDeque<OutboxRow>, parked: &BTreeSet<String>) -> (Vec<i64>, Vec<Envelope>) {
    let mut batch: Vec<OutboxRow> = Vec::new();
    let mut bytes = 0;
    while batch.len() < BATCH_MAX {
        match queue.pop_front() {
            Some(row) if parked.contains(row.event.lane()) => {}
            Some(row) => {
                bytes += row.event.data.as_ref().map_or(0, |data| data.get().len()) + ENVELOPE_BYTES;
                batch.push(row);
                if bytes > BATCH_BYTES_MAX {
                    break;
                }
            }
            None => break,
        }
    }
    if is_planted(Bug::RelayById) {
        batch.sort_by(|a, b| a.event.id.cmp(&b.event.id));
    }
    batch.into_iter().map(|row| (row.id, row.event)).unzip()
}
