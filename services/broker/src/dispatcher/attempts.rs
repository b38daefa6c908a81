//! How often events were sent, and what came of it.

use crate::verdict::{Outcome, Verdict};

/// How often events were sent since the broker started, by what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempts {
    /// They were taken.
    pub taken: u64,
    /// There was no room for them.
    pub postponed: u64,
    /// They failed, or there was no answer in time.
    pub failed: u64,
    /// They were refused, alone or with their batch.
    pub refused: u64,
    /// The endpoint could not be used.
    pub endpoint_at_fault: u64,
}

impl Attempts {
    /// Takes the verdict on `events` events.
    pub(super) fn note(&mut self, verdict: &Verdict, events: usize) {
        let events = u64::try_from(events).unwrap_or(u64::MAX);
        match verdict {
            Verdict::Answered(outcomes) => outcomes.iter().for_each(|outcome| {
                *match outcome {
                    Outcome::Acknowledged => &mut self.taken,
                    Outcome::Later(_) => &mut self.postponed,
                    Outcome::Retry(_) => &mut self.failed,
                    Outcome::Poison(_) => &mut self.refused,
                } += 1;
            }),
            Verdict::Unreadable(_) => self.refused += events,
            Verdict::Busy(_) => self.postponed += events,
            Verdict::Failed(_) => self.failed += events,
            Verdict::EndpointAtFault(_) => self.endpoint_at_fault += events,
        }
    }

    /// Each number, with the name that it is shown by.
    pub(crate) fn by_name(self) -> [(&'static str, u64); 5] {
        let Self { taken, postponed, failed, refused, endpoint_at_fault } = self;
        [("taken", taken), ("postponed", postponed), ("failed", failed), ("refused", refused), ("endpoint_at_fault", endpoint_at_fault)]
    }
}
