//! The writer loop: batches of inputs, one durable transaction each.
//!
//! Whatever is queued makes the next batch, without waiting for more: while one batch is being committed the next one gathers, so the
//! batch *is* the group commit. Callers are answered, and the relay and the effects set going, after the commit and never before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    Context, Envelope, Environment, Lifecycle, Machine, Position,
    effects::PendingEffect,
    machine::OutcomeOf,
    planted::{Bug, is_planted},
    relay::OutboxRow,
    service::{Committed, Meta, SubmitError},
    store::{Checkpoints, Store, StoreError},
    trace::Observation,
};

/// One input's transaction: inbox, load, decide, save.
mod batch;

/// What a service forgets.
mod forget;

/// The kit's tables, and every statement on them.
mod rows;

/// Which timers are due when.
mod timers;

use batch::{Batch, OpenBatch, Reply};
pub(crate) use forget::Memory;
use forget::{Forgetting, Forgotten};
pub(crate) use rows::{MIGRATIONS, read_state};
use timers::{TimerName, Timers};

/// The most inputs in one transaction.
const BATCH_MAX: usize = 512;
/// How long acknowledged outbox rows may stay when nothing else is written.
const TIDY_AFTER: Duration = Duration::from_millis(250);
/// The pause before the write-ahead file is tried again that a reader kept from being emptied.
const TRUNCATE_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long a timer rests whose input broke instead of being applied.
const REST_MS: u64 = 30_000;

/// An input on its way to the writer.
pub(crate) enum Job<M: Machine> {
    /// From a client.
    Command { key: M::Key, input: M::Input, meta: Meta, answer: oneshot::Sender<Result<Committed<M>, SubmitError<M::Refusal>>> },
    /// From the broker, with its place in the log, if that is known.
    Event {
        event: Arc<Envelope>,
        position: Option<Position>,
        key: M::Key,
        input: M::Input,
        answer: oneshot::Sender<Result<(), EventFault>>,
    },
    /// What came of an effect.
    Outcome { effect_id: i64, effect: M::Effect, context: Context, outcomes: Vec<OutcomeOf<M>> },
    /// A timer that is due.
    Timer(TimerName<M>),
}

/// Why an event was not applied.
#[derive(Debug)]
pub(crate) struct EventFault {
    /// An HTTP status.
    pub(crate) status: u16,
    /// Why, in words.
    pub(crate) reason: String,
}

impl EventFault {
    /// Not any more; after the next start.
    pub(crate) fn stopping() -> Self {
        Self { status: 503, reason: String::from("the service is stopping") }
    }

    /// It can never be applied.
    pub(crate) fn refused(reason: String) -> Self {
        Self { status: 422, reason }
    }
}

/// What a writer is made of.
pub(crate) struct Parts<M: Machine> {
    pub(crate) machine: Arc<M>,
    pub(crate) environment: Environment,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) store: Store,
    pub(crate) checkpoints: Checkpoints,
    /// Events and outcomes: taken before commands, so that what was begun is finished first.
    pub(crate) urgent: mpsc::Receiver<Job<M>>,
    pub(crate) commands: mpsc::Receiver<Job<M>>,
    /// Ids of outbox rows that the broker has.
    pub(crate) relayed: mpsc::UnboundedReceiver<Vec<i64>>,
    pub(crate) outbox: mpsc::UnboundedSender<Vec<OutboxRow>>,
    pub(crate) effects: mpsc::UnboundedSender<PendingEffect<M>>,
    pub(crate) outbox_rows: Arc<AtomicUsize>,
    pub(crate) memory: Arc<Memory>,
}

/// The one writer of a service's store.
pub(crate) struct Writer<M: Machine> {
    parts: Parts<M>,
    timers: Timers<M>,
    forgetting: Forgetting,
    /// Outbox rows to delete with the next transaction.
    tidy: Vec<i64>,
    tidy_at: Option<Instant>,
    /// When to empty the write-ahead file: something was erased, and may still be read there.
    truncate_at: Option<Instant>,
}

