//! Small durable state beside the log: compare-and-set, and leases for whoever must be alone.

use std::time::Duration;

use kit::Timestamp;

use super::EngineError;

/// A piece of state, with the version that a change of it must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    /// Its name.
    pub key: String,
    /// JSON text.
    pub value: String,
    /// Counts its changes, from 1.
    pub version: i64,
}

/// A change of one piece of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePut {
    /// Its name.
    pub key: String,
    /// The new JSON text; none deletes it.
    pub value: Option<String>,
    /// The version that it has now, zero when it must not be there; none when another change of the same write guards it, and its own
    /// version does not matter.
    pub expected_version: Option<i64>,
}

/// Somebody wants to be the only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// What is leased.
    pub name: String,
    /// Who asks.
    pub holder: String,
    /// For how long; zero gives it back.
    pub ttl: Duration,
}

/// A lease that was given. It ends by itself; what was written under it is guarded by its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What is leased.
    pub name: String,
    /// Rises each time that the lease is given to somebody, and stays when its holder renews it in time.
    pub token: i64,
    /// When it ends, by the engine's clock.
    pub until: Timestamp,
}

impl Lease {
    /// What a write names so that it is refused once the lease was given to somebody else.
    pub fn fence(&self) -> Fence {
        Fence { name: self.name.clone(), token: self.token }
    }
}

/// Guards a write: it is refused when the lease `name` has another token than this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// What is leased.
    pub name: String,
    /// The token that the writer was given.
    pub token: i64,
}

/// A lease as an engine keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) holder: String,
    pub(crate) token: i64,
    pub(crate) until: Timestamp,
}

impl Held {
    /// What becomes of the lease when `request` comes at `now`.
    pub(crate) fn next(before: Option<&Self>, request: &LeaseRequest, now: Timestamp) -> Result<Self, EngineError> {
        let token = match before {
            Some(Self { holder, until, .. }) if *until > now && *holder != request.holder => {
                return Err(EngineError::LeaseHeld { name: request.name.clone(), holder: holder.clone(), until: *until });
            }
            // In time: nobody else can have had it.
            Some(held) if held.until > now => held.token,
            Some(held) => held.token.saturating_add(1),
            None => 1,
        };
        let until = now.plus_ms(u64::try_from(request.ttl.as_millis()).unwrap_or(u64::MAX));
        Ok(Self { holder: request.holder.clone(), token, until })
    }
}
