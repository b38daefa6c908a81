//! One input's part of a transaction: inbox, load, decide, save.
//!
//! An input is worked out in full before any of its rows is written, so that a refusal leaves nothing behind.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rusqlite::Connection;

use super::{
    EventFault, Job,
    rows::{self, EntityRow},
    timers::{TimerMoved, TimerName},
};
use crate::{
    Context, Envelope, Environment, Machine, Position, Timestamp,
    effects::PendingEffect,
    machine::{Key, OutcomeOf, StepOf},
    planted::{Bug, is_planted},
    relay::OutboxRow,
    service::{Committed, Entity, Meta, SubmitError},
    step::TimerChange,
    store::StoreError,
};

/// How many inputs one input may lead to within its transaction, by entities that tell one another.
const TELLS_MAX: usize = 64;

/// What to say to whoever brought an input, once it is committed.
pub(super) enum Reply<M: Machine> {
    Command(Box<Result<Committed<M>, SubmitError<M::Refusal>>>),
    Event { result: Result<(), EventFault>, is_applied: bool },
    Nobody,
}

/// What a transaction will have done, to be set going after its commit.
pub(super) struct Batch<M: Machine> {
    pub(super) replies: Vec<Reply<M>>,
    pub(super) outbox: Vec<OutboxRow>,
    pub(super) effects: Vec<PendingEffect<M>>,
    pub(super) timers: Vec<TimerMoved<M>>,
    pub(super) erases: bool,
}

/// A transaction in the making.
pub(super) struct OpenBatch<'a, M: Machine> {
    machine: &'a M,
    environment: &'a Environment,
    db: &'a Connection,
    now: Timestamp,
    /// Entities that were loaded; those that changed are saved once, at the end.
    entities: BTreeMap<M::Key, Slot<M>>,
    batch: Batch<M>,
}

struct Slot<M: Machine> {
    row: Option<EntityRow<M::State>>,
    is_changed: bool,
}

/// What one input does, worked out and not yet written.
struct Changes<M: Machine> {
    entities: BTreeMap<M::Key, EntityRow<M::State>>,
    events: Vec<Envelope>,
    timers: Vec<(M::Key, TimerChange<M::Input>, Context)>,
    effects: Vec<(M::Effect, Context)>,
    erases: bool,
}

/// Why an input changes nothing.
enum Stop<R> {
    /// The domain said no.
    Refused(R),
    /// The store or the code broke.
    Broken(StoreError),
}

impl<R> From<StoreError> for Stop<R> {
    fn from(error: StoreError) -> Self {
        Self::Broken(error)
    }
}

/// An input that an entity gives another one of the same service.
struct Tell<M: Machine> {
    key: M::Key,
    input: M::Input,
    context: Context,
}

impl<'a, M: Machine> OpenBatch<'a, M> {
    /// Opens a batch within the transaction that `db` has begun.
    pub(super) fn new(machine: &'a M, environment: &'a Environment, db: &'a Connection) -> Self {
        let batch = Batch { replies: Vec::new(), outbox: Vec::new(), effects: Vec::new(), timers: Vec::new(), erases: false };
        Self { machine, environment, db, now: environment.clock.now(), entities: BTreeMap::new(), batch }
    }

    /// Applies one input. An error is a fault of the store or the code: the transaction must be rolled back.
    pub(super) fn apply(&mut self, job: &Job<M>) -> Result<(), StoreError> {
        let reply = match job {
            Job::Command { key, input, meta, .. } => Reply::Command(Box::new(self.apply_command(key, input, meta)?)),
            Job::Event { event, position, key, input, .. } => self.apply_event((event, *position), key, input)?,
            Job::Outcome { effect_id, context, outcomes, .. } => {
                self.apply_outcome(*effect_id, context, outcomes)?;
                Reply::Nobody
            }
            Job::Timer(timer) => {
                self.apply_timer(timer)?;
                Reply::Nobody
            }
        };
        self.batch.replies.push(reply);
        Ok(())
    }

    /// Saves the entities that changed.
    pub(super) fn finish(self) -> Result<Batch<M>, StoreError> {
        for (key, slot) in &self.entities {
            if let Slot { row: Some(row), is_changed: true } = slot {
                rows::save_entity::<M>(self.db, key, row)?;
            }
        }
        Ok(self.batch)
    }

    fn apply_command(
        &mut self,
        key: &M::Key,
        input: &M::Input,
        meta: &Meta,
    ) -> Result<Result<Committed<M>, SubmitError<M::Refusal>>, StoreError> {
        if let Some(idempotency) = &meta.idempotency {
            match rows::find_idempotency::<M>(self.db, idempotency)? {
                Some(known) if known.is_same_request => {
                    let entity = self.entity(&known.key)?;
                    return Ok(Ok(Committed { key: known.key, entity, is_repeated: true }));
                }
                Some(_) => return Ok(Err(SubmitError::IdempotencyMismatch)),
                None => {}
            }
        }
        match self.work_out(key, input, &meta.context) {
            Ok(changes) => {
                if let Some(idempotency) = &meta.idempotency {
                    rows::insert_idempotency::<M>(self.db, idempotency, key, self.now)?;
                }
                self.write(changes)?;
                Ok(Ok(Committed { key: key.clone(), entity: self.entity(key)?, is_repeated: false }))
            }
            Err(Stop::Refused(refusal)) => Ok(Err(SubmitError::Refused(refusal))),
            Err(Stop::Broken(error)) => Err(error),
        }
    }

