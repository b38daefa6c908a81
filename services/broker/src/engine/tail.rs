//! Where the log ends, for whoever waits for more.
//!
//! Whoever waits is woken in the order of waiting, the same in every run of a simulation: tokio's `watch` chooses by chance.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use kit::Position;
use tokio::sync::Notify;

/// The engine's side: moves the tail, and closes it when dropped.
#[derive(Debug)]
pub(crate) struct TailSender(Arc<Shared>);

/// A reader's side. Each clone waits on its own.
#[derive(Debug, Clone)]
pub struct Tail {
    shared: Arc<Shared>,
    seen: Position,
}

#[derive(Debug)]
struct Shared {
    last: AtomicI64,
    is_closed: AtomicBool,
    moved: Notify,
}

/// The engine has stopped: the log will not grow any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log is closed")]
pub struct TailClosed;

/// A tail that stands at `last`.
pub(crate) fn tail(last: Position) -> (TailSender, Tail) {
    let shared = Arc::new(Shared { last: AtomicI64::new(last.0), is_closed: AtomicBool::new(false), moved: Notify::new() });
    (TailSender(shared.clone()), Tail { shared, seen: last })
}

impl TailSender {
    /// The log is durable up to `last`.
    pub(crate) fn move_to(&self, last: Position) {
        self.0.last.store(last.0, Ordering::Release);
        self.0.moved.notify_waiters();
    }
}

impl Drop for TailSender {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Release);
        self.0.moved.notify_waiters();
    }
}

impl Tail {
    /// The last durable position.
    pub fn last(&self) -> Position {
        Position(self.shared.last.load(Ordering::Acquire))
    }

    /// The last durable position; [`Tail::moved`] then waits for a later one.
    pub fn look(&mut self) -> Position {
        self.seen = self.last();
        self.seen
    }

    /// Waits until the log is longer than at the last look.
    ///
    /// # Errors
    /// [`TailClosed`] when it will not grow any more.
    pub async fn moved(&mut self) -> Result<(), TailClosed> {
        loop {
            let moved = self.shared.moved.notified();
            let mut moved = std::pin::pin!(moved);
            // Before the look, so that a move in between is not missed.
            moved.as_mut().enable();
            if self.last() > self.seen {
                return Ok(());
            }
            if self.shared.is_closed.load(Ordering::Acquire) {
                return Err(TailClosed);
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_move_is_seen_once_and_the_end_too() {
        let (sender, mut tail) = tail(Position(3));
        assert_eq!(tail.look(), Position(3));
        sender.move_to(Position(5));
        assert_eq!(tail.moved().await, Ok(()));
        assert_eq!(tail.look(), Position(5));
        let mut other = tail.clone();
        let (moved, ()) = tokio::join!(other.moved(), async { sender.move_to(Position(6)) });
        assert_eq!(moved, Ok(()));
        tail.look();
        drop(sender);
        assert_eq!(tail.moved().await, Err(TailClosed));
    }
}
