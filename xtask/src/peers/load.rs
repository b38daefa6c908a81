//! Publishes, consumes, and takes the time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::{Figures, server::Server};

/// The size of an event, in bytes.
const EVENT_BYTES: usize = 400;
/// How many events are under way where they are published one by one.
const CALLERS: u64 = 64;
/// How many events are under way where they are published in batches: more does not help anybody.
const WINDOW: u64 = 4_000;
/// How many events go first and are not measured.
const WARM_UP: u64 = 20_000;
/// How long nothing may arrive before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many orders are going on at once, and how many events each has.
const ORDERS_AT_ONCE: u64 = 1_024;
const EVENTS_PER_ORDER: u64 = 8;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// How long each measurement sends.
    pub(super) time: Duration,
    /// How many events a second are sent where delays are measured.
    pub(super) rate: u32,
}

/// A broker that runs.
pub(super) struct Peer {
    /// Its process: it ends with this.
    pub(super) server: Server,
    /// Opens a connection for whoever publishes.
    pub(super) open_publisher: fn(&Server) -> anyhow::Result<Publisher>,
    /// Opens a connection for the consumer.
    pub(super) open_consumer: fn(&Server) -> anyhow::Result<Box<dyn Consumer>>,
}

/// Both ways of a connection, for whoever publishes.
pub(super) type Publisher = (Box<dyn Outgoing>, Box<dyn Acknowledged>);

/// The way to the broker.
pub(super) trait Outgoing: Send {
    /// Writes an event of `order` into the buffer.
    fn publish(&mut self, order: u64, payload: &[u8]) -> anyhow::Result<()>;
    /// Sends what is in the buffer.
    fn flush(&mut self) -> anyhow::Result<()>;
}

/// The way back.
pub(super) trait Acknowledged: Send {
    /// Waits until events were acknowledged; gives how many.
    fn wait(&mut self) -> anyhow::Result<u64>;
}

/// Whoever consumes.
pub(super) trait Consumer: Send {
    /// Waits a while for events, hands the payload of each to `take`, and acknowledges them.
    fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> anyhow::Result<()>;
}

/// Measures a peer; each measurement has one that was just started.
pub(super) fn measure(start: impl Fn() -> anyhow::Result<Peer>, plan: Plan) -> anyhow::Result<Figures> {
    let published_per_s = published(&start()?, CALLERS, plan.time)?;
    let published_batched_per_s = published(&start()?, WINDOW, plan.time)?;
    let delivered_per_s = delivered(&start()?, plan.time)?;
    let delays_ms = delays(&start()?, plan)?;
    Ok(Figures {
        published_per_s,
        published_batched_per_s,
        delivered_per_s,
        delivery_ms_p50: percentile(&delays_ms, 0.5),
        delivery_ms_p99: percentile(&delays_ms, 0.99),
    })
}

