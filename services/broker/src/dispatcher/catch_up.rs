//! A subscription that was away has much to read. It rests in between, so that the others do not notice.
//!
//! On a machine with few processors, one that reads and sends as fast as it can keeps the events of the others waiting: not in any queue of
//! the broker, but for a processor.

use kit::{Position, Timestamp};

/// How many events are read at once meanwhile: what is done in one go keeps a processor.
const PAGE_EVENTS: usize = 64;
/// How much is done between two rests, in events that are read.
const EFFORT_MAX: usize = 1_024;
/// How much more work an event is that is delivered.
const DELIVERED: usize = 16;
/// How long a rest is, in milliseconds.
const REST_MS: u64 = 2;
/// It goes without rests while the log grows by more than one in so many of the events that are read: it must come to an end.
const GROWTH: i64 = 4;

/// Catching up with the log.
#[derive(Debug)]
pub(super) struct CatchUp {
    is_on: bool,
    effort: usize,
    rests_until: Timestamp,
    /// How far the log was read when it rested last, and where that ended then.
    read_head: Position,
    last: Position,
}

impl CatchUp {
    /// Begins, as each subscription does.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { is_on: true, effort: 0, rests_until: now, read_head: Position::START, last: Position::START }
    }

    /// Takes note of whether the subscription can deliver, of how far it has read, and of where the log ends.
    pub(super) fn observe(&mut self, is_away: bool, read_head: Position, last: Position) {
        if is_away {
            self.is_on = true;
        } else if read_head >= last {
            self.is_on = false;
        }
        if is_away || !self.is_on {
            (self.effort, self.read_head, self.last) = (0, read_head, last);
        }
    }

    /// Whether the subscription still has to catch up.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// How many events are read at once: no fewer than are `delivered` at once.
    pub(super) fn page_events(&self, usual: usize, delivered: usize) -> usize {
        if self.is_on { PAGE_EVENTS.max(delivered).min(usual) } else { usual }
    }

    /// Takes note that so many events were read up to `read_head`, and how many of them are to be delivered.
    pub(super) fn spend(&mut self, (read, delivered): (usize, usize), read_head: Position, last: Position, now: Timestamp) {
        self.effort += read + DELIVERED * delivered;
        if !self.is_on || self.effort < EFFORT_MAX {
            return;
        }
        let (read, grown) = (read_head.0 - self.read_head.0, last.0 - self.last.0);
        if grown.saturating_mul(GROWTH) <= read {
            self.rests_until = now.plus_ms(REST_MS);
        }
        (self.effort, self.read_head, self.last) = (0, read_head, last);
    }

    /// Until when nothing is read, if nothing is now.
    pub(super) fn rests_until(&self, now: Timestamp) -> Option<Timestamp> {
        // A clock that was set back does not make it longer.
        (self.is_on && now < self.rests_until && now.plus_ms(REST_MS) >= self.rests_until).then_some(self.rests_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    /// Reads all of a log that grows by `growth_per_ms`, where a page takes `page_us`. Answers how many events were read in a millisecond.
    fn pace(growth_per_ms: i64, page_us: i64, delivered_of_page: usize) -> Option<i64> {
        let (mut now_us, mut read_head, start) = (0, 0, 1_000_000);
        let mut catch_up = CatchUp::new(at(0));
        while now_us < 60_000_000 {
            let (now, last) = (at(now_us / 1_000), Position(start + growth_per_ms * now_us / 1_000));
            catch_up.observe(false, Position(read_head), last);
            if read_head >= last.0 {
                return Some(read_head * 1_000 / now_us);
            }
            if let Some(until) = catch_up.rests_until(now) {
                now_us = until.as_ms() * 1_000;
                continue;
            }
            let page = catch_up.page_events(256, 64);
            read_head += i64::try_from(page).unwrap();
            now_us += page_us;
            catch_up.spend((page, delivered_of_page.min(page)), Position(read_head), last, at(now_us / 1_000));
        }
        None
    }

    #[test]
    fn it_rests_most_of_the_time_unless_there_is_nothing_to_deliver() {
        let busy = pace(1, 350, 64).unwrap();
        assert!((20..=32).contains(&busy), "{busy}");
        let idle = pace(1, 100, 0).unwrap();
        assert!(idle > 300, "{idle}");
    }

    #[test]
    fn however_fast_the_log_grows_it_catches_up() {
        for growth in [0, 10, 20, 30, 40, 50, 60, 80, 100, 120, 140, 160] {
            assert!(pace(growth, 350, 64).is_some(), "{growth} in a millisecond");
        }
    }

    #[test]
    fn whoever_was_there_all_the_time_never_rests() {
        let mut catch_up = CatchUp::new(at(0));
        catch_up.observe(false, Position(10), Position(10));
        catch_up.spend((100_000, 100_000), Position(100_010), Position(200_000), at(0));
        catch_up.observe(false, Position(200_000), Position(200_000));
        assert_eq!((catch_up.rests_until(at(0)), catch_up.page_events(256, 64)), (None, 256));
        catch_up.observe(true, Position(200_000), Position(300_000));
        catch_up.spend((1_000, 1_000), Position(201_000), Position(300_100), at(5));
        assert_eq!((catch_up.rests_until(at(5)), catch_up.page_events(256, 64)), (Some(at(7)), 64));
        assert_eq!((catch_up.rests_until(at(7)), catch_up.rests_until(at(2))), (None, None));
    }
}
