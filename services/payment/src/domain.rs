//! The states of a payment and how it goes from one to the next. Pure: no IO, no clock, no dice.
//!
//! The capture policy is *at order*: authorise and capture are one charge. What the provider did not answer is `Unknown`, never
//! "failed", and is asked for by the key that the charge was made with.

use contract::{Event, Money, OrderId, events::DeclineReason};
use kit::Timestamp;
use serde::{Deserialize, Serialize};

/// Taking the money.
mod charge;

/// Returning the money.
mod refund;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// What payment answers to one input.
pub type Step = kit::Step<Key, Payment, Input, Event, Effect>;

/// Names a payment: each order has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub OrderId);

/// How long payment waits for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a call of the provider may take, in milliseconds.
    pub provider_timeout_ms: u64,
    /// How long to wait before asking the provider the first time, in milliseconds; doubled each time.
    pub ask_backoff_ms: u64,
    /// The longest wait before asking again, in milliseconds. Asking never ends: the money is somewhere.
    pub ask_backoff_ms_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { provider_timeout_ms: 10_000, ask_backoff_ms: 500, ask_backoff_ms_max: 30_000 }
    }
}

/// The provider's idempotency key of one operation on one order: under it the provider acts once, however often it is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProviderKey(String);

impl ProviderKey {
    /// The key of the charge of `order_id` in its `attempt`, from 1. Stored and sent; never change how it is made.
    pub fn of_charge(order_id: OrderId, attempt: u32) -> Self {
        Self(format!("charge-{order_id}-{attempt}"))
    }

    /// The key of the refund of `order_id` in its `attempt`, from 1. Stored and sent; never change how it is made.
    pub fn of_refund(order_id: OrderId, attempt: u32) -> Self {
        Self(format!("refund-{order_id}-{attempt}"))
    }

    /// Takes a key as the provider's ledger has it.
    pub fn from_ledger(text: String) -> Self {
        Self(text)
    }

    /// The key as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A call of the provider that is or was under way, and its key: stored before the first call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The provider's key.
    pub key: ProviderKey,
    /// How much.
    pub amount: Money,
    /// How often the provider had to be asked again, so that the waits grow.
    pub asks: u32,
}

/// Whether the order asked for its money back, and what it has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reversal {
    /// Nobody asked.
    NotAsked,
    /// The order waits for the answer.
    Owed,
    /// The order was answered: once, for good.
    Answered,
}

/// A payment. Stored as JSON; old rows must stay readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Payment {
    /// A reversal came before the order: a tombstone, so that the order is never charged.
    NeverCharged,
    /// The order is known. This capture policy charges at once, so the state is left in the step that enters it.
    Created {
        /// What is to be paid.
        amount: Money,
    },
    /// The provider is being asked for the money.
    Authorizing {
        /// The charge.
        charge: Operation,
        /// Whether the money is to go back as soon as it is there.
        reversal: Reversal,
    },
    /// The provider did not answer: it may or may not have the money, and is asked by key until it says which.
    Unknown {
        /// The charge.
        charge: Operation,
        /// Whether the money is to go back as soon as it is there.
        reversal: Reversal,
    },
    /// The money is taken.
    Captured {
        /// The charge.
        charge: Operation,
    },
    /// No money could be had.
    Declined {
        /// The charge.
        charge: Operation,
        /// Why.
        reason: DeclineReason,
        /// Whether the order asked for its money back nevertheless.
        reversal: Reversal,
    },
    /// The money is on its way back.
    Refunding {
        /// The charge.
        charge: Operation,
        /// The refund.
        refund: Operation,
        /// Whether the order waits for it: a charge that succeeded after all goes back although nobody asked.
        reversal: Reversal,
    },
    /// The money went back.
    Refunded {
        /// The charge.
        charge: Operation,
        /// Whether the order asked for it.
        reversal: Reversal,
    },
}

/// What a payment is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// There is an order to be paid.
    OrderCreated {
        /// What it costs.
        total: Money,
    },
    /// The order comes to nothing: return what was taken, take nothing any more.
    ReversalRequested,
    /// The provider has the money.
    ChargeSucceeded {
        /// The charge's key.
        key: ProviderKey,
    },
    /// The provider gets no money.
    ChargeDeclined {
        /// The charge's key.
        key: ProviderKey,
        /// Why.
        reason: DeclineReason,
    },
    /// The provider does not know the charge: it never arrived there.
    ChargeNotFound {
        /// The charge's key.
        key: ProviderKey,
    },
    /// The provider did not answer.
    ChargeUnknown {
        /// The charge's key.
        key: ProviderKey,
    },
    /// A timer: ask the provider about the charge.
    AskDue,
    /// The money went back.
    RefundSucceeded {
        /// The refund's key.
        key: ProviderKey,
    },
    /// The provider did not answer.
    RefundUnknown {
        /// The refund's key.
        key: ProviderKey,
    },
    /// A timer: repeat the refund under its key.
    RefundDue,
}