/// Events a second that are acknowledged, with so many under way.
fn published(peer: &Peer, window: u64, time: Duration) -> anyhow::Result<f64> {
    let (mut outgoing, mut acknowledged) = (peer.open_publisher)(&peer.server)?;
    send(outgoing.as_mut(), acknowledged.as_mut(), window, Until::Events(WARM_UP))?;
    let began = Instant::now();
    let count = send(outgoing.as_mut(), acknowledged.as_mut(), window, Until::Time(time))?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Events a second, from the first that is published until the last is acknowledged by a consumer.
fn delivered(peer: &Peer, time: Duration) -> anyhow::Result<f64> {
    let (mut outgoing, mut acknowledged) = (peer.open_publisher)(&peer.server)?;
    let mut consumer = (peer.open_consumer)(&peer.server)?;
    send(outgoing.as_mut(), acknowledged.as_mut(), WINDOW, Until::Events(WARM_UP))?;
    let wanted = AtomicU64::new(WARM_UP);
    consume(consumer.as_mut(), &wanted, &mut |_| {})?;
    wanted.store(u64::MAX, Ordering::Release);
    let began = Instant::now();
    thread::scope(|scope| {
        let consuming = scope.spawn(|| {
            consume(consumer.as_mut(), &wanted, &mut |_| {})?;
            anyhow::Ok(began.elapsed())
        });
        let sent = send(outgoing.as_mut(), acknowledged.as_mut(), WINDOW, Until::Time(time));
        // What could not be sent is not waited for.
        wanted.store(*sent.as_ref().unwrap_or(&0), Ordering::Release);
        let took = join(consuming)?;
        Ok(sent? as f64 / took.as_secs_f64())
    })
}

/// From when each event was to be sent until it was at the consumer, in milliseconds, ascending.
fn delays(peer: &Peer, plan: Plan) -> anyhow::Result<Vec<f64>> {
    let (mut outgoing, mut acknowledged) = (peer.open_publisher)(&peer.server)?;
    let mut consumer = (peer.open_consumer)(&peer.server)?;
    send(outgoing.as_mut(), acknowledged.as_mut(), WINDOW, Until::Events(WARM_UP))?;
    let count = (f64::from(plan.rate) * plan.time.as_secs_f64()) as u64;
    let mut arrived_us = Vec::new();
    let began = Instant::now();
    consume(consumer.as_mut(), &AtomicU64::new(WARM_UP), &mut |_| {})?;
    let begin_us = micros(began) + 20_000;
    let due_us = |number: u64| begin_us + number * 1_000_000 / u64::from(plan.rate.max(1));
    thread::scope(|scope| {
        let consuming = scope.spawn(|| {
            consume(consumer.as_mut(), &AtomicU64::new(count), &mut |payload| arrived_us.push((number_of(payload), micros(began))))
        });
        let acknowledging = scope.spawn(|| {
            let mut left = count;
            while left > 0 {
                left = left.saturating_sub(acknowledged.wait()?);
            }
            anyhow::Ok(())
        });
        for number in 0..count {
            thread::sleep(Duration::from_micros(due_us(number).saturating_sub(micros(began))));
            outgoing.publish(order_of(number), &payload(number))?;
            outgoing.flush()?;
        }
        join(acknowledging)?;
        join(consuming)
    })?;
    let mut delays_ms: Vec<f64> =
        arrived_us.into_iter().map(|(number, arrived_us)| arrived_us.saturating_sub(due_us(number)) as f64 / 1_000.0).collect();
    delays_ms.sort_by(f64::total_cmp);
    Ok(delays_ms)
}

#[derive(Clone, Copy)]
enum Until {
    Events(u64),
    Time(Duration),
}

/// Publishes with at most `window` events under way; gives how many were acknowledged.
fn send(outgoing: &mut dyn Outgoing, acknowledged: &mut dyn Acknowledged, window: u64, until: Until) -> anyhow::Result<u64> {
    let (began, mut sent, mut done) = (Instant::now(), 0, 0);
    loop {
        let is_over = match until {
            Until::Events(count) => sent >= count,
            Until::Time(time) => began.elapsed() >= time,
        };
        if is_over && done >= sent {
            return Ok(done);
        }
        let room = if is_over { 0 } else { window.saturating_sub(sent - done) };
        let room = if let Until::Events(count) = until { room.min(count - sent) } else { room };
        for number in sent..sent + room {
            outgoing.publish(order_of(number), &payload(number))?;
        }
        sent += room;
        outgoing.flush()?;
        done += acknowledged.wait()?;
    }
}

/// Consumes until as many have come as are `wanted`, which may become fewer meanwhile.
fn consume(consumer: &mut dyn Consumer, wanted: &AtomicU64, take: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
    let (mut count, mut changed) = (0, Instant::now());
    while count < wanted.load(Ordering::Acquire) {
        let before = count;
        consumer.receive(&mut |payload| {
            count += 1;
            take(payload);
        })?;
        if count > before {
            changed = Instant::now();
        } else if changed.elapsed() > PATIENCE {
            bail!("{count} events arrived, and no other one within {} s", PATIENCE.as_secs());
        }
    }
    Ok(())
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().ok().context("a thread panicked")?
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Eight events for each order, a thousand orders going on at once.
fn order_of(number: u64) -> u64 {
    number / (ORDERS_AT_ONCE * EVENTS_PER_ORDER) * ORDERS_AT_ONCE + number % ORDERS_AT_ONCE
}

fn payload(number: u64) -> [u8; EVENT_BYTES] {
    let mut payload = [b'x'; EVENT_BYTES];
    for (place, byte) in payload.iter_mut().zip(number.to_be_bytes()) {
        *place = byte;
    }
    payload
}

fn number_of(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
}

/// The value below which the share `part` of `sorted` lies; zero of nothing.
pub(super) fn percentile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).or(sorted.last()).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// A broker in memory that takes at most a hundred events at once.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Kept>>);

    #[derive(Default)]
    struct Kept {
        buffered: Vec<Vec<u8>>,
        unacknowledged: u64,
        undelivered: Vec<Vec<u8>>,
        most_under_way: u64,
    }

    impl Memory {
        fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Outgoing for Memory {
        fn publish(&mut self, _: u64, payload: &[u8]) -> anyhow::Result<()> {
            self.kept().buffered.push(payload.to_vec());
            Ok(())
        }

        fn flush(&mut self) -> anyhow::Result<()> {
            let mut kept = self.kept();
            let sent = std::mem::take(&mut kept.buffered);
            kept.unacknowledged += sent.len() as u64;
            kept.most_under_way = kept.most_under_way.max(kept.unacknowledged);
            kept.undelivered.extend(sent);
            Ok(())
        }
    }

    impl Acknowledged for Memory {
        fn wait(&mut self) -> anyhow::Result<u64> {
            let mut kept = self.kept();
            let done = kept.unacknowledged.min(100);
            kept.unacknowledged -= done;
            Ok(done)
        }
    }

    impl Consumer for Memory {
        fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
            let events = std::mem::take(&mut self.kept().undelivered);
            events.iter().for_each(|payload| take(payload));
            Ok(())
        }
    }

    #[test]
    fn no_more_events_are_under_way_than_allowed_and_all_are_waited_for() {
        let memory = Memory::default();
        let sent = send(&mut memory.clone(), &mut memory.clone(), 250, Until::Events(1_030)).unwrap();
        let (most_under_way, unacknowledged) = {
            let kept = memory.kept();
            (kept.most_under_way, kept.unacknowledged)
        };
        assert_eq!((sent, most_under_way, unacknowledged), (1_030, 250, 0));
        let mut numbers = Vec::new();
        consume(&mut memory.clone(), &AtomicU64::new(1_030), &mut |payload| numbers.push(number_of(payload))).unwrap();
        assert_eq!(numbers, (0..1_030).collect::<Vec<_>>());
    }

    #[test]
    fn a_percentile_is_the_value_at_its_rank() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((percentile(&values, 0.5), percentile(&values, 0.99), percentile(&[], 0.5)), (50.0, 99.0, 0.0));
    }
}
