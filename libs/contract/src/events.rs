//! The events that the services emit, by the names of the trade.
//!
//! Every event concerns one order: the order's id is the CloudEvents `subject` and is not repeated in the data.
//! Stored for ever in logs: a version never changes its shape; a new shape is a new version beside the old one.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, de::Error as _};
use serde_json::value::RawValue;

use crate::{Money, OrderId, ProductId, WorkerId, ids::InvalidId};

/// Declares the events once: name, wire type, emitter, payload.
macro_rules! events {
    ($($(#[doc = $doc:literal])* $name:ident by $source:literal as $wire:literal),+ $(,)?) => {
        /// Something that happened to an order.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event {
            $($(#[doc = $doc])* $name($name)),+
        }

        $(impl From<$name> for Event {
            fn from(data: $name) -> Self {
                Event::$name(data)
            }
        })+

        /// Every event's wire type and the service that emits it, in the order in which a happy order meets them.
        pub const CATALOGUE: &[(&str, &str)] = &[$(($wire, $source)),+];

        /// Every event's wire type, what it says, and the schema of its data: that of what is sent, or of what is read, as `generator` is set.
        pub fn schemas(generator: &mut SchemaGenerator) -> Vec<(&'static str, &'static str, Schema)> {
            vec![$(($wire, concat!($($doc),*).trim_ascii(), generator.subschema_for::<$name>())),+]
        }

        impl Event {
            /// The CloudEvents `type`, e.g. `cascade.OrderCreated.v1`.
            pub fn wire_type(&self) -> &'static str {
                match self { $(Event::$name(_) => $wire),+ }
            }

            /// The event's bare name, e.g. `OrderCreated`.
            pub fn name(&self) -> &'static str {
                match self { $(Event::$name(_) => stringify!($name)),+ }
            }

            /// The CloudEvents `source` of the one service that may emit it, e.g. `/order`.
            pub fn source(&self) -> &'static str {
                match self { $(Event::$name(_) => $source),+ }
            }

            /// The event's `data` as JSON text.
            ///
            /// # Errors
            /// When the data has no JSON form, which no event of the catalogue can come to.
            pub fn data(&self) -> Result<Box<RawValue>, serde_json::Error> {
                match self { $(Event::$name(data) => serde_json::value::to_raw_value(data)),+ }
            }

            /// Reads the data of an event of the wire type `wire_type`.
            ///
            /// # Errors
            /// [`UnreadableEvent::UnknownType`] for a type that is not in the catalogue, [`UnreadableEvent::BadData`] for data
            /// that is not of the type's shape. Unknown fields are accepted: a newer emitter may say more.
            pub fn read(wire_type: &str, data: Option<&RawValue>) -> Result<Self, UnreadableEvent> {
                let data = data.map_or("null", RawValue::get);
                let bad = |error: serde_json::Error| UnreadableEvent::BadData { wire_type: wire_type.to_owned(), reason: error.to_string() };
                // serde would also read a struct from the array of its fields.
                if data.starts_with('[') {
                    return Err(UnreadableEvent::BadData { wire_type: wire_type.to_owned(), reason: String::from("it must be an object") });
                }
                match wire_type {
                    $($wire => serde_json::from_str(data).map(Event::$name).map_err(bad),)+
                    _ => Err(UnreadableEvent::UnknownType(wire_type.chars().take(128).collect())),
                }
            }
        }
    };
}

