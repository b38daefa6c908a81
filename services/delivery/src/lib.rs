//! Owns deliveries and workers: dispatches each paid order until one worker completes it, or nobody can be found.
//!
//! It makes offers that expire, never gives an order to two workers, and is the one that decides whether an order can still be
//! called off. It never takes money, and knows no address.

/// The states of deliveries and workers and how they go from one to the next. Pure.
pub mod domain;

/// The tables of deliveries and workers.
mod store;

/// What each incoming event means to a delivery.
mod reactions;

/// The simulated workers.
pub mod couriers;

#[cfg(test)]
mod tests;

pub use couriers::{Odds, employ};

use std::{path::Path, sync::Arc};

use contract::Event;
use kit::{
    BoxFuture, Context, Envelope, Environment, Lifecycle, Machine, Service, Timestamp,
    chance::{Chance, Pace},
    machine::{Column, EventDraft, Outcome, Reaction, Table},
    service::SubmitError,
    store::StoreError,
    transport::Publisher,
};

use crate::{
    couriers::Couriers,
    domain::{Effect, Input, Key, Refusal, Settings, State, Step},
};

/// The delivery service's front door.
pub struct Deliveries {
    couriers: Couriers,
    settings: Settings,
}

impl Deliveries {
    /// Deliveries by simulated workers.
    pub fn new(chance: Chance, pace: Pace, odds: Odds, settings: Settings) -> Self {
        Self { couriers: Couriers::new(chance, pace, odds), settings }
    }
}

/// The demo's limits at `pace`: nobody is hurried who was slowed down.
pub fn settings_at(pace: Pace) -> Settings {
    let demo = Settings::default();
    Settings { offer_ms: pace.deadline_ms(demo.offer_ms), search_ms: pace.deadline_ms(demo.search_ms), ..demo }
}

/// Why delivery cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The workers cannot be employed.
    #[error("workers cannot be employed: {0}")]
    Workers(#[from] SubmitError<Refusal>),
}

/// Starts the service with `workers` simulated workers.
///
/// # Errors
/// When the store cannot be used, or the service stops while it starts.
pub async fn start(
    machine: Deliveries,
    workers: u32,
    folder: &Path,
    environment: &Environment,
    publisher: Arc<dyn Publisher>,
    lifecycle: &Lifecycle,
) -> Result<Service<Deliveries>, StartError> {
    let service = Service::start(machine, folder, environment, publisher, lifecycle)?;
    let handle = service.handle();
    handle.machine().couriers.open(handle, workers, lifecycle);
    employ(handle, workers).await?;
    Ok(service)
}

impl Machine for Deliveries {
    type Key = Key;
    type State = State;
    type Input = Input;
    type Event = Event;
    type Effect = Effect;
    type Refusal = Refusal;

    const NAME: &'static str = "delivery";
    const TABLES: &'static [Table] = store::TABLES;
    const MIGRATIONS: &'static [&'static str] = store::MIGRATIONS;
    const SUBSCRIBES: &'static [&'static str] = reactions::SUBSCRIBES;

    fn decide(&self, key: &Key, state: Option<&State>, input: &Input, now: Timestamp) -> Result<Step, Refusal> {
        domain::decide(key, state, input, now, &self.settings)
    }

    fn index(state: &State) -> Vec<Column> {
        store::index(state)
    }

    fn draft(event: &Event) -> Result<EventDraft, serde_json::Error> {
        Ok(EventDraft { ty: event.wire_type(), data: event.data()? })
    }

    fn react(&self, event: &Envelope) -> Reaction<Key, Input> {
        reactions::react(event)
    }

    fn perform(&self, effect: Effect, context: Context) -> BoxFuture<'_, Vec<Outcome<Key, Input>>> {
        Box::pin(self.couriers.perform(effect, context))
    }
}
