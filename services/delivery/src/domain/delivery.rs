//! A delivery: from the accepted payment to the customer's door.

use contract::{
    OrderId, WorkerId,
    events::{
        DeliveryCancellationRefused, DeliveryCancelled, RefusalReason, WorkerDeclinedJob, WorkerOfferExpired, WorkerOfferWithdrawn,
        WorkerSearchStarted,
    },
};
use kit::{Timestamp, step::Context};
use serde::{Deserialize, Serialize};

use super::{Job, Key, Settings, State, Step, worker};

/// The search for a worker.
mod search;

/// The job that the worker is offered.
mod job;

/// The timer that looks for a worker again.
const LOOK: &str = "look";
/// The timer that ends an offer.
const OFFER: &str = "offer";
/// The timer that ends the search for an attempt.
const SEARCH: &str = "search";

/// How far a delivery has come, in numbers that only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The number of the latest search, from 1.
    pub search: u32,
    /// How many offers were made; the latest has this number.
    pub offers: u32,
    /// The number of the attempt that is sought for or under way, from 1: the fencing token.
    pub attempt: u32,
}

/// The search for a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quest {
    /// Its numbers.
    pub tally: Tally,
    /// When the search for this attempt began.
    pub since: Timestamp,
    /// Who is left out: they declined, did not answer, or gave up. Forgotten when nobody else is left.
    pub declined: Vec<WorkerId>,
}

/// How a search stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Looking {
    /// Somebody is being looked for.
    Around {
        /// How often somebody was found and lost to another order.
        tries: u32,
    },
    /// Nobody was free: the next worker to become free is given to whoever has waited longest.
    Waiting {
        /// Since when.
        since: Timestamp,
        /// The order's context, for whoever ends the waiting: it is another order that a worker becomes free from.
        context: Context,
    },
}

/// Whether the order asked to call a completed delivery off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancellation {
    /// Nobody asked.
    NotAsked,
    /// It was refused: once, for good.
    Refused,
}

/// A delivery. Stored as JSON; old rows must stay readable.
///
/// *Requested* and *assigned* are left in the step that enters them: a search begins with the payment, and whoever accepts is on
/// the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Delivery {
    /// A worker is sought.
    Searching {
        /// The search.
        quest: Quest,
        /// How it stands.
        looking: Looking,
    },
    /// A worker is asked; the offer's number is the count of offers.
    Offered {
        /// The search.
        quest: Quest,
        /// Who is asked.
        worker_id: WorkerId,
        /// Until when.
        expires_at: Timestamp,
    },
    /// A worker is on the way.
    EnRoute {
        /// The numbers so far.
        tally: Tally,
        /// Who.
        worker_id: WorkerId,
    },
    /// The goods are with the customer.
    Delivered {
        /// Who delivered.
        worker_id: WorkerId,
        /// In which attempt.
        attempt: u32,
        /// Whether somebody wanted it called off.
        cancellation: Cancellation,
    },
    /// Nothing will be delivered. Also a tombstone: the order was called off before its payment was heard of.
    Cancelled,
    /// No worker could be found.
    Exhausted,
}

/// What a delivery is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// The order is paid.
    PaymentAccepted,
    /// The order is to be called off.
    CancellationRequested,
    /// Looking took its time; whoever is free can be taken.
    LookedAround {
        /// In this search.
        search: u32,
    },
    /// Nobody is free who was not left out.
    NoWorker {
        /// In this search.
        search: u32,
        /// The order's context.
        context: Context,
    },
    /// Everybody has been left out.
    AllDeclined {
        /// In this search.
        search: u32,
    },
    /// The worker belongs to this delivery.
    Claimed {
        /// Who.
        worker_id: WorkerId,
        /// For this search.
        search: u32,
    },
    /// The worker belongs to another one.
    NotClaimed {
        /// In this search.
        search: u32,
    },
    /// A timer: look once more for whoever is free.
    LookAgain {
        /// In this search.
        search: u32,
    },
    /// A timer: the search for the attempt has taken too long.
    SearchDeadline {
        /// For this attempt.
        attempt: u32,
    },
    /// The worker takes the job.
    OfferAccepted {
        /// The offer's number.
        offer: u32,
    },
    /// The worker does not take the job.
    OfferDeclined {
        /// The offer's number.
        offer: u32,
    },
    /// A timer: the worker did not answer in time.
    OfferExpired {
        /// The offer's number.
        offer: u32,
    },
    /// The worker has delivered.
    Completed {
        /// In this attempt.
        attempt: u32,
    },
    /// The worker has given up.
    GaveUp {
        /// In this attempt.
        attempt: u32,
    },
}

impl Delivery {
    /// The state's name. Stored; never rename.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Searching { .. } => "searching",
            Self::Offered { .. } => "offered",
            Self::EnRoute { .. } => "en_route",
            Self::Delivered { .. } => "delivered",
            Self::Cancelled => "cancelled",
            Self::Exhausted => "exhausted",
        }
    }
}

