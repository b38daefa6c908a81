//! Sends no faster than a sink agreed to. Pure.

use std::time::Duration;

use kit::Timestamp;

/// How long a delivery waits for its turn; whoever would have to wait longer comes again.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// When the next request may go: one after the other, evenly, so that no minute has more than it may have.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The turn of the next request, in microseconds since 1970.
    next_us: i64,
}

/// What a delivery does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It waits so long, and goes.
    In(Duration),
    /// It comes again after so many seconds.
    After(u32),
}

impl Pace {
    /// The turn of a delivery at `now`, at `rate_per_minute`.
    pub(crate) fn turn(&mut self, rate_per_minute: u32, now: Timestamp) -> Turn {
        let now_us = now.as_ms().saturating_mul(1_000);
        let interval_us = i64::try_from(60_000_000_u64.div_ceil(u64::from(rate_per_minute.max(1)))).unwrap_or(60_000_000);
        // After a long pause, or after a clock that stepped back, the next turn is now.
        let at_us = self.next_us.clamp(now_us, now_us.saturating_add(60_000_000));
        let wait = Duration::from_micros(u64::try_from(at_us.saturating_sub(now_us)).unwrap_or(0));
        if wait > WAIT_MAX {
            return Turn::After(u32::try_from(wait.as_micros().div_ceil(1_000_000)).unwrap_or(60));
        }
        self.next_us = at_us.saturating_add(interval_us);
        Turn::In(wait)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_minute_has_more_requests_than_were_agreed(rate in 1_u32..5_000, gaps in prop::collection::vec(0_u64..3_000, 1..400)) {
            let (mut pace, mut now, mut sent) = (Pace::default(), Timestamp::from_ms(1_000_000), Vec::new());
            for gap_ms in gaps {
                now = now.plus_ms(gap_ms);
                match pace.turn(rate, now) {
                    Turn::In(wait) => sent.push(now.as_ms() * 1_000 + i64::try_from(wait.as_micros()).unwrap()),
                    Turn::After(seconds) => prop_assert!((2..=60).contains(&seconds)),
                }
            }
            for (index, first) in sent.iter().enumerate() {
                let count = sent[index..].iter().take_while(|at| **at < first + 60_000_000).count();
                prop_assert!(count <= usize::try_from(rate).unwrap(), "{count} of {rate}");
            }
        }
    }

    #[test]
    fn a_turn_that_comes_soon_is_waited_for_and_others_come_again() {
        let (mut pace, now) = (Pace::default(), Timestamp::from_ms(1_000_000));
        assert_eq!(pace.turn(120, now), Turn::In(Duration::ZERO));
        assert_eq!(pace.turn(120, now), Turn::In(Duration::from_millis(500)));
        assert_eq!(pace.turn(120, now), Turn::In(Duration::from_millis(1_000)));
        assert_eq!(pace.turn(120, now), Turn::After(2));
        assert_eq!(pace.turn(120, now.plus_ms(600)), Turn::In(Duration::from_millis(900)));
        assert_eq!(pace.turn(120, Timestamp::from_ms(0)), Turn::After(60), "a clock that stepped back stops nobody for longer");
        let mut pace = Pace::default();
        assert_eq!(pace.turn(35, now), Turn::In(Duration::ZERO));
        assert_eq!(pace.turn(35, now.plus_ms(714)), Turn::After(2), "a second and a bit is rounded up");
    }
}
