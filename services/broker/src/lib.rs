//! The broker: keeps the event log, and brings events to whoever subscribed and to browsers.
//!
//! Its promise: an acknowledged event is on disk; every subscriber gets it at least once; the events of one lane (one order) arrive in
//! sequence, also through retries; and a lane that fails never holds up another. It knows no orders: a lane is an event's subject,
//! and who may see it is decided by its `owner`.

/// The log engine: appending, reading, tailing, and small durable state.
pub mod engine;

/// Who may publish, and the way in for services of the same process.
pub mod publish;

/// Tokens for outsiders.
mod tokens;

/// How long the log keeps events, and how large it may grow.
pub mod retention;

/// Which events a subscription asks for.
pub mod filters;

/// Which event may go when: the pure core of a dispatcher.
pub mod lanes;

/// What a subscriber's answer means.
pub mod verdict;

/// One task per subscription.
pub mod dispatcher;

/// What a subscription keeps.
mod keeping;

/// Checks a subscription's books against the log.
pub mod audit;

/// Who wants which events.
pub mod subscriptions;

/// How times stand in JSON.
mod wire;

/// Subscribers behind a URL.
pub mod sink;

/// What is counted, for whoever watches.
mod metrics;

/// The routes.
mod http;

/// Events as they happen, for browsers.
mod live;

/// What any bytes from outside are put through, by the fuzz targets in `fuzz/` and by tests.
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;

#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use axum::Router;
use kit::{
    Environment, Lifecycle,
    describe::{Api, Input},
    security::Keyring,
    store::StoreError,
    transport::{Publisher, Sink},
};
use schemars::SchemaGenerator;
use serde_json::Value;

use audit::AuditError;
use engine::{EngineError, LogEngine, embedded::Embedded};
use filters::Selection;
use http::publish::Bodies;
use lanes::Counts;
use publish::{InProcess, Inlet, PublishRights};
use retention::Limits;
use sink::outward::Rules;
use subscriptions::{By, Expected, RegisterError, Subscription, Subscriptions, wanted::Wanted};
use tokens::Tokens;

/// What a broker is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// All keys of the shop: deliveries are signed with one of them.
    pub keyring: Keyring,
    /// Who may publish what over HTTP.
    pub rights: PublishRights,
    /// How long events are kept, and how many of them.
    pub retention: Limits,
    /// Where sinks may be.
    pub sinks: Rules,
}

/// A broker that runs. Clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<dyn LogEngine>,
    inlet: Arc<Inlet>,
    /// Room for what is being published.
    bodies: Bodies,
    subscriptions: Arc<Subscriptions>,
    rights: PublishRights,
    tokens: Arc<Tokens>,
    live: Arc<live::Live>,
    /// One audit at a time: each reads the whole log. The last one, if it is not finished.
    auditing: tokio::sync::Mutex<Option<http::audit::Unfinished>>,
    environment: Environment,
    lifecycle: Lifecycle,
}

impl Broker {
    /// Opens the log in `folder` and goes on with every subscription that was registered before.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn start(folder: &Path, settings: Settings, environment: &Environment, lifecycle: &Lifecycle) -> Result<Self, StoreError> {
        let engine = Arc::new(Embedded::start(folder, environment, lifecycle)?);
        Self::start_on(engine, settings, environment, lifecycle).await.map_err(unreadable)
    }

    /// Goes on with the log and the subscriptions that `engine` keeps.
    ///
    /// # Errors
    /// When the engine cannot read what it keeps.
    pub async fn start_on(
        engine: Arc<dyn LogEngine>,
        settings: Settings,
        environment: &Environment,
        lifecycle: &Lifecycle,
    ) -> Result<Self, EngineError> {
        let shop = settings.rights.services();
        let tokens = Arc::new(Tokens::load(engine.clone(), settings.keyring.clone(), environment).await?);
        let security = (settings.keyring, settings.sinks);
        let subscriptions = Arc::new(Subscriptions::new(engine.clone(), security, tokens.clone(), shop, environment, lifecycle));
        subscriptions.resume().await?;
        let valve = retention::start(engine.clone(), subscriptions.clone(), settings.retention, environment, lifecycle);
        let live = live::Live::start(engine.clone(), environment, lifecycle);
        Ok(Self {
            shared: Arc::new(Shared {
                inlet: Arc::new(Inlet::new(engine.clone(), valve)),
                bodies: Bodies::new(),
                engine,
                subscriptions,
                rights: settings.rights,
                tokens,
                live,
                auditing: tokio::sync::Mutex::default(),
                environment: environment.clone(),
                lifecycle: lifecycle.clone(),
            }),
        })
    }

    /// The way in for services of this process.
    pub fn publisher(&self) -> Arc<dyn Publisher> {
        Arc::new(InProcess(self.shared.inlet.clone()))
    }

    /// Registers the subscription `name` of a service of this process, from the beginning of the log or from where it was. After a
    /// restart its events wait until it is attached again.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub async fn attach(
        &self,
        name: &str,
        types: impl IntoIterator<Item = impl Into<String>>,
        revision: i64,
        sink: Arc<dyn Sink>,
    ) -> Result<Subscription, RegisterError> {
        let wanted = Wanted { selection: Selection::of_types(types), revision, ..Wanted::default() };
        self.shared.subscriptions.register(name, wanted, By::Handle(sink), Expected::Anything).await
    }

    /// The subscription `name` and how it stands.
    pub fn subscription(&self, name: &str) -> Option<Subscription> {
        self.shared.subscriptions.get(name)
    }

    /// Audits the books of the subscription `name` against the log, while both are in use: what became of the events up to its floor.
    ///
    /// # Errors
    /// See [`AuditError`]; [`EngineError::Trimmed`] when the log was trimmed meanwhile.
    pub async fn audit(&self, name: &str) -> Result<Counts, AuditError> {
        audit::verdict(name, self.shared.subscriptions.audit(name).await?)
    }

    /// The log itself: its tail and what is in it.
    pub fn engine(&self) -> &Arc<dyn LogEngine> {
        &self.shared.engine
    }

    /// The routes below `/api/events`, `/api/subscriptions`, `/api/live` and `/api/tokens`; to be merged with others and finished by the kit.
    pub fn router(&self) -> Router {
        http::router(self.shared.clone())
    }

    /// `GET path`, with one parameter that is a subject: the same as `/api/events?subject=…`.
    pub fn subject_events_route(&self, path: &str) -> Router {
        http::subject_events(self.shared.clone(), path)
    }
}

/// Describes the routes of [`Broker::router`].
pub fn describe(api: &mut Api) {
    http::described::describe(api);
}

/// Describes the route of [`Broker::subject_events_route`] at `path`, whose parameter is `subject`.
pub fn describe_subject_events(api: &mut Api, path: &'static str, subject: &Input) {
    http::described::subject_events(api, path, subject);
}

/// What a live stream says beside events: the type of each notice, what it means, and the schema of its data.
pub fn describe_notices(generator: &mut SchemaGenerator) -> Vec<(String, &'static str, Value)> {
    live::notice::describe(generator)
}

/// What a delivery has in its headers, as the schema of an object of them.
pub fn describe_delivery_headers() -> Value {
    sink::described::headers()
}

/// The schema of what a sink may answer instead of nothing.
pub fn describe_delivery_answer() -> Value {
    sink::described::answer()
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where `map_err` wants it")]
fn unreadable(error: EngineError) -> StoreError {
    StoreError::BadRow { table: "state", id: keeping::CONFIG_PREFIX.into(), column: "value", reason: error.to_string() }
}
