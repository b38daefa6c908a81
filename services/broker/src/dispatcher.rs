//! One task per subscription: reads the log, asks the lanes what may go, delivers it, saves how far it came.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use kit::{BoxFuture, Environment, Lifecycle, Position, Recorded, Timestamp, transport::Sink};
use tokio::sync::mpsc;

use crate::{
    engine::{EngineError, LogEngine, weigh},
    keeping::{self, Keeping, Unsaved},
    lanes::{DeliveryId, Lane, Lanes, Step, Tuning, Urgency},
    sink::deliver,
    subscriptions::{stored::Stored, wanted::Wanted},
    verdict::{Fault, Outcome, Verdict, judge},
};

/// What a dispatcher is told.
mod instruction;

/// How a subscription stands.
mod status;

pub(crate) use instruction::{ConfigureError, Instruction};
pub use status::{LastError, State, Status};

/// How many events are read from the log at once.
const PAGE_EVENTS: usize = 256;
/// How many events of a lane are looked through at once for one that the subscription asks for.
const SEEK_EVENTS: usize = 64;
/// How long progress stays unsaved, in milliseconds.
const SAVE_AFTER_MS: u64 = 1_000;
/// How many positions of progress stay unsaved.
const SAVE_AFTER_POSITIONS: u64 = 1_000;
/// The pause after the engine failed.
const ENGINE_PAUSE: Duration = Duration::from_secs(1);

type Flying = FuturesUnordered<BoxFuture<'static, (DeliveryId, Vec<Position>, Verdict)>>;
type Saving = BoxFuture<'static, Result<(), (EngineError, Unsaved)>>;

pub(crate) struct Dispatcher {
    pub(crate) name: String,
    /// What is asked for, as it is kept, and the version of that.
    pub(crate) stored: Stored,
    pub(crate) version: i64,
    pub(crate) sink: Option<Arc<dyn Sink>>,
    pub(crate) engine: Arc<dyn LogEngine>,
    pub(crate) environment: Environment,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) instructions: mpsc::Receiver<Instruction>,
    pub(crate) status: Arc<Mutex<Status>>,
}

/// What a running dispatcher knows beside its settings.
struct Run {
    lanes: Lanes,
    keeping: Keeping,
    /// The events that wait in memory.
    content: BTreeMap<Position, Recorded>,
    flying: Flying,
    saving: Option<Saving>,
    save_at: Timestamp,
    last_error: Option<LastError>,
}

impl Dispatcher {
    pub(crate) async fn run(mut self) {
        let _hold = self.engine.hold();
        let (keeping, saved) = match Keeping::load(self.engine.as_ref(), &self.name).await {
            Ok(loaded) => loaded,
            Err(error) => return self.lifecycle.fail(format!("subscription `{}` cannot be loaded: {error}", self.name)),
        };
        let lanes = Lanes::resume(tuning(&self.stored.wanted), saved.floor, saved.rows);
        let (save_at, content) = (self.environment.clock.now(), BTreeMap::new());
        let mut run = Run { lanes, keeping, content, flying: Flying::new(), saving: None, save_at, last_error: None };
        let mut tail = self.engine.tail();
        let lifecycle = self.lifecycle.clone();
        loop {
            let last = tail.look();
            let is_behind = self.read(&mut run, last).await;
            self.start(&mut run).await;
            self.show(&run, last);
            let wait = self.save_and_wait(&mut run);
            tokio::select! {
                biased;
                () = lifecycle.halted() => break,
                instruction = self.instructions.recv() => match instruction {
                    Some(instruction) => if !self.obey(&mut run, instruction).await { return },
                    None => break,
                },
                Some(done) = run.flying.next(), if !run.flying.is_empty() => {
                    self.finish(&mut run, done);
                    // Others may have ended at the same time; what they free can go in one batch.
                    while let Some(Some(done)) = run.flying.next().now_or_never() {
                        self.finish(&mut run, done);
                    }
                }
                saved = until_saved(&mut run.saving) => self.saved(&mut run, saved).await,
                moved = tail.moved() => if moved.is_err() { break },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = tokio::task::yield_now(), if is_behind => {}
            }
        }
        self.save_at_last(run).await;
    }

