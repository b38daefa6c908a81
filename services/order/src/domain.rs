//! An order as a pure state machine: what a command or a fact makes of it, and what happened then.
//!
//! Goods and money must never part. So cancelling asks in two steps: delivery first, and only when delivery is clear, payment.
//! While delivery is asked, the other facts go on being noted: the order may have to go on from where it would be by then.

/// What the facts make of an order that is under way.
mod progress;

/// The state, as it is stored.
mod state;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use contract::{
    CustomerId, Event, Money, OrderId,
    api::Recipient,
    events::{
        CancelReason, OrderCancellationRejected, OrderCancellationRequested, OrderCancelled, OrderCompleted, OrderCreated, OrderDeleted,
        OrderLine, PaymentReversalRequested, RefusalReason,
    },
};
use kit::{Timestamp, step};
use serde::{Deserialize, Serialize};

use progress::Progress;
pub use state::{End, Funds, Kept, Sale, Stage, Standing, State};

/// Names an order in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub OrderId);

/// What an order is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Command: a customer orders.
    Create(NewOrder),
    /// Command: the customer wants out.
    Cancel,
    /// Command: the personal data is to be erased.
    Delete,
    /// Another service says what happened.
    Happened(Fact),
}

/// What is ordered, by whom, for whom. The prices are the catalogue's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewOrder {
    /// Who orders.
    pub owner: CustomerId,
    /// What is ordered, at least one line.
    pub lines: Vec<OrderLine>,
    /// Where the goods go.
    pub recipient: Option<Recipient>,
    /// Which script the simulated parts follow.
    pub scenario: Option<String>,
}

/// What happened elsewhere to an order. Each may come twice and late; those of one service come in sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The funds are secured.
    PaymentAccepted {
        /// The secured amount.
        amount: Money,
    },
    /// No money could be had.
    PaymentDeclined,
    /// A worker is on the way.
    DeliveryStarted {
        /// The attempt, from 1.
        attempt: u32,
    },
    /// The worker gave up; another is sought.
    DeliveryAborted {
        /// The attempt that ended.
        attempt: u32,
    },
    /// The goods are with the customer.
    DeliveryCompleted {
        /// The attempt that succeeded.
        attempt: u32,
    },
    /// Nothing will be delivered.
    DeliveryCancelled,
    /// The delivery can no longer be called off.
    DeliveryCancellationRefused {
        /// Why.
        reason: RefusalReason,
    },
    /// No worker could be found.
    WorkerSearchExhausted,
    /// All that was captured went back.
    PaymentRefunded {
        /// What went back.
        amount: Money,
    },
    /// Payment holds no money of the order, and will not take any.
    PaymentNothingTaken,
}

/// An order does nothing in the world: all that it wants, it says in events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoEffect {}

/// Why an order does not do what it is told. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such order.
    #[error("there is no such order")]
    NotFound,
    /// Another order has this id.
    #[error("another order has this id")]
    IdTaken,
    /// Nothing is ordered.
    #[error("an order needs at least one line")]
    NoLines,
    /// The sum is more than can be counted.
    #[error("the order's total is too large")]
    TotalTooLarge,
    /// The goods are with the customer: there is nothing left to cancel.
    #[error("the order is already delivered")]
    AlreadyDelivered,
    /// An order that is under way cannot be deleted.
    #[error("the order is {}; only a completed or cancelled one can be deleted", .status)]
    NotEnded {
        /// Where it stands.
        status: &'static str,
    },
    /// The order's personal data is erased; it takes no more commands.
    #[error("the order is deleted")]
    Deleted,
    /// The fact cannot be: something that the order knows excludes it.
    #[error("{fact} contradicts an order that is {status}")]
    Contradiction {
        /// What is said to have happened.
        fact: &'static str,
        /// Where the order stands.
        status: &'static str,
    },
    /// The amount is not the order's total.
    #[error("{fact} over {found}, but the order's total is {total}")]
    WrongAmount {
        /// What is said to have happened.
        fact: &'static str,
        /// The amount it names.
        found: Money,
        /// What the order costs.
        total: Money,
    },
}

