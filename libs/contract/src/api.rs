//! The bodies of HTTP requests and answers, as the public API sends them.

use std::{fmt, marker::PhantomData};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    Money, OrderId, ProductId,
    events::{CancelReason, OrderLine},
};

/// The most lines that one order may have.
pub const ORDER_LINES_MAX: usize = 50;
/// The most pieces that one line may ask for.
pub const LINE_QUANTITY_MAX: u32 = 1_000;
/// The longest name, address or note, in bytes.
pub const RECIPIENT_TEXT_BYTES_MAX: usize = 500;

/// A text without control characters, as a pattern.
const TEXT: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// The body of `POST /api/orders`. Prices are the server's: a client names products and quantities only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// What is ordered: 1 to 50 lines.
    #[serde(deserialize_with = "objects")]
    #[schemars(length(min = 1, max = ORDER_LINES_MAX))]
    pub lines: Vec<NewOrderLine>,
    /// Where the goods go; personal data, kept by the order service alone.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_object")]
    pub recipient: Option<Recipient>,
}

/// One line of a new order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOrderLine {
    /// A product of the catalogue.
    pub product_id: ProductId,
    /// 1 to 1,000 pieces.
    #[schemars(range(min = 1, max = LINE_QUANTITY_MAX))]
    pub quantity: u32,
}

/// Who receives an order. Each text is at most 500 bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// The person's name.
    #[schemars(length(max = RECIPIENT_TEXT_BYTES_MAX), pattern(TEXT))]
    pub name: String,
    /// Street, town, country.
    #[schemars(length(max = RECIPIENT_TEXT_BYTES_MAX), pattern(TEXT))]
    pub address: String,
    /// What the worker should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = RECIPIENT_TEXT_BYTES_MAX), pattern(TEXT))]
    pub note: Option<String>,
}

/// Personal data does not end up in logs by accident.
impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recipient(…)")
    }
}

/// A product as `GET /api/products` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProductView {
    /// Its id.
    pub product_id: ProductId,
    /// What it is called.
    pub name: String,
    /// What one piece costs.
    pub price: Money,
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Waiting for the payment.
    Pending,
    /// Paid; a worker is sought.
    Confirmed,
    /// A worker is on the way.
    InDelivery,
    /// The customer wants out; delivery is asked.
    Cancelling,
    /// Delivery is clear; the money goes back.
    Reversing,
    /// Delivered and paid; final.
    Completed,
    /// Ended without goods and without payment; final.
    Cancelled,
    /// Ended, and its personal data erased.
    Deleted,
}

impl OrderStatus {
    /// The status as it stands in JSON and in the store's index column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::InDelivery => "in_delivery",
            Self::Cancelling => "cancelling",
            Self::Reversing => "reversing",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Deleted => "deleted",
        }
    }

    /// Whether nothing more will happen by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Deleted)
    }
}

/// An order as the API shows it to its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderView {
    /// Its id.
    pub order_id: OrderId,
    /// Where it stands.
    pub status: OrderStatus,
    /// What the customer is waiting for when the order is being cancelled, in plain words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Why it is being, or was, cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_reason: Option<CancelReason>,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
    /// What it costs.
    pub total: Money,
    /// Where the goods go; shown to the owner only, gone once the order is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Recipient>,
    /// When it was created (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// How often it changed: rises with every change.
    pub version: i64,
    /// Where to go on from here.
    pub links: OrderLinks,
}

/// Paths of an order. Each may carry a `share` token, which lets its bearer read this one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderLinks {
    /// The order itself.
    #[serde(rename = "self")]
    pub order: String,
    /// Its events, in sequence.
    pub events: String,
    /// Its events as they happen: server-sent events, or a WebSocket.
    pub live: String,
    /// A page for people.
    pub page: String,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    /// The page's items, newest first.
    pub items: Vec<T>,
    /// Give this as `after` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What `GET /scenario/{n}` (as JSON) and `POST /api/scenarios/{n}/runs` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioRun {
    /// The order that the run created.
    pub order_id: OrderId,
    /// The run's id; for a scenario of one order it is the order's id.
    pub run: String,
    /// Where to watch it.
    pub links: OrderLinks,
}

/// What is read from a JSON object only: serde would also read a struct from the array of its fields.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Object<T>>::deserialize(deserializer)?.into_iter().map(|object| object.0).collect())
}

fn optional_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|object| object.0))
}
