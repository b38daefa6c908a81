//! A worker: free, asked, or under way. At most one order has them at a time.

use contract::WorkerId;
use serde::{Deserialize, Serialize};

use super::{Effect, Job, Key, State, Step, delivery};

/// A worker. Stored as JSON; old rows must stay readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Worker {
    /// Free.
    Available,
    /// Claimed for a job, and asked whether they take it: a lease, ended by the delivery.
    Offered {
        /// The job.
        job: Job,
    },
    /// Under way.
    Busy {
        /// The job.
        job: Job,
    },
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// They work here from now on.
    Employ,
    /// A delivery wants them.
    Claim {
        /// For this.
        job: Job,
    },
    /// They took the job.
    Start {
        /// This one.
        job: Job,
    },
    /// The delivery does not need them any more.
    Release {
        /// For this.
        job: Job,
    },
    /// Somebody may be waiting for them.
    LookForWaiting,
}

impl Worker {
    /// The state's name. Stored; never rename.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Offered { .. } => "offered",
            Self::Busy { .. } => "busy",
        }
    }

    /// What they are claimed for.
    pub fn job(&self) -> Option<Job> {
        match self {
            Self::Available => None,
            Self::Offered { job } | Self::Busy { job } => Some(*job),
        }
    }
}

pub(super) fn decide(worker_id: &WorkerId, state: Option<&Worker>, input: &Input) -> Step {
    match input {
        Input::Employ => match state {
            None => become_available(worker_id),
            Some(Worker::Available | Worker::Offered { .. } | Worker::Busy { .. }) => Step::nothing(),
        },
        Input::Claim { job } => claim(worker_id, state, *job),
        Input::Start { job } => match state {
            Some(Worker::Offered { job: known }) if known == job => Step::to(State::Worker(Worker::Busy { job: *job })),
            None | Some(Worker::Available | Worker::Offered { .. } | Worker::Busy { .. }) => Step::nothing(),
        },
        Input::Release { job } => match state {
            Some(Worker::Offered { job: known } | Worker::Busy { job: known }) if known == job => become_available(worker_id),
            None | Some(Worker::Available | Worker::Offered { .. } | Worker::Busy { .. }) => Step::nothing(),
        },
        Input::LookForWaiting => match state {
            Some(Worker::Available) => Step::nothing().perform(Effect::MatchWaiting { worker_id: worker_id.clone() }),
            None | Some(Worker::Offered { .. } | Worker::Busy { .. }) => Step::nothing(),
        },
    }
}

/// The one conditional update: of all that claim a worker, the first gets them.
fn claim(worker_id: &WorkerId, state: Option<&Worker>, job: Job) -> Step {
    let delivery = Key::Delivery(job.order_id);
    match state {
        Some(Worker::Available) => Step::to(State::Worker(Worker::Offered { job }))
            .tell(delivery, super::Input::Delivery(delivery::Input::Claimed { worker_id: worker_id.clone(), search: job.search })),
        // The same claim once more: its delivery has been told.
        Some(Worker::Offered { job: known } | Worker::Busy { job: known }) if *known == job => Step::nothing(),
        None | Some(Worker::Offered { .. } | Worker::Busy { .. }) => {
            Step::nothing().tell(delivery, super::Input::Delivery(delivery::Input::NotClaimed { search: job.search }))
        }
    }
}

fn become_available(worker_id: &WorkerId) -> Step {
    Step::to(State::Worker(Worker::Available)).perform(Effect::MatchWaiting { worker_id: worker_id.clone() })
}
