//! Whoever moves the money: the seam. A real provider takes the place of the simulated one here.

/// The simulated provider: its dice, its scripts, its writer loop.
mod simulated;

/// The simulated provider's ledger.
mod store;

pub use simulated::{Odds, SimulatedProvider, StartError};
pub use store::{Entry, EntryKind, read_ledger};

use contract::{Money, OrderId, events::DeclineReason};
use kit::{BoxFuture, Context};

use crate::domain::ProviderKey;

/// A charge: authorise and capture in one.
#[derive(Debug, Clone)]
pub struct Charge {
    /// The idempotency key.
    pub key: ProviderKey,
    /// For what.
    pub order_id: OrderId,
    /// How much.
    pub amount: Money,
    /// The order's context: a simulated provider looks its script up here.
    pub context: Context,
}

/// The return of a charge.
#[derive(Debug, Clone)]
pub struct Refund {
    /// The idempotency key.
    pub key: ProviderKey,
    /// The key of the charge that is returned.
    pub charge_key: ProviderKey,
    /// How much.
    pub amount: Money,
}

/// What came of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeAnswer {
    /// The money is taken.
    Succeeded,
    /// There is no money to be had.
    Declined(DeclineReason),
}

/// What came of a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundAnswer {
    /// The money is back.
    Succeeded,
}

/// What became of a charge that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusAnswer {
    /// The money is taken.
    Succeeded,
    /// There is no money to be had.
    Declined(DeclineReason),
    /// The charge never arrived.
    NotFound,
}

/// Why there is no answer. Whether the provider did what it was asked for is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It did not answer in time.
    #[error("the payment provider did not answer in time")]
    Timeout,
    /// It cannot be reached, or has a fault of its own (5xx).
    #[error("the payment provider is unavailable")]
    Unavailable,
}

/// Moves money. Idempotent by key: the same key acts once and gets the same answer.
pub trait Provider: Send + Sync {
    /// Takes money.
    fn charge(&self, charge: Charge) -> BoxFuture<'_, Result<ChargeAnswer, ProviderError>>;

    /// Says what became of the charge `key`.
    fn status(&self, key: ProviderKey) -> BoxFuture<'_, Result<StatusAnswer, ProviderError>>;

    /// Returns money.
    fn refund(&self, refund: Refund) -> BoxFuture<'_, Result<RefundAnswer, ProviderError>>;

    /// How much later, in milliseconds, the answer about `key` is to be heard. Zero for a provider that takes its own time; the
    /// simulated one answers at once and leaves the wait to a durable timer, which survives a crash.
    fn answers_after_ms(&self, _key: &ProviderKey) -> u64 {
        0
    }
}
