//! What the simulation observes of every service. Production has no observer.

use crate::EventId;

/// Something that a service did and the simulation checks.
#[derive(Debug, Clone)]
pub enum Observation {
    /// An incoming event was applied: its transaction is committed.
    Applied {
        /// The service.
        service: &'static str,
        /// The event's source.
        source: String,
        /// The event's id.
        id: EventId,
        /// The lane (the order).
        lane: String,
    },
    /// A command was acknowledged to its caller.
    Acknowledged {
        /// The service.
        service: &'static str,
        /// The entity.
        entity: String,
    },
}

/// Who watches.
pub trait Observer: Send + Sync + 'static {
    /// Takes note; must not block.
    fn observe(&self, observation: Observation);
}