impl<M: Machine> Writer<M> {
    /// A writer that goes on where the store was left: outbox and effects are set going again, timers are read.
    pub(crate) fn resume(parts: Parts<M>) -> Result<Self, StoreError> {
        let db = &parts.store.connection;
        let outbox = rows::find_outbox(db)?;
        parts.outbox_rows.store(outbox.len(), Ordering::Relaxed);
        if !outbox.is_empty() {
            let _ = parts.outbox.send(outbox);
        }
        for effect in rows::find_effects(db)? {
            let _ = parts.effects.send(effect);
        }
        let timers = Timers::from_rows(rows::find_timers(db)?);
        // Whether the last erasure got that far before the stop is not known.
        let forgetting = Forgetting::new(parts.memory.clone());
        Ok(Self { parts, timers, forgetting, tidy: Vec::new(), tidy_at: None, truncate_at: Some(Instant::now()) })
    }

    /// Writes until the lifecycle halts; what is queued then is still written.
    pub(crate) async fn run(mut self) {
        loop {
            if let Err(error) = self.truncate_if_due() {
                self.parts.lifecycle.fail(format!("{}: {error}", M::NAME));
                return;
            }
            let jobs = self.gather();
            let is_time_to_tidy = self.tidy_at.is_some_and(|at| at <= Instant::now());
            let written = if !jobs.is_empty() || is_time_to_tidy {
                self.write(jobs).await
            } else if self.parts.lifecycle.is_halting() {
                return;
            } else {
                match self.wait().await {
                    Some(job) => {
                        let mut jobs = vec![job];
                        jobs.extend(self.gather());
                        self.write(jobs).await
                    }
                    None => Ok(()),
                }
            };
            if let Err(error) = written {
                self.parts.lifecycle.fail(format!("{}: {error}", M::NAME));
                return;
            }
        }
    }

    /// Takes what is there, in the order of urgency.
    fn gather(&mut self) -> Vec<Job<M>> {
        while let Ok(ids) = self.parts.relayed.try_recv() {
            self.tidy_later(ids);
        }
        let mut jobs = Vec::new();
        // Timers may set timers without end: a stop does not wait for that. They are durable.
        if !self.parts.lifecycle.is_halting() {
            jobs.extend(self.timers.due(self.parts.environment.clock.now(), BATCH_MAX).into_iter().map(Job::Timer));
        }
        for queue in [&mut self.parts.urgent, &mut self.parts.commands] {
            while jobs.len() < BATCH_MAX {
                match queue.try_recv() {
                    Ok(job) => jobs.push(job),
                    Err(_) => break,
                }
            }
        }
        jobs
    }

