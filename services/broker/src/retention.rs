//! How long the log keeps events, and how large it may grow.
//!
//! What is too old, or too much, is trimmed, once the subscriptions have let go of it. Where one that must not lose anything still needs
//! it, the log grows to its limit; then nothing is taken until there is room.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kit::{BoxFuture, Clock, Environment, Lifecycle, Position, Timestamp};

use crate::engine::{Bounds, EngineError, LogEngine};

#[cfg(test)]
mod tests;

/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// The longest time from one look at the age of events to the next.
const AGE_LOOK: Duration = Duration::from_secs(60);
/// The time from a commit to a look at the size, so that many commits are one look.
const SIZE_LOOK: Duration = Duration::from_millis(250);
/// By how much the log grows from one look at it to the next, in bytes, at most.
const SIZE_STEP_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How much of the past is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Events older than this are trimmed, in milliseconds.
    pub age_ms_max: u64,
    /// When the events take more than this, the oldest are trimmed, in bytes. The log is a little larger now and then, and its file
    /// never shrinks.
    pub bytes_max: u64,
}

impl Default for Limits {
    /// Seven days, ten gibibytes.
    fn default() -> Self {
        Self { age_ms_max: 7 * DAY_MS, bytes_max: 10 * 1024 * 1024 * 1024 }
    }
}

/// Who may still need events.
pub trait Holders: Send + Sync + 'static {
    /// How far the log may go, when it is to go up to `up_to`. Whoever must not lose an event holds the log before it. Whoever may
    /// lose some counts them as lost first; when this resolves, that is durable.
    fn release(&self, up_to: Position) -> BoxFuture<'_, Result<Position, EngineError>>;
}

/// Shut while the log is full.
#[derive(Debug, Default)]
pub(crate) struct Valve(AtomicBool);

impl Valve {
    /// Whether no events are taken.
    pub(crate) fn is_shut(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Answers whether it was another way before.
    fn set(&self, is_shut: bool) -> bool {
        self.0.swap(is_shut, Ordering::Relaxed) != is_shut
    }
}

/// Starts to keep the log within `limits`.
pub(crate) fn start(
    engine: Arc<dyn LogEngine>,
    holders: Arc<dyn Holders>,
    limits: Limits,
    environment: &Environment,
    lifecycle: &Lifecycle,
) -> Arc<Valve> {
    let valve = Arc::new(Valve::default());
    let keeper = Keeper { engine, holders, limits, clock: environment.clock.clone(), valve: valve.clone() };
    lifecycle.spawn("retention", keeper.run(lifecycle.clone()));
    valve
}

/// What a look at the log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    bounds: Bounds,
    /// Up to here all is too old.
    aged: Position,
    /// Up to here all must go so that the rest is small enough.
    oversize: Position,
}

impl Look {
    /// Up to where the log should go, if anything should.
    fn wanted(&self) -> Option<Position> {
        let up_to = self.aged.max(self.oversize).min(self.bounds.last);
        (up_to >= self.bounds.first).then_some(up_to)
    }

    /// What is done when the log may go up to `released`.
    fn decide(&self, released: Position) -> Decision {
        let trim = self.wanted().map(|wanted| wanted.min(released)).filter(|up_to| *up_to >= self.bounds.first);
        Decision { trim, is_full: self.oversize >= self.bounds.first && released < self.oversize }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decision {
    trim: Option<Position>,
    /// Whether the log stays too large.
    is_full: bool,
}

struct Keeper {
    engine: Arc<dyn LogEngine>,
    holders: Arc<dyn Holders>,
    limits: Limits,
    clock: Arc<dyn Clock>,
    valve: Arc<Valve>,
}

impl Keeper {
    async fn run(self, lifecycle: Lifecycle) {
        let work = async {
            let mut tail = self.engine.tail();
            loop {
                self.look_and_trim().await;
                // While it is full, only a subscriber can make room, and nobody says when.
                let until_aged = if self.valve.is_shut() { SIZE_LOOK } else { self.age_look() };
                let size_before = self.engine.bounds().bytes;
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(until_aged) => {}
                    grown = self.grown(&mut tail, size_before) => if !grown { return },
                }
            }
        };
        tokio::select! {
            biased;
            () = lifecycle.halted() => {}
            () = work => {}
        }
    }

    /// Waits until the log has grown by a step; false when it will not grow any more.
    async fn grown(&self, tail: &mut crate::engine::tail::Tail, size_before: u64) -> bool {
        loop {
            tail.look();
            if self.engine.bounds().bytes >= size_before.saturating_add(self.size_step()) {
                return true;
            }
            if tail.moved().await.is_err() {
                return false;
            }
            tokio::time::sleep(SIZE_LOOK).await;
        }
    }

    async fn look_and_trim(&self) {
        match self.pass().await {
            Ok(is_full) => {
                if self.valve.set(is_full) {
                    match is_full {
                        true => tracing::error!("the log is full: a required subscription still needs its oldest events"),
                        false => tracing::warn!("there is room in the log: events are taken again"),
                    }
                }
            }
            Err(EngineError::Closed) => {}
            Err(error) => tracing::warn!(%error, "the log could not be trimmed; it is tried again"),
        }
    }

    /// Looks at the log once and trims it. Answers whether it stays too large.
    async fn pass(&self) -> Result<bool, EngineError> {
        let look = self.look().await?;
        let Some(wanted) = look.wanted() else { return Ok(false) };
        let decision = look.decide(self.holders.release(wanted).await?);
        if let Some(up_to) = decision.trim {
            self.engine.trim(up_to).await?;
            tracing::debug!(%up_to, "the log was trimmed");
        }
        Ok(decision.is_full)
    }

    async fn look(&self) -> Result<Look, EngineError> {
        let age_ms = i64::try_from(self.limits.age_ms_max).unwrap_or(i64::MAX);
        let oldest = Timestamp::from_ms(self.clock.now().as_ms().saturating_sub(age_ms));
        let bounds = self.engine.bounds();
        Ok(Look { bounds, aged: self.engine.find_time(oldest).await?, oversize: self.engine.find_size(self.limits.bytes_max).await? })
    }

    /// Events stay a tenth longer than they must, at most.
    fn age_look(&self) -> Duration {
        Duration::from_millis(self.limits.age_ms_max / 10).clamp(SIZE_LOOK, AGE_LOOK)
    }

    fn size_step(&self) -> u64 {
        (self.limits.bytes_max / 100).clamp(1, SIZE_STEP_BYTES_MAX)
    }
}
