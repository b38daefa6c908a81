//! What an order that fails takes of the broker's memory. A test binary of its own, since it has an allocator of its own.

use broker::{
    lanes::{Lanes, Step, Tuning},
    verdict::{Fault, Outcome, Verdict},
};
use kit::{Position, Timestamp};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const LANES: i64 = 2_000;
/// How often they fail: twenty times each, on average.
const FAILURES: usize = 40_000;

/// An event of each lane, all of which fail for the same reason with answers of their own.
fn failing_lanes() -> Lanes {
    let mut lanes = Lanes::new(Tuning { failures_max: u32::MAX, ..Tuning::default() }, Position::START);
    let mut unread = (1..=LANES).map(|n| (Position(n), format!("0195c0de-0000-7000-8000-{n:012}")));
    let (mut now, mut failed) = (Timestamp::from_ms(1_000), 0);
    while failed < FAILURES {
        while lanes.room() > 0
            && let Some((position, name)) = unread.next()
        {
            lanes.offer(position, &name, 400);
        }
        match lanes.next_step(now) {
            Step::Seek { lane, after, .. } => lanes.found(&lane, Some((after.next(), 400))),
            Step::Deliver(delivery) => {
                failed += delivery.events.len();
                let outcomes = delivery.events.iter().map(|position| {
                    let (reason, answer) = (String::from("out of stock").into(), Some(format!("{position:1000}").into()));
                    Outcome::Retry(Fault { status: Some(503), reason, retry_after_s: None, answer })
                });
                lanes.finish(delivery.id, Verdict::Answered(outcomes.collect()), now, &mut |max| max);
                lanes.take_changes(128);
            }
            Step::Idle => now = lanes.next_wake(now).unwrap_or(now.plus_ms(1)),
        }
    }
    lanes
}

#[test]
fn an_order_that_fails_takes_a_few_hundred_bytes() {
    let _profiler = dhat::Profiler::builder().testing().trim_backtraces(Some(2)).build();
    let before = dhat::HeapStats::get().curr_bytes;
    let lanes = failing_lanes();
    assert_eq!(i64::try_from(lanes.set_aside_count()), Ok(LANES));
    let each = (dhat::HeapStats::get().curr_bytes - before) / lanes.set_aside_count();
    dhat::assert!(each < 560, "{each} bytes");
    drop(lanes);
}
