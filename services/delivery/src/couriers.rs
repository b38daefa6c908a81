//! The simulated workers: how long they take, whether they accept, whether they get there. Real ones take their place here.
//!
//! Their dice are a pure function of order, operation and number, so that an effect that is performed again never rolls again.
//! Nothing here waits: whatever takes time is an outcome for later, which the kit keeps as a durable timer.

/// Gives workers who became free to whoever has waited longest.
mod matchmaker;

use contract::{OrderId, WorkerId};
use kit::{
    Context, Handle, Lifecycle,
    chance::{Chance, Pace},
    machine::Outcome,
    service::{Meta, SubmitError},
    store::Readers,
};
use tokio::sync::SetOnce;

use crate::{
    Deliveries,
    domain::{
        Effect, Input, Job, Key, Look, Refusal,
        delivery::Input as Told,
        worker::{self, Input as WorkerTold},
    },
    store::{self, Free},
};
use matchmaker::{Matched, Matchmaker};

/// How long looking for a worker takes at most, in milliseconds of the demo.
const SEARCH_MS_MAX: u64 = 5_000;
/// How long a worker thinks about an offer at most, in milliseconds of the demo.
const ANSWER_MS_MAX: u64 = 2_000;
/// How long a delivery takes at most, in milliseconds of the demo.
const DELIVER_MS_MAX: u64 = 5_000;
/// After how long the search is given up where nobody is ever free, in milliseconds of the demo.
const FRUITLESS_MS: u64 = 8_000;
/// How long to wait after a query or a claim that failed, in milliseconds.
const RETRY_MS: u64 = 500;
/// How many workers are employed at once.
const EMPLOYED_TOGETHER: u32 = 128;

/// How the couriers' dice fall where no script says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Odds {
    /// Of 100 offers, how many are accepted.
    pub accept_percent: u32,
    /// Of 100 attempts, how many are completed.
    pub complete_percent: u32,
}

impl Default for Odds {
    fn default() -> Self {
        Self { accept_percent: 50, complete_percent: 90 }
    }
}

type Outcomes = Vec<Outcome<Key, Input>>;

/// The simulated workers.
pub(crate) struct Couriers {
    chance: Chance,
    pace: Pace,
    odds: Odds,
    /// There once the service runs; effects that a crash interrupted may come a little earlier.
    desk: SetOnce<Desk>,
}

/// What the couriers need of the running service.
struct Desk {
    readers: Readers,
    matchmaker: Matchmaker,
    employed: u32,
}

/// What the simulated workers do with an order, by its scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    /// As the dice fall.
    Odds,
    /// Scenario 3: the first offer is declined, the second not answered, the third accepted; the delivery succeeds.
    Picky,
    /// Scenario 11: nobody is ever free.
    NobodyFree,
}

impl Script {
    fn of(context: &Context) -> Self {
        match context.scenario.as_deref() {
            Some("3") => Self::Picky,
            Some("11") => Self::NobodyFree,
            _ => Self::Odds,
        }
    }
}

impl Couriers {
    pub(crate) fn new(chance: Chance, pace: Pace, odds: Odds) -> Self {
        Self { chance, pace, odds, desk: SetOnce::new() }
    }

    /// Opens for business: `employed` workers are there, and the store can be read.
    pub(crate) fn open(&self, handle: &Handle<Deliveries>, employed: u32, lifecycle: &Lifecycle) {
        let matchmaker = Matchmaker::start(handle.clone(), lifecycle);
        // Whoever opens twice has opened.
        let _ = self.desk.set(Desk { readers: handle.readers().clone(), matchmaker, employed });
    }

    pub(crate) async fn perform(&self, effect: Effect, context: Context) -> Outcomes {
        let script = Script::of(&context);
        match effect {
            Effect::FindWorker { order_id, search, attempt, tries, look, declined } => match (script, look) {
                (Script::NobodyFree, Look::Begin) => {
                    vec![to_delivery(order_id, self.pace.takes_ms(FRUITLESS_MS), Told::SearchDeadline { attempt })]
                }
                (Script::NobodyFree, Look::Now) => Vec::new(),
                (Script::Odds | Script::Picky, Look::Begin | Look::Now) => {
                    let after_ms = match look {
                        Look::Begin => self.takes_ms(SEARCH_MS_MAX, order_id, "search", search),
                        Look::Now => 0,
                    };
                    if after_ms > 0 {
                        vec![to_delivery(order_id, after_ms, Told::LookedAround { search })]
                    } else {
                        self.find_worker(Job { order_id, search }, tries, &declined, context).await
                    }
                }
            },
            Effect::OfferJob { order_id, offer, .. } => self.answer_offer(order_id, offer, script),
            Effect::Deliver { order_id, attempt, .. } => vec![self.deliver(order_id, attempt, script)],
            Effect::MatchWaiting { worker_id } => match self.desk.wait().await.matchmaker.find_job(worker_id.clone()).await {
                Some(Matched::Done) => Vec::new(),
                Some(Matched::TryAgain) | None => vec![to_worker(worker_id, RETRY_MS, WorkerTold::LookForWaiting)],
            },
        }
    }

