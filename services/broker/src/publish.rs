//! Who may publish what, and the way in for services of the same process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kit::{
    BoxFuture, Envelope,
    transport::{PublishError, Publisher},
};

use crate::{
    engine::{AppendError, Appended, LogEngine},
    retention::Valve,
};

/// Which service may publish which types of events, over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishRights(BTreeMap<String, BTreeSet<String>>);

/// Why a service may not publish an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// It names another service as its source.
    #[error("service `{service}` may publish as `/{service}` only")]
    ForeignSource {
        /// The service.
        service: String,
    },
    /// The type belongs to another service.
    #[error("service `{service}` may not publish `{ty}`")]
    ForeignType {
        /// The service.
        service: String,
        /// The type.
        ty: String,
    },
    /// It belongs to a service of the shop, whatever a token says.
    #[error("the {attribute} `{value}` belongs to a service of the shop")]
    Reserved {
        /// What of the event.
        attribute: &'static str,
        /// What it says.
        value: String,
    },
    /// Nobody publishes this type.
    #[error("`{ty}` is not a type of event that is known here")]
    UnknownType {
        /// The type.
        ty: String,
    },
}

impl PublishRights {
    /// Nobody may publish anything, yet.
    pub fn none() -> Self {
        Self::default()
    }

    /// And the service `service` may publish `types`.
    #[must_use]
    pub fn allow(mut self, service: &str, types: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.entry(service.to_owned()).or_default().extend(types.into_iter().map(Into::into));
        self
    }

    /// The services that may publish something: those of the shop.
    pub(crate) fn services(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// Whether `name` is a service of the shop.
    pub(crate) fn is_of_the_shop(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The types that services of the shop publish.
    pub(crate) fn types(&self) -> impl Iterator<Item = &str> {
        self.0.values().flatten().map(String::as_str)
    }

    /// Whether `service` may publish `event`.
    ///
    /// # Errors
    /// See [`NotAllowed`].
    pub fn check(&self, service: &str, event: &Envelope) -> Result<(), NotAllowed> {
        let service_name = || service.to_owned();
        if event.source.strip_prefix('/') != Some(service) {
            return Err(NotAllowed::ForeignSource { service: service_name() });
        }
        if self.0.get(service).is_some_and(|types| types.contains(&event.ty)) {
            return Ok(());
        }
        let ty: String = event.ty.chars().take(128).collect();
        if self.0.values().any(|types| types.contains(&event.ty)) {
            Err(NotAllowed::ForeignType { service: service_name(), ty })
        } else {
            Err(NotAllowed::UnknownType { ty })
        }
    }

    /// Whether whoever is no service of the shop may publish `event`, if their token says so: nothing that belongs to a service.
    pub(crate) fn check_outsider(&self, event: &Envelope) -> Result<(), NotAllowed> {
        if event.source.strip_prefix('/').is_some_and(|name| self.is_of_the_shop(name)) {
            return Err(NotAllowed::Reserved { attribute: "source", value: event.source.clone() });
        }
        if self.types().any(|ty| ty == event.ty) {
            return Err(NotAllowed::Reserved { attribute: "type", value: event.ty.clone() });
        }
        Ok(())
    }
}

/// Why events were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TakeError {
    /// The log is as large as it may be, and a subscription still needs its oldest events.
    #[error("the log is full: a required subscription still needs its oldest events")]
    LogFull,
    /// The engine did not take them.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// The one way into the log, for whoever publishes.
pub(crate) struct Inlet {
    engine: Arc<dyn LogEngine>,
    valve: Arc<Valve>,
}

impl Inlet {
    /// The way into `engine` while `valve` is open.
    pub(crate) fn new(engine: Arc<dyn LogEngine>, valve: Arc<Valve>) -> Self {
        Self { engine, valve }
    }

    /// Whether nothing is taken until there is room.
    pub(crate) fn is_full(&self) -> bool {
        self.valve.is_shut()
    }

    /// Appends `events`; see [`LogEngine::append`].
    pub(crate) async fn take(&self, events: Vec<Envelope>) -> Result<Vec<Appended>, TakeError> {
        if self.valve.is_shut() {
            return Err(TakeError::LogFull);
        }
        Ok(self.engine.append(events).await?)
    }
}

/// The way in for services of the same process. A handle is trusted: who has it is part of the shop.
pub(crate) struct InProcess(pub(crate) Arc<Inlet>);

impl Publisher for InProcess {
    fn publish<'a>(&'a self, events: &'a [Envelope]) -> BoxFuture<'a, Result<(), PublishError>> {
        Box::pin(async move {
            match self.0.take(events.to_vec()).await {
                Ok(_) => Ok(()),
                Err(TakeError::Append(AppendError::Refused { landed, refusal })) => {
                    Err(PublishError::Refused { landed: landed.len(), reason: refusal.to_string() })
                }
                Err(error) => Err(PublishError::Unavailable(error.to_string())),
            }
        })
    }
}
