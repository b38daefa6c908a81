//! The engine in one SQLite file: one writer with group commit, the tail served from memory.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kit::{
    BoxFuture, Envelope, Environment, EventId, Lifecycle, Position, Recorded, Timestamp,
    store::{Checkpoints, Durability, Readers, Store, StoreError},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{
    AppendError, Appended, Bounds, EngineError, Entry, Fence, Hold, Lease, LeaseRequest, LogEngine, READ_BYTES_MAX, READ_EVENTS_MAX, Scope,
    StateEntry, StatePut,
    tail::{self, Tail},
};

/// All SQL of the log.
mod store;

/// What readers know without reading the file.
mod view;

/// The newest events, in memory.
mod ring;

/// The one writer.
mod writer;

/// Room kept back for when the disk is full.
mod reserve;

use reserve::Reserve;
use store::events::{self, ReadError, Window};
use view::View;
use writer::{Done, Handout, Job, Undone, Work, Writer};

/// How many appends and state changes may wait for the writer.
const JOBS_MAX: usize = 1_024;

/// The log in one SQLite file, `broker.db`.
#[derive(Debug)]
pub struct Embedded {
    jobs: mpsc::Sender<Job>,
    readers: Readers,
    view: Arc<Mutex<View>>,
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
        Self::start_on(store, folder, environment, lifecycle)
    }

    fn start_on(store: Store, folder: &Path, environment: &Environment, lifecycle: &Lifecycle) -> Result<Self, StoreError> {
        store::forget_fast(&store.connection)?;
        events::seal_old(&store.connection)?;
        let trimmed = store::trimmed(&store.connection)?;
        let last = events::last(&store.connection)?.unwrap_or(trimmed);
        store::check_trimmed(&store.connection, trimmed)?;
        let checkpoints = Checkpoints::start(&store, "log checkpoints", environment, lifecycle)?;
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let (tail_sender, tail) = tail::tail(last.position);
        let view = Arc::new(Mutex::new(View::new(trimmed, last)));
        let (readers, users) = (store.readers(), TaskTracker::new());
        let writer = Writer {
            store,
            checkpoints,
            queue,
            trimmed,
            last,
            appended: 0,
            view: view.clone(),
            handout: Handout::start(tail_sender, lifecycle),
            clock: environment.clock.clone(),
            disk: environment.disk.clone(),
            reserve: environment.disk.is_durable().then(|| Reserve::take(folder)),
            lifecycle: lifecycle.clone(),
            users: users.clone(),
        };
        lifecycle
            .spawn_writer(environment.writers, "log writer", writer.run())
            .map_err(|cause| StoreError::Folder { path: folder.into(), cause })?;
        Ok(Self { jobs, readers, view, tail, users })
    }

    fn read_now(&self, scope: Scope<'_>, after: Position, limit: usize) -> Result<Vec<Recorded>, EngineError> {
        let last = self.tail.last();
        let limit = limit.min(READ_EVENTS_MAX);
        let (mut begin, from_memory) = {
            let view = self.view();
            let begin = view.begin(after)?;
            (begin, if scope == Scope::All { view.read(begin, last, limit, READ_BYTES_MAX) } else { None })
        };
        if let Some(events) = from_memory {
            return Ok(events);
        }
        loop {
            if begin >= last || limit == 0 {
                return Ok(Vec::new());
            }
            let window = Window { after: begin, last, limit, bytes_max: READ_BYTES_MAX };
            let (found, trimmed) = self.readers.read(|db| {
                let found = events::read_scope(db, scope, window);
                // After the events: what a trim took from under the reader, it has also told.
                Ok::<_, ReadError>((found, store::trimmed(db)?.position))
            })?;
            if trimmed <= begin {
                return Ok(found?);
            }
            begin = view::begin(after, trimmed)?;
        }
    }

    /// An event behind the tail is not there yet, although its commit may be.
    fn is_durable(&self, position: Position) -> bool {
        position <= self.tail.last()
    }

    async fn call(&self, work: Work) -> Result<Result<Done, Undone>, Uncalled> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(Job { work, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Uncalled::Busy,
            mpsc::error::TrySendError::Closed(_) => Uncalled::Closed,
        })?;
        answer.await.map_err(|_| Uncalled::Closed)
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the writer did not take or answer a call.
enum Uncalled {
    Busy,
    Closed,
}

impl From<Uncalled> for AppendError {
    fn from(uncalled: Uncalled) -> Self {
        match uncalled {
            Uncalled::Busy => Self::Busy,
            Uncalled::Closed => Self::Closed,
        }
    }
}

impl From<Uncalled> for EngineError {
    fn from(uncalled: Uncalled) -> Self {
        match uncalled {
            Uncalled::Busy => Self::Busy,
            Uncalled::Closed => Self::Closed,
        }
    }
}

