//! The one writer: takes whatever is queued, without waiting for more, and commits it as one transaction.

use std::sync::{Arc, Mutex, PoisonError};

use kit::{
    Clock, Envelope, Lifecycle, Position, Recorded,
    environment::Disk,
    store::{Checkpoints, Store, StoreError},
};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{Ring, store};
use crate::engine::{AppendError, Appended, EngineError, Refusal, StatePut, tail::TailSender};

/// How many rows one transaction writes, about.
const ROWS_MAX: usize = 1_000;

/// An event on its way to the file.
pub(super) struct Row {
    pub(super) event: Arc<Envelope>,
    pub(super) json: String,
    pub(super) weight: usize,
}

pub(super) struct Append {
    pub(super) rows: Vec<Row>,
    pub(super) reply: oneshot::Sender<Result<Vec<Appended>, AppendError>>,
}

pub(super) struct Put {
    pub(super) puts: Vec<StatePut>,
    pub(super) reply: oneshot::Sender<Result<(), EngineError>>,
}

pub(super) enum Job {
    Append(Append),
    Put(Put),
}

impl Job {
    fn rows(&self) -> usize {
        match self {
            Self::Append(append) => append.rows.len(),
            Self::Put(put) => put.puts.len(),
        }
    }

    /// Tells who waits; a caller that has gone away does not mind.
    fn answer(self, result: Option<JobResult>) {
        match (self, result) {
            (Self::Append(append), Some(JobResult::Append(result))) => drop(append.reply.send(result)),
            (Self::Put(put), Some(JobResult::Put(result))) => drop(put.reply.send(result)),
            // Each job gets the result of its own kind; without one its caller hears that the log is closed.
            (Self::Append(_) | Self::Put(_), _) => {}
        }
    }

    fn fail(self, error: &StoreError) {
        tracing::error!(%error, "a write to the log failed");
        match self {
            Self::Append(append) => drop(append.reply.send(Err(AppendError::Failed(error.to_string())))),
            Self::Put(put) => drop(put.reply.send(Err(EngineError::Failed(error.to_string())))),
        }
    }
}

/// What a transaction did, to be told after its commit.
#[derive(Default)]
struct Written {
    results: Vec<JobResult>,
    news: Vec<(Recorded, usize)>,
}

enum JobResult {
    Append(Result<Vec<Appended>, AppendError>),
    Put(Result<(), EngineError>),
}

pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) queue: mpsc::Receiver<Job>,
    pub(super) last: Position,
    pub(super) ring: Arc<Mutex<Ring>>,
    pub(super) checkpoints: Checkpoints,
    pub(super) tail: TailSender,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) lifecycle: Lifecycle,
    pub(super) users: TaskTracker,
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
            let mut jobs = vec![first];
            let mut rows = jobs.iter().map(Job::rows).sum::<usize>();
            while rows < ROWS_MAX {
                let Ok(job) = self.queue.try_recv() else { break };
                rows += job.rows();
                jobs.push(job);
            }
            if let Err(error) = self.commit_all(jobs).await {
                // Nobody is answered: what is not known to be durable is not acknowledged. Nothing is tried again on a broken disk.
                self.lifecycle.fail(format!("the log cannot be written: {error}"));
                return;
            }
        }
    }

    /// Commits `jobs` together; if that fails for a reason other than the disk, one by one, so that only the culprit fails.
    async fn commit_all(&mut self, jobs: Vec<Job>) -> Result<(), StoreError> {
        match self.commit(&jobs).await {
            Ok(results) => {
                jobs.into_iter().zip(results).for_each(|(job, result)| job.answer(Some(result)));
                Ok(())
            }
            Err(error) if error.is_fatal() => Err(error),
            Err(_) => {
                for job in jobs {
                    match self.commit(std::slice::from_ref(&job)).await {
                        Ok(results) => job.answer(results.into_iter().next()),
                        Err(error) if error.is_fatal() => return Err(error),
                        Err(error) => job.fail(&error),
                    }
                }
                Ok(())
            }
        }
    }

    async fn commit(&mut self, jobs: &[Job]) -> Result<Vec<JobResult>, StoreError> {
        self.store.begin().await?;
        let written = self.write(jobs).inspect_err(|_| store::roll_back(&self.store.connection))?;
        self.disk.before_commit().await;
        store::commit(&self.store.connection).inspect_err(|_| store::roll_back(&self.store.connection))?;
        self.disk.after_commit().await;
        self.checkpoints.committed();
        if let Some((newest, _)) = written.news.last() {
            self.last = newest.position;
            {
                let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
                written.news.into_iter().for_each(|(event, weight)| ring.push(event, weight));
            }
            // Only now may readers see them.
            self.tail.move_to(self.last);
        }
        Ok(written.results)
    }

    fn write(&self, jobs: &[Job]) -> Result<Written, StoreError> {
        let db = &self.store.connection;
        let mut written = Written::default();
        for job in jobs {
            let result = match job {
                Job::Append(append) => JobResult::Append(self.append(db, &append.rows, &mut written)?),
                Job::Put(put) => JobResult::Put(put_all(db, &put.puts)?),
            };
            written.results.push(result);
        }
        Ok(written)
    }

    fn append(&self, db: &Connection, rows: &[Row], written: &mut Written) -> Result<Result<Vec<Appended>, AppendError>, StoreError> {
        let now = self.clock.now();
        let mut landed = Vec::with_capacity(rows.len());
        for row in rows {
            let position = written.news.last().map_or(self.last, |(event, _)| event.position).next();
            if store::insert(db, position, &row.event, &row.json, now)? {
                written.news.push((Recorded { position, event: row.event.clone() }, row.weight));
                landed.push(Appended { position, is_duplicate: false });
                continue;
            }
            match store::find(db, &row.event)? {
                Some((position, json)) if is_same(&json, &row.json) => landed.push(Appended { position, is_duplicate: true }),
                _ => {
                    let (source_name, id) = (row.event.source.clone(), row.event.id.to_string());
                    return Ok(Err(AppendError::Refused { landed, refusal: Refusal::OtherContent { source_name, id } }));
                }
            }
        }
        Ok(Ok(landed))
    }
}

/// All of `puts`, or none when a version is not what its writer believes.
fn put_all(db: &Connection, puts: &[StatePut]) -> Result<Result<(), EngineError>, StoreError> {
    for put in puts {
        if store::state_version(db, &put.key)? != put.expected_version {
            return Ok(Err(EngineError::VersionConflict { key: put.key.clone() }));
        }
    }
    for put in puts {
        store::state_write(db, &put.key, put.expected_version + 1, put.value.as_deref())?;
    }
    Ok(Ok(()))
}

/// Whether two events say the same: white space and the order of members in their data do not count.
fn is_same(one: &str, other: &str) -> bool {
    let parse = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
    one == other || parse(one).is_some_and(|one| Some(one) == parse(other))
}
