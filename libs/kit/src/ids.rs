//! Identifiers of events and the source of new ones.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::Timestamp;

/// The id of an event: unique within its source (CloudEvents 1.0, section 3.1). Ours are UUIDv7 texts; others' may be any text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(String);

impl EventId {
    /// Takes a text as it came.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An event's place in the log: from 1, rising, with gaps allowed. Zero is before the first event. In JSON it is a text, since many
/// readers of JSON know no whole numbers past 2^53; a number is read as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub i64);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// The next place.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PositionVisitor)
    }
}

struct PositionVisitor;

impl de::Visitor<'_> for PositionVisitor {
    type Value = Position;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position: a whole number from 0, as a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Position, E> {
        // Digits alone: the parser would take a sign too.
        let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok()).map(Position).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Position, E> {
        if number < 0 {
            return Err(E::invalid_value(de::Unexpected::Signed(number), &self));
        }
        Ok(Position(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Position, E> {
        i64::try_from(number).map(Position).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }
}

/// Where new ids and all chance of the shell come from: the operating system in production, a seed in tests and the simulation.
pub struct Ids(Mutex<StdRng>);

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

impl Ids {
    /// Ids that nobody can guess.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn from_system() -> Result<Self, rand::rngs::SysError> {
        Ok(Self(Mutex::new(StdRng::try_from_rng(&mut rand::rngs::SysRng)?)))
    }

    /// Ids that follow from `seed`: the same every time.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// A new UUIDv7 (RFC 9562, section 5.7) of the time `now`.
    pub fn uuid_v7(&self, now: Timestamp) -> Uuid {
        let mut random = [0; 10];
        self.fill(&mut random);
        let ms = u64::try_from(now.as_ms()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
    }

    /// A new event id.
    pub fn event_id(&self, now: Timestamp) -> EventId {
        EventId(self.uuid_v7(now).hyphenated().to_string())
    }

    /// A whole number from 0 to `max`, both included: jitter.
    pub fn up_to(&self, max: u64) -> u64 {
        let mut random = [0; 8];
        self.fill(&mut random);
        match max.checked_add(1) {
            Some(count) => u64::from_le_bytes(random) % count,
            None => u64::from_le_bytes(random),
        }
    }

    /// Fills `bytes` with chance.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_written_as_a_text_and_read_as_a_number_too_and_is_never_below_zero() {
        assert_eq!(serde_json::to_string(&Position(i64::MAX)).unwrap(), r#""9223372036854775807""#);
        for (json, expected) in [(r#""12""#, 12), ("12", 12), (r#""0""#, 0), ("0", 0)] {
            assert_eq!(serde_json::from_str::<Position>(json).unwrap(), Position(expected), "{json}");
        }
        for bad in [r#""-1""#, "-1", r#""+1""#, r#""""#, r#""12 ""#, r#""1e3""#, "1.0", "9223372036854775808", "null", "true"] {
            assert!(serde_json::from_str::<Position>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_ids_and_they_sort_by_time() {
        let (a, b) = (Ids::seeded(7), Ids::seeded(7));
        let early = Timestamp::from_ms(1_000);
        assert_eq!(a.event_id(early), b.event_id(early));
        let first = a.uuid_v7(early);
        assert!(first < a.uuid_v7(Timestamp::from_ms(2_000)));
        assert_eq!(first.get_version_num(), 7);
    }
}