/// What an order answers to one input.
pub type Step = step::Step<Key, State, Input, Event, NoEffect>;

/// What `input` does to an order in `state`; none where there is no such order yet.
///
/// # Errors
/// A [`Refusal`]: a command that cannot be done, or a fact that cannot be. What is stale or repeated yields nothing instead.
pub fn decide(state: Option<&State>, input: &Input, now: Timestamp) -> Result<Step, Refusal> {
    match (state, input) {
        (None, Input::Create(new)) => create(new, now),
        (None, Input::Cancel | Input::Delete | Input::Happened(_)) => Err(Refusal::NotFound),
        (Some(State::Kept(kept)), Input::Create(new)) => create_again(&kept.sale, new),
        (Some(State::Kept(kept)), Input::Cancel) => cancel(kept),
        (Some(State::Kept(kept)), Input::Delete) => delete(kept),
        (Some(State::Kept(kept)), Input::Happened(fact)) => happened(kept, fact),
        (Some(State::Deleted { sale, .. }), Input::Create(new)) => create_again(sale, new),
        (Some(State::Deleted { .. }), Input::Cancel) => Err(Refusal::Deleted),
        (Some(State::Deleted { .. }), Input::Delete) => Ok(Step::nothing()),
        (Some(State::Deleted { sale, end }), Input::Happened(fact)) => after_end(sale, *end, fact),
    }
}

fn create(new: &NewOrder, now: Timestamp) -> Result<Step, Refusal> {
    let total = total(&new.lines)?;
    let sale = Sale { owner: new.owner.clone(), lines: new.lines.clone(), total, created_at: now, scenario: new.scenario.clone() };
    let kept = Kept { sale, recipient: new.recipient.clone(), stage: Stage::Pending };
    Ok(Step::to(State::Kept(kept)).emit(OrderCreated { lines: new.lines.clone(), total }))
}

fn create_again(sale: &Sale, new: &NewOrder) -> Result<Step, Refusal> {
    if sale.owner == new.owner && sale.lines == new.lines { Ok(Step::nothing()) } else { Err(Refusal::IdTaken) }
}

/// What the lines cost together.
fn total(lines: &[OrderLine]) -> Result<Money, Refusal> {
    let first = lines.first().ok_or(Refusal::NoLines)?;
    lines
        .iter()
        .try_fold(Money::zero(first.unit_price.currency()), |sum, line| sum.plus(line.unit_price.times(line.quantity)?))
        .map_err(|_| Refusal::TotalTooLarge)
}

fn cancel(kept: &Kept) -> Result<Step, Refusal> {
    match kept.stage {
        Stage::Pending => Ok(ask_delivery(kept, Standing::Pending)),
        Stage::Confirmed { attempts_ended } => Ok(ask_delivery(kept, Standing::Confirmed { attempts_ended })),
        Stage::InDelivery { attempt } => Ok(ask_delivery(kept, Standing::InDelivery { attempt })),
        Stage::Cancelling { .. } | Stage::Reversing { .. } | Stage::Cancelled { .. } => Ok(Step::nothing()),
        Stage::Completed => Err(Refusal::AlreadyDelivered),
    }
}

fn ask_delivery(kept: &Kept, from: Standing) -> Step {
    kept.moves_to(Stage::Cancelling { from }).emit(OrderCancellationRequested {})
}

fn delete(kept: &Kept) -> Result<Step, Refusal> {
    let end = match kept.stage {
        Stage::Completed => End::Completed,
        Stage::Cancelled { reason } => End::Cancelled { reason },
        Stage::Pending | Stage::Confirmed { .. } | Stage::InDelivery { .. } | Stage::Cancelling { .. } | Stage::Reversing { .. } => {
            return Err(Refusal::NotEnded { status: kept.stage.status().as_str() });
        }
    };
    Ok(Step::to(State::Deleted { sale: kept.sale.clone(), end }).emit(OrderDeleted {}).erase())
}

