//! The services, each as a host: the same services as in production, with a simulated world around them.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, response::Response};
use broker::{
    Broker,
    engine::embedded::Embedded,
    publish::PublishRights,
    retention::Limits,
    sink::{networks::Networks, outward::Rules},
};
use delivery::Deliveries;
use http::StatusCode;
use kit::{
    Environment, Lifecycle, Machine, Service,
    broker_client::{Registration, RemoteBroker},
    chance::{Chance, Pace},
    http::{Gate, Proxies, client::Client, server},
    security::Keyring,
};
use order::Orders;
use payment::{Payments, provider::SimulatedProvider};

use crate::{
    losses::{Retention, Witness},
    partner::{Operator, PARTNER, PORT, Partner},
    watched::Watched,
    world::{self, Recorder, SimulatedListener},
};

/// How many workers there are: few, so that orders compete for them.
const WORKERS: u32 = 3;

/// The broker's host, and its folder.
pub(crate) const BROKER: &str = "broker";

/// What the hosts of one run have in common.
#[derive(Clone)]
pub(crate) struct Shop {
    seed: u64,
    folder: Rc<Path>,
    recorder: Arc<Recorder>,
    keyring: Keyring,
    partner: Partner,
    retention: Option<Retention>,
    witness: Witness,
    /// How often events were not taken because the log was full.
    refusals: Arc<AtomicUsize>,
    /// Each life of a host has its own chance: nobody rolls the dice of before the crash again.
    lives: Rc<Cell<u64>>,
}

impl Shop {
    pub(crate) fn new(seed: u64, folder: &Path, recorder: Arc<Recorder>, partner: Partner, witness: Witness) -> Self {
        Self {
            seed,
            folder: folder.into(),
            recorder,
            keyring: Keyring::from_secret([42; 32]),
            partner,
            retention: Retention::draw(seed),
            witness,
            refusals: Arc::default(),
            lives: Rc::new(Cell::new(0)),
        }
    }

    /// How often events were not taken because the log was full.
    pub(crate) fn refusals(&self) -> usize {
        self.refusals.load(Ordering::Relaxed)
    }

    pub(crate) fn keyring(&self) -> Keyring {
        self.keyring.clone()
    }

    /// Adds the hosts to the simulation.
    pub(crate) fn open(&self, sim: &mut turmoil::Sim<'_>) {
        let shop = self.clone();
        sim.host(BROKER, move || shop.clone().broker());
        let shop = self.clone();
        sim.host("order", move || shop.clone().order());
        let shop = self.clone();
        sim.host("payment", move || shop.clone().payment());
        let shop = self.clone();
        sim.host("delivery", move || shop.clone().delivery());
        let shop = self.clone();
        sim.host(PARTNER, move || shop.clone().partner());
    }

    async fn broker(self) -> turmoil::Result {
        let (environment, lifecycle) = self.begin();
        let sinks = Rules::new(Networks::default(), None, "broker")?;
        let retention = self.retention.map_or_else(Limits::default, |retention| retention.limits);
        let settings = broker::Settings { keyring: self.keyring.clone(), rights: rights(), retention, sinks };
        let engine = Embedded::start(&self.folder(BROKER), &environment, &lifecycle)?;
        let engine = Arc::new(Watched::start(engine, self.witness.clone()).await?);
        let broker = Broker::start_on(engine, settings, &environment, &lifecycle).await?;
        let router = count_refusals(broker.router(), self.refusals.clone());
        self.serve(BROKER, 4005, router, environment, lifecycle).await
    }

    async fn order(self) -> turmoil::Result {
        let (environment, lifecycle) = self.begin();
        let service = Service::start(Orders, &self.folder("order"), &environment, self.remote_broker("order", &environment)?, &lifecycle)?;
        let router = order::router(service.handle().clone());
        self.serve_subscriber("order", 4001, &service, router, environment, lifecycle).await
    }

