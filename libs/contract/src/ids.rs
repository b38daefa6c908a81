//! Identifiers, one type for each thing they name.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An order, and everything that is done for it: its payment and its delivery carry the same id.
///
/// A UUIDv7 (RFC 9562, section 5.7), so that rows written together lie together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderId(Uuid);

impl OrderId {
    /// Takes an id that the caller made; the kit's id source is where new ones come from.
    pub fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The id's last eight digits: enough to tell orders apart on a screen, never to look one up.
    pub fn short(&self) -> String {
        let text = self.0.simple().to_string();
        text.get(24..).unwrap_or(&text).to_owned()
    }
}

/// A text that is not an identifier of the kind it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidId {
    text: String,
    expected: &'static str,
}

impl InvalidId {
    fn new(text: &str, expected: &'static str) -> Self {
        let text = text.chars().take(64).collect();
        Self { text, expected }
    }
}

impl FromStr for OrderId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let id = Uuid::try_parse(text).map_err(|_| InvalidId::new(text, "an order id (a UUID)"))?;
        // One spelling for each order: the id is a key in stores and in the log.
        if id.hyphenated().to_string() == text {
            Ok(Self(id))
        } else {
            Err(InvalidId::new(text, "an order id (a UUID in lower case, with hyphens)"))
        }
    }
}

impl JsonSchema for OrderId {
    fn schema_name() -> Cow<'static, str> {
        "OrderId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "uuid", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"})
    }
}

impl TryFrom<String> for OrderId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<OrderId> for String {
    fn from(id: OrderId) -> String {
        id.to_string()
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OrderId({self})")
    }
}

/// Declares an id that is a short lower-case name: 1 to 64 of `a` to `z`, `0` to `9` and `-`.
macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": "^[a-z0-9-]{1,64}$"})
            }
        }

        impl $name {
            /// The name as it is stored and sent.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId::new(text, $expected))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_id!(
    /// Who ordered: an opaque name that says nothing about the person.
    CustomerId,
    "a customer id (1 to 64 of a-z, 0-9 and -)"
);
name_id!(
    /// A product of the catalogue.
    ProductId,
    "a product id (1 to 64 of a-z, 0-9 and -)"
);
name_id!(
    /// Somebody who delivers orders.
    WorkerId,
    "a worker id (1 to 64 of a-z, 0-9 and -)"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_id_has_one_spelling() {
        let text = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(text.parse::<OrderId>().unwrap().to_string(), text);
        assert!(text.to_uppercase().parse::<OrderId>().is_err());
        assert!(text.replace('-', "").parse::<OrderId>().is_err());
        assert!("".parse::<OrderId>().is_err());
        assert!(serde_json::from_value::<OrderId>(serde_json::json!(text.to_uppercase())).is_err());
    }

    #[test]
    fn a_name_is_refused_when_it_is_empty_long_or_odd() {
        assert!("w-07".parse::<WorkerId>().is_ok());
        for bad in ["", "W7", "a b", "ä", "../x", &"a".repeat(65)] {
            assert!(bad.parse::<WorkerId>().is_err(), "{bad}");
            assert!(serde_json::from_value::<ProductId>(serde_json::json!(bad)).is_err(), "{bad}");
        }
    }
}
