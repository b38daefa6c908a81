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

/// Lanes of one event each, all of which fail for the same reason with answers of their own.
struct Failing {
    lanes: Lanes,
    now: Timestamp,
}

impl Failing {
    fn new() -> Self {
        let mut lanes = Lanes::new(Tuning { failures_max: u32::MAX, ..Tuning::default() }, Position::START);
        (1..=LANES).for_each(|n| lanes.offer(Position(n), &format!("0195c0de-0000-7000-8000-{n:012}"), 400));
        Self { lanes, now: Timestamp::from_ms(1_000) }
    }

    fn fail(&mut self, count: usize) {
        let (lanes, mut failed) = (&mut self.lanes, 0);
        while failed < count {
            match lanes.next_step(self.now) {
                Step::Seek { lane, after, .. } => lanes.found(&lane, Some((after.next(), 400))),
                Step::Deliver(delivery) => {
                    failed += delivery.events.len();
                    let outcomes = delivery.events.iter().map(|position| {
                        let (reason, answer) = (String::from("out of stock").into(), Some(format!("{position:1000}").into()));
                        Outcome::Retry(Fault { status: Some(503), reason, retry_after_s: None, answer })
                    });
                    lanes.finish(delivery.id, Verdict::Answered(outcomes.collect()), self.now, &mut |max| max);
                    lanes.take_changes(128);
                }
                Step::Idle => self.now = lanes.next_wake(self.now).unwrap_or(self.now.plus_ms(1)),
            }
        }
    }
}

#[test]
fn an_order_that_fails_takes_a_few_hundred_bytes_however_often_it_does() {
    let _profiler = dhat::Profiler::builder().testing().trim_backtraces(Some(2)).build();
    let before = dhat::HeapStats::get().curr_bytes;
    let mut failing = Failing::new();
    failing.fail(FAILURES);
    assert_eq!(i64::try_from(failing.lanes.set_aside_count()), Ok(LANES));
    let bytes = dhat::HeapStats::get().curr_bytes - before;
    dhat::assert!(bytes < 560 * failing.lanes.set_aside_count(), "{bytes} bytes");
    failing.fail(3 * FAILURES);
    let bytes_later = dhat::HeapStats::get().curr_bytes - before;
    dhat::assert!(bytes_later < bytes + bytes / 20, "{bytes} bytes, {bytes_later} later");
    drop(failing);
}
