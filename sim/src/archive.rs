//! Everything that the log ever held, kept outside of the shop: events are copied before the log is told to forget them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use broker::engine::{EngineError, LogEngine};
use kit::{Envelope, Position, Recorded};

/// How many events are copied at once.
const PAGE_EVENTS: usize = 1_000;

/// An event of the log, or one that it held.
pub(crate) struct Logged {
    pub(crate) position: Position,
    pub(crate) event: Arc<Envelope>,
    /// The log had forgotten it when it was published once more.
    pub(crate) is_again: bool,
}

impl Logged {
    /// Its source and its id.
    pub(crate) fn name(&self) -> (&str, &str) {
        (&self.event.source, self.event.id.as_str())
    }
}

/// What the log ever held. It outlives the broker; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Archive(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    events: BTreeMap<Position, Arc<Envelope>>,
    /// Where the event of a source and an id stands.
    names: BTreeMap<(String, String), Position>,
    /// Events whose name the log had forgotten when they came once more.
    again: BTreeSet<Position>,
    /// The log was told to forget the events up to here. It may have crashed before it did.
    told: Position,
    /// It has forgotten the events up to here.
    forgotten: Position,
    trims: usize,
    crashes_ms: Vec<u64>,
    wrong: Vec<String>,
}

impl Archive {
    /// Copies what `engine` has and this has not.
    pub(crate) async fn copy(&self, engine: &dyn LogEngine) -> Result<(), EngineError> {
        loop {
            let after = self.last();
            let page = engine.read(after, PAGE_EVENTS).await?;
            if page.is_empty() {
                return Ok(());
            }
            self.add(page);
        }
    }

    /// Takes events of the log, in order; those that are here already change nothing.
    pub(crate) fn add(&self, events: impl IntoIterator<Item = Recorded>) {
        let mut kept = self.kept();
        let last = kept.last();
        for Recorded { position, event } in events.into_iter().filter(|one| one.position > last) {
            let name = (event.source.clone(), event.id.as_str().to_owned());
            if let Some(before) = kept.names.insert(name, position) {
                if before > kept.told {
                    let line = format!("event {} of {} is in the log at {before} and at {position}", event.id, event.source);
                    kept.wrong.push(line);
                }
                kept.again.insert(position);
            }
            kept.events.insert(position, event);
        }
    }

    /// The log is told to forget the events up to `up_to`. Gives up to where it had been told before.
    pub(crate) fn tell(&self, up_to: Position) -> Position {
        let mut kept = self.kept();
        let before = kept.told;
        kept.told = before.max(up_to);
        before
    }

    /// The log has forgotten the events up to `up_to`.
    pub(crate) fn forget(&self, up_to: Position) {
        let mut kept = self.kept();
        kept.forgotten = kept.forgotten.max(up_to);
        kept.trims += 1;
    }

    /// The broker has crashed at this time.
    pub(crate) fn crash(&self, at_ms: u64) {
        self.kept().crashes_ms.push(at_ms);
    }

    /// Whether the broker lived from `from_ms` to `to_ms`.
    pub(crate) fn lived_through(&self, from_ms: u64, to_ms: u64) -> bool {
        !self.kept().crashes_ms.iter().any(|at_ms| (from_ms..=to_ms).contains(at_ms))
    }

    /// Everything that it ever held, in order.
    pub(crate) fn events(&self) -> Vec<Logged> {
        let kept = self.kept();
        let one = |(position, event): (&Position, &Arc<Envelope>)| Logged {
            position: *position,
            event: event.clone(),
            is_again: kept.again.contains(position),
        };
        kept.events.iter().map(one).collect()
    }

    /// The last position that was copied.
    pub(crate) fn last(&self) -> Position {
        self.kept().last()
    }

    /// Up to where the log was told to forget, and up to where it has forgotten.
    pub(crate) fn told_and_forgotten(&self) -> (Position, Position) {
        let kept = self.kept();
        (kept.told, kept.forgotten)
    }

    /// How often the log was trimmed.
    pub(crate) fn trims(&self) -> usize {
        self.kept().trims
    }

    /// Something does not hold.
    pub(crate) fn blame(&self, wrong: impl IntoIterator<Item = String>) {
        self.kept().wrong.extend(wrong);
    }

    /// What was found not to hold.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.kept().wrong.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn last(&self) -> Position {
        self.events.last_key_value().map_or(Position::START, |(last, _)| *last)
    }
}
