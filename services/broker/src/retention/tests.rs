//! What is kept, what goes, and what holds it.

use std::sync::{Mutex, PoisonError};

use super::*;
use crate::{
    engine::memory::{Memory, MemoryDisk},
    publish::{Inlet, TakeError},
    tests::{DEADLINE, environment, event},
};

const FIRST: Position = Position(11);
const LAST: Position = Position(20);

fn look(aged: i64, oversize: i64) -> Look {
    Look { bounds: Bounds { first: FIRST, last: LAST, bytes: 1_000 }, aged: Position(aged), oversize: Position(oversize) }
}

#[test]
fn what_is_too_old_and_what_is_too_much_goes_whichever_is_more() {
    for (aged, oversize, expected) in
        [(10, 10, None), (0, 0, None), (11, 10, Some(11)), (10, 12, Some(12)), (15, 12, Some(15)), (20, 10, Some(20)), (99, 10, Some(20))]
    {
        assert_eq!(look(aged, oversize).wanted(), expected.map(Position), "{aged} {oversize}");
    }
    let empty = Look { bounds: Bounds { first: Position(21), last: LAST, bytes: 0 }, ..look(20, 20) };
    assert_eq!(empty.wanted(), None);
}

#[test]
fn what_is_held_stays_and_the_log_is_full_only_when_its_size_is_held() {
    let decision = |trim: Option<i64>, is_full| Decision { trim: trim.map(Position), is_full };
    for (aged, oversize, released, expected) in [
        (15, 10, 20, decision(Some(15), false)),
        (15, 10, 13, decision(Some(13), false)),
        (15, 10, 3, decision(None, false)),
        (10, 15, 15, decision(Some(15), false)),
        (10, 15, 14, decision(Some(14), true)),
        (18, 15, 16, decision(Some(16), false)),
        (18, 15, 10, decision(None, true)),
    ] {
        assert_eq!(look(aged, oversize).decide(Position(released)), expected, "{aged} {oversize} {released}");
    }
}

/// Lets the log go up to a position, and keeps what it was asked.
#[derive(Default)]
struct Holder {
    lets_go: Mutex<Option<Position>>,
    asked: Mutex<Vec<Position>>,
}

impl Holder {
    /// From now on it holds what comes after `up_to`; none lets all go.
    fn hold_after(&self, up_to: Option<Position>) {
        *self.lets_go.lock().unwrap_or_else(PoisonError::into_inner) = up_to;
    }
}

impl Holders for Holder {
    fn release(&self, up_to: Position) -> BoxFuture<'_, Result<Position, EngineError>> {
        Box::pin(async move {
            // Whoever is asked may take a while.
            tokio::task::yield_now().await;
            self.asked.lock().unwrap().push(up_to);
            let lets_go = *self.lets_go.lock().unwrap();
            Ok(lets_go.map_or(up_to, |lets_go| lets_go.min(up_to)))
        })
    }
}

/// A log that is kept within limits, and a way into it. Time is tokio's, and paused.
struct Kept {
    engine: Arc<dyn LogEngine>,
    holder: Arc<Holder>,
    inlet: Inlet,
    lifecycle: Lifecycle,
    published: std::ops::RangeFrom<u32>,
}

impl Kept {
    fn start(limits: Limits) -> Self {
        let (environment, lifecycle, holder) = (environment(1), Lifecycle::new(), Arc::new(Holder::default()));
        let engine: Arc<dyn LogEngine> = Arc::new(Memory::open(MemoryDisk::default(), environment.clock.clone()));
        let valve = start(engine.clone(), holder.clone(), limits, &environment, &lifecycle);
        Self { inlet: Inlet::new(engine.clone(), valve), engine, holder, lifecycle, published: 0.. }
    }

    async fn publish(&mut self, count: usize) -> Result<Position, TakeError> {
        let events = self.published.by_ref().take(count).map(|id| event("/a", &id.to_string(), "x")).collect();
        Ok(self.inlet.take(events).await?.last().unwrap().position)
    }

    fn first(&self) -> Position {
        self.engine.bounds().first
    }

    async fn stop(self) {
        assert!(self.lifecycle.stop(DEADLINE).await);
        assert_eq!(self.lifecycle.failure(), None);
    }
}

async fn pass_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

const FOREVER_MS: u64 = 1_000 * DAY_MS;

#[tokio::test(start_paused = true)]
async fn events_are_trimmed_when_they_are_too_old_and_not_before() {
    let mut kept = Kept::start(Limits { age_ms_max: 10_000, bytes_max: u64::MAX });
    let old = kept.publish(5).await.unwrap();
    pass_ms(6_000).await;
    let young = kept.publish(5).await.unwrap();
    pass_ms(3_900).await;
    assert_eq!(kept.first(), Position(1));
    pass_ms(1_200).await;
    assert_eq!(kept.first(), old.next());
    pass_ms(6_000).await;
    assert_eq!(kept.first(), young.next(), "nothing new was appended: time alone does it");
    kept.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_oldest_events_are_trimmed_when_all_take_too_much_room() {
    let mut kept = Kept::start(Limits { age_ms_max: FOREVER_MS, bytes_max: 20_000 });
    let mut largest = 0;
    for _ in 0..200 {
        kept.publish(5).await.unwrap();
        pass_ms(300).await;
        largest = largest.max(kept.engine.bounds().bytes);
    }
    let bounds = kept.engine.bounds();
    assert!((15_000..=20_000).contains(&bounds.bytes), "it is kept near its limit: {bounds:?}");
    assert!(largest <= 22_000, "also in between: {largest}");
    assert_eq!(bounds.last, Position(1_000));
    kept.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_held_at_its_limit_takes_nothing_until_there_is_room() {
    let mut kept = Kept::start(Limits { age_ms_max: FOREVER_MS, bytes_max: 20_000 });
    kept.holder.hold_after(Some(Position(10)));
    let mut taken = 0;
    let refused = loop {
        match kept.publish(5).await {
            Ok(position) => taken = position.0,
            Err(error) => break error,
        }
        pass_ms(300).await;
        assert!(taken < 1_000, "it never gets full");
    };
    assert_eq!(refused, TakeError::LogFull);
    assert_eq!(kept.first(), Position(11), "what nobody holds is gone");
    assert!(kept.engine.bounds().bytes < 23_000, "{:?}", kept.engine.bounds());
    pass_ms(60_000).await;
    assert_eq!(kept.publish(1).await, Err(TakeError::LogFull), "time alone makes no room");
    kept.holder.hold_after(Some(Position(taken / 2)));
    pass_ms(1_000).await;
    assert!(kept.publish(1).await.is_ok());
    kept.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_within_its_limits_asks_nobody() {
    let mut kept = Kept::start(Limits { age_ms_max: FOREVER_MS, bytes_max: 1_000_000 });
    for _ in 0..10 {
        kept.publish(5).await.unwrap();
        pass_ms(100_000).await;
    }
    assert!(kept.holder.asked.lock().unwrap().is_empty());
    kept.stop().await;
}
