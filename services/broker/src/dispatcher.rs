//! One task per subscription: reads the log, asks the lanes what may go, delivers it, saves how far it came.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use kit::{BoxFuture, Environment, Lifecycle, Position, Recorded};
use tokio::sync::mpsc;

use crate::{
    engine::{EngineError, LogEngine, weigh},
    keeping::Keeping,
    lanes::{Delivery, DeliveryId, Lane, Lanes, Step, Tuning},
    sink::{Manner, Target},
    subscriptions::{stored::Stored, wanted::Wanted},
    verdict::{Fault, Verdict, judge},
};

/// What a dispatcher is told.
mod instruction;

/// When progress is saved.
mod saving;

/// Rests while a subscription catches up.
mod catch_up;

/// What the log loses.
mod release;

/// Sending a part of the log again.
mod replay;

/// How a subscription stands.
mod status;

/// How often events were sent.
mod attempts;

pub use attempts::Attempts;
pub(crate) use instruction::{ConfigureError, Decision, Instruction, Look};
pub use release::Reset;
pub(crate) use replay::{End, Ended, Replay};
pub use status::{Account, LastError, Oldest, State, Status};

use catch_up::CatchUp;
use replay::Pace;
use saving::Saving;

/// How many events are read from the log at once.
const PAGE_EVENTS: usize = 256;
/// How many events of a lane are looked through at once at most for one that the subscription asks for.
const SEEK_EVENTS_MAX: usize = 64;
/// The pause after the engine failed.
const ENGINE_PAUSE: Duration = Duration::from_secs(1);

type Flying = FuturesUnordered<BoxFuture<'static, Landed>>;
/// A delivery that has ended: its events could not be read, or this was the answer.
type Landed = (DeliveryId, Vec<Position>, Result<Verdict, EngineError>);

pub(crate) struct Dispatcher {
    /// The subscription.
    pub(crate) name: String,
    /// Under which name it keeps what it has: another one for each replay.
    pub(crate) key: String,
    /// What is asked for, as it is kept, and the version of that.
    pub(crate) stored: Stored,
    pub(crate) version: i64,
    pub(crate) target: Option<Target>,
    pub(crate) engine: Arc<dyn LogEngine>,
    pub(crate) environment: Environment,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) instructions: mpsc::Receiver<Instruction>,
    pub(crate) status: Arc<Mutex<Status>>,
    /// It sends a part of the log again.
    pub(crate) replay: Option<Replay>,
}

/// What a running dispatcher knows beside its settings.
struct Run {
    lanes: Lanes,
    keeping: Keeping,
    /// The events that wait in memory.
    content: BTreeMap<Position, Recorded>,
    flying: Flying,
    saving: Saving,
    last_error: Option<LastError>,
    attempts: Attempts,
    catch_up: CatchUp,
    /// How many events may be sent in a second, where that is limited.
    pace: Option<Pace>,
}

impl Dispatcher {
    pub(crate) async fn run(mut self) {
        let _hold = self.engine.hold();
        let mut run = match self.load().await {
            Ok(run) => run,
            Err(error) => return self.lifecycle.fail(format!("subscription `{}` cannot be loaded: {error}", self.name)),
        };
        let mut tail = self.engine.tail();
        let lifecycle = self.lifecycle.clone();
        loop {
            // A replay has an end of its own.
            let last = self.replay.as_ref().map_or(Position(i64::MAX), |replay| replay.to).min(tail.look());
            let is_behind = self.read(&mut run, last).await;
            let is_broken_off = self.start(&mut run).await;
            self.begin_save(&mut run);
            self.show(&run, last);
            if self.is_done(&run) {
                return self.conclude(&mut run).await;
            }
            let wait = self.wait(&run);
            tokio::select! {
                biased;
                () = lifecycle.halted() => break,
                instruction = self.instructions.recv() => match instruction {
                    Some(instruction) => if !self.obey(&mut run, instruction).await { return },
                    None => break,
                },
                Some(landed) = run.flying.next(), if !run.flying.is_empty() => {
                    let mut unread = self.land(&mut run, landed);
                    // Others may have ended at the same time; what they free can go in one batch.
                    while let Some(Some(landed)) = run.flying.next().now_or_never() {
                        unread = self.land(&mut run, landed).or(unread);
                    }
                    if let Some(error) = unread {
                        self.bear(&mut run, error).await;
                    }
                }
                saved = run.saving.ended() => self.saved(&mut run, saved),
                moved = tail.moved() => if moved.is_err() { break },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = tokio::task::yield_now(), if is_behind || is_broken_off => {}
            }
        }
        self.save_at_last(run).await;
    }

    async fn load(&self) -> Result<Run, EngineError> {
        let (keeping, saved) = Keeping::load(self.engine.as_ref(), &self.key, &self.stored).await?;
        let lanes = Lanes::resume(tuning(&self.stored.wanted), saved);
        let now = self.environment.clock.now();
        let (saving, pace) = (Saving::due_at(now), self.replay.as_ref().map(|replay| Pace::new(replay.rate_per_s, now)));
        Ok(Run {
            lanes,
            keeping,
            content: BTreeMap::new(),
            flying: Flying::new(),
            saving,
            last_error: None,
            attempts: Attempts::default(),
            catch_up: CatchUp::new(now),
            pace,
        })
    }