pub(super) fn decide(order_id: OrderId, state: Option<&Delivery>, input: &Input, now: Timestamp, settings: &Settings) -> Step {
    match input {
        Input::PaymentAccepted => payment_accepted(order_id, state, now, settings),
        Input::CancellationRequested => cancellation_requested(order_id, state),
        Input::LookedAround { search } => search::looked_around(order_id, state, *search),
        Input::NoWorker { search, context } => search::no_worker(order_id, state, *search, context, now, settings),
        Input::AllDeclined { search } => search::all_declined(order_id, state, *search),
        Input::Claimed { worker_id, search } => job::claimed(order_id, state, worker_id, *search, now, settings),
        Input::NotClaimed { search } => search::not_claimed(order_id, state, *search),
        Input::LookAgain { search } => search::look_again(order_id, state, *search, now, settings),
        Input::SearchDeadline { attempt } => search::deadline_reached(state, *attempt),
        Input::OfferAccepted { offer } => job::offer_accepted(order_id, state, *offer),
        Input::OfferDeclined { offer } => {
            let event = |worker_id| WorkerDeclinedJob { worker_id, offer: *offer };
            job::offer_failed(order_id, state, *offer, event, now, settings).map_or_else(Step::nothing, |step| step.cancel_timer(OFFER))
        }
        Input::OfferExpired { offer } => {
            let event = |worker_id| WorkerOfferExpired { worker_id, offer: *offer };
            job::offer_failed(order_id, state, *offer, event, now, settings).unwrap_or_else(Step::nothing)
        }
        Input::Completed { attempt } => job::completed(order_id, state, *attempt),
        Input::GaveUp { attempt } => job::gave_up(order_id, state, *attempt, now, settings),
    }
}

fn payment_accepted(order_id: OrderId, state: Option<&Delivery>, now: Timestamp, settings: &Settings) -> Step {
    match state {
        None => {
            let quest = Quest { tally: Tally { search: 1, offers: 0, attempt: 1 }, since: now, declined: Vec::new() };
            let deadline = search::deadline(&quest, settings);
            search::begin(order_id, quest).emit(WorkerSearchStarted { search: 1 }).set_timer(SEARCH, deadline.0, deadline.1)
        }
        Some(
            Delivery::Searching { .. }
            | Delivery::Offered { .. }
            | Delivery::EnRoute { .. }
            | Delivery::Delivered { .. }
            | Delivery::Cancelled
            | Delivery::Exhausted,
        ) => Step::nothing(),
    }
}

/// Answers once, whatever the answer is.
fn cancellation_requested(order_id: OrderId, state: Option<&Delivery>) -> Step {
    let cancelled = Step::to(State::Delivery(Delivery::Cancelled));
    match state {
        None | Some(Delivery::Exhausted) => cancelled.emit(DeliveryCancelled {}),
        Some(Delivery::Searching { .. }) => cancelled.emit(DeliveryCancelled {}).cancel_timer(LOOK).cancel_timer(SEARCH),
        Some(Delivery::Offered { quest, worker_id, .. }) => {
            let withdrawn = WorkerOfferWithdrawn { worker_id: worker_id.clone(), offer: quest.tally.offers };
            let step = cancelled.emit(withdrawn).then_emit(DeliveryCancelled {}).cancel_timer(OFFER).cancel_timer(SEARCH);
            release(step, order_id, worker_id, quest.tally.search)
        }
        Some(Delivery::EnRoute { tally, worker_id }) => release(cancelled.emit(DeliveryCancelled {}), order_id, worker_id, tally.search),
        Some(Delivery::Delivered { worker_id, attempt, cancellation: Cancellation::NotAsked }) => {
            let (worker_id, attempt, cancellation) = (worker_id.clone(), *attempt, Cancellation::Refused);
            Step::to(State::Delivery(Delivery::Delivered { worker_id, attempt, cancellation }))
                .emit(DeliveryCancellationRefused { reason: RefusalReason::AlreadyDelivered })
        }
        Some(Delivery::Delivered { cancellation: Cancellation::Refused, .. } | Delivery::Cancelled) => Step::nothing(),
    }
}

fn release(step: Step, order_id: OrderId, worker_id: &WorkerId, search: u32) -> Step {
    let job = Job { order_id, search };
    step.tell(Key::Worker(worker_id.clone()), super::Input::Worker(worker::Input::Release { job }))
}

/// The search `search`, if it is under way.
fn searching(state: Option<&Delivery>, search: u32) -> Option<(&Quest, &Looking)> {
    match state {
        Some(Delivery::Searching { quest, looking }) => (quest.tally.search == search).then_some((quest, looking)),
        None
        | Some(
            Delivery::Offered { .. } | Delivery::EnRoute { .. } | Delivery::Delivered { .. } | Delivery::Cancelled | Delivery::Exhausted,
        ) => None,
    }
}

/// The offer `offer`, if it is out.
fn offered(state: Option<&Delivery>, offer: u32) -> Option<(&Quest, &WorkerId)> {
    match state {
        Some(Delivery::Offered { quest, worker_id, .. }) => (quest.tally.offers == offer).then_some((quest, worker_id)),
        None
        | Some(
            Delivery::Searching { .. } | Delivery::EnRoute { .. } | Delivery::Delivered { .. } | Delivery::Cancelled | Delivery::Exhausted,
        ) => None,
    }
}

/// The attempt `attempt`, if it is under way.
fn en_route(state: Option<&Delivery>, attempt: u32) -> Option<(Tally, &WorkerId)> {
    match state {
        Some(Delivery::EnRoute { tally, worker_id }) => (tally.attempt == attempt).then_some((*tally, worker_id)),
        None
        | Some(
            Delivery::Searching { .. } | Delivery::Offered { .. } | Delivery::Delivered { .. } | Delivery::Cancelled | Delivery::Exhausted,
        ) => None,
    }
}

/// Whether the worker that the search `search` claimed is this delivery's now.
fn holds(state: Option<&Delivery>, worker_id: &WorkerId, search: u32) -> bool {
    match state {
        Some(Delivery::Offered { quest, worker_id: held, .. }) => held == worker_id && quest.tally.search == search,
        Some(Delivery::EnRoute { tally, worker_id: held }) => held == worker_id && tally.search == search,
        None | Some(Delivery::Searching { .. } | Delivery::Delivered { .. } | Delivery::Cancelled | Delivery::Exhausted) => false,
    }
}
