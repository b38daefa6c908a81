//! A running service: its front door for commands, events and queries.

/// What waits in a service, and what it remembers.
mod numbers;

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rusqlite::OptionalExtension;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{
    Context, Environment, Lifecycle, Machine, Timestamp,
    effects::{self, PendingEffect},
    intake::Intake,
    machine::Key,
    relay::{self, OutboxRow},
    store::{Checkpoints, Durability, Readers, Store, StoreError},
    transport::{Publisher, Sink},
    writer::{self, Job, Memory, Writer},
};

/// How many commands may wait; one more is answered 429.
const COMMANDS_MAX: usize = 4_096;
/// How many events and outcomes may wait.
const URGENT_MAX: usize = 4_096;
/// How many events may wait for the broker before new commands are refused.
const OUTBOX_MAX: usize = 100_000;

/// A service that runs: writer loop, timers, effects and relay.
pub struct Service<M: Machine> {
    handle: Handle<M>,
}

/// The front door of a running service. Clones are the same door.
pub struct Handle<M: Machine> {
    shared: Arc<Shared<M>>,
}

struct Shared<M: Machine> {
    machine: Arc<M>,
    environment: Environment,
    lifecycle: Lifecycle,
    readers: Readers,
    commands: mpsc::Sender<Job<M>>,
    urgent: mpsc::Sender<Job<M>>,
    outbox_rows: Arc<AtomicUsize>,
    memory: Arc<Memory>,
    remembered: Mutex<numbers::Counted>,
}

impl<M: Machine> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

/// Makes a repeated command find what its first run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Whose keys these are, e.g. the customer. The key is looked for in each of them, and kept in all.
    pub scopes: Vec<String>,
    /// The client's key.
    pub key: String,
    /// A keyed hash of the request: another request under the same key is refused.
    pub fingerprint: [u8; 32],
}

/// What a command carries beside its input.
#[derive(Debug, Clone, Default)]
pub struct Meta {
    /// Whose it is, which script and trace it belongs to.
    pub context: Context,
    /// The client's idempotency key, if it gave one.
    pub idempotency: Option<Idempotency>,
}

/// A command that is durable.
#[derive(Debug, Clone)]
pub struct Committed<M: Machine> {
    /// The entity; under a known idempotency key the one of the first run.
    pub key: M::Key,
    /// The entity after the command.
    pub entity: Option<Entity<M::State>>,
    /// Whether the idempotency key was known, so that nothing was done now.
    pub is_repeated: bool,
}

/// An entity as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity<S> {
    /// Its state.
    pub state: S,
    /// How often it changed, from 1.
    pub version: i64,
}

/// Why a command was not answered with success.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError<R: std::error::Error> {
    /// The domain said no.
    #[error("{0}")]
    Refused(R),
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used with another request")]
    IdempotencyMismatch,
    /// Too many inputs are waiting.
    #[error("too many requests are waiting")]
    Busy,
    /// The service is stopping, or cannot reach the broker for too long.
    #[error("the service takes no commands just now")]
    Unavailable,
    /// A fault of ours; it has been logged.
    #[error("the command failed")]
    Failed,
}