    /// Reads a page of the log into the lanes, if there is room. Answers whether there is more to read.
    async fn read(&self, run: &mut Run, last: Position) -> bool {
        let room = run.lanes.room().min(PAGE_EVENTS);
        if room == 0 || run.lanes.read_head() >= last {
            return false;
        }
        let page = match self.engine.read(run.lanes.read_head(), room).await {
            Ok(page) => page,
            Err(error) => {
                self.pause(run, &error).await;
                return true;
            }
        };
        for recorded in page {
            let position = recorded.position;
            if self.stored.selection_at(position).takes(&recorded.event) {
                run.lanes.offer(position, recorded.event.lane(), weigh(&recorded.event));
                if run.lanes.is_open(position) {
                    run.content.insert(position, recorded);
                }
            } else {
                run.lanes.passed(position);
            }
        }
        run.lanes.room() > 0 && run.lanes.read_head() < last
    }

    /// Starts whatever may go.
    async fn start(&self, run: &mut Run) {
        let Some(sink) = &self.sink else { return };
        loop {
            match run.lanes.next_step(self.environment.clock.now()) {
                Step::Idle => return,
                Step::Seek { lane, after, up_to } => match self.seek(&lane, after, up_to).await {
                    Ok(found) => run.lanes.found(&lane, found),
                    Err(error) => return self.pause(run, &error).await,
                },
                Step::Deliver(delivery) => {
                    let mut events = Vec::with_capacity(delivery.events.len());
                    for position in &delivery.events {
                        match self.find(&run.content, *position).await {
                            Ok(event) => events.push(event),
                            Err(error) => {
                                let fault = Fault { status: None, reason: error.to_string(), retry_after_s: None };
                                self.finish(run, (delivery.id, delivery.events, Verdict::Busy(fault)));
                                return self.pause(run, &error).await;
                            }
                        }
                    }
                    let (sink, id) = (sink.clone(), delivery.id);
                    run.flying.push(Box::pin(async move {
                        let verdict = judge(deliver(sink, &events).await, events.len());
                        (id, delivery.events, verdict)
                    }));
                }
            }
        }
    }

    /// The first event of `lane` after `after`, up to `up_to`, that the subscription asks for.
    async fn seek(&self, lane: &Lane, mut after: Position, up_to: Position) -> Result<Option<(Position, usize)>, EngineError> {
        loop {
            let page = self.engine.read_lane(lane.as_str(), after, SEEK_EVENTS).await?;
            let Some(last) = page.last() else { return Ok(None) };
            after = last.position;
            let mut wanted = page.iter().filter(|one| one.position <= up_to && self.stored.selection_at(one.position).takes(&one.event));
            if let Some(one) = wanted.next() {
                return Ok(Some((one.position, weigh(&one.event))));
            }
            if after >= up_to {
                return Ok(None);
            }
        }
    }

    async fn find(&self, content: &BTreeMap<Position, Recorded>, position: Position) -> Result<Recorded, EngineError> {
        if let Some(event) = content.get(&position) {
            return Ok(event.clone());
        }
        let found = self.engine.read(Position(position.0 - 1), 1).await?;
        let found = found.into_iter().find(|one| one.position == position);
        found.ok_or_else(|| EngineError::Failed(format!("the log has no event at {position}")))
    }

    fn finish(&self, run: &mut Run, (id, positions, verdict): (DeliveryId, Vec<Position>, Verdict)) {
        let now = self.environment.clock.now();
        if let Some(fault) = worst(&verdict) {
            tracing::debug!(subscription = self.name, status = fault.status, reason = fault.reason, "a delivery was not taken");
            run.last_error = Some(LastError { status: fault.status, reason: fault.reason.clone(), at: now.to_rfc3339() });
        }
        let parked_before = run.lanes.parked_count();
        run.lanes.finish(id, verdict, now, &mut |max| self.environment.ids.up_to(max));
        if run.lanes.parked_count() > parked_before {
            tracing::warn!(subscription = self.name, error = ?run.last_error, "an event became a dead letter; its lane is parked");
        }
        for position in positions {
            if !run.lanes.is_open(position) {
                run.content.remove(&position);
            }
        }
        // Lanes that were set aside leave events behind.
        if run.content.len() > 2 * run.lanes.open_count() + PAGE_EVENTS {
            run.content.retain(|position, _| run.lanes.is_open(*position));
        }
    }

