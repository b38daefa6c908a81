//! The states of deliveries and workers and how they go from one to the next. Pure: no IO, no clock, no dice.
//!
//! A delivery and a worker are two entities that tell each other what they decided, within one transaction. A worker is claimed
//! under the number of the search that wants it; offers and attempts are numbered, so that whatever comes late is known as stale.

use contract::{Event, OrderId, WorkerId};
use kit::Timestamp;
use serde::{Deserialize, Serialize};

/// A delivery: from the accepted payment to the customer's door.
pub mod delivery;

/// A worker: free, asked, or under way.
pub mod worker;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use delivery::Delivery;
pub use worker::Worker;

/// What delivery answers to one input.
pub type Step = kit::Step<Key, State, Input, Event, Effect>;

/// Names a delivery or a worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The delivery of an order: each order has one.
    Delivery(OrderId),
    /// Somebody who delivers.
    Worker(WorkerId),
}

/// The state of a delivery or a worker. Stored as JSON; old rows must stay readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Of a delivery.
    Delivery(Delivery),
    /// Of a worker.
    Worker(Worker),
}

/// What a delivery or a worker is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A delivery is told.
    Delivery(delivery::Input),
    /// A worker is told.
    Worker(worker::Input),
}

/// How long a delivery waits for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long an offer stands, in milliseconds.
    pub offer_ms: u64,
    /// How long a worker is sought for one attempt, in milliseconds.
    pub search_ms: u64,
    /// How many offers are made for one order.
    pub offers_max: u32,
    /// How long a delivery without a worker waits before it looks again by itself, in milliseconds: a safety net, because a
    /// worker who becomes free looks for the waiting.
    pub look_again_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { offer_ms: 5_000, search_ms: 15 * 60 * 1_000, offers_max: 200, look_again_ms: 10_000 }
    }
}

/// A worker's job: the order, and the search that led to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What to deliver.
    pub order_id: OrderId,
    /// The number of the search that claimed the worker: a claim of an earlier search is stale.
    pub search: u32,
}

/// When a worker is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// The search begins: looking takes its time.
    Begin,
    /// Whoever is free is taken now.
    Now,
}

/// What is done in the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Find somebody who is free, and claim them.
    FindWorker {
        /// For what.
        order_id: OrderId,
        /// The number of the search.
        search: u32,
        /// The number of the attempt that it is for.
        attempt: u32,
        /// How often somebody was found and lost to another order in this search.
        tries: u32,
        /// When.
        look: Look,
        /// Who is left out.
        declined: Vec<WorkerId>,
    },
    /// Offer the job to a worker.
    OfferJob {
        /// The job.
        order_id: OrderId,
        /// Who is asked.
        worker_id: WorkerId,
        /// The number of the offer.
        offer: u32,
    },
    /// Let the worker deliver.
    Deliver {
        /// The job.
        order_id: OrderId,
        /// Who delivers.
        worker_id: WorkerId,
        /// The number of the attempt.
        attempt: u32,
    },
    /// Find the delivery that has waited longest for this worker, who is free.
    MatchWaiting {
        /// Who is free.
        worker_id: WorkerId,
    },
}

/// A contradiction: it can never be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A delivery was told what only a worker can be told, or the other way round.
    #[error("{0:?} cannot be told this")]
    WrongEntity(Key),
}

impl State {
    /// The state's name. Stored; never rename.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Delivery(delivery) => delivery.status(),
            Self::Worker(worker) => worker.status(),
        }
    }
}

/// What `input` does to the entity `key` whose state is `state`.
///
/// # Errors
/// A [`Refusal`] where the input is not for such an entity; one that is late or repeated does nothing.
pub fn decide(key: &Key, state: Option<&State>, input: &Input, now: Timestamp, settings: &Settings) -> Result<Step, Refusal> {
    match (key, input, state) {
        (Key::Delivery(order_id), Input::Delivery(input), None) => Ok(delivery::decide(*order_id, None, input, now, settings)),
        (Key::Delivery(order_id), Input::Delivery(input), Some(State::Delivery(delivery))) => {
            Ok(delivery::decide(*order_id, Some(delivery), input, now, settings))
        }
        (Key::Worker(worker_id), Input::Worker(input), None) => Ok(worker::decide(worker_id, None, input)),
        (Key::Worker(worker_id), Input::Worker(input), Some(State::Worker(worker))) => Ok(worker::decide(worker_id, Some(worker), input)),
        (Key::Delivery(_), Input::Worker(_), None | Some(State::Delivery(_) | State::Worker(_)))
        | (Key::Delivery(_), Input::Delivery(_), Some(State::Worker(_)))
        | (Key::Worker(_), Input::Delivery(_), None | Some(State::Delivery(_) | State::Worker(_)))
        | (Key::Worker(_), Input::Worker(_), Some(State::Delivery(_))) => Err(Refusal::WrongEntity(key.clone())),
    }
}
