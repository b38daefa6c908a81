//! When progress is saved: lazily, for what is not saved is only delivered again; at once, when somebody waits to see it.

use kit::{BoxFuture, Timestamp};

use super::{Dispatcher, Run};
use crate::{
    engine::EngineError,
    keeping::{self, Puts},
    lanes::Urgency,
};

/// How long progress stays unsaved, in milliseconds.
const SAVE_AFTER_MS: u64 = 1_000;
/// How many positions of progress stay unsaved.
const SAVE_AFTER_POSITIONS: u64 = 1_000;
/// The same while a subscription catches up: each save is a commit that the others' events wait for.
const SAVE_AFTER_POSITIONS_BEHIND: u64 = 16_000;
/// The pause after the engine failed, in milliseconds.
const FAILED_PAUSE_MS: u64 = 1_000;
/// How many lanes are saved at once: a larger write would keep appends waiting. Of those that only failed once more no more than this
/// are saved in [`SAVE_AFTER_MS`], so that many that fail do not take the disk from the others.
const LANES_MAX: usize = 128;

type Saved = Result<(), (EngineError, Puts)>;

/// What is being saved, and when the next is to be.
pub(super) struct Saving {
    flying: Option<BoxFuture<'static, Saved>>,
    /// What could not be saved; it must be before anything else is.
    failed: Option<Puts>,
    /// There was more than is saved at once.
    is_more: bool,
    due_at: Timestamp,
}

impl Saving {
    pub(super) fn due_at(due_at: Timestamp) -> Self {
        Self { flying: None, failed: None, is_more: false, due_at }
    }

    /// Waits until what is being saved is saved; for ever, when nothing is.
    pub(super) async fn ended(&mut self) -> Saved {
        match &mut self.flying {
            Some(flying) => flying.await,
            None => std::future::pending().await,
        }
    }

    /// Waits until what is being saved is saved, or is not.
    pub(super) async fn end(&mut self) {
        if let Some(flying) = self.flying.take() {
            let _ = flying.await;
        }
    }
}

impl Dispatcher {
    /// Begins to save if it is time.
    pub(super) fn begin_save(&self, run: &mut Run) {
        let now = self.environment.clock.now();
        if run.saving.flying.is_some() || !is_due(run, now) {
            return;
        }
        let puts = next_puts(run);
        run.saving.due_at = now.plus_ms(SAVE_AFTER_MS);
        run.saving.flying = Some(Box::pin(keeping::save(self.engine.clone(), puts)));
    }

    /// When it is time to save again, if that is known.
    pub(super) fn save_at(&self, run: &Run) -> Option<Timestamp> {
        let is_anything = run.saving.failed.is_some() || run.lanes.urgency() != Urgency::Nothing;
        (is_anything && run.saving.flying.is_none()).then_some(run.saving.due_at)
    }

    pub(super) fn saved(&self, run: &mut Run, saved: Saved) {
        run.saving.flying = None;
        if let Err((error, puts)) = saved {
            self.note(run, &error);
            run.saving.failed = Some(puts);
            run.saving.due_at = self.environment.clock.now().plus_ms(FAILED_PAUSE_MS);
        }
    }

    /// Saves everything as it stands now, the cursor in any case.
    ///
    /// # Errors
    /// When it cannot be saved; it is tried again later.
    pub(super) async fn flush(&self, run: &mut Run) -> Result<(), EngineError> {
        if let Some(flying) = run.saving.flying.take() {
            let saved = flying.await;
            self.saved(run, saved);
        }
        loop {
            let (was_failed, puts) = (run.saving.failed.is_some(), next_puts(run));
            if let Err((error, puts)) = keeping::save(self.engine.clone(), puts).await {
                self.saved(run, Err((error.clone(), puts)));
                return Err(error);
            }
            if !was_failed && !run.saving.is_more {
                return Ok(());
            }
        }
    }

    /// The end: what is not saved now is delivered again after the next start.
    pub(super) async fn save_at_last(&self, mut run: Run) {
        if let Some(flying) = run.saving.flying.take() {
            let saved = flying.await;
            self.saved(&mut run, saved);
        }
        while run.saving.failed.is_some() || run.lanes.urgency() != Urgency::Nothing {
            if let Err(error) = self.flush(&mut run).await {
                tracing::warn!(subscription = self.name, %error, "the last progress could not be saved");
                return;
            }
        }
    }
}

fn is_due(run: &Run, now: Timestamp) -> bool {
    if run.saving.failed.is_some() {
        return now >= run.saving.due_at;
    }
    match run.lanes.urgency() {
        Urgency::Nothing => false,
        Urgency::Soon { advanced } => {
            let save_after = if run.catch_up.is_on() { SAVE_AFTER_POSITIONS_BEHIND } else { SAVE_AFTER_POSITIONS };
            run.saving.is_more || advanced >= save_after || now >= run.saving.due_at
        }
        Urgency::Now { .. } => true,
    }
}

/// What is to be saved next.
fn next_puts(run: &mut Run) -> Puts {
    if let Some(puts) = run.saving.failed.take() {
        return puts;
    }
    let changes = run.lanes.take_changes(LANES_MAX);
    run.saving.is_more = !changes.is_all;
    run.keeping.prepare(&changes)
}
