//! What the facts make of an order that is under way, whether or not its customer wants out meanwhile.

use contract::{Money, api::OrderStatus};

use super::{Fact, Refusal, Sale, Standing};

/// What a fact does to an order that is under way.
pub(super) enum Progress {
    /// Nothing: the fact is stale or repeated.
    Nowhere,
    /// It stands there now.
    To(Standing),
    /// The goods are with the customer.
    Delivered,
}

/// What `fact` does to an order that stands, or would stand, `at`.
///
/// The log gives every event after its cause and those of one service in sequence, so a fact that skips a step cannot be. An
/// attempt's number says whether a fact is stale. A delivery that is said to be completed is never taken for stale: goods that
/// change hands unnoticed are worse than a dead letter.
pub(super) fn follow(sale: &Sale, at: Standing, fact: &Fact) -> Result<Progress, Refusal> {
    let contradiction = Err(fact.contradicts(at.status()));
    match fact {
        Fact::PaymentAccepted { amount } => {
            fact.is_over_total(sale, *amount)?;
            match at {
                Standing::Pending => Ok(Progress::To(Standing::Confirmed { attempts_ended: 0 })),
                Standing::Confirmed { .. } | Standing::InDelivery { .. } | Standing::SearchExhausted { .. } => Ok(Progress::Nowhere),
                Standing::PaymentDeclined => contradiction,
            }
        }
        Fact::PaymentDeclined => match at {
            Standing::Pending => Ok(Progress::To(Standing::PaymentDeclined)),
            Standing::PaymentDeclined => Ok(Progress::Nowhere),
            Standing::Confirmed { .. } | Standing::InDelivery { .. } | Standing::SearchExhausted { .. } => contradiction,
        },
        Fact::DeliveryStarted { attempt } => match at {
            Standing::Confirmed { attempts_ended } if *attempt > attempts_ended => {
                Ok(Progress::To(Standing::InDelivery { attempt: *attempt }))
            }
            Standing::Confirmed { .. } => Ok(Progress::Nowhere),
            Standing::InDelivery { attempt: current } if *attempt <= current => Ok(Progress::Nowhere),
            Standing::SearchExhausted { attempts_ended } if *attempt <= attempts_ended => Ok(Progress::Nowhere),
            Standing::Pending | Standing::PaymentDeclined | Standing::InDelivery { .. } | Standing::SearchExhausted { .. } => contradiction,
        },
        Fact::DeliveryAborted { attempt } => match at {
            Standing::InDelivery { attempt: current } if *attempt == current => {
                Ok(Progress::To(Standing::Confirmed { attempts_ended: current }))
            }
            Standing::InDelivery { attempt: current } if *attempt < current => Ok(Progress::Nowhere),
            Standing::Confirmed { attempts_ended } | Standing::SearchExhausted { attempts_ended } if *attempt <= attempts_ended => {
                Ok(Progress::Nowhere)
            }
            Standing::Pending
            | Standing::PaymentDeclined
            | Standing::Confirmed { .. }
            | Standing::InDelivery { .. }
            | Standing::SearchExhausted { .. } => contradiction,
        },
        Fact::DeliveryCompleted { attempt } => match at {
            Standing::InDelivery { attempt: current } if *attempt == current => Ok(Progress::Delivered),
            Standing::Pending
            | Standing::PaymentDeclined
            | Standing::Confirmed { .. }
            | Standing::InDelivery { .. }
            | Standing::SearchExhausted { .. } => contradiction,
        },
        Fact::WorkerSearchExhausted => match at {
            Standing::Confirmed { attempts_ended } => Ok(Progress::To(Standing::SearchExhausted { attempts_ended })),
            Standing::SearchExhausted { .. } => Ok(Progress::Nowhere),
            Standing::Pending | Standing::PaymentDeclined | Standing::InDelivery { .. } => contradiction,
        },
        // The answer to an earlier request to cancel: the order went on because of it.
        Fact::DeliveryCancellationRefused { .. } => Ok(Progress::Nowhere),
        // Nobody has asked for these.
        Fact::DeliveryCancelled | Fact::PaymentRefunded { .. } | Fact::PaymentNothingTaken => contradiction,
    }
}

impl Standing {
    fn status(self) -> OrderStatus {
        match self {
            Self::Pending => OrderStatus::Pending,
            Self::Confirmed { .. } | Self::SearchExhausted { .. } => OrderStatus::Confirmed,
            Self::InDelivery { .. } => OrderStatus::InDelivery,
            Self::PaymentDeclined => OrderStatus::Cancelled,
        }
    }
}

impl Fact {
    /// The fact, by the name of the event that tells it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PaymentAccepted { .. } => "PaymentAccepted",
            Self::PaymentDeclined => "PaymentDeclined",
            Self::DeliveryStarted { .. } => "DeliveryStarted",
            Self::DeliveryAborted { .. } => "DeliveryAborted",
            Self::DeliveryCompleted { .. } => "DeliveryCompleted",
            Self::DeliveryCancelled => "DeliveryCancelled",
            Self::DeliveryCancellationRefused { .. } => "DeliveryCancellationRefused",
            Self::WorkerSearchExhausted => "WorkerSearchExhausted",
            Self::PaymentRefunded { .. } => "PaymentRefunded",
            Self::PaymentNothingTaken => "PaymentNothingTaken",
        }
    }

    pub(super) fn contradicts(&self, status: OrderStatus) -> Refusal {
        Refusal::Contradiction { fact: self.name(), status: status.as_str() }
    }

    /// Money moves for the whole order or not at all.
    pub(super) fn is_over_total(&self, sale: &Sale, amount: Money) -> Result<(), Refusal> {
        if amount == sale.total { Ok(()) } else { Err(Refusal::WrongAmount { fact: self.name(), found: amount, total: sale.total }) }
    }
}