events! {
    /// A customer ordered.
    OrderCreated by "/order" as "cascade.OrderCreated.v1",
    /// The funds are secured.
    PaymentAccepted by "/payment" as "cascade.PaymentAccepted.v1",
    /// No money could be had.
    PaymentDeclined by "/payment" as "cascade.PaymentDeclined.v1",
    /// Delivery looks for a worker.
    WorkerSearchStarted by "/delivery" as "cascade.WorkerSearchStarted.v1",
    /// A worker was found and has been offered the job.
    WorkerSearchCompleted by "/delivery" as "cascade.WorkerSearchCompleted.v1",
    /// The worker takes the job.
    WorkerAcceptedJob by "/delivery" as "cascade.WorkerAcceptedJob.v1",
    /// The worker does not take the job; another is sought.
    WorkerDeclinedJob by "/delivery" as "cascade.WorkerDeclinedJob.v1",
    /// The worker did not answer in time; another is sought.
    WorkerOfferExpired by "/delivery" as "cascade.WorkerOfferExpired.v1",
    /// The offer was taken back because the order is being cancelled.
    WorkerOfferWithdrawn by "/delivery" as "cascade.WorkerOfferWithdrawn.v1",
    /// No worker could be found within the limits; the money goes back.
    WorkerSearchExhausted by "/delivery" as "cascade.WorkerSearchExhausted.v1",
    /// The worker is on the way.
    DeliveryStarted by "/delivery" as "cascade.DeliveryStarted.v1",
    /// The worker gave up; another is sought.
    DeliveryAborted by "/delivery" as "cascade.DeliveryAborted.v1",
    /// The goods are with the customer.
    DeliveryCompleted by "/delivery" as "cascade.DeliveryCompleted.v1",
    /// Nothing will be delivered; the goods are where they were.
    DeliveryCancelled by "/delivery" as "cascade.DeliveryCancelled.v1",
    /// It is too late to call the delivery off.
    DeliveryCancellationRefused by "/delivery" as "cascade.DeliveryCancellationRefused.v1",
    /// The customer wants out; delivery is asked first.
    OrderCancellationRequested by "/order" as "cascade.OrderCancellationRequested.v1",
    /// The order goes on although the customer wanted out.
    OrderCancellationRejected by "/order" as "cascade.OrderCancellationRejected.v1",
    /// Delivery is clear of the order: payment is to return what it holds.
    PaymentReversalRequested by "/order" as "cascade.PaymentReversalRequested.v1",
    /// All that was captured went back.
    PaymentRefunded by "/payment" as "cascade.PaymentRefunded.v1",
    /// The answer to a reversal where no money was held.
    PaymentNothingTaken by "/payment" as "cascade.PaymentNothingTaken.v1",
    /// The order ended without goods and without payment; final.
    OrderCancelled by "/order" as "cascade.OrderCancelled.v1",
    /// The order ended with the goods delivered and paid; final.
    OrderCompleted by "/order" as "cascade.OrderCompleted.v1",
    /// The order's personal data is erased.
    OrderDeleted by "/order" as "cascade.OrderDeleted.v1",
}

impl Event {
    /// Reads an event of an order as it came over the wire: from the one service that may emit it, about the order in `subject`.
    ///
    /// # Errors
    /// See [`UnreadableEvent`]. A forged source is refused here, whoever let it through before.
    pub fn of_order(
        source: &str,
        wire_type: &str,
        subject: Option<&str>,
        data: Option<&RawValue>,
    ) -> Result<(OrderId, Self), UnreadableEvent> {
        let event = Self::read(wire_type, data)?;
        if source != event.source() {
            return Err(UnreadableEvent::ForeignSource { source_name: source.chars().take(128).collect(), name: event.name() });
        }
        let order_id = subject.unwrap_or_default().parse().map_err(UnreadableEvent::NoOrder)?;
        Ok((order_id, event))
    }
}

/// Why an event cannot be read as one of the shop's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableEvent {
    /// No event of the catalogue has this type.
    #[error("event type `{0}` is not one of the shop's")]
    UnknownType(String),
    /// The data is not of the type's shape.
    #[error("data of `{wire_type}` cannot be read: {reason}")]
    BadData {
        /// The CloudEvents type that the data should fit.
        wire_type: String,
        /// What does not fit.
        reason: String,
    },
    /// Another service emits events of this type.
    #[error("`{source_name}` does not emit {name}")]
    ForeignSource {
        /// Who claims to have emitted it.
        source_name: String,
        /// The event's bare name.
        name: &'static str,
    },
    /// The subject is not an order.
    #[error("subject: {0}")]
    NoOrder(InvalidId),
}

/// One product on an order, at the price it had when it was ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderLine {
    /// What was ordered.
    pub product_id: ProductId,
    /// How many pieces, at least 1.
    #[schemars(range(min = 1))]
    pub quantity: u32,
    /// The price of one piece.
    pub unit_price: Money,
}

/// Data of `cascade.OrderCreated.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCreated {
    /// What was ordered, at least one line.
    #[schemars(length(min = 1))]
    pub lines: Vec<OrderLine>,
    /// What is to be paid: the sum of the lines.
    pub total: Money,
}

/// Data of `cascade.PaymentAccepted.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentAccepted {
    /// The secured amount: the order's total.
    pub amount: Money,
}

/// Data of `cascade.PaymentDeclined.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentDeclined {
    /// Why no money could be had.
    pub reason: DeclineReason,
}