    async fn wait(&mut self) -> Option<Job<M>> {
        let now = self.parts.environment.clock.now();
        let timer_at = self.timers.next_due().map(|due| Instant::now() + due.since(now));
        let wake_at = [timer_at, self.tidy_at, self.truncate_at].into_iter().flatten().min();
        let wake = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.parts.lifecycle.halted() => None,
            Some(job) = self.parts.urgent.recv() => Some(job),
            Some(job) = self.parts.commands.recv() => Some(job),
            Some(ids) = self.parts.relayed.recv() => {
                self.tidy_later(ids);
                None
            }
            () = wake => None,
        }
    }

    /// Empties the write-ahead file once something was erased. A reader may be in the way: then it is tried again.
    fn truncate_if_due(&mut self) -> Result<(), StoreError> {
        if self.truncate_at.is_some_and(|at| at <= Instant::now()) {
            let is_done = rows::truncate_write_ahead_file(&self.parts.store.connection)?;
            self.truncate_at = if is_done { None } else { Some(Instant::now() + TRUNCATE_AGAIN_AFTER) };
        }
        Ok(())
    }

    fn tidy_later(&mut self, ids: Vec<i64>) {
        self.parts.outbox_rows.fetch_sub(ids.len(), Ordering::Relaxed);
        if !ids.is_empty() && self.tidy_at.is_none() {
            self.tidy_at = Some(Instant::now() + TIDY_AFTER);
        }
        self.tidy.extend(ids);
    }

    /// Writes `jobs` in one transaction. If that breaks for a reason other than the disk, each runs alone and only the culprit fails.
    async fn write(&mut self, jobs: Vec<Job<M>>) -> Result<(), StoreError> {
        self.parts.store.begin().await?;
        match self.apply(&jobs) {
            Ok(batch) => self.commit(batch, jobs).await,
            Err(error) if error.is_fatal() => Err(error),
            Err(_) => {
                self.roll_back()?;
                for job in jobs {
                    let alone = vec![job];
                    self.parts.store.begin().await?;
                    match self.apply(&alone) {
                        Ok(batch) => self.commit(batch, alone).await?,
                        Err(error) if error.is_fatal() => return Err(error),
                        Err(error) => {
                            self.roll_back()?;
                            tracing::error!(service = M::NAME, %error, "an input could not be applied");
                            alone.into_iter().for_each(|job| self.give_up(job));
                        }
                    }
                }
                Ok(())
            }
        }
    }

    /// Does all between begin and commit.
    fn apply(&mut self, jobs: &[Job<M>]) -> Result<(Batch<M>, Forgotten), StoreError> {
        let db = &self.parts.store.connection;
        let mut batch = OpenBatch::new(&*self.parts.machine, &self.parts.environment, db);
        rows::delete_outbox(db, &self.tidy)?;
        for job in jobs {
            batch.apply(job)?;
        }
        let batch = batch.finish()?;
        // After the inputs: each was looked for in what is still remembered.
        let forgotten = self.forgetting.forget(db, self.parts.environment.clock.now(), jobs.len())?;
        Ok((batch, forgotten))
    }

    fn roll_back(&self) -> Result<(), StoreError> {
        let db = &self.parts.store.connection;
        if db.is_autocommit() { Ok(()) } else { Ok(db.execute_batch("rollback")?) }
    }

    async fn commit(&mut self, (mut batch, forgotten): (Batch<M>, Forgotten), jobs: Vec<Job<M>>) -> Result<(), StoreError> {
        let disk = self.parts.environment.disk.clone();
        let mut jobs = Some(jobs);
        if is_planted(Bug::AcknowledgeBeforeCommit) {
            self.answer(&mut batch, jobs.take().unwrap_or_default());
        }
        disk.before_commit().await;
        self.parts.store.connection.execute_batch("commit")?;
        disk.after_commit().await;
        self.tidy.clear();
        self.tidy_at = None;
        self.forgetting.committed(forgotten);
        self.parts.checkpoints.committed();
        self.timers.apply(std::mem::take(&mut batch.timers));
        self.set_going(&mut batch);
        self.answer(&mut batch, jobs.unwrap_or_default());
        if batch.erases {
            self.truncate_at = Some(Instant::now());
        }
        // Everybody is answered; the next transaction waits while the write-ahead file is too long.
        if let Some(copied) = self.parts.checkpoints.look(&self.parts.store.connection)? {
            copied.await;
        }
        Ok(())
    }

    fn set_going(&self, batch: &mut Batch<M>) {
        let rows = std::mem::take(&mut batch.outbox);
        if !rows.is_empty() {
            self.parts.outbox_rows.fetch_add(rows.len(), Ordering::Relaxed);
            let _ = self.parts.outbox.send(rows);
        }
        for effect in batch.effects.drain(..) {
            let _ = self.parts.effects.send(effect);
        }
    }

    /// Tells everybody what came of their input. Whoever does not wait any more is not told.
    fn answer(&self, batch: &mut Batch<M>, jobs: Vec<Job<M>>) {
        for (job, reply) in jobs.into_iter().zip(batch.replies.drain(..)) {
            match (job, reply) {
                (Job::Command { answer, .. }, Reply::Command(result)) => {
                    if let Ok(committed) = &*result {
                        self.observe(|| Observation::Acknowledged { service: M::NAME, entity: crate::machine::Key::id(&committed.key) });
                    }
                    let _ = answer.send(*result);
                }
                (Job::Event { event, answer, .. }, Reply::Event { result, is_applied }) => {
                    if is_applied {
                        self.observe(|| Observation::Applied {
                            service: M::NAME,
                            source: event.source.clone(),
                            id: event.id.clone(),
                            lane: event.lane().to_owned(),
                        });
                    }
                    let _ = answer.send(result);
                }
                _ => {}
            }
        }
    }

    fn observe(&self, observation: impl FnOnce() -> Observation) {
        if let Some(observer) = &self.parts.environment.observer {
            observer.observe(observation());
        }
    }

    /// An input broke on its own: nobody's fault but ours. Whoever waits is told; what is durable comes again later.
    fn give_up(&mut self, job: Job<M>) {
        match job {
            Job::Command { answer, .. } => drop(answer.send(Err(SubmitError::Failed))),
            Job::Event { answer, .. } => {
                drop(answer.send(Err(EventFault { status: 500, reason: String::from("the event could not be applied") })))
            }
            Job::Outcome { effect_id, effect, context, .. } => {
                let _ = self.parts.effects.send(PendingEffect { id: effect_id, effect, context, rests: true });
            }
            Job::Timer(name) => self.timers.postpone(name, self.parts.environment.clock.now().plus_ms(REST_MS)),
        }
    }
}