    async fn find_worker(&self, job: Job, tries: u32, declined: &[WorkerId], context: Context) -> Outcomes {
        let Job { order_id, search } = job;
        let desk = self.desk.wait().await;
        let question = [&*order_id.to_string(), "worker", &search.to_string(), &tries.to_string()];
        // Everybody starts elsewhere, so that orders that look at the same time seldom find the same worker.
        let number = self.chance.up_to(u64::from(desk.employed.saturating_sub(1)), &question).saturating_add(1);
        let found = desk.readers.read(|connection| store::find_free_worker(connection, &name(number), declined));
        match found {
            Ok(Free::Worker(worker_id)) => vec![to_worker(worker_id, 0, WorkerTold::Claim { job })],
            Ok(Free::AllDeclined) => vec![to_delivery(order_id, 0, Told::AllDeclined { search })],
            Ok(Free::Nobody) => vec![to_delivery(order_id, 0, Told::NoWorker { search, context })],
            Err(error) => {
                tracing::error!(order.id = %order_id, %error, "no worker could be looked for; trying again");
                vec![to_delivery(order_id, RETRY_MS, Told::LookedAround { search })]
            }
        }
    }

    /// Nothing at all where the worker does not answer: the offer expires by itself.
    fn answer_offer(&self, order_id: OrderId, offer: u32, script: Script) -> Outcomes {
        let accepts = match (script, offer) {
            (Script::Picky, 1) => Some(false),
            (Script::Picky, 2) => None,
            (Script::Picky, _) => Some(true),
            (Script::Odds | Script::NobodyFree, _) => Some(self.happens(self.odds.accept_percent, order_id, "accept", offer)),
        };
        let after_ms = self.takes_ms(ANSWER_MS_MAX, order_id, "answer", offer);
        let told = accepts.map(|accepts| if accepts { Told::OfferAccepted { offer } } else { Told::OfferDeclined { offer } });
        told.map(|told| to_delivery(order_id, after_ms, told)).into_iter().collect()
    }

    fn deliver(&self, order_id: OrderId, attempt: u32, script: Script) -> Outcome<Key, Input> {
        let completes = match script {
            Script::Picky => true,
            Script::Odds | Script::NobodyFree => self.happens(self.odds.complete_percent, order_id, "complete", attempt),
        };
        let told = if completes { Told::Completed { attempt } } else { Told::GaveUp { attempt } };
        to_delivery(order_id, self.takes_ms(DELIVER_MS_MAX, order_id, "deliver", attempt), told)
    }

    fn happens(&self, percent: u32, order_id: OrderId, operation: &str, number: u32) -> bool {
        self.chance.happens(percent, &[&order_id.to_string(), operation, &number.to_string()])
    }

    fn takes_ms(&self, demo_ms_max: u64, order_id: OrderId, operation: &str, number: u32) -> u64 {
        self.pace.takes_ms(self.chance.up_to(demo_ms_max, &[&order_id.to_string(), operation, &number.to_string(), "time"]))
    }
}

/// Employs the workers `worker-01` to `count`; whoever is employed already stays as they are.
///
/// # Errors
/// When the service takes no commands.
pub async fn employ(handle: &Handle<Deliveries>, count: u32) -> Result<(), SubmitError<Refusal>> {
    let mut next = 1;
    while next <= count {
        let last = count.min(next.saturating_add(EMPLOYED_TOGETHER - 1));
        let commands = (next..=last)
            .filter_map(|number| name(u64::from(number)).parse().ok())
            .map(|worker_id| handle.submit(Key::Worker(worker_id), Input::Worker(worker::Input::Employ), Meta::default()));
        for answer in futures_util::future::join_all(commands).await {
            answer?;
        }
        next = last.saturating_add(1);
    }
    Ok(())
}

/// The name of the simulated worker `number`, from 1. Stored; never change.
fn name(number: u64) -> String {
    format!("worker-{number:02}")
}

fn to_delivery(order_id: OrderId, after_ms: u64, told: Told) -> Outcome<Key, Input> {
    Outcome { key: Key::Delivery(order_id), after_ms, input: Input::Delivery(told) }
}

fn to_worker(worker_id: WorkerId, after_ms: u64, told: WorkerTold) -> Outcome<Key, Input> {
    Outcome { key: Key::Worker(worker_id), after_ms, input: Input::Worker(told) }
}
