//! How times stand in JSON: as RFC 3339 texts.

use kit::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A time as RFC 3339 text, for `#[serde(with = "wire::time")]`.
pub(crate) mod time {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time.to_rfc3339())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::from_rfc3339(&text).ok_or_else(|| D::Error::custom("a time must be a text like \"2026-01-31T12:00:00Z\""))
    }
}

/// The same, where there may be none.
pub(crate) mod optional_time {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(Timestamp::to_rfc3339).serialize(serializer)
    }
}
