//! What readers know without reading the file: where the log begins and ends, and its newest events.

use kit::{Position, Recorded};

use super::{ring::Ring, store::Mark};
use crate::engine::{Bounds, EngineError};

/// Changes with each commit, after it.
#[derive(Debug)]
pub(super) struct View {
    /// The last event that is gone.
    trimmed: Mark,
    /// The last event.
    last: Mark,
    ring: Ring,
}

impl View {
    /// A log as it was found.
    pub(super) fn new(trimmed: Mark, last: Mark) -> Self {
        Self { trimmed, last, ring: Ring::after(last.position) }
    }

    /// Takes what a commit made durable: events with their weights in bytes, and where the log then ends. Gives back the events that had
    /// to make room.
    pub(super) fn append(&mut self, news: Vec<(Recorded, usize)>, last: Mark) -> Vec<Recorded> {
        self.last = last;
        let mut evicted = Vec::new();
        news.into_iter().for_each(|(event, weight)| self.ring.push(event, weight, &mut evicted));
        evicted
    }

    /// Forgets what is gone.
    pub(super) fn trim(&mut self, trimmed: Mark) {
        self.ring.trim(trimmed.position);
        self.trimmed = trimmed;
    }

    /// The last event.
    pub(super) fn last(&self) -> Mark {
        self.last
    }

    pub(super) fn bounds(&self) -> Bounds {
        let bytes = u64::try_from(self.last.total.saturating_sub(self.trimmed.total)).unwrap_or(0);
        Bounds { first: self.trimmed.position.next(), last: self.last.position, bytes }
    }

    /// Behind which position a reader at `after` goes on.
    pub(super) fn begin(&self, after: Position) -> Result<Position, EngineError> {
        begin(after, self.trimmed.position)
    }

    /// The events after `after`; see [`Ring::read`].
    pub(super) fn read(&self, after: Position, last: Position, limit: usize, bytes_max: usize) -> Option<Vec<Recorded>> {
        self.ring.read(after, last, limit, bytes_max)
    }
}

/// Behind which position a reader at `after` goes on, when everything up to `trimmed` is gone.
pub(super) fn begin(after: Position, trimmed: Position) -> Result<Position, EngineError> {
    match after {
        _ if after <= Position::START => Ok(trimmed),
        _ if after < trimmed => Err(EngineError::Trimmed { first: trimmed.next() }),
        _ => Ok(after),
    }
}