    async fn payment(self) -> turmoil::Result {
        let (environment, lifecycle) = self.begin();
        let odds = payment::provider::Odds { accepted_percent: 80, timeout_percent: 15, unavailable_percent: 5 };
        let provider =
            SimulatedProvider::start(&self.folder("provider"), &environment, &lifecycle, Chance::seeded(self.seed), Pace::Instant, odds)?;
        let machine = Payments::new(Arc::new(provider), payment::domain::Settings::default());
        let service =
            Service::start(machine, &self.folder("payment"), &environment, self.remote_broker("payment", &environment)?, &lifecycle)?;
        self.serve_subscriber("payment", 4002, &service, Router::new(), environment, lifecycle).await
    }

    async fn delivery(self) -> turmoil::Result {
        let (environment, lifecycle) = self.begin();
        let machine =
            Deliveries::new(Chance::seeded(self.seed), Pace::Instant, delivery::Odds::default(), delivery::domain::Settings::default());
        let broker = self.remote_broker("delivery", &environment)?;
        let service = delivery::start(machine, WORKERS, &self.folder("delivery"), &environment, broker, &lifecycle).await?;
        self.serve_subscriber("delivery", 4003, &service, Router::new(), environment, lifecycle).await
    }

    async fn partner(self) -> turmoil::Result {
        let (environment, lifecycle) = self.begin();
        let operator = self.keyring.service_token(kit::http::identity::OPERATOR);
        let operator = Operator::new(self.partner.clone(), self.witness.clone(), &operator);
        lifecycle.spawn("operator", operator.work(lifecycle.clone()));
        let routes = self.partner.routes();
        self.serve(PARTNER, PORT, routes, environment, lifecycle).await
    }

    fn begin(&self) -> (Environment, Lifecycle) {
        self.lives.set(self.lives.get() + 1);
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(self.lives.get());
        (world::environment(seed, self.recorder.clone()), Lifecycle::new())
    }

    /// Where a service's stores are.
    pub(crate) fn folder(&self, service: &str) -> PathBuf {
        self.folder.join(service)
    }

    fn remote_broker(&self, name: &str, environment: &Environment) -> turmoil::Result<Arc<RemoteBroker>> {
        let client = Client::new(environment.connect.clone());
        Ok(Arc::new(RemoteBroker::new(client, "http://broker:4005", &self.keyring.service_token(name))?))
    }

    async fn serve_subscriber<M: Machine>(
        self,
        name: &'static str,
        port: u16,
        service: &Service<M>,
        router: Router,
        environment: Environment,
        lifecycle: Lifecycle,
    ) -> turmoil::Result {
        let sink = format!("http://{name}:{port}/events");
        let types = M::SUBSCRIBES.iter().map(|ty| (*ty).to_owned()).collect();
        let broker = RemoteBroker::clone(&*self.remote_broker(name, &environment)?);
        lifecycle.spawn(
            "registration",
            broker.register(name, Registration { sink, types, revision: 1 }, environment.clone(), lifecycle.clone()),
        );
        let intake = kit::intake::route(service.intake(), self.keyring.webhook_secret(name, None), environment.clock.clone());
        self.serve(name, port, router.merge(intake), environment, lifecycle).await
    }

    async fn serve(self, name: &str, port: u16, router: Router, environment: Environment, lifecycle: Lifecycle) -> turmoil::Result {
        let gate = Gate { keyring: self.keyring, is_playground: true, hosts: vec![name.to_owned()], proxies: Proxies::none() };
        let router = kit::http::finish(router, Arc::new(gate), &environment);
        let listener = SimulatedListener(turmoil::net::TcpListener::bind(("0.0.0.0", port)).await?);
        server::serve(listener, router, lifecycle.clone()).await;
        // Nobody stops a host in order here: if it ends by itself, something broke.
        Err(format!("{name} stopped: {}", lifecycle.failure().unwrap_or("without a reason")))?
    }
}

/// Counts the answers that say that the log is full: the only ones to a publisher with this status while the broker runs.
fn count_refusals(router: Router, refusals: Arc<AtomicUsize>) -> Router {
    router.layer(axum::middleware::map_response(move |response: Response| {
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            refusals.fetch_add(1, Ordering::Relaxed);
        }
        std::future::ready(response)
    }))
}

fn rights() -> PublishRights {
    contract::events::CATALOGUE
        .iter()
        .fold(PublishRights::none(), |rights, (ty, source)| rights.allow(source.trim_start_matches('/'), [*ty]))
}
