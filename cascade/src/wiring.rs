//! The services, made from the settings: the same ones, whether they share a process or not.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use anyhow::Context;
use axum::{Router, http::Uri};
use broker::{Broker, publish::PublishRights, retention::Limits, sink::outward::Rules};
use delivery::Deliveries;
use kit::{
    Environment, Lifecycle, Machine, Service,
    chance::Chance,
    http::Gate,
    metrics::{self, Metrics, ScrapeToken},
    security::{Keyring, SecretError},
    transport::Publisher,
};
use order::Orders;
use payment::{Payments, provider::SimulatedProvider};
use storefront::Storefront;

use crate::{
    contracts, routes,
    settings::{Luck, Settings, Switch},
    terminal::{self, Look},
};

/// Rises whenever a service wants other events than before.
pub(crate) const SUBSCRIPTION_REVISION: i64 = 1;

/// The secret's file in the data folder.
pub(crate) const SECRET: &str = "secret";

/// What services are made with.
pub(crate) struct Wiring<'a> {
    settings: &'a Settings,
    pub(crate) environment: Environment,
    pub(crate) lifecycle: &'a Lifecycle,
    pub(crate) keyring: Keyring,
    chance: Chance,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    scrape_token: Option<ScrapeToken>,
}

impl<'a> Wiring<'a> {
    /// Takes the secret; makes the data folder, if the secret is to be there. `hosts` are names that requests may call this process, beside those in the settings.
    pub(crate) fn new(settings: &'a Settings, hosts: Vec<String>, lifecycle: &'a Lifecycle) -> anyhow::Result<Self> {
        let (environment, folder) = (Environment::real()?, &settings.data_dir);
        let keyring = match &settings.secret_file {
            Some(file) => Keyring::load(file)?,
            None => {
                std::fs::create_dir_all(folder).with_context(|| format!("data folder `{}` cannot be made", folder.display()))?;
                let secret = folder.join(SECRET);
                let is_there = secret.exists();
                Keyring::load_or_create(&secret, &environment.ids).map_err(|error| match error {
                    // Whoever starts their first shop knows of no secret; what is wrong is the folder.
                    SecretError::File { cause, .. } if !is_there => {
                        anyhow::anyhow!("data folder `{}` cannot be written: {cause}", folder.display())
                    }
                    other => other.into(),
                })?
            }
        };
        let chance = Chance::seeded(settings.seed.unwrap_or_else(|| environment.ids.up_to(u64::MAX)));
        let hosts = settings.allowed_hosts.iter().cloned().chain(hosts).collect();
        let gate = Arc::new(Gate {
            keyring: keyring.clone(),
            is_playground: settings.is_playground(),
            hosts,
            proxies: settings.trusted_proxies.clone(),
        });
        let metrics = Metrics::new()?;
        let scrape_token = settings.metrics_token_file.as_deref().map(ScrapeToken::load).transpose().context("`metrics-token-file`")?;
        Ok(Self { settings, environment, lifecycle, keyring, chance, gate, metrics, scrape_token })
    }

    fn folder(&self) -> &Path {
        &self.settings.data_dir
    }

    pub(crate) async fn broker(&self) -> anyhow::Result<Broker> {
        let retention = Limits { age_ms_max: self.settings.retention_age_ms, bytes_max: self.settings.retention_bytes };
        let settings = broker::Settings { keyring: self.keyring.clone(), rights: rights(), retention, sinks: self.sinks()? };
        let environment = self.metrics.time_commits("broker", &self.environment);
        let broker = Broker::start(self.folder(), settings, &environment, self.lifecycle).await?;
        self.metrics.add(Arc::new(broker.clone()));
        Ok(broker)
    }

    /// Where sinks may be. The broker calls itself by the first name that others are told to call the shop by.
    fn sinks(&self) -> anyhow::Result<Rules> {
        let origin = self.settings.allowed_hosts.first().map_or("localhost", String::as_str);
        let rules = Rules::new(self.settings.sink_networks(), self.settings.sink_ca_file.as_deref(), origin);
        rules.context("`sink-ca-file`")
    }

