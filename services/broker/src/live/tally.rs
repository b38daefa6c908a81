//! How many streams are open, and why others were closed.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::notice::Ending;

/// How many streams are open, and why others were closed, since the broker started.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    open: AtomicI64,
    left: AtomicU64,
    stopping: AtomicU64,
    session_check: AtomicU64,
    too_slow: AtomicU64,
    unreadable: AtomicU64,
}

impl Tally {
    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Without an ending its reader went away, or was gone.
    pub(super) fn closed(&self, ending: Option<Ending>) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        let count = match ending {
            None => &self.left,
            Some(Ending::Stopping) => &self.stopping,
            Some(Ending::SessionCheck) => &self.session_check,
            Some(Ending::TooSlow) => &self.too_slow,
            Some(Ending::Unreadable) => &self.unreadable,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many are open.
    pub(crate) fn open(&self) -> i64 {
        self.open.load(Ordering::Relaxed)
    }

    /// How many were closed, by reason.
    pub(crate) fn by_reason(&self) -> [(&'static str, u64); 5] {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("client", count(&self.left)),
            (Ending::Stopping.name(), count(&self.stopping)),
            (Ending::SessionCheck.name(), count(&self.session_check)),
            (Ending::TooSlow.name(), count(&self.too_slow)),
            (Ending::Unreadable.name(), count(&self.unreadable)),
        ]
    }
}