/// What is done at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Take money.
    Charge {
        /// Whose.
        order_id: OrderId,
        /// The charge's key.
        key: ProviderKey,
        /// How much.
        amount: Money,
    },
    /// Ask what became of a charge.
    AskCharge {
        /// Whose.
        order_id: OrderId,
        /// The charge's key.
        key: ProviderKey,
    },
    /// Return money.
    Refund {
        /// Whose.
        order_id: OrderId,
        /// The refund's key.
        key: ProviderKey,
        /// The key of the charge that took it.
        charge_key: ProviderKey,
        /// How much.
        amount: Money,
    },
}

impl Effect {
    /// The order that it is done for.
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::Charge { order_id, .. } | Self::AskCharge { order_id, .. } | Self::Refund { order_id, .. } => *order_id,
        }
    }

    /// The key that it is done under.
    pub fn key(&self) -> &ProviderKey {
        match self {
            Self::Charge { key, .. } | Self::AskCharge { key, .. } | Self::Refund { key, .. } => key,
        }
    }
}

/// A contradiction: it can never be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The order was created before, with another total.
    #[error("the order's payment is of {known}, not of {claimed}")]
    OtherTotal {
        /// What the payment is of.
        known: Money,
        /// What the order now claims.
        claimed: Money,
    },
    /// The provider speaks of a charge that was never made.
    #[error("the order was never charged")]
    NeverCharged,
}

impl Payment {
    /// The state's name. Stored; never rename.
    pub fn status(&self) -> &'static str {
        match self {
            Self::NeverCharged => "never_charged",
            Self::Created { .. } => "created",
            Self::Authorizing { .. } => "authorizing",
            Self::Unknown { .. } => "unknown",
            Self::Captured { .. } => "captured",
            Self::Declined { .. } => "declined",
            Self::Refunding { .. } => "refunding",
            Self::Refunded { .. } => "refunded",
        }
    }

    fn charge(&self) -> Option<&Operation> {
        match self {
            Self::NeverCharged | Self::Created { .. } => None,
            Self::Authorizing { charge, .. }
            | Self::Unknown { charge, .. }
            | Self::Captured { charge }
            | Self::Declined { charge, .. }
            | Self::Refunding { charge, .. }
            | Self::Refunded { charge, .. } => Some(charge),
        }
    }
}

/// What `input` does to the payment `key` whose state is `state`.
///
/// # Errors
/// A [`Refusal`] where the input contradicts the state; one that is late or repeated does nothing.
pub fn decide(key: Key, state: Option<&Payment>, input: &Input, now: Timestamp, settings: &Settings) -> Result<Step, Refusal> {
    let Key(order_id) = key;
    match input {
        Input::OrderCreated { total } => charge::order_created(order_id, state, *total),
        Input::ReversalRequested => Ok(refund::reversal_requested(order_id, state)),
        Input::ChargeSucceeded { key } => charge::of_charge(state, key, |payment, charge| charge::succeeded(order_id, payment, charge)),
        Input::ChargeDeclined { key, reason } => {
            charge::of_charge(state, key, |payment, charge| charge::declined(payment, charge, *reason))
        }
        Input::ChargeNotFound { key } => charge::of_charge(state, key, |payment, _| charge::not_found(order_id, payment)),
        Input::ChargeUnknown { key } => charge::of_charge(state, key, |payment, _| charge::unknown(payment, now, settings)),
        Input::AskDue => Ok(charge::ask_due(order_id, state)),
        Input::RefundSucceeded { key } => Ok(refund::succeeded(state, key)),
        Input::RefundUnknown { key } => Ok(refund::unknown(state, key, now, settings)),
        Input::RefundDue => Ok(refund::due(order_id, state)),
    }
}

/// How long to wait before asking for the time after `asks`.
fn backoff_ms(asks: u32, settings: &Settings) -> u64 {
    let doubled = 2_u64.saturating_pow(asks).saturating_mul(settings.ask_backoff_ms);
    doubled.min(settings.ask_backoff_ms_max)
}
