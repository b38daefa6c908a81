//! The order service. It owns orders and the catalogue: it creates orders, follows what payment and delivery say of them, and
//! ends them. It never moves money or goods itself, and it is the only place where personal data is kept.

/// What the shop sells, and for how much.
pub mod catalogue;

/// An order as a pure state machine.
pub mod domain;

/// Which input each incoming event means.
mod reactions;

/// The table of orders, and the queries that lists are made of.
mod store;

/// Orders over HTTP.
mod http;

use contract::Event;
use kit::{
    BoxFuture, Context, Envelope, Machine, Timestamp,
    machine::{self, Column, EventDraft, OutcomeOf, StepOf, Table, Unprocessable},
    planted::{self, Bug},
};

pub use domain::{Key, State};
pub use http::{describe, order_id, router};

/// The order service's core, as the kit runs it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Orders;

impl Machine for Orders {
    type Key = Key;
    type State = State;
    type Input = domain::Input;
    type Event = Event;
    type Effect = domain::NoEffect;
    type Refusal = domain::Refusal;

    const NAME: &'static str = "order";
    const TABLES: &'static [Table] = store::TABLES;
    const MIGRATIONS: &'static [&'static str] = store::MIGRATIONS;
    const SUBSCRIBES: &'static [&'static str] = reactions::SUBSCRIBES;

    fn decide(&self, _: &Key, state: Option<&State>, input: &domain::Input, now: Timestamp) -> Result<StepOf<Self>, domain::Refusal> {
        let step = domain::decide(state, input, now)?;
        // Only the simulation plants this: money that goes back while the goods may still be on the way, which it must notice.
        if planted::is_planted(Bug::RefundBeforeClear) && is_accepted_cancel(&step) {
            let reason = contract::events::CancelReason::CustomerRequest;
            return Ok(step.emit(contract::events::PaymentReversalRequested { reason }));
        }
        Ok(step)
    }

    fn index(state: &State) -> Vec<Column> {
        let sale = state.sale();
        vec![
            Column::Text(sale.owner.as_str().to_owned()),
            Column::Text(state.status().as_str().to_owned()),
            Column::Int(sale.created_at.as_ms()),
        ]
    }

    fn draft(event: &Event) -> Result<EventDraft, serde_json::Error> {
        Ok(EventDraft { ty: event.wire_type(), data: event.data()? })
    }

    fn react(&self, event: &Envelope) -> Result<Option<(Key, domain::Input)>, Unprocessable> {
        reactions::react(event)
    }

    fn perform(&self, effect: domain::NoEffect, _: Context) -> BoxFuture<'_, Vec<OutcomeOf<Self>>> {
        match effect {}
    }
}

fn is_accepted_cancel(step: &domain::Step) -> bool {
    step.events.iter().any(|emission| matches!(emission.event, Event::OrderCancellationRequested(_)))
}

impl machine::Key for Key {
    fn table(&self) -> &'static str {
        store::TABLE
    }

    fn id(&self) -> String {
        self.0.to_string()
    }

    fn parse(table: &str, id: &str) -> Option<Self> {
        if table == store::TABLE { id.parse().ok().map(Self) } else { None }
    }
}
