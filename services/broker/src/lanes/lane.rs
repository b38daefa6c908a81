//! The names of lanes.

use std::{fmt, ops::RangeInclusive, sync::Arc};

use kit::Position;
use serde::{Deserialize, Serialize};

/// What keeps its events in sequence; see [`kit::Envelope::lane`]. An event that is redriven after its lane went on stands alone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Lane {
    name: Arc<str>,
    /// The one event that it is about; [`Position::START`], which no event has, when it is about all of them.
    alone: Position,
}

impl Lane {
    /// The lane called `name`.
    pub fn new(name: &str) -> Self {
        Self { name: Arc::from(name), alone: Position::START }
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The event at `position`, by itself.
    pub(super) fn apart(&self, position: Position) -> Self {
        Self { name: self.name.clone(), alone: position }
    }

    /// The lane as a whole, and every event of it that stands by itself.
    pub(super) fn family(&self) -> RangeInclusive<Self> {
        self.whole()..=self.apart(Position(i64::MAX))
    }

    /// Whether it is one event by itself.
    pub(super) fn is_apart(&self) -> bool {
        self.alone != Position::START
    }

    /// The lane as a whole.
    pub(super) fn whole(&self) -> Self {
        Self { name: self.name.clone(), alone: Position::START }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.alone {
            Position::START => fmt::Debug::fmt(&self.name, f),
            position => write!(f, "{:?} at {position}", self.name),
        }
    }
}

impl From<String> for Lane {
    fn from(name: String) -> Self {
        Self { name: Arc::from(name), alone: Position::START }
    }
}

impl From<Lane> for String {
    fn from(lane: Lane) -> Self {
        lane.as_str().to_owned()
    }
}