impl<M: Machine> Service<M> {
    /// Opens the store in `folder` and starts all loops on `lifecycle`. What a crash interrupted goes on from here.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn start(
        machine: M,
        folder: &Path,
        environment: &Environment,
        publisher: Arc<dyn Publisher>,
        lifecycle: &Lifecycle,
    ) -> Result<Self, StoreError> {
        let durability = if environment.disk.is_durable() { Durability::Full } else { Durability::ProcessOnly };
        let store = Store::open_layered(folder, M::NAME, &[("kit", writer::MIGRATIONS), (M::NAME, M::MIGRATIONS)], durability)?;
        let machine = Arc::new(machine);
        let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
        let (urgent, urgent_in) = mpsc::channel(URGENT_MAX);
        let (outbox, outbox_in) = mpsc::unbounded_channel::<Vec<OutboxRow>>();
        let (effects, effects_in) = mpsc::unbounded_channel::<PendingEffect<M>>();
        let (relayed, relayed_in) = mpsc::unbounded_channel();
        let (outbox_rows, memory) = (Arc::new(AtomicUsize::new(0)), Arc::new(Memory::default()));
        let readers = store.readers();
        let checkpoints = Checkpoints::start(&store, M::NAME, environment, lifecycle)?;
        let writer = Writer::resume(writer::Parts {
            machine: machine.clone(),
            environment: environment.clone(),
            lifecycle: lifecycle.clone(),
            store,
            checkpoints,
            urgent: urgent_in,
            commands: commands_in,
            relayed: relayed_in,
            outbox,
            effects,
            outbox_rows: outbox_rows.clone(),
            memory: memory.clone(),
        })?;
        let no_thread = |cause| StoreError::Folder { path: folder.into(), cause };
        lifecycle.spawn_writer(environment.writers, M::NAME, writer.run()).map_err(no_thread)?;
        lifecycle.spawn("relay", relay::run(outbox_in, publisher, relayed, environment.clone(), lifecycle.clone(), M::NAME));
        lifecycle.spawn("effects", effects::run(machine.clone(), effects_in, urgent.clone(), lifecycle.clone()));
        let shared = Shared {
            machine,
            environment: environment.clone(),
            lifecycle: lifecycle.clone(),
            readers,
            commands,
            urgent,
            outbox_rows,
            memory,
            remembered: Mutex::default(),
        };
        Ok(Self { handle: Handle { shared: Arc::new(shared) } })
    }

    /// The front door.
    pub fn handle(&self) -> &Handle<M> {
        &self.handle
    }

    /// Where the broker delivers events when it runs in the same process.
    pub fn intake(&self) -> Arc<dyn Sink> {
        let shared = &self.handle.shared;
        Arc::new(Intake::new(shared.machine.clone(), shared.urgent.clone(), shared.memory.clone()))
    }
}

impl<M: Machine> Handle<M> {
    /// Gives the entity `key` the command `input`; returns when all that it does is durable.
    ///
    /// # Errors
    /// See [`SubmitError`]; nothing was changed, but for [`SubmitError::Unavailable`]: a stop may come between the commit and the answer,
    /// so only an idempotency key tells.
    pub async fn submit(&self, key: M::Key, input: M::Input, meta: Meta) -> Result<Committed<M>, SubmitError<M::Refusal>> {
        if self.shared.lifecycle.is_halting() || self.shared.outbox_rows.load(Ordering::Relaxed) > OUTBOX_MAX {
            return Err(SubmitError::Unavailable);
        }
        let (answer, answered) = oneshot::channel();
        match self.shared.commands.try_send(Job::Command { key, input, meta, answer }) {
            Ok(()) => answered.await.unwrap_or(Err(SubmitError::Unavailable)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(SubmitError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SubmitError::Unavailable),
        }
    }

    /// The entity as it stands.
    ///
    /// # Errors
    /// When the store fails or the row breaks the model.
    pub fn load(&self, key: &M::Key) -> Result<Option<Entity<M::State>>, StoreError> {
        self.shared.readers.read(|db| {
            let mut statement = db.prepare_cached(&format!("select state, version from {} where id = $1", key.table()))?;
            let row: Option<(String, i64)> = statement.query_row([key.id()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            row.map(|(state, version)| Ok(Entity { state: writer::read_state::<M>(key, &state)?, version })).transpose()
        })
    }

    /// Read connections, for the service's own queries.
    pub fn readers(&self) -> &Readers {
        &self.shared.readers
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.shared.machine
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.shared.environment.clock.now()
    }

    /// A new UUIDv7.
    pub fn new_uuid(&self) -> Uuid {
        self.shared.environment.ids.uuid_v7(self.now())
    }
}