    fn apply_event(
        &mut self,
        (event, position): (&Envelope, Option<Position>),
        key: &M::Key,
        input: &M::Input,
    ) -> Result<Reply<M>, StoreError> {
        if let Some(applied) = rows::find_inbox(self.db, &event.source, &event.id)?
            && !is_planted(Bug::SkipInbox)
        {
            // It was published again after the log had lost it, or no place was known: it is remembered as long as it can come from here.
            if let Some(position) = position.filter(|position| applied.position != Some(*position)) {
                rows::move_inbox(self.db, &event.source, &event.id, position)?;
            }
            return Ok(Reply::Event { result: Ok(()), is_applied: false });
        }
        let context = Context {
            owner: event.owner.clone(),
            scenario: event.scenario.clone(),
            traceparent: event.traceparent.clone(),
            causation: Some(event.id.clone()),
        };
        match self.work_out(key, input, &context) {
            Ok(changes) => {
                rows::insert_inbox(self.db, &event.source, &event.id, position, self.now)?;
                self.write(changes)?;
                Ok(Reply::Event { result: Ok(()), is_applied: true })
            }
            Err(Stop::Refused(refusal)) => Ok(Reply::Event { result: Err(EventFault::refused(refusal.to_string())), is_applied: false }),
            Err(Stop::Broken(error)) => Err(error),
        }
    }

    fn apply_outcome(&mut self, effect_id: i64, context: &Context, outcomes: &[OutcomeOf<M>]) -> Result<(), StoreError> {
        if !rows::delete_effect(self.db, effect_id)? {
            return Ok(());
        }
        for (index, outcome) in outcomes.iter().enumerate() {
            if outcome.after_ms > 0 {
                let timer = TimerName { key: outcome.key.clone(), name: format!("effect:{effect_id}:{index}") };
                self.set_timer(timer, self.now.plus_ms(outcome.after_ms), &outcome.input, context)?;
            } else {
                self.apply_own(&outcome.key, &outcome.input, context)?;
            }
        }
        Ok(())
    }

    fn apply_timer(&mut self, timer: &TimerName<M>) -> Result<(), StoreError> {
        let Some((input, context)) = rows::take_due_timer(self.db, timer, self.now)? else { return Ok(()) };
        let timer = TimerName::<M> { key: timer.key.clone(), name: timer.name.clone() };
        let key = timer.key.clone();
        // Before the input: it may set the timer again.
        self.batch.timers.push(TimerMoved { timer, due: None });
        self.apply_own(&key, &input, &context)
    }

    /// Applies an input that nobody waits for. A refusal is a fault of the code: it is logged, and what led to it is done with.
    fn apply_own(&mut self, key: &M::Key, input: &M::Input, context: &Context) -> Result<(), StoreError> {
        match self.work_out(key, input, context) {
            Ok(changes) => self.write(changes),
            Err(Stop::Refused(refusal)) => {
                tracing::error!(service = M::NAME, entity = key.id(), %refusal, "an input of the service's own was refused");
                Ok(())
            }
            Err(Stop::Broken(error)) => Err(error),
        }
    }

    /// Runs `decide` for the input, and for all that entities tell one another because of it.
    fn work_out(&mut self, key: &M::Key, input: &M::Input, context: &Context) -> Result<Changes<M>, Stop<M::Refusal>> {
        let mut changes = Changes { entities: BTreeMap::new(), events: Vec::new(), timers: Vec::new(), effects: Vec::new(), erases: false };
        let mut inputs = VecDeque::from([Tell::<M> { key: key.clone(), input: input.clone(), context: context.clone() }]);
        for _ in 0..=TELLS_MAX {
            let Some(Tell { key, input, context }) = inputs.pop_front() else { return Ok(changes) };
            let step = self.decide(&changes, &key, &input)?;
            let tells = self.add(&mut changes, &key, step, &context)?;
            inputs.extend(tells);
        }
        Err(broken(&key.id(), "its entities tell one another without end").into())
    }

    fn decide(&mut self, changes: &Changes<M>, key: &M::Key, input: &M::Input) -> Result<StepOf<M>, Stop<M::Refusal>> {
        let (machine, now) = (self.machine, self.now);
        let row = match changes.entities.get(key) {
            Some(row) => Some(row),
            None => self.load(key)?.row.as_ref(),
        };
        let decided = catch_unwind(AssertUnwindSafe(|| machine.decide(key, row.map(|row| &row.state), input, now)));
        match decided {
            Ok(Ok(step)) => Ok(step),
            Ok(Err(refusal)) => Err(Stop::Refused(refusal)),
            Err(_) => Err(broken(&key.id(), "the state machine panicked").into()),
        }
    }