/// Why a payment was declined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeclineReason {
    /// The card's issuer said no.
    CardDeclined,
    /// The card has not enough money behind it.
    InsufficientFunds,
}

/// Data of `cascade.WorkerSearchStarted.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerSearchStarted {
    /// The number of this search for the order, from 1.
    #[schemars(range(min = 1))]
    pub search: u32,
}

/// Data of `cascade.WorkerSearchCompleted.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerSearchCompleted {
    /// Who is offered the job.
    pub worker_id: WorkerId,
    /// The number of this offer for the order, from 1.
    #[schemars(range(min = 1))]
    pub offer: u32,
    /// When the offer ends, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
}

/// Declares payloads that name an offer and its worker.
macro_rules! offer_payload {
    ($($name:ident),+) => {$(
        #[doc = concat!("Data of `cascade.", stringify!($name), ".v1`.")]
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub struct $name {
            /// Whose offer it was.
            pub worker_id: WorkerId,
            /// The number of the offer for the order, from 1.
    #[schemars(range(min = 1))]
            pub offer: u32,
        }
    )+};
}

offer_payload!(WorkerAcceptedJob, WorkerDeclinedJob, WorkerOfferExpired, WorkerOfferWithdrawn);

/// Data of `cascade.WorkerSearchExhausted.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerSearchExhausted {
    /// How many offers were made.
    pub offers: u32,
    /// Which limit was reached.
    pub reason: ExhaustedReason,
}

/// Which limit ended the search for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExhaustedReason {
    /// The search took too long.
    Deadline,
    /// Too many offers were made.
    TooManyOffers,
}

/// Data of `cascade.DeliveryStarted.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryStarted {
    /// Who delivers.
    pub worker_id: WorkerId,
    /// The number of this attempt for the order, from 1: the fencing token of all that follows.
    #[schemars(range(min = 1))]
    pub attempt: u32,
}

/// Data of `cascade.DeliveryAborted.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryAborted {
    /// Who gave up.
    pub worker_id: WorkerId,
    /// The attempt that ended.
    pub attempt: u32,
    /// Why.
    pub reason: AbortReason,
}

/// Why a delivery attempt ended before the goods were delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AbortReason {
    /// The worker gave the job back.
    GaveUp,
}

/// Data of `cascade.DeliveryCompleted.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryCompleted {
    /// Who delivered.
    pub worker_id: WorkerId,
    /// The attempt that succeeded.
    pub attempt: u32,
}

/// Data of `cascade.DeliveryCancelled.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryCancelled {}

/// Data of `cascade.DeliveryCancellationRefused.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryCancellationRefused {
    /// Why it is too late.
    pub reason: RefusalReason,
}

/// Why a delivery can no longer be called off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// The goods are with the customer.
    AlreadyDelivered,
}

/// Data of `cascade.OrderCancellationRequested.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCancellationRequested {}

/// Data of `cascade.OrderCancellationRejected.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCancellationRejected {
    /// Why the order goes on.
    pub reason: RefusalReason,
}

/// Data of `cascade.PaymentReversalRequested.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentReversalRequested {
    /// Why the money goes back.
    pub reason: CancelReason,
}

/// Data of `cascade.PaymentRefunded.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentRefunded {
    /// What went back: all that was captured.
    pub amount: Money,
}

/// Data of `cascade.PaymentNothingTaken.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentNothingTaken {
    /// Why there is nothing to return.
    pub reason: NothingTakenReason,
}

/// Why payment holds no money of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NothingTakenReason {
    /// The payment had been declined before.
    Declined,
    /// Payment had not heard of the order, and will not charge it any more.
    NeverCharged,
}

/// Data of `cascade.OrderCancelled.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCancelled {
    /// Why the order ended without goods.
    pub reason: CancelReason,
}

/// Why an order ends without goods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// The customer asked for it.
    CustomerRequest,
    /// No money could be had.
    PaymentDeclined,
    /// No worker could be found.
    NoWorker,
}

/// Data of `cascade.OrderCompleted.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCompleted {
    /// What was delivered.
    pub lines: Vec<OrderLine>,
    /// What was paid.
    pub total: Money,
}

/// Data of `cascade.OrderDeleted.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderDeleted {}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let data = self.data().map_err(serde::ser::Error::custom)?;
        (self.wire_type(), data).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (wire_type, data) = <(String, Box<RawValue>)>::deserialize(deserializer)?;
        Event::read(&wire_type, Some(&data)).map_err(D::Error::custom)
    }
}