    /// Begins to save if it is time. Answers how long there is nothing to do unless something happens.
    fn save_and_wait(&self, run: &mut Run) -> Option<Duration> {
        let now = self.environment.clock.now();
        let urgency = run.lanes.urgency();
        let is_due = match urgency {
            Urgency::Nothing => false,
            Urgency::Soon { advanced } => advanced >= SAVE_AFTER_POSITIONS || now >= run.save_at,
            Urgency::Now { .. } => true,
        };
        if is_due && run.saving.is_none() {
            let unsaved = run.keeping.prepare(&run.lanes.take_changes());
            run.saving = Some(Box::pin(keeping::save(self.engine.clone(), unsaved)));
            run.save_at = now.plus_ms(SAVE_AFTER_MS);
        }
        let save_at = (urgency != Urgency::Nothing && run.saving.is_none()).then_some(run.save_at);
        let wake_at = self.sink.as_ref().and_then(|_| run.lanes.next_wake(now));
        save_at.into_iter().chain(wake_at).min().map(|at| at.since(now).max(Duration::from_millis(1)))
    }

    async fn saved(&self, run: &mut Run, saved: Result<(), (EngineError, Unsaved)>) {
        run.saving = None;
        if let Err((error, unsaved)) = saved {
            self.pause(run, &error).await;
            run.saving = Some(Box::pin(keeping::save(self.engine.clone(), unsaved)));
        }
    }

    /// The end: what is not saved now is delivered again after the next start.
    async fn save_at_last(&self, mut run: Run) {
        if let Some(saving) = run.saving.take() {
            let _ = saving.await;
        }
        if run.lanes.urgency() != Urgency::Nothing {
            let unsaved = run.keeping.prepare(&run.lanes.take_changes());
            if let Err((error, _)) = keeping::save(self.engine.clone(), unsaved).await {
                tracing::warn!(subscription = self.name, %error, "the last progress could not be saved");
            }
        }
    }

    async fn pause(&self, run: &mut Run, error: &EngineError) {
        tracing::error!(subscription = self.name, %error, "the log cannot be used");
        let at = self.environment.clock.now().to_rfc3339();
        run.last_error = Some(LastError { status: None, reason: error.to_string(), at });
        tokio::select! {
            biased;
            () = self.lifecycle.halted() => {}
            () = tokio::time::sleep(ENGINE_PAUSE) => {}
        }
    }

    fn show(&self, run: &Run, last: Position) {
        let now = self.environment.clock.now();
        let state = match (&self.sink, run.lanes.held_back()) {
            (None, _) => State::Unattached,
            (Some(_), Some(_)) => State::Held,
            (Some(_), None) => State::Running,
        };
        let floor = run.lanes.floor();
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Status {
            state,
            floor,
            read_head: run.lanes.read_head(),
            lag_events: last.0.saturating_sub(floor.0).max(0),
            in_flight: run.flying.len(),
            lanes_set_aside: run.lanes.set_aside_count(),
            lanes_parked: run.lanes.parked_count(),
            dead_letters: run.lanes.parked_count(),
            last_error: run.last_error.clone(),
            next_attempt: run.lanes.next_wake(now).map(Timestamp::to_rfc3339),
        };
    }
}

async fn until_saved(saving: &mut Option<Saving>) -> Result<(), (EngineError, Unsaved)> {
    match saving {
        Some(saving) => saving.await,
        None => std::future::pending().await,
    }
}

fn worst(verdict: &Verdict) -> Option<&Fault> {
    match verdict {
        Verdict::Answered(outcomes) => outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Acknowledged => None,
            Outcome::Later(fault) | Outcome::Retry(fault) | Outcome::Poison(fault) => Some(fault),
        }),
        Verdict::Unreadable(fault) | Verdict::Busy(fault) | Verdict::Failed(fault) | Verdict::EndpointAtFault(fault) => Some(fault),
    }
}

/// The limits of a subscription that asks for `wanted`.
fn tuning(wanted: &Wanted) -> Tuning {
    Tuning {
        batch_events_max: wanted.batch.events_max,
        failures_max: wanted.retry.attempts_max,
        backoff_ms: wanted.retry.backoff_ms,
        backoff_ms_max: wanted.retry.backoff_ms_max,
        ..Tuning::default()
    }
}
