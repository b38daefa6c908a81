//! Owns payments: cashes in what an order costs, and returns it when the order comes to nothing.
//!
//! It asks a payment provider, behind the seam in [`provider`], and never takes money twice: the provider's idempotency key is
//! stored before the first call, and an answer that did not come is asked for by that key. It never delivers, never cancels an
//! order, and holds no card data.

/// The states of a payment and how it goes from one to the next. Pure.
pub mod domain;

/// The table of payments.
mod store;

/// What each incoming event means to a payment.
mod reactions;

/// Whoever moves the money: the seam, and the simulated provider with its ledger.
pub mod provider;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use contract::Event;
use kit::{
    BoxFuture, Context, Envelope, Machine, Timestamp,
    machine::{Column, EventDraft, Outcome, Reaction, Table},
};

use crate::{
    domain::{Effect, Input, Key, Payment, ProviderKey, Refusal, Settings, Step},
    provider::{Charge, ChargeAnswer, Provider, ProviderError, Refund, RefundAnswer, StatusAnswer},
};

/// The payment service's front door.
pub struct Payments {
    provider: Arc<dyn Provider>,
    settings: Settings,
}

impl Payments {
    /// Payments that `provider` carries out.
    pub fn new(provider: Arc<dyn Provider>, settings: Settings) -> Self {
        Self { provider, settings }
    }

    async fn charge(&self, charge: Charge) -> Input {
        let key = charge.key.clone();
        match self.in_time(self.provider.charge(charge)).await {
            Ok(ChargeAnswer::Succeeded) => Input::ChargeSucceeded { key },
            Ok(ChargeAnswer::Declined(reason)) => Input::ChargeDeclined { key, reason },
            Err(error) => {
                tracing::warn!(key = key.as_str(), %error, "no answer to a charge; asking for it by its key");
                Input::ChargeUnknown { key }
            }
        }
    }

    async fn ask(&self, key: ProviderKey) -> Input {
        match self.in_time(self.provider.status(key.clone())).await {
            Ok(StatusAnswer::Succeeded) => Input::ChargeSucceeded { key },
            Ok(StatusAnswer::Declined(reason)) => Input::ChargeDeclined { key, reason },
            Ok(StatusAnswer::NotFound) => Input::ChargeNotFound { key },
            Err(error) => {
                tracing::warn!(key = key.as_str(), %error, "no answer about a charge; asking again later");
                Input::ChargeUnknown { key }
            }
        }
    }

    async fn refund(&self, refund: Refund) -> Input {
        let key = refund.key.clone();
        match self.in_time(self.provider.refund(refund)).await {
            Ok(RefundAnswer::Succeeded) => Input::RefundSucceeded { key },
            Err(error) => {
                tracing::warn!(key = key.as_str(), %error, "no answer to a refund; repeating it under its key later");
                Input::RefundUnknown { key }
            }
        }
    }

    /// A provider that does not answer in time may still have done what it was asked for.
    async fn in_time<T>(&self, call: BoxFuture<'_, Result<T, ProviderError>>) -> Result<T, ProviderError> {
        let limit = Duration::from_millis(self.settings.provider_timeout_ms);
        tokio::time::timeout(limit, call).await.unwrap_or(Err(ProviderError::Timeout))
    }
}

impl Machine for Payments {
    type Key = Key;
    type State = Payment;
    type Input = Input;
    type Event = Event;
    type Effect = Effect;
    type Refusal = Refusal;

    const NAME: &'static str = "payment";
    const TABLES: &'static [Table] = store::TABLES;
    const MIGRATIONS: &'static [&'static str] = store::MIGRATIONS;
    const SUBSCRIBES: &'static [&'static str] = reactions::SUBSCRIBES;

    fn decide(&self, key: &Key, state: Option<&Payment>, input: &Input, now: Timestamp) -> Result<Step, Refusal> {
        domain::decide(*key, state, input, now, &self.settings)
    }

    fn index(state: &Payment) -> Vec<Column> {
        store::index(state)
    }

    fn draft(event: &Event) -> Result<EventDraft, serde_json::Error> {
        Ok(EventDraft { ty: event.wire_type(), data: event.data()? })
    }

    fn react(&self, event: &Envelope) -> Reaction<Key, Input> {
        reactions::react(event)
    }

    fn perform(&self, effect: Effect, context: Context) -> BoxFuture<'_, Vec<Outcome<Key, Input>>> {
        Box::pin(async move {
            let (order_id, key) = (effect.order_id(), effect.key().clone());
            let input = match effect {
                Effect::Charge { order_id, key, amount } => self.charge(Charge { key, order_id, amount, context }).await,
                Effect::AskCharge { key, .. } => self.ask(key).await,
                Effect::Refund { key, charge_key, amount, .. } => self.refund(Refund { key, charge_key, amount }).await,
            };
            vec![Outcome { key: Key(order_id), after_ms: self.provider.answers_after_ms(&key), input }]
        })
    }
}