fn happened(kept: &Kept, fact: &Fact) -> Result<Step, Refusal> {
    match kept.stage {
        Stage::Pending => go_on(kept, Standing::Pending, fact),
        Stage::Confirmed { attempts_ended } => go_on(kept, Standing::Confirmed { attempts_ended }, fact),
        Stage::InDelivery { attempt } => go_on(kept, Standing::InDelivery { attempt }, fact),
        Stage::Cancelling { from } => while_cancelling(kept, from, fact),
        Stage::Reversing { reason, funds } => while_reversing(kept, reason, funds, fact),
        Stage::Completed => after_end(&kept.sale, End::Completed, fact),
        Stage::Cancelled { reason } => after_end(&kept.sale, End::Cancelled { reason }, fact),
    }
}

/// Nobody wants out: the order follows the facts.
fn go_on(kept: &Kept, at: Standing, fact: &Fact) -> Result<Step, Refusal> {
    let now_at = match progress::follow(&kept.sale, at, fact)? {
        Progress::Nowhere => return Ok(Step::nothing()),
        Progress::Delivered => return Ok(kept.moves_to(Stage::Completed).emit(completed(&kept.sale))),
        Progress::To(standing) => standing,
    };
    Ok(match now_at {
        Standing::Pending => kept.moves_to(Stage::Pending),
        Standing::Confirmed { attempts_ended } => kept.moves_to(Stage::Confirmed { attempts_ended }),
        Standing::InDelivery { attempt } => kept.moves_to(Stage::InDelivery { attempt }),
        Standing::PaymentDeclined => {
            let reason = CancelReason::PaymentDeclined;
            kept.moves_to(Stage::Cancelled { reason }).emit(OrderCancelled { reason })
        }
        Standing::SearchExhausted { .. } => ask_payment(kept, CancelReason::NoWorker, Funds::Secured),
    })
}

/// Delivery has been asked and has the word; all other facts are only noted.
fn while_cancelling(kept: &Kept, from: Standing, fact: &Fact) -> Result<Step, Refusal> {
    match fact {
        Fact::DeliveryCancelled => Ok(ask_payment(kept, CancelReason::CustomerRequest, from.funds())),
        Fact::DeliveryCancellationRefused { reason } => {
            let stage = match from {
                Standing::Pending => Stage::Pending,
                Standing::Confirmed { attempts_ended } => Stage::Confirmed { attempts_ended },
                Standing::InDelivery { attempt } => Stage::InDelivery { attempt },
                // There is nothing to go back to, and nothing that could be too late to call off.
                Standing::PaymentDeclined | Standing::SearchExhausted { .. } => return Err(fact.contradicts(kept.stage.status())),
            };
            Ok(kept.moves_to(stage).emit(OrderCancellationRejected { reason: *reason }))
        }
        Fact::PaymentAccepted { .. }
        | Fact::PaymentDeclined
        | Fact::DeliveryStarted { .. }
        | Fact::DeliveryAborted { .. }
        | Fact::DeliveryCompleted { .. }
        | Fact::WorkerSearchExhausted
        | Fact::PaymentRefunded { .. }
        | Fact::PaymentNothingTaken => Ok(match progress::follow(&kept.sale, from, fact)? {
            Progress::Nowhere => Step::nothing(),
            Progress::To(from) => kept.moves_to(Stage::Cancelling { from }),
            Progress::Delivered => kept
                .moves_to(Stage::Completed)
                .emit(OrderCancellationRejected { reason: RefusalReason::AlreadyDelivered })
                .emit(completed(&kept.sale)),
        }),
    }
}

fn ask_payment(kept: &Kept, reason: CancelReason, funds: Funds) -> Step {
    kept.moves_to(Stage::Reversing { reason, funds }).emit(PaymentReversalRequested { reason })
}