    /// Reads a page of the log into the lanes, if there is room. Answers whether there is more to read.
    async fn read(&self, run: &mut Run, last: Position) -> bool {
        let (is_paused, now) = (run.keeping.cursor().is_paused, self.environment.clock.now());
        let is_away = is_paused || self.target.is_none() || run.lanes.held_back().is_some();
        run.catch_up.observe(is_away, run.lanes.read_head(), last);
        let room = run.lanes.room().min(run.catch_up.page_events(PAGE_EVENTS, self.stored.wanted.batch.events_max));
        // While it is paused a change of its filters should count for all that waits.
        if room == 0 || run.lanes.read_head() >= last || is_paused || run.catch_up.rests_until(now).is_some() {
            return false;
        }
        let page = match self.engine.read(run.lanes.read_head(), room).await {
            Ok(page) => page,
            Err(error) => {
                self.bear(run, error).await;
                return true;
            }
        };
        let is_at_end = page.last().is_none_or(|end| end.position > last);
        let (read, open_before) = (page.len(), run.lanes.open_count());
        for recorded in page.into_iter().take_while(|recorded| recorded.position <= last) {
            let position = recorded.position;
            if self.is_asked_for(&recorded) {
                run.lanes.offer(position, recorded.event.lane(), weigh(&recorded.event));
                if run.lanes.is_open(position) {
                    run.content.insert(position, recorded);
                }
            } else {
                run.lanes.passed(position);
            }
        }
        if is_at_end {
            run.lanes.passed(last);
        }
        let (now, read_head) = (self.environment.clock.now(), run.lanes.read_head());
        run.catch_up.spend((read, run.lanes.open_count().saturating_sub(open_before)), read_head, last, now);
        run.lanes.room() > 0 && read_head < last && run.catch_up.rests_until(now).is_none()
    }

    /// Starts whatever may go. Answers whether it was broken off: what is due then would be woken by nothing.
    async fn start(&self, run: &mut Run) -> bool {
        let Some(target) = self.target.as_ref().filter(|_| !run.keeping.cursor().is_paused) else { return false };
        loop {
            let now = self.environment.clock.now();
            let allowed = run.pace.as_mut().map_or(usize::MAX, |pace| pace.allowance(now));
            if allowed == 0 {
                return false;
            }
            match run.lanes.next_step_of(now, allowed) {
                Step::Idle => return false,
                Step::Seek { lane, after, up_to } => match self.seek(&lane, after, up_to).await {
                    Ok(found) => {
                        run.lanes.found(&lane, found.as_ref().map(|one| (one.position, weigh(&one.event))));
                        // It is likely to go at once.
                        run.content.extend(found.map(|one| (one.position, one)));
                    }
                    Err(error) => {
                        self.bear(run, error).await;
                        return true;
                    }
                },
                Step::Deliver(delivery) => {
                    if let Some(pace) = &mut run.pace {
                        pace.spend(delivery.events.len());
                    }
                    run.flying.push(Box::pin(self.deliver(target, delivery, &run.content)));
                }
            }
        }
    }

    fn is_asked_for(&self, one: &Recorded) -> bool {
        let is_also = self.replay.as_ref().is_none_or(|replay| replay.also.takes(&one.event));
        is_also && self.stored.selection_at(one.position).takes(&one.event)
    }

    /// The first event of `lane` after `after`, up to `up_to`, that the subscription asks for.
    async fn seek(&self, lane: &Lane, mut after: Position, up_to: Position) -> Result<Option<Recorded>, EngineError> {
        // Most subscriptions ask for most events of an order.
        let mut limit = 1;
        loop {
            let page = self.engine.read_lane(lane.as_str(), after, limit).await?;
            let Some(last) = page.last() else { return Ok(None) };
            after = last.position;
            let wanted = page.into_iter().find(|one| one.position <= up_to && self.is_asked_for(one));
            if wanted.is_some() || after >= up_to {
                return Ok(wanted);
            }
            limit = (2 * limit).min(SEEK_EVENTS_MAX);
        }
    }

    /// Sends what is in memory, or else in the log.
    fn deliver(&self, target: &Target, delivery: Delivery, content: &BTreeMap<Position, Recorded>) -> impl Future<Output = Landed> + use<> {
        let Delivery { id, events: positions, attempt } = delivery;
        let (engine, target) = (self.engine.clone(), target.clone());
        let (subscription, replay) = (self.name.clone(), self.replay.as_ref().map(|replay| replay.id.clone()));
        let known: Vec<_> = positions.iter().filter_map(|position| content.get(position)).cloned().collect();
        async move {
            let verdict = async {
                let events = if known.len() == positions.len() { known } else { read_each(engine.as_ref(), &positions).await? };
                // Told with the delivery: what the log has lost by now is never sent again, not even from memory.
                let log_first = engine.bounds().first;
                if events.iter().any(|event| event.position < log_first) {
                    return Err(EngineError::Trimmed { first: log_first });
                }
                let manner = Manner { subscription, attempt, log_first, replay };
                Ok(judge(target.deliver(&events, &manner).await, events.len()))
            };
            let verdict = verdict.await;
            (id, positions, verdict)
        }
    }

