//! The newest events, in memory: whoever follows the tail reads no file.

use std::collections::VecDeque;

use kit::{Position, Recorded};

/// How many events are kept at most.
const EVENTS_MAX: usize = 32_768;
/// About how many bytes of events are kept at most.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// All events after one position, up to the last.
#[derive(Debug)]
pub(super) struct Ring {
    /// Everything after this position is here.
    after: Position,
    events: VecDeque<(Recorded, usize)>,
    bytes: usize,
}

impl Ring {
    /// A ring that will hold what comes after `last`.
    pub(super) fn after(last: Position) -> Self {
        Self { after: last, events: VecDeque::new(), bytes: 0 }
    }

    /// Takes the next event, `weight` bytes heavy; the oldest ones make room, and go to `evicted`.
    pub(super) fn push(&mut self, event: Recorded, weight: usize, evicted: &mut Vec<Recorded>) {
        self.bytes += weight;
        self.events.push_back((event, weight));
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some((oldest, weight)) = self.events.pop_front() else { break };
            self.bytes -= weight;
            self.after = oldest.position;
            evicted.push(oldest);
        }
    }

    /// Forgets the events up to `up_to`.
    pub(super) fn trim(&mut self, up_to: Position) {
        while let Some((oldest, weight)) = self.events.pop_front_if(|(oldest, _)| oldest.position <= up_to) {
            self.bytes -= weight;
            self.after = oldest.position;
        }
        self.after = self.after.max(up_to);
    }

    /// The events after `after` up to `last`, within both limits but at least one; none when they are not all here any more.
    pub(super) fn read(&self, after: Position, last: Position, limit: usize, bytes_max: usize) -> Option<Vec<Recorded>> {
        if after < self.after {
            return None;
        }
        let begin = self.events.partition_point(|(event, _)| event.position <= after);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for (event, weight) in self.events.range(begin..).take(limit) {
            bytes += weight;
            if event.position > last || (bytes > bytes_max && !found.is_empty()) {
                break;
            }
            found.push(event.clone());
        }
        Some(found)
    }
}