    /// The broker's routes, under the shop's paths.
    pub(crate) fn broker_routes(broker: &Broker) -> Router {
        broker.router().merge(broker.subject_events_route(routes::ORDER_EVENTS))
    }

    /// Shows what happens from now on in the terminal, unless the settings say that nothing is shown.
    pub(crate) async fn show_events(&self, broker: &Broker) -> anyhow::Result<terminal::Shown> {
        if self.settings.events == Switch::Off {
            return Ok(terminal::Shown::nothing());
        }
        let engine = broker.engine().clone();
        let after = engine.bounds().last;
        Ok(terminal::start(engine, after, Look::of(self.settings), self.lifecycle.clone())?)
    }

    pub(crate) fn order(&self, publisher: Arc<dyn Publisher>) -> anyhow::Result<Service<Orders>> {
        let environment = self.metrics.time_commits("order", &self.environment);
        Ok(self.watched(Service::start(Orders, self.folder(), &environment, publisher, self.lifecycle)?))
    }

    pub(crate) fn payment(&self, publisher: Arc<dyn Publisher>) -> anyhow::Result<Service<Payments>> {
        let odds = match self.settings.luck {
            Luck::Odds => payment::provider::Odds::default(),
            Luck::Always => payment::provider::Odds { accepted_percent: 100, ..payment::provider::Odds::default() },
        };
        let environment = self.metrics.time_commits("provider", &self.environment);
        let provider = SimulatedProvider::start(self.folder(), &environment, self.lifecycle, self.chance, self.settings.pace, odds)?;
        let machine = Payments::new(Arc::new(provider), payment::domain::Settings::default());
        let environment = self.metrics.time_commits("payment", &self.environment);
        Ok(self.watched(Service::start(machine, self.folder(), &environment, publisher, self.lifecycle)?))
    }

    pub(crate) async fn delivery(&self, publisher: Arc<dyn Publisher>) -> anyhow::Result<Service<Deliveries>> {
        let odds = match self.settings.luck {
            Luck::Odds => delivery::Odds::default(),
            Luck::Always => delivery::Odds { accept_percent: 100, complete_percent: 100 },
        };
        let machine = Deliveries::new(self.chance, self.settings.pace, odds, delivery::settings_at(self.settings.pace));
        let environment = self.metrics.time_commits("delivery", &self.environment);
        let started = delivery::start(machine, self.settings.workers, self.folder(), &environment, publisher, self.lifecycle).await?;
        Ok(self.watched(started))
    }

    /// The storefront's routes; it orders at `order_url`.
    pub(crate) fn storefront_routes(&self, order_url: &str) -> anyhow::Result<Router> {
        let order_api = Arc::new(OnceLock::from(order_url.parse::<Uri>()?));
        let storefront = Storefront::new(self.environment.clone(), order_api);
        Ok(storefront::router(storefront).merge(contracts::ALL.router()))
    }

    /// What waits in `service` is shown to whoever watches.
    fn watched<M: Machine>(&self, service: Service<M>) -> Service<M> {
        self.metrics.add(Arc::new(service.handle().clone()));
        service
    }

    /// The route at which this process shows what it counts.
    pub(crate) fn metrics_route(&self) -> Router {
        metrics::route(self.metrics.clone(), self.scrape_token.clone())
    }

    /// Gives the routes of `service` the gate, and everything that stands around them.
    pub(crate) fn finish(&self, service: &'static str, routes: Router) -> Router {
        self.metrics.count_requests(service, kit::http::finish(routes, self.gate.clone(), &self.environment))
    }
}

/// Who may publish what: each service the events that the catalogue says it emits.
fn rights() -> PublishRights {
    contract::events::CATALOGUE
        .iter()
        .fold(PublishRights::none(), |rights, (ty, source)| rights.allow(source.trim_start_matches('/'), [*ty]))
}
