//! The engine in one SQLite file: one writer with group commit, the tail served from memory.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use kit::{
    BoxFuture, Envelope, Environment, Lifecycle, Position, Recorded,
    envelope::EVENT_BYTES_MAX,
    store::{Checkpoints, Durability, Readers, Store, StoreError},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{
    AppendError, Appended, Bounds, EngineError, Hold, LogEngine, Refusal, StateEntry, StatePut,
    tail::{self, Tail},
    weigh,
};

/// All SQL of the log.
mod store;

/// The newest events, in memory.
mod ring;

/// The one writer.
mod writer;

use ring::Ring;
use writer::{Append, Job, Put, Writer};

/// How many appends and state changes may wait for the writer.
const JOBS_MAX: usize = 1_024;
/// The most events that one read answers.
const READ_EVENTS_MAX: usize = 1_024;
/// About how many bytes of events one read answers at most.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The log in one SQLite file, `broker.db`.
#[derive(Debug)]
pub struct Embedded {
    jobs: mpsc::Sender<Job>,
    readers: Readers,
    ring: Arc<Mutex<Ring>>,
    tail: Tail,
    users: TaskTracker,
}

impl Embedded {
    /// Opens the log in `folder` and starts its writer.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn start(folder: &Path, environment: &Environment, lifecycle: &Lifecycle) -> Result<Self, StoreError> {
        let durability = if environment.disk.is_durable() { Durability::Full } else { Durability::ProcessOnly };
        let store = Store::open(folder, "broker", store::MIGRATIONS, durability)?;
        let last = store::bounds(&store.connection)?.last;
        let checkpoints = Checkpoints::start(&store, "log checkpoints", environment, lifecycle)?;
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let (tail_sender, tail) = tail::tail(last);
        let ring = Arc::new(Mutex::new(Ring::after(last)));
        let (readers, users) = (store.readers(), TaskTracker::new());
        let writer = Writer {
            store,
            checkpoints,
            queue,
            last,
            ring: ring.clone(),
            tail: tail_sender,
            clock: environment.clock.clone(),
            disk: environment.disk.clone(),
            lifecycle: lifecycle.clone(),
            users: users.clone(),
        };
        lifecycle
            .spawn_writer(environment.writers, "log writer", writer.run())
            .map_err(|cause| StoreError::Folder { path: folder.into(), cause })?;
        Ok(Self { jobs, readers, ring, tail, users })
    }

    fn read_now(&self, after: Position, limit: usize) -> Result<Vec<Recorded>, EngineError> {
        let last = self.tail.last();
        let limit = limit.min(READ_EVENTS_MAX);
        if after >= last || limit == 0 {
            return Ok(Vec::new());
        }
        let from_memory = self.ring.lock().unwrap_or_else(PoisonError::into_inner).read(after, last, limit, READ_BYTES_MAX);
        match from_memory {
            Some(events) => Ok(events),
            None => self.readers.read(|db| store::read(db, after, last, limit, READ_BYTES_MAX)).map_err(failed),
        }
    }

    async fn send<T>(&self, job: Job, answer: oneshot::Receiver<T>) -> Result<T, Unsent> {
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unsent::Busy,
            mpsc::error::TrySendError::Closed(_) => Unsent::Closed,
        })?;
        answer.await.map_err(|_| Unsent::Closed)
    }
}

enum Unsent {
    Busy,
    Closed,
}

impl LogEngine for Embedded {
    fn append(&self, events: Vec<Envelope>) -> BoxFuture<'_, Result<Vec<Appended>, AppendError>> {
        Box::pin(async move {
            let mut rows = Vec::with_capacity(events.len());
            let mut refusal = None;
            for event in events {
                match prepare(event) {
                    Ok(row) => rows.push(row),
                    Err(error) => {
                        refusal = Some(error);
                        break;
                    }
                }
            }
            let (reply, answer) = oneshot::channel();
            let landed = match self.send(Job::Append(Append { rows, reply }), answer).await {
                Ok(done) => done?,
                Err(Unsent::Busy) => return Err(AppendError::Busy),
                Err(Unsent::Closed) => return Err(AppendError::Closed),
            };
            match refusal {
                Some(refusal) => Err(AppendError::Refused { landed, refusal }),
                None => Ok(landed),
            }
        })
    }

    fn read(&self, after: Position, limit: usize) -> BoxFuture<'_, Result<Vec<Recorded>, EngineError>> {
        Box::pin(async move { self.read_now(after, limit) })
    }

    fn read_lane<'a>(&'a self, lane: &'a str, after: Position, limit: usize) -> BoxFuture<'a, Result<Vec<Recorded>, EngineError>> {
        Box::pin(async move {
            let last = self.tail.last();
            let limit = limit.min(READ_EVENTS_MAX);
            if after >= last || limit == 0 {
                return Ok(Vec::new());
            }
            self.readers.read(|db| store::read_lane(db, lane, after, last, limit, READ_BYTES_MAX)).map_err(failed)
        })
    }

    fn bounds(&self) -> BoxFuture<'_, Result<Bounds, EngineError>> {
        Box::pin(async move {
            let last = self.tail.last();
            let found = self.readers.read(store::bounds).map_err(failed)?;
            Ok(if last == Position::START { Bounds { first: last, last } } else { Bounds { first: found.first, last } })
        })
    }

    fn tail(&self) -> Tail {
        self.tail.clone()
    }

    fn state_get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StateEntry>, EngineError>> {
        Box::pin(async move { self.readers.read(|db| store::state_get(db, key)).map_err(failed) })
    }

    fn state_list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<StateEntry>, EngineError>> {
        Box::pin(async move { self.readers.read(|db| store::state_list(db, prefix)).map_err(failed) })
    }

    fn state_put(&self, puts: Vec<StatePut>) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            match self.send(Job::Put(Put { puts, reply }), answer).await {
                Ok(done) => done,
                Err(Unsent::Busy) => Err(EngineError::Busy),
                Err(Unsent::Closed) => Err(EngineError::Closed),
            }
        })
    }

    fn hold(&self) -> Hold {
        Hold::new(self.users.token())
    }
}

/// Checks an event and writes it as text, on the caller's time rather than the writer's.
fn prepare(event: Envelope) -> Result<writer::Row, Refusal> {
    event.check().map_err(Refusal::Invalid)?;
    let too_large = || Refusal::TooLarge { id: event.id.to_string() };
    let json = serde_json::to_string(&event).map_err(|_| too_large())?;
    if json.len() > EVENT_BYTES_MAX {
        return Err(too_large());
    }
    Ok(writer::Row { weight: weigh(&event), event: Arc::new(event), json })
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where `map_err` wants it")]
fn failed(error: StoreError) -> EngineError {
    EngineError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;
    use crate::tests::environment;

    #[tokio::test]
    async fn the_embedded_engine_does_what_every_engine_must() {
        conformance::suite(|folder, lifecycle| {
            Box::new(Embedded::start(folder, &environment(1), lifecycle).expect("the log opens")) as Box<dyn LogEngine>
        })
        .await;
    }

    #[tokio::test]
    async fn a_log_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let lifecycle = Lifecycle::new();
        let _first = Embedded::start(folder.path(), &environment(1), &lifecycle).unwrap();
        assert!(matches!(Embedded::start(folder.path(), &environment(1), &lifecycle), Err(StoreError::InUse { .. })));
    }
}
