//! Gives workers who became free to whoever has waited longest.
//!
//! A worker becomes free from one order and goes to another. So the claim is a command under the waiting order's own context: as
//! an outcome it would carry the owner of the order that the worker comes from into the other's events.

use std::collections::BTreeSet;

use contract::WorkerId;
use kit::{
    Handle, Lifecycle,
    service::{Meta, SubmitError},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Deliveries,
    domain::{Input, Job, Key, worker},
    store::{self, WaitingDelivery},
};

/// How many free workers may wait to be looked at.
const FREE_MAX: usize = 2_048;
/// How many free workers are looked at together.
const TOGETHER_MAX: usize = 64;
/// How many waiting deliveries are looked at beside one for each free worker, because some workers are left out of some.
const WAITING_SPARE: usize = 64;

/// Where workers who became free are handed in.
pub(super) struct Matchmaker {
    free: mpsc::Sender<FreeWorker>,
}

/// What came of looking for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matched {
    /// The worker has a job, or nobody waits.
    Done,
    /// It could not be told.
    TryAgain,
}

struct FreeWorker {
    worker_id: WorkerId,
    answer: oneshot::Sender<Matched>,
}

impl Matchmaker {
    pub(super) fn start(handle: Handle<Deliveries>, lifecycle: &Lifecycle) -> Self {
        let (free, queue) = mpsc::channel(FREE_MAX);
        lifecycle.spawn("matchmaker", run(handle, queue, lifecycle.clone()));
        Self { free }
    }

    /// Finds a job for a worker who is free; none where the service is stopping.
    pub(super) async fn find_job(&self, worker_id: WorkerId) -> Option<Matched> {
        let (answer, answered) = oneshot::channel();
        self.free.send(FreeWorker { worker_id, answer }).await.ok()?;
        answered.await.ok()
    }
}

async fn run(handle: Handle<Deliveries>, mut queue: mpsc::Receiver<FreeWorker>, lifecycle: Lifecycle) {
    loop {
        let first = tokio::select! {
            biased;
            () = lifecycle.halted() => return,
            worker = queue.recv() => match worker {
                Some(worker) => worker,
                None => return,
            },
        };
        let mut free = vec![first];
        while free.len() < TOGETHER_MAX
            && let Ok(worker) = queue.try_recv()
        {
            free.push(worker);
        }
        match_all(&handle, free).await;
    }
}

async fn match_all(handle: &Handle<Deliveries>, free: Vec<FreeWorker>) {
    let waiting = match handle.readers().read(|connection| store::find_waiting(connection, free.len() + WAITING_SPARE)) {
        Ok(waiting) => waiting,
        Err(error) => {
            tracing::error!(%error, "those who wait for a worker could not be looked for; trying again");
            for worker in free {
                let _ = worker.answer.send(Matched::TryAgain);
            }
            return;
        }
    };
    let mut taken = BTreeSet::new();
    let mut claims = Vec::new();
    for FreeWorker { worker_id, answer } in free {
        let next = waiting.iter().find(|delivery| !taken.contains(&delivery.order_id) && !delivery.declined.contains(&worker_id));
        match next {
            Some(delivery) => {
                taken.insert(delivery.order_id);
                claims.push(claim(handle, worker_id, delivery, answer));
            }
            None => {
                let _ = answer.send(Matched::Done);
            }
        }
    }
    futures_util::future::join_all(claims).await;
}

async fn claim(handle: &Handle<Deliveries>, worker_id: WorkerId, delivery: &WaitingDelivery, answer: oneshot::Sender<Matched>) {
    let job = Job { order_id: delivery.order_id, search: delivery.search };
    let meta = Meta { context: delivery.context.clone(), idempotency: None };
    let claimed = handle.submit(Key::Worker(worker_id), Input::Worker(worker::Input::Claim { job }), meta).await;
    let matched = match claimed {
        Ok(_) => Matched::Done,
        Err(SubmitError::Busy | SubmitError::Unavailable | SubmitError::Failed) => Matched::TryAgain,
        // Neither can be: a claim is never refused, and comes without a key.
        Err(SubmitError::Refused(_) | SubmitError::IdempotencyMismatch) => Matched::Done,
    };
    let _ = answer.send(matched);
}
