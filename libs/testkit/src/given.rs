//! Given a state, when an input comes, then this follows: for `domain.rs`.

use std::fmt::Debug;

use kit::{Machine, Timestamp, machine::StepOf};

/// Begins a test of the entity `key` of `machine`, which is not there yet.
pub fn given<M: Machine>(machine: M, key: M::Key) -> Given<M> {
    Given { machine, key, state: None, now: Timestamp::from_ms(1_700_000_000_000) }
}

/// An entity under test: its state is what the inputs so far made of it.
pub struct Given<M: Machine> {
    /// The machine.
    pub machine: M,
    /// The entity.
    pub key: M::Key,
    /// Its state.
    pub state: Option<M::State>,
    /// The time of the next input.
    pub now: Timestamp,
}

impl<M: Machine> Given<M> {
    /// The entity was given `input` before; that must not have been refused.
    #[must_use]
    pub fn after(self, input: M::Input) -> Self {
        let shown = format!("{input:?}");
        match self.when(input) {
            Then { given, step: Ok(_) } => given,
            Then { step: Err(refusal), .. } => panic!("{shown} was refused: {refusal}"),
        }
    }

    /// Time passes.
    #[must_use]
    pub fn later_ms(mut self, ms: u64) -> Self {
        self.now = self.now.plus_ms(ms);
        self
    }

    /// The entity is given `input`.
    #[expect(clippy::needless_pass_by_value, reason = "tests read better without borrowing")]
    pub fn when(mut self, input: M::Input) -> Then<M> {
        let step = self.machine.decide(&self.key, self.state.as_ref(), &input, self.now);
        if let Ok(StepOf::<M> { state: Some(state), .. }) = &step {
            self.state = Some(state.clone());
        }
        Then { given: self, step }
    }
}

/// What followed.
pub struct Then<M: Machine> {
    /// The entity as it is now.
    pub given: Given<M>,
    /// The machine's answer.
    pub step: Result<StepOf<M>, M::Refusal>,
}

impl<M: Machine> Then<M> {
    /// The step, which must not be a refusal.
    pub fn step(&self) -> &StepOf<M> {
        match &self.step {
            Ok(step) => step,
            Err(refusal) => panic!("refused: {refusal}"),
        }
    }

    /// Exactly these events were emitted, in this sequence.
    pub fn emits<E: Into<M::Event>>(self, events: impl IntoIterator<Item = E>) -> Self
    where
        M::Event: PartialEq + Debug,
    {
        let expected: Vec<M::Event> = events.into_iter().map(Into::into).collect();
        let emitted: Vec<&M::Event> = self.step().events.iter().map(|emission| &emission.event).collect();
        assert_eq!(emitted, expected.iter().collect::<Vec<_>>());
        self
    }

    /// Nothing follows at all: no new state, event, timer, effect or message.
    pub fn nothing(self) -> Self
    where
        M::Event: Debug,
    {
        let step = self.step();
        let is_nothing =
            step.state.is_none() && step.events.is_empty() && step.timers.is_empty() && step.effects.is_empty() && step.tells.is_empty();
        assert!(is_nothing, "something followed");
        self
    }

    /// The state is as `check` wants it.
    pub fn state(self, check: impl FnOnce(&M::State) -> bool) -> Self {
        match &self.given.state {
            Some(state) => assert!(check(state), "unexpected state {state:?}"),
            None => panic!("there is no state"),
        }
        self
    }

    /// It was refused, as `check` wants it.
    pub fn refused(self, check: impl FnOnce(&M::Refusal) -> bool) -> Self {
        match &self.step {
            Ok(_) => panic!("it was not refused"),
            Err(refusal) => assert!(check(refusal), "refused differently: {refusal}"),
        }
        self
    }

    /// Goes on with the entity as it is now.
    pub fn and(self) -> Given<M> {
        self.given
    }
}
