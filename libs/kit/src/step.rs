//! What a state machine answers to one input. Plain data: a `domain.rs` may import this module.

use serde::{Deserialize, Serialize};

use crate::{EventId, Timestamp};

/// What travels from a cause to all its effects without meaning anything to a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Which script the simulated parts follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<String>,
    /// The trace (W3C Trace Context).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The event that led here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation: Option<EventId>,
}

/// An event of a step and what caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emission<E> {
    /// What happened.
    pub event: E,
    /// Whether the step's event before it is its cause; if not, it is what led to the step.
    pub caused_by_previous: bool,
}

/// A change to an entity's durable timers. A timer's name is unique within its entity: setting it again moves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerChange<I> {
    /// Give the entity `input` when `due` has come.
    Set {
        /// The timer's name.
        name: &'static str,
        /// When.
        due: Timestamp,
        /// What the entity is told then.
        input: I,
    },
    /// Forget the timer, if it is there.
    Cancel {
        /// The timer's name.
        name: &'static str,
    },
}

/// What a state machine answers to one input: key `K`, state `S`, input `I`, event `E`, effect `F`.
///
/// All of it becomes durable in one transaction, or none of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Step<K, S, I, E, F> {
    /// The new state; none where it stays as it was.
    pub state: Option<S>,
    /// What happened, in sequence.
    pub events: Vec<Emission<E>>,
    /// Timers to set or forget.
    pub timers: Vec<TimerChange<I>>,
    /// What to do in the world, at least once each, after the commit.
    pub effects: Vec<F>,
    /// What other entities of the same service are told, within the same transaction.
    pub tells: Vec<(K, I)>,
    /// Whether what was overwritten must not be readable in any file any more.
    pub erases: bool,
}

impl<K, S, I, E, F> Step<K, S, I, E, F> {
    /// Nothing changes: the input was stale or repeated.
    pub fn nothing() -> Self {
        Self { state: None, events: Vec::new(), timers: Vec::new(), effects: Vec::new(), tells: Vec::new(), erases: false }
    }

    /// The entity's state becomes `state`.
    pub fn to(state: S) -> Self {
        Self { state: Some(state), ..Self::nothing() }
    }

    /// And `event` happened, caused by what led to this step.
    pub fn emit(mut self, event: impl Into<E>) -> Self {
        self.events.push(Emission { event: event.into(), caused_by_previous: false });
        self
    }

    /// And `event` happened, caused by the event emitted before it.
    pub fn then_emit(mut self, event: impl Into<E>) -> Self {
        self.events.push(Emission { event: event.into(), caused_by_previous: true });
        self
    }

    /// And the entity is given `input` when `due` has come.
    pub fn set_timer(mut self, name: &'static str, due: Timestamp, input: I) -> Self {
        self.timers.push(TimerChange::Set { name, due, input });
        self
    }

    /// And the timer `name` is forgotten.
    pub fn cancel_timer(mut self, name: &'static str) -> Self {
        self.timers.push(TimerChange::Cancel { name });
        self
    }

    /// And `effect` is performed.
    pub fn perform(mut self, effect: F) -> Self {
        self.effects.push(effect);
        self
    }

    /// And the entity `key` is given `input`, within the same transaction.
    pub fn tell(mut self, key: K, input: I) -> Self {
        self.tells.push((key, input));
        self
    }

    /// And what was overwritten must not be readable in any file any more.
    pub fn erase(mut self) -> Self {
        self.erases = true;
        self
    }
}
