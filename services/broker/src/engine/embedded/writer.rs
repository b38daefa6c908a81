//! The one writer: takes whatever is queued, without waiting for more, and commits it as one transaction.

use std::sync::{Arc, Mutex, PoisonError};

use kit::{
    Clock, Lifecycle, Recorded,
    environment::Disk,
    store::{Checkpoints, Store, StoreError},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{
    View,
    reserve::Reserve,
    store::{self, Mark},
};
use crate::engine::{AppendError, EngineError};

/// What the writer is asked to do, and does within a transaction.
mod work;

/// What a commit means to others.
mod handout;

pub(super) use handout::Handout;
use handout::Outcome;
use work::Written;
pub(super) use work::{Done, Work};

/// How many rows one transaction writes, about.
const ROWS_MAX: usize = 1_000;
/// How many free pages in the file are room enough to append, although the disk is full.
const FREE_PAGES_MIN: i64 = 4_096;

/// Something to do, and who waits for it.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) reply: oneshot::Sender<Result<Done, Undone>>,
}

/// Why something was not done.
#[derive(Debug, Clone)]
pub(super) enum Undone {
    /// There was no room.
    DiskFull,
    /// It broke, and nothing else did.
    Failed(String),
}

impl From<Undone> for AppendError {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::DiskFull => Self::DiskFull,
            Undone::Failed(reason) => Self::Failed(reason),
        }
    }
}

impl From<Undone> for EngineError {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::DiskFull => Self::DiskFull,
            Undone::Failed(reason) => Self::Failed(reason),
        }
    }
}

pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) queue: mpsc::Receiver<Job>,
    pub(super) trimmed: Mark,
    pub(super) last: Mark,
    /// How many events the last transaction appended.
    pub(super) appended: usize,
    pub(super) view: Arc<Mutex<View>>,
    pub(super) checkpoints: Checkpoints,
    pub(super) handout: Handout,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) disk: Arc<dyn Disk>,
    /// None where the disk is simulated.
    pub(super) reserve: Option<Reserve>,
    pub(super) lifecycle: Lifecycle,
    pub(super) users: TaskTracker,
}

/// What came of a commit.
struct Committed {
    results: Vec<Done>,
    /// Events that memory has no room for any more.
    evicted: Vec<Recorded>,
}

impl Writer {
    pub(super) async fn run(mut self) {
        let (lifecycle, users) = (self.lifecycle.clone(), self.users.clone());
        let ended = async move {
            lifecycle.halted().await;
            users.close();
            users.wait().await;
        };
        let mut ended = std::pin::pin!(ended);
        loop {
            let first = tokio::select! {
                biased;
                job = self.queue.recv() => job,
                () = &mut ended => self.queue.try_recv().ok(),
            };
            let Some(first) = first else { return };
            let mut rows = first.work.rows();
            let mut jobs = vec![first];
            while rows < ROWS_MAX {
                let Ok(job) = self.queue.try_recv() else { break };
                rows += job.work.rows();
                jobs.push(job);
            }
            let done = match self.commit_all(jobs).await {
                Ok(()) => self.wait_for_checkpoints().await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                // Nobody is answered: what is not known to be durable is not acknowledged. Nothing is tried again on a broken disk.
                self.lifecycle.fail(format!("the log cannot be written: {error}"));
                return;
            }
        }
    }

    /// Commits `jobs` together. If that fails because the disk is full, all but the appends once more; for another reason that is not
    /// the disk's, one by one, so that only the culprit fails.
    async fn commit_all(&mut self, jobs: Vec<Job>) -> Result<(), StoreError> {
        let jobs = if self.has_room() { jobs } else { self.refuse_appends(jobs) };
        if jobs.is_empty() {
            return Ok(());
        }
        match self.commit(&jobs).await {
            Ok(committed) => {
                self.hand_out(jobs, committed);
                Ok(())
            }
            Err(error) if store::is_disk_full(&error) => self.commit_without_room(jobs).await,
            Err(error) if error.is_fatal() => Err(error),
            Err(_) => self.commit_one_by_one(jobs).await,
        }
    }

