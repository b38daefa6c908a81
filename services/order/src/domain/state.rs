//! The state of an order. Stored as JSON: old rows must stay readable, so never rename what is here.

use contract::{
    CustomerId, Money,
    api::{OrderStatus, Recipient},
    events::{CancelReason, OrderLine},
};
use kit::Timestamp;
use serde::{Deserialize, Serialize};

use super::Step;

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is under way or has ended, and its personal data is there.
    Kept(Kept),
    /// It has ended, and its personal data is erased; what was sold stays for the books.
    Deleted {
        /// What was sold.
        sale: Sale,
        /// How it ended.
        end: End,
    },
}

/// An order whose personal data is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What is sold.
    pub sale: Sale,
    /// Where the goods go: personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Recipient>,
    /// Where the order stands.
    pub stage: Stage,
}

/// What is sold, to whom, for how much: fixed when the order is created, and free of personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sale {
    /// Who ordered.
    pub owner: CustomerId,
    /// What was ordered, at least one line.
    pub lines: Vec<OrderLine>,
    /// The sum of the lines.
    pub total: Money,
    /// When.
    pub created_at: Timestamp,
    /// Which script the simulated parts follow: nothing to an order, which keeps it for the events that later commands lead to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<String>,
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Stage {
    /// Waiting for the payment.
    Pending,
    /// Paid; a worker is sought.
    Confirmed {
        /// The latest attempt to deliver that ended; 0 before the first.
        attempts_ended: u32,
    },
    /// A worker is on the way.
    InDelivery {
        /// The attempt, from 1.
        attempt: u32,
    },
    /// The customer wants out; delivery is asked.
    Cancelling {
        /// Where the order would be otherwise.
        from: Standing,
    },
    /// Delivery is clear; payment is asked to return what it holds.
    Reversing {
        /// Why the order ends.
        reason: CancelReason,
        /// What is known of the money.
        funds: Funds,
    },
    /// Delivered and paid; final.
    Completed,
    /// Ended without goods and without payment; final.
    Cancelled {
        /// Why.
        reason: CancelReason,
    },
}

/// Where an order stands, or would stand if its customer did not want out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Standing {
    /// Waiting for the payment.
    Pending,
    /// No money could be had.
    PaymentDeclined,
    /// Paid; a worker is sought.
    Confirmed {
        /// The latest attempt to deliver that ended; 0 before the first.
        attempts_ended: u32,
    },
    /// A worker is on the way.
    InDelivery {
        /// The attempt, from 1.
        attempt: u32,
    },
    /// Paid; no worker could be found.
    SearchExhausted {
        /// The latest attempt to deliver that ended; 0 before the first.
        attempts_ended: u32,
    },
}

/// What an order knows of its money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Funds {
    /// Payment has not said yet.
    Unsettled,
    /// Payment had it: it must go back.
    Secured,
    /// Payment could not have it.
    Declined,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum End {
    /// Delivered and paid.
    Completed,
    /// Without goods and without payment.
    Cancelled {
        /// Why.
        reason: CancelReason,
    },
}

impl State {
    /// What is, or was, sold.
    pub fn sale(&self) -> &Sale {
        match self {
            Self::Kept(kept) => &kept.sale,
            Self::Deleted { sale, end: _ } => sale,
        }
    }

    /// Where the goods go; nothing once it is erased.
    pub fn recipient(&self) -> Option<&Recipient> {
        match self {
            Self::Kept(kept) => kept.recipient.as_ref(),
            Self::Deleted { .. } => None,
        }
    }

    /// The status that clients see.
    pub fn status(&self) -> OrderStatus {
        match self {
            Self::Kept(kept) => kept.stage.status(),
            Self::Deleted { .. } => OrderStatus::Deleted,
        }
    }

    /// Why the order is being, or was, cancelled.
    pub fn cancel_reason(&self) -> Option<CancelReason> {
        match self {
            Self::Kept(kept) => match kept.stage {
                Stage::Pending | Stage::Confirmed { .. } | Stage::InDelivery { .. } | Stage::Completed => None,
                Stage::Cancelling { .. } => Some(CancelReason::CustomerRequest),
                Stage::Reversing { reason, .. } | Stage::Cancelled { reason } => Some(reason),
            },
            Self::Deleted { end: End::Completed, .. } => None,
            Self::Deleted { end: End::Cancelled { reason }, .. } => Some(*reason),
        }
    }
}

impl Kept {
    /// The order, otherwise as it is, stands at `stage` now.
    pub(super) fn moves_to(&self, stage: Stage) -> Step {
        Step::to(State::Kept(Self { sale: self.sale.clone(), recipient: self.recipient.clone(), stage }))
    }
}

impl Stage {
    /// The status that clients see.
    pub fn status(self) -> OrderStatus {
        match self {
            Self::Pending => OrderStatus::Pending,
            Self::Confirmed { .. } => OrderStatus::Confirmed,
            Self::InDelivery { .. } => OrderStatus::InDelivery,
            Self::Cancelling { .. } => OrderStatus::Cancelling,
            Self::Reversing { .. } => OrderStatus::Reversing,
            Self::Completed => OrderStatus::Completed,
            Self::Cancelled { .. } => OrderStatus::Cancelled,
        }
    }
}

impl Standing {
    /// What an order that stands here knows of its money.
    pub(super) fn funds(self) -> Funds {
        match self {
            Self::Pending => Funds::Unsettled,
            Self::PaymentDeclined => Funds::Declined,
            Self::Confirmed { .. } | Self::InDelivery { .. } | Self::SearchExhausted { .. } => Funds::Secured,
        }
    }
}

impl End {
    /// The status that clients saw when the order had ended.
    pub fn status(self) -> OrderStatus {
        match self {
            Self::Completed => OrderStatus::Completed,
            Self::Cancelled { .. } => OrderStatus::Cancelled,
        }
    }
}
