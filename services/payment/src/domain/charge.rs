//! Taking the money: what came of a charge, and asking when nothing did.

use contract::{
    Money, OrderId,
    events::{DeclineReason, PaymentAccepted, PaymentDeclined},
};
use kit::Timestamp;

use super::{Effect, Input, Operation, Payment, ProviderKey, Refusal, Reversal, Settings, Step, backoff_ms, refund};

/// The timer that asks the provider about a charge.
const ASK: &str = "ask";

pub(super) fn order_created(order_id: OrderId, state: Option<&Payment>, total: Money) -> Result<Step, Refusal> {
    let known = match state {
        None => return Ok(authorize(order_id, &Payment::Created { amount: total })),
        Some(Payment::NeverCharged) => return Ok(Step::nothing()),
        Some(Payment::Created { amount }) => *amount,
        Some(
            Payment::Authorizing { charge, .. }
            | Payment::Unknown { charge, .. }
            | Payment::Captured { charge }
            | Payment::Declined { charge, .. }
            | Payment::Refunding { charge, .. }
            | Payment::Refunded { charge, .. },
        ) => charge.amount,
    };
    if known == total { Ok(Step::nothing()) } else { Err(Refusal::OtherTotal { known, claimed: total }) }
}

/// Charges a payment that is `Created`; any other has been charged or never will be.
fn authorize(order_id: OrderId, payment: &Payment) -> Step {
    match payment {
        Payment::Created { amount } => {
            let charge = Operation { key: ProviderKey::of_charge(order_id, 1), amount: *amount, asks: 0 };
            let effect = Effect::Charge { order_id, key: charge.key.clone(), amount: *amount };
            Step::to(Payment::Authorizing { charge, reversal: Reversal::NotAsked }).perform(effect)
        }
        Payment::NeverCharged
        | Payment::Authorizing { .. }
        | Payment::Unknown { .. }
        | Payment::Captured { .. }
        | Payment::Declined { .. }
        | Payment::Refunding { .. }
        | Payment::Refunded { .. } => Step::nothing(),
    }
}

/// Looks at the provider's answer about the charge `key` only where the payment made that charge.
pub(super) fn of_charge(
    state: Option<&Payment>,
    key: &ProviderKey,
    decide: impl FnOnce(&Payment, Operation) -> Step,
) -> Result<Step, Refusal> {
    let payment = state.ok_or(Refusal::NeverCharged)?;
    let charge = payment.charge().ok_or(Refusal::NeverCharged)?;
    if charge.key == *key { Ok(decide(payment, charge.clone())) } else { Ok(Step::nothing()) }
}

pub(super) fn succeeded(order_id: OrderId, payment: &Payment, charge: Operation) -> Step {
    let amount = charge.amount;
    match payment {
        Payment::Authorizing { reversal, .. } | Payment::Unknown { reversal, .. } => match reversal {
            Reversal::NotAsked => Step::to(Payment::Captured { charge }),
            // It is true that the money was taken, and it goes back at once.
            Reversal::Owed | Reversal::Answered => refund::begin(order_id, charge, Reversal::Owed),
        }
        .emit(PaymentAccepted { amount })
        .cancel_timer(ASK),
        // The order has heard that no money could be had: what was taken after all is returned without further words.
        Payment::Declined { reversal, .. } => refund::begin(order_id, charge, *reversal),
        Payment::NeverCharged
        | Payment::Created { .. }
        | Payment::Captured { .. }
        | Payment::Refunding { .. }
        | Payment::Refunded { .. } => Step::nothing(),
    }
}

pub(super) fn declined(payment: &Payment, charge: Operation, reason: DeclineReason) -> Step {
    match payment {
        Payment::Authorizing { reversal, .. } | Payment::Unknown { reversal, .. } => {
            let reversal = match reversal {
                Reversal::NotAsked => Reversal::NotAsked,
                // An order that waits for its money hears that there is none: that is the answer.
                Reversal::Owed | Reversal::Answered => Reversal::Answered,
            };
            Step::to(Payment::Declined { charge, reason, reversal }).emit(PaymentDeclined { reason }).cancel_timer(ASK)
        }
        Payment::NeverCharged
        | Payment::Created { .. }
        | Payment::Captured { .. }
        | Payment::Declined { .. }
        | Payment::Refunding { .. }
        | Payment::Refunded { .. } => Step::nothing(),
    }
}

/// The charge never arrived: it is sent again, under the same key, because it may still be on its way.
pub(super) fn not_found(order_id: OrderId, payment: &Payment) -> Step {
    match payment {
        Payment::Unknown { charge, reversal } => {
            let effect = Effect::Charge { order_id, key: charge.key.clone(), amount: charge.amount };
            Step::to(Payment::Authorizing { charge: charge.clone(), reversal: *reversal }).perform(effect).cancel_timer(ASK)
        }
        Payment::NeverCharged
        | Payment::Created { .. }
        | Payment::Authorizing { .. }
        | Payment::Captured { .. }
        | Payment::Declined { .. }
        | Payment::Refunding { .. }
        | Payment::Refunded { .. } => Step::nothing(),
    }
}

pub(super) fn unknown(payment: &Payment, now: Timestamp, settings: &Settings) -> Step {
    match payment {
        Payment::Authorizing { charge, reversal } | Payment::Unknown { charge, reversal } => {
            let due = now.plus_ms(backoff_ms(charge.asks, settings));
            Step::to(Payment::Unknown { charge: charge.clone(), reversal: *reversal }).set_timer(ASK, due, Input::AskDue)
        }
        Payment::NeverCharged
        | Payment::Created { .. }
        | Payment::Captured { .. }
        | Payment::Declined { .. }
        | Payment::Refunding { .. }
        | Payment::Refunded { .. } => Step::nothing(),
    }
}

pub(super) fn ask_due(order_id: OrderId, state: Option<&Payment>) -> Step {
    match state {
        Some(Payment::Unknown { charge, reversal }) => {
            let effect = Effect::AskCharge { order_id, key: charge.key.clone() };
            let charge = Operation { asks: charge.asks.saturating_add(1), ..charge.clone() };
            Step::to(Payment::Unknown { charge, reversal: *reversal }).perform(effect)
        }
        None
        | Some(
            Payment::NeverCharged
            | Payment::Created { .. }
            | Payment::Authorizing { .. }
            | Payment::Captured { .. }
            | Payment::Declined { .. }
            | Payment::Refunding { .. }
            | Payment::Refunded { .. },
        ) => Step::nothing(),
    }
}