/// Delivery is clear and payment has been asked: the order ends with payment's answer.
fn while_reversing(kept: &Kept, reason: CancelReason, funds: Funds, fact: &Fact) -> Result<Step, Refusal> {
    let cancelled = || kept.moves_to(Stage::Cancelled { reason }).emit(OrderCancelled { reason });
    let contradiction = || Err(fact.contradicts(kept.stage.status()));
    match fact {
        // Accepted only now: payment knows that it is to go back. The order notes that there is money to wait for.
        Fact::PaymentAccepted { amount } => {
            fact.is_over_total(&kept.sale, *amount)?;
            match funds {
                Funds::Unsettled => Ok(kept.moves_to(Stage::Reversing { reason, funds: Funds::Secured })),
                Funds::Secured => Ok(Step::nothing()),
                Funds::Declined => contradiction(),
            }
        }
        Fact::PaymentDeclined => match funds {
            Funds::Unsettled => Ok(cancelled()),
            Funds::Declined => Ok(Step::nothing()),
            Funds::Secured => contradiction(),
        },
        // Secured money does not become "nothing": it must be said to have gone back.
        Fact::PaymentNothingTaken => match funds {
            Funds::Unsettled | Funds::Declined => Ok(cancelled()),
            Funds::Secured => contradiction(),
        },
        Fact::PaymentRefunded { amount } => {
            fact.is_over_total(&kept.sale, *amount)?;
            Ok(cancelled())
        }
        Fact::DeliveryStarted { .. }
        | Fact::DeliveryAborted { .. }
        | Fact::DeliveryCancelled
        | Fact::DeliveryCancellationRefused { .. }
        | Fact::WorkerSearchExhausted => Ok(Step::nothing()),
        Fact::DeliveryCompleted { .. } => contradiction(),
    }
}

/// The order has ended: nothing moves it any more. What could have happened on the way is stale, all else cannot be.
fn after_end(sale: &Sale, end: End, fact: &Fact) -> Result<Step, Refusal> {
    let contradiction = Err(fact.contradicts(end.status()));
    match (fact, end) {
        (Fact::PaymentAccepted { amount }, End::Completed) => fact.is_over_total(sale, *amount).map(|()| Step::nothing()),
        (Fact::PaymentAccepted { amount }, End::Cancelled { reason }) => match reason {
            CancelReason::PaymentDeclined => contradiction,
            CancelReason::CustomerRequest | CancelReason::NoWorker => fact.is_over_total(sale, *amount).map(|()| Step::nothing()),
        },
        (
            Fact::DeliveryStarted { .. }
            | Fact::DeliveryAborted { .. }
            | Fact::DeliveryCompleted { .. }
            | Fact::DeliveryCancellationRefused { .. },
            End::Completed,
        ) => Ok(Step::nothing()),
        (
            Fact::PaymentDeclined
            | Fact::PaymentRefunded { .. }
            | Fact::PaymentNothingTaken
            | Fact::DeliveryCancelled
            | Fact::WorkerSearchExhausted,
            End::Completed,
        ) => contradiction,
        (Fact::DeliveryCompleted { .. }, End::Cancelled { .. }) => contradiction,
        (Fact::DeliveryStarted { .. } | Fact::DeliveryAborted { .. } | Fact::WorkerSearchExhausted, End::Cancelled { reason }) => {
            match reason {
                CancelReason::PaymentDeclined => contradiction,
                CancelReason::CustomerRequest | CancelReason::NoWorker => Ok(Step::nothing()),
            }
        }
        (
            Fact::PaymentDeclined
            | Fact::PaymentRefunded { .. }
            | Fact::PaymentNothingTaken
            | Fact::DeliveryCancelled
            | Fact::DeliveryCancellationRefused { .. },
            End::Cancelled { .. },
        ) => Ok(Step::nothing()),
    }
}

fn completed(sale: &Sale) -> OrderCompleted {
    OrderCompleted { lines: sale.lines.clone(), total: sale.total }
}
