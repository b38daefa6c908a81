//! What an order that fails takes of the broker's memory. A test binary of its own, since it has an allocator of its own.

use broker::{
    lanes::{Lanes, Step, Tuning},
    verdict::{Fault, Outcome, Verdict},
};
use kit::{Position, Timestamp};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const LANES: usize = 2_000;
/// How often each of them fails, on average.
const TRIES: usize = 20;

/// An event of each lane, all of which fail for the same reason with answers of their own.
fn failing_lanes() -> Lanes {
    let mut lanes = Lanes::new(Tuning { failures_max: u32::MAX, ..Tuning::default() }, Position::START);
    let mut unread = (1..=LANES).map(|n| (Position(i64::try_from(n).unwrap()), format!("0195c0de-0000-7000-8000-{n:012}")));
    let (mut now, mut failed) = (Timestamp::from_ms(1_000), 0);
    while failed < LANES * TRIES {
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
            Step::Idle => now = lanes.next_wake(now).unwrap(),
        }
    }
    assert_eq!(lanes.set_aside_count(), LANES);
    lanes
}

#[test]
fn an_order_that_fails_takes_a_few_hundred_bytes() {
    let _profiler = dhat::Profiler::builder().testing().trim_backtraces(Some(2)).build();
    let before = dhat::HeapStats::get().curr_bytes;
    let lanes = failing_lanes();
    let each = (dhat::HeapStats::get().curr_bytes - before) / LANES;
    println!("{each} bytes");
    dhat::assert!(each < 560, "{each} bytes");
    drop(lanes);
}