    /// Answers why the events could not be read, if they could not: they wait, and nothing is held against them.
    fn land(&self, run: &mut Run, (id, positions, verdict): Landed) -> Option<EngineError> {
        let (verdict, unread) = match verdict {
            Ok(verdict) => (verdict, None),
            Err(error) => {
                let reason = error.to_string().into();
                (Verdict::Busy(Fault { status: None, reason, retry_after_s: None, answer: None }), Some(error))
            }
        };
        self.finish(run, id, &positions, verdict);
        unread
    }

    fn finish(&self, run: &mut Run, id: DeliveryId, positions: &[Position], verdict: Verdict) {
        let now = self.environment.clock.now();
        if let Some(fault) = (0..positions.len()).find_map(|index| verdict.fault_of(index)) {
            let reason = fault.reason.as_str();
            tracing::debug!(subscription = self.name, status = fault.status, reason, "a delivery was not taken");
            run.last_error = Some(LastError { status: fault.status, reason: fault.reason.clone(), at: now });
        }
        run.attempts.note(&verdict, positions.len());
        let letters_before = run.lanes.dead_letter_count();
        run.lanes.finish(id, verdict, now, &mut |max| self.environment.ids.up_to(max));
        if run.lanes.dead_letter_count() > letters_before {
            tracing::warn!(subscription = self.name, error = ?run.last_error, "an event became a dead letter");
        }
        for position in positions {
            if !run.lanes.is_open(*position) {
                run.content.remove(position);
            }
        }
        // Lanes that were set aside leave events behind.
        if run.content.len() > 2 * run.lanes.open_count() + PAGE_EVENTS {
            run.content.retain(|position, _| run.lanes.is_open(*position));
        }
    }

    /// How long there is nothing to do unless something happens.
    fn wait(&self, run: &Run) -> Option<Duration> {
        let now = self.environment.clock.now();
        let is_delivering = self.target.is_some() && !run.keeping.cursor().is_paused;
        let wake_at = run.lanes.next_wake(now).into_iter().chain(run.pace.as_ref().and_then(|pace| pace.waits_until(now)));
        let rests_until = run.catch_up.rests_until(now).filter(|_| run.lanes.room() > 0);
        self.save_at(run)
            .into_iter()
            .chain(wake_at.chain(rests_until).filter(|_| is_delivering))
            .min()
            .map(|at| at.since(now).max(Duration::from_millis(1)))
    }

    /// The log could not be read: either it has lost something, or it is tried again after a rest.
    async fn bear(&self, run: &mut Run, error: EngineError) {
        match error {
            EngineError::Trimmed { first } => self.skip_to(run, first).await,
            error => self.pause(run, &error).await,
        }
    }

    async fn pause(&self, run: &mut Run, error: &EngineError) {
        self.note(run, error);
        tokio::select! {
            biased;
            () = self.lifecycle.halted() => {}
            () = tokio::time::sleep(ENGINE_PAUSE) => {}
        }
    }

    fn note(&self, run: &mut Run, error: &EngineError) {
        tracing::error!(subscription = self.name, %error, "the log cannot be used");
        let at = self.environment.clock.now();
        run.last_error = Some(LastError { status: None, reason: error.to_string().into(), at });
    }

    fn show(&self, run: &Run, last: Position) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = self.status_now(run, last);
    }

    fn status_now(&self, run: &Run, last: Position) -> Status {
        let now = self.environment.clock.now();
        let status = Status::of(&run.lanes, run.keeping.cursor(), self.target.is_some(), (now, last));
        Status { in_flight: run.flying.len(), last_error: run.last_error.clone(), attempts: run.attempts, ..status }
    }
}

/// The events at `positions`. Others may do something in between: what is in no memory is not urgent.
async fn read_each(engine: &dyn LogEngine, positions: &[Position]) -> Result<Vec<Recorded>, EngineError> {
    let mut events = Vec::with_capacity(positions.len());
    for position in positions {
        let event = engine.read_one(*position).await?;
        events.push(event.ok_or_else(|| EngineError::Failed(format!("the log has no event at {position}")))?);
        tokio::task::yield_now().await;
    }
    Ok(events)
}

/// How many deliveries of the largest size fit into the window.
const WINDOW_BATCHES: usize = 16;

/// The limits of a subscription that asks for `wanted`.
fn tuning(wanted: &Wanted) -> Tuning {
    let usual = Tuning::default();
    Tuning {
        batch_events_max: wanted.batch.events_max,
        batch_wait_ms: wanted.batch.wait_ms,
        window_events_max: usual.window_events_max.max(WINDOW_BATCHES * wanted.batch.events_max),
        failures_max: wanted.retry.attempts_max,
        failing_ms_max: wanted.retry.age_ms_max,
        on_exhausted: wanted.on_exhausted,
        backoff_ms: wanted.retry.backoff_ms,
        backoff_ms_max: wanted.retry.backoff_ms_max,
        ..usual
    }
}