    /// Adds a step to the changes; gives what other entities are told.
    fn add(&mut self, changes: &mut Changes<M>, key: &M::Key, step: StepOf<M>, context: &Context) -> Result<Vec<Tell<M>>, StoreError> {
        let known = match changes.entities.remove(key) {
            Some(row) => Some(row),
            None => {
                self.load(key)?.row.as_ref().map(|row| EntityRow { state: row.state.clone(), version: row.version, sequence: row.sequence })
            }
        };
        let row = match (step.state, known) {
            (Some(state), Some(known)) => Some(EntityRow { state, version: known.version + 1, sequence: known.sequence }),
            (Some(state), None) => Some(EntityRow { state, version: 1, sequence: 0 }),
            (None, Some(known)) if step.events.is_empty() => Some(known),
            (None, Some(known)) => Some(EntityRow { version: known.version + 1, ..known }),
            (None, None) if step.events.is_empty() => None,
            (None, None) => return Err(broken(&key.id(), "it emits events and has no state")),
        };
        let mut context = context.clone();
        if let Some(mut row) = row {
            let mut previous = context.causation.clone();
            for emission in step.events {
                row.sequence += 1;
                let cause = if emission.caused_by_previous { previous } else { context.causation.clone() };
                let event = self.envelope(key, &emission.event, row.sequence, Context { causation: cause, ..context.clone() })?;
                previous = Some(event.id.clone());
                changes.events.push(event);
            }
            // What this step sets going was caused by what it said last.
            context.causation = previous;
            changes.entities.insert(key.clone(), row);
        }
        changes.timers.extend(step.timers.into_iter().map(|timer| (key.clone(), timer, context.clone())));
        changes.effects.extend(step.effects.into_iter().map(|effect| (effect, context.clone())));
        changes.erases |= step.erases;
        Ok(step.tells.into_iter().map(|(key, input)| Tell { key, input, context: context.clone() }).collect())
    }

    fn envelope(&self, key: &M::Key, event: &M::Event, sequence: i64, context: Context) -> Result<Envelope, StoreError> {
        let draft = M::draft(event).map_err(|error| broken(&key.id(), &error.to_string()))?;
        Ok(Envelope {
            id: self.environment.ids.event_id(self.now),
            source: format!("/{}", M::NAME),
            ty: draft.ty.to_owned(),
            subject: Some(key.id()),
            time: Some(self.now),
            traceparent: context.traceparent,
            causationid: context.causation,
            sequence: Some(sequence),
            owner: context.owner,
            scenario: context.scenario,
            extensions: BTreeMap::new(),
            media_type: None,
            data: Some(draft.data),
        })
    }

    fn write(&mut self, changes: Changes<M>) -> Result<(), StoreError> {
        for event in changes.events {
            let json = serde_json::to_string(&event).map_err(|error| broken(event.id.as_str(), &error.to_string()))?;
            let id = rows::insert_outbox(self.db, &json)?;
            self.batch.outbox.push(OutboxRow { id, event });
        }
        for (key, change, context) in changes.timers {
            match change {
                TimerChange::Set { name, due, input } => self.set_timer(TimerName { key, name: name.to_owned() }, due, &input, &context)?,
                TimerChange::Cancel { name } => {
                    let timer = TimerName { key, name: name.to_owned() };
                    rows::delete_timer(self.db, &timer)?;
                    self.batch.timers.push(TimerMoved { timer, due: None });
                }
            }
        }
        for (effect, context) in changes.effects {
            let id = rows::insert_effect::<M>(self.db, &effect, &context)?;
            self.batch.effects.push(PendingEffect { id, effect, context, rests: false });
        }
        for (key, row) in changes.entities {
            let before = self.entities.get(&key);
            let is_changed =
                before.is_none_or(|slot| slot.is_changed || slot.row.as_ref().is_none_or(|known| known.version != row.version));
            self.entities.insert(key, Slot { row: Some(row), is_changed });
        }
        self.batch.erases |= changes.erases;
        Ok(())
    }

    fn set_timer(&mut self, timer: TimerName<M>, due: Timestamp, input: &M::Input, context: &Context) -> Result<(), StoreError> {
        rows::set_timer(self.db, &timer, due, input, context)?;
        self.batch.timers.push(TimerMoved { timer, due: Some(due) });
        Ok(())
    }

    fn load(&mut self, key: &M::Key) -> Result<&Slot<M>, StoreError> {
        if !self.entities.contains_key(key) {
            let row = rows::find_entity::<M>(self.db, key)?;
            self.entities.insert(key.clone(), Slot { row, is_changed: false });
        }
        self.entities.get(key).ok_or_else(|| broken(&key.id(), "it vanished while it was loaded"))
    }

    fn entity(&mut self, key: &M::Key) -> Result<Option<Entity<M::State>>, StoreError> {
        let slot = self.load(key)?;
        Ok(slot.row.as_ref().map(|row| Entity { state: row.state.clone(), version: row.version }))
    }
}

/// A fault of the code, named by the entity that it befell.
fn broken(id: &str, reason: &str) -> StoreError {
    StoreError::BadRow { table: "entities", id: id.to_owned(), column: "state", reason: reason.to_owned() }
}