impl LogEngine for Embedded {
    fn append(&self, events: Vec<Envelope>) -> BoxFuture<'_, Result<Vec<Appended>, AppendError>> {
        Box::pin(async move {
            // On the caller's time rather than the writer's.
            let (entries, refusal) = Entry::all(events);
            let landed = match self.call(Work::Append(entries)).await?? {
                Done::Appended(done) => done?,
                Done::Put(_) | Done::Leased(_) | Done::Trimmed(_) => return Err(AppendError::Closed),
            };
            match refusal {
                Some(refusal) => Err(AppendError::Refused { landed, refusal }),
                None => Ok(landed),
            }
        })
    }

    fn read_scope<'a>(&'a self, scope: Scope<'a>, after: Position, limit: usize) -> BoxFuture<'a, Result<Vec<Recorded>, EngineError>> {
        Box::pin(async move { self.read_now(scope, after, limit) })
    }

    fn read_one(&self, position: Position) -> BoxFuture<'_, Result<Option<Recorded>, EngineError>> {
        Box::pin(async move {
            let check = |first| if position < first && position > Position::START { Err(EngineError::Trimmed { first }) } else { Ok(()) };
            check(self.view().bounds().first)?;
            let found = self.read_now(Scope::All, Position(position.0.saturating_sub(1)), 1)?;
            let found = found.into_iter().find(|one| one.position == position);
            if found.is_none() {
                // The first event of all may be gone before the view says so.
                check(self.readers.read(|db| Ok::<_, ReadError>(store::trimmed(db)?.position))?.next())?;
            }
            Ok(found)
        })
    }

    fn find<'a>(&'a self, source: &'a str, id: &'a EventId) -> BoxFuture<'a, Result<Option<Recorded>, EngineError>> {
        Box::pin(async move {
            let found = self.readers.read(|db| events::find(db, source, id))?;
            let Some((position, json)) = found.filter(|(position, _)| self.is_durable(*position)) else { return Ok(None) };
            let damaged = |reason| EngineError::Damaged { position, reason };
            let event = events::parse(&json).map_err(damaged)?;
            if event.source != source || event.id != *id {
                return Err(damaged(String::from("an index leads to it that should not")));
            }
            Ok(Some(Recorded { position, event: Arc::new(event) }))
        })
    }

    fn find_time(&self, at: Timestamp) -> BoxFuture<'_, Result<Position, EngineError>> {
        Box::pin(async move {
            let bounds = self.view().bounds();
            self.readers.read(|db| events::search(db, (bounds.first, bounds.last), |mark| mark.recorded_at() < at)).map_err(failed)
        })
    }

    fn find_size(&self, bytes: u64) -> BoxFuture<'_, Result<Position, EngineError>> {
        Box::pin(async move {
            let (bounds, last) = {
                let view = self.view();
                (view.bounds(), view.last())
            };
            if bounds.bytes <= bytes {
                return Ok(Position(bounds.first.0 - 1));
            }
            let enough = last.total.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
            let found = self.readers.read(|db| events::search(db, (bounds.first, bounds.last), |mark| mark.total < enough));
            Ok(found.map_err(failed)?.next())
        })
    }

    fn time_after(&self, after: Position) -> BoxFuture<'_, Result<Option<Timestamp>, EngineError>> {
        Box::pin(async move {
            let found = self.readers.read(|db| events::first_after(db, after)).map_err(failed)?;
            Ok(found.filter(|mark| self.is_durable(mark.position)).map(|mark| mark.recorded_at()))
        })
    }

    fn bounds(&self) -> Bounds {
        self.view().bounds()
    }

    fn tail(&self) -> Tail {
        self.tail.clone()
    }

    fn trim(&self, up_to: Position) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move {
            let up_to = up_to.min(self.tail.last());
            loop {
                match self.call(Work::Trim(up_to)).await?? {
                    Done::Trimmed(trimmed) if trimmed < up_to => {}
                    Done::Trimmed(_) => return Ok(()),
                    Done::Appended(_) | Done::Put(_) | Done::Leased(_) => return Err(EngineError::Closed),
                }
            }
        })
    }

    fn state_get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StateEntry>, EngineError>> {
        Box::pin(async move { self.readers.read(|db| store::state::get(db, key)).map_err(failed) })
    }

    fn state_list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<StateEntry>, EngineError>> {
        Box::pin(async move { self.readers.read(|db| store::state::list(db, prefix)).map_err(failed) })
    }

    fn state_put_fenced(&self, fence: Option<Fence>, puts: Vec<StatePut>) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move {
            match self.call(Work::Put { fence, puts }).await?? {
                Done::Put(done) => done,
                Done::Appended(_) | Done::Leased(_) | Done::Trimmed(_) => Err(EngineError::Closed),
            }
        })
    }

    fn lease(&self, request: LeaseRequest) -> BoxFuture<'_, Result<Lease, EngineError>> {
        Box::pin(async move {
            match self.call(Work::Lease(request)).await?? {
                Done::Leased(done) => done,
                Done::Appended(_) | Done::Put(_) | Done::Trimmed(_) => Err(EngineError::Closed),
            }
        })
    }

    fn hold(&self) -> Hold {
        Hold::new(self.users.token())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where `map_err` wants it")]
fn failed(error: StoreError) -> EngineError {
    EngineError::Failed(error.to_string())
}

#[cfg(test)]
mod tests;
