//! Faults that the simulation plants on purpose, to prove that it would find them.
//!
//! Without the feature `planted-bugs`, which only the simulation turns on, there is no switch: `is_planted` is `false`.

/// A fault that a service of this kind could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bug {
    /// Callers are answered and the broker is acknowledged before the transaction is committed.
    AcknowledgeBeforeCommit,
    /// An event is applied as often as it arrives.
    SkipInbox,
    /// The money goes back before delivery is known to be clear.
    RefundBeforeClear,
    /// The outbox is relayed in the order of event ids.
    RelayById,
    /// An order's next event is delivered although the one before it was not acknowledged.
    LaneNotBlocked,
    /// The books that are saved count what was read, not what the saved floor covers.
    CountPastFloor,
    /// A subscription that must not lose any event loses them with the log, as any other does.
    LoseRequired,
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants `bug` in all that runs on this thread; `None` takes it out again.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether `bug` is planted on this thread.
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::{is_planted, plant};

/// Whether `bug` is planted: never, in this build.
#[cfg(not(feature = "planted-bugs"))]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}
