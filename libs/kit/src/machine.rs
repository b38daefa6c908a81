//! The seam between a service's pure core and the kit's shell.

use std::{error::Error, fmt::Debug, hash::Hash};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{BoxFuture, Context, Envelope, Step, Timestamp};

/// Names an entity: the table it lives in and its id there.
pub trait Key: Clone + Debug + Eq + Hash + Ord + Send + Sync + 'static {
    /// The entity's table, one of [`Machine::TABLES`].
    fn table(&self) -> &'static str;
    /// The entity's id as text, unique in its table. It is the `subject` of the events that the entity emits.
    fn id(&self) -> String;
    /// Reads what [`Key::table`] and [`Key::id`] gave; none if no entity can have that name.
    fn parse(table: &str, id: &str) -> Option<Self>;
}

/// A table of entities. The kit writes every row; its first columns are the kit's own, `index_columns` are the service's.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// The table's name.
    pub name: &'static str,
    /// Columns that queries need beside the state, in the order of [`Machine::index`].
    pub index_columns: &'static [&'static str],
}

/// The value of an index column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// A text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Nothing.
    Null,
}

/// An event as a service hands it to the kit.
#[derive(Debug, Clone)]
pub struct EventDraft {
    /// The CloudEvents type.
    pub ty: &'static str,
    /// The data.
    pub data: Box<RawValue>,
}

/// An event that this service can never apply: a dead letter for somebody to look at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unprocessable(pub String);

/// An input for an entity, now or later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<K, I> {
    /// For whom.
    pub key: K,
    /// How long from now, in milliseconds; 0 is at once. A delay is kept as a durable timer.
    pub after_ms: u64,
    /// What the entity is told.
    pub input: I,
}

/// What an incoming event means to a service: an input for one entity, nothing, or that it can never be applied.
pub type Reaction<K, I> = Result<Option<(K, I)>, Unprocessable>;
/// The step of a machine.
pub type StepOf<M> = Step<<M as Machine>::Key, <M as Machine>::State, <M as Machine>::Input, <M as Machine>::Event, <M as Machine>::Effect>;
/// An outcome for an entity of a machine.
pub type OutcomeOf<M> = Outcome<<M as Machine>::Key, <M as Machine>::Input>;

/// A service's core, as the kit runs it: a thin adapter over `domain.rs` and `reactions.rs`, with what performs the effects.
pub trait Machine: Send + Sync + 'static {
    /// Names an entity.
    type Key: Key;
    /// An entity's state. Stored as JSON: old rows must stay readable.
    type State: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static;
    /// A command, what an incoming event means, the outcome of an effect, or a timer. Stored as JSON in timers.
    type Input: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static;
    /// What the service emits.
    type Event: Send + 'static;
    /// What the service does in the world. Stored as JSON until its outcome is applied.
    type Effect: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static;
    /// A business "no".
    type Refusal: Error + Clone + Send + Sync + 'static;

    /// The service's name, e.g. `order`; its events have the source `/order`.
    const NAME: &'static str;
    /// The tables of entities, made by [`Machine::MIGRATIONS`].
    const TABLES: &'static [Table];
    /// The store's changes, oldest first; append-only. Each entity table needs the kit's columns:
    /// `id text primary key, version bigint not null, sequence bigint not null, state text not null`.
    const MIGRATIONS: &'static [&'static str];
    /// The event types that the service reacts to.
    const SUBSCRIBES: &'static [&'static str];

    /// The pure core: what `input` does to the entity `key` whose state is `state`.
    ///
    /// # Errors
    /// A refusal changes nothing: a command's caller is told, an event becomes a dead letter.
    fn decide(
        &self,
        key: &Self::Key,
        state: Option<&Self::State>,
        input: &Self::Input,
        now: Timestamp,
    ) -> Result<StepOf<Self>, Self::Refusal>;

    /// The values of the entity's index columns.
    fn index(state: &Self::State) -> Vec<Column>;

    /// An event's wire form.
    ///
    /// # Errors
    /// When it has none, which is a fault of the code.
    fn draft(event: &Self::Event) -> Result<EventDraft, serde_json::Error>;

    /// What an incoming event means: an input for one entity, or nothing.
    ///
    /// # Errors
    /// [`Unprocessable`] for an event that can never be applied.
    fn react(&self, event: &Envelope) -> Reaction<Self::Key, Self::Input>;

    /// Performs an effect and says what came of it. Called at least once for each effect, again after a crash: whoever is asked
    /// in the world must know the request by its key. A failure is an outcome too.
    fn perform(&self, effect: Self::Effect, context: Context) -> BoxFuture<'_, Vec<OutcomeOf<Self>>>;
}
