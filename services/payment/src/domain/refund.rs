//! Returning the money: when the order asks for it, or when a declined charge succeeded after all.

use contract::{
    OrderId,
    events::{NothingTakenReason, PaymentNothingTaken, PaymentRefunded},
};
use kit::Timestamp;

use super::{Effect, Input, Operation, Payment, ProviderKey, Reversal, Settings, Step, backoff_ms};

/// The timer that repeats a refund.
const REFUND: &str = "refund";

pub(super) fn reversal_requested(order_id: OrderId, state: Option<&Payment>) -> Step {
    let Some(payment) = state else {
        return Step::to(Payment::NeverCharged).emit(PaymentNothingTaken { reason: NothingTakenReason::NeverCharged });
    };
    match payment.clone() {
        Payment::Created { .. } => Step::to(Payment::NeverCharged).emit(PaymentNothingTaken { reason: NothingTakenReason::NeverCharged }),
        // The answer is the provider's: it is remembered that the order waits for it.
        Payment::Authorizing { charge, reversal: Reversal::NotAsked } => {
            Step::to(Payment::Authorizing { charge, reversal: Reversal::Owed })
        }
        Payment::Unknown { charge, reversal: Reversal::NotAsked } => Step::to(Payment::Unknown { charge, reversal: Reversal::Owed }),
        Payment::Captured { charge } => begin(order_id, charge, Reversal::Owed),
        Payment::Declined { charge, reason, reversal: Reversal::NotAsked } => {
            Step::to(Payment::Declined { charge, reason, reversal: Reversal::Answered })
                .emit(PaymentNothingTaken { reason: NothingTakenReason::Declined })
        }
        Payment::Refunding { charge, refund, reversal: Reversal::NotAsked } => {
            Step::to(Payment::Refunding { charge, refund, reversal: Reversal::Owed })
        }
        Payment::Refunded { charge, reversal: Reversal::NotAsked } => {
            let amount = charge.amount;
            Step::to(Payment::Refunded { charge, reversal: Reversal::Answered }).emit(PaymentRefunded { amount })
        }
        Payment::NeverCharged
        | Payment::Authorizing { .. }
        | Payment::Unknown { .. }
        | Payment::Declined { .. }
        | Payment::Refunding { .. }
        | Payment::Refunded { .. } => Step::nothing(),
    }
}

pub(super) fn begin(order_id: OrderId, charge: Operation, reversal: Reversal) -> Step {
    let refund = Operation { key: ProviderKey::of_refund(order_id, 1), amount: charge.amount, asks: 0 };
    let effect = refund_effect(order_id, &charge, &refund);
    Step::to(Payment::Refunding { charge, refund, reversal }).perform(effect)
}

fn refund_effect(order_id: OrderId, charge: &Operation, refund: &Operation) -> Effect {
    Effect::Refund { order_id, key: refund.key.clone(), charge_key: charge.key.clone(), amount: refund.amount }
}

/// The payment as it is while the refund `key` is under way.
fn refunding<'a>(state: Option<&'a Payment>, key: Option<&ProviderKey>) -> Option<(&'a Operation, &'a Operation, Reversal)> {
    match state {
        Some(Payment::Refunding { charge, refund, reversal }) => {
            key.is_none_or(|key| refund.key == *key).then_some((charge, refund, *reversal))
        }
        None
        | Some(
            Payment::NeverCharged
            | Payment::Created { .. }
            | Payment::Authorizing { .. }
            | Payment::Unknown { .. }
            | Payment::Captured { .. }
            | Payment::Declined { .. }
            | Payment::Refunded { .. },
        ) => None,
    }
}

pub(super) fn succeeded(state: Option<&Payment>, key: &ProviderKey) -> Step {
    let Some((charge, refund, reversal)) = refunding(state, Some(key)) else { return Step::nothing() };
    let (charge, amount) = (charge.clone(), refund.amount);
    let step = match reversal {
        Reversal::NotAsked | Reversal::Answered => Step::to(Payment::Refunded { charge, reversal }),
        Reversal::Owed => Step::to(Payment::Refunded { charge, reversal: Reversal::Answered }).emit(PaymentRefunded { amount }),
    };
    step.cancel_timer(REFUND)
}

pub(super) fn unknown(state: Option<&Payment>, key: &ProviderKey, now: Timestamp, settings: &Settings) -> Step {
    let Some((_, refund, _)) = refunding(state, Some(key)) else { return Step::nothing() };
    Step::nothing().set_timer(REFUND, now.plus_ms(backoff_ms(refund.asks, settings)), Input::RefundDue)
}

pub(super) fn due(order_id: OrderId, state: Option<&Payment>) -> Step {
    let Some((charge, refund, reversal)) = refunding(state, None) else { return Step::nothing() };
    let effect = refund_effect(order_id, charge, refund);
    let refund = Operation { asks: refund.asks.saturating_add(1), ..refund.clone() };
    Step::to(Payment::Refunding { charge: charge.clone(), refund, reversal }).perform(effect)
}