    /// Waits while the write-ahead file is too long.
    async fn wait_for_checkpoints(&mut self) -> Result<(), StoreError> {
        let copied = self.checkpoints.look(&self.store.connection)?;
        if let Some(copied) = copied {
            copied.await;
        }
        Ok(())
    }

    async fn commit_one_by_one(&mut self, jobs: Vec<Job>) -> Result<(), StoreError> {
        for job in jobs {
            match self.commit(std::slice::from_ref(&job)).await {
                Ok(committed) => self.hand_out(vec![job], committed),
                Err(error) if store::is_disk_full(&error) => self.commit_without_room(vec![job]).await?,
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "a write to the log failed");
                    self.handout.answer([(job, Err(Undone::Failed(error.to_string())))]);
                }
            }
        }
        Ok(())
    }

    /// The disk is full: nothing is appended, and the room that was kept back is for everything else.
    async fn commit_without_room(&mut self, jobs: Vec<Job>) -> Result<(), StoreError> {
        if self.reserve.as_mut().is_some_and(|reserve| reserve.give_up(self.clock.now())) {
            tracing::error!("the disk is full: no events are taken until there is room");
        }
        let jobs = self.refuse_appends(jobs);
        if jobs.is_empty() {
            return Ok(());
        }
        match self.commit(&jobs).await {
            Ok(committed) => self.hand_out(jobs, committed),
            Err(error) if error.is_fatal() && !store::is_disk_full(&error) => return Err(error),
            Err(_) => self.handout.answer(jobs.into_iter().map(|job| (job, Err(Undone::DiskFull)))),
        }
        Ok(())
    }

    /// Whether events can be taken, as far as is known.
    fn has_room(&mut self) -> bool {
        let Some(reserve) = &mut self.reserve else { return true };
        if reserve.is_held() {
            return true;
        }
        if reserve.take_again(self.clock.now()) {
            tracing::warn!("there is room on the disk: events are taken again");
            return true;
        }
        // What was trimmed is room in the file, if not on the disk.
        store::free_pages(&self.store.connection).is_ok_and(|pages| pages >= FREE_PAGES_MIN)
    }

    async fn commit(&mut self, jobs: &[Job]) -> Result<Committed, StoreError> {
        self.store.begin().await?;
        let (written, results) = self.write(jobs).inspect_err(|_| store::roll_back(&self.store.connection))?;
        self.disk.before_commit().await;
        store::commit(&self.store.connection).inspect_err(|_| store::roll_back(&self.store.connection))?;
        self.disk.after_commit().await;
        self.checkpoints.committed();
        self.appended = written.news.len();
        (self.trimmed, self.last) = (written.trimmed, written.last);
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let evicted = view.append(written.news, self.last);
        view.trim(self.trimmed);
        Ok(Committed { results, evicted })
    }

    /// Tells who waits what came of `jobs`; only now may readers see what they appended.
    fn hand_out(&self, jobs: Vec<Job>, committed: Committed) {
        let moved_to = (self.appended > 0).then_some(self.last.position);
        let answers = jobs.into_iter().zip(committed.results.into_iter().map(Ok)).collect();
        self.handout.give(Outcome { moved_to, answers, evicted: committed.evicted });
    }

    /// Does `jobs` in a transaction, which is then open.
    fn write(&self, jobs: &[Job]) -> Result<(Written, Vec<Done>), StoreError> {
        let db = &self.store.connection;
        let mut written = Written::new(self.trimmed, self.last, self.clock.now(), self.appended);
        let results = jobs.iter().map(|job| work::perform(db, &job.work, &mut written)).collect::<Result<_, _>>()?;
        Ok((written, results))
    }

    /// Refuses the appends among `jobs` because there is no room; gives back the others.
    fn refuse_appends(&self, jobs: Vec<Job>) -> Vec<Job> {
        let (appends, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| matches!(job.work, Work::Append(_)));
        if !appends.is_empty() {
            self.handout.answer(appends.into_iter().map(|job| (job, Err(Undone::DiskFull))));
        }
        others
    }
}
