//! How positions stand in JSON: as texts, since they have 64 bits and a JavaScript number 53.

use kit::Position;
use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// A position as a text, for `#[serde(with = "wire::position")]`.
pub(crate) mod position {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(position)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_position(&text).ok_or_else(|| D::Error::custom("a position must be a text like \"42\""))
    }
}

/// Reads a position from a text.
pub(crate) fn parse_position(text: &str) -> Option<Position> {
    text.parse().ok().filter(|position: &i64| *position >= 0).map(Position)
}
