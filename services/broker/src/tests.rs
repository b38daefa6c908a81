//! What the tests of this crate share, and the tests of the whole broker.

use std::{sync::Arc, time::Duration};

use axum::Router;
use kit::{
    Clock, Envelope, Environment, EventId, Lifecycle, Timestamp,
    environment::{RealDisk, Writers},
    http::{Gate, Proxies, client::TcpConnect},
    ids::Ids,
    security::Keyring,
};

use crate::{
    Broker, Settings,
    engine::memory::{Memory, MemoryDisk},
    publish::PublishRights,
    retention::Limits,
    sink::{networks::Networks, outward::Rules},
};

/// A subscriber that was away.
mod catching_up;

/// From publishing to a subscriber.
mod delivery;

/// The routes.
mod api;

/// Registering, changing and removing subscriptions.
mod subscribing;

/// Pausing, seeking, deciding, and the books behind it.
mod operating;

/// Why an event did or did not arrive.
mod arriving;

/// Sending a part of the log again.
mod replaying;

/// What the log loses.
mod losing;

/// Real sockets.
mod network;

/// Whoever is no part of the shop.
mod outsiders;

/// Live streams.
mod live;

/// How long anything may take in a test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A clock that agrees with tokio's time, also when it is paused.
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let passed = self.0.elapsed();
        Timestamp::from_ms(1_800_000_000_000).plus_ms(u64::try_from(passed.as_millis()).unwrap())
    }
}

/// An environment whose chance follows from `seed`.
pub(crate) fn environment(seed: u64) -> Environment {
    Environment {
        clock: Arc::new(TokioClock(tokio::time::Instant::now())),
        ids: Arc::new(Ids::seeded(seed)),
        disk: Arc::new(RealDisk),
        writers: Writers::Inline,
        connect: Arc::new(TcpConnect),
        observer: None,
    }
}

/// An event without data.
pub(crate) fn event(source: &str, id: &str, subject: &str) -> Envelope {
    Envelope {
        id: EventId::new(id),
        source: source.into(),
        ty: "cascade.Tested.v1".into(),
        subject: Some(subject.into()),
        time: None,
        traceparent: None,
        causationid: None,
        sequence: None,
        owner: None,
        scenario: None,
        extensions: std::collections::BTreeMap::new(),
        media_type: None,
        data: None,
    }
}

/// The type of event that the tests publish.
pub(crate) const TYPE: &str = "cascade.Tested.v1";

pub(crate) fn keyring() -> Keyring {
    Keyring::from_secret([7; 32])
}

pub(crate) fn settings() -> Settings {
    let rights = PublishRights::none().allow("tester", [TYPE]).allow("other", ["cascade.Foreign.v1"]);
    Settings {
        keyring: keyring(),
        rights,
        retention: Limits::default(),
        sinks: Rules::new(Networks::default(), None, "shop.example").unwrap(),
    }
}

/// A broker with its routes.
pub(crate) struct Shop {
    pub(crate) broker: Broker,
    pub(crate) router: Router,
    pub(crate) lifecycle: Lifecycle,
    _folder: Option<tempfile::TempDir>,
}

pub(crate) async fn shop() -> Shop {
    let (folder, environment, lifecycle) = (tempfile::tempdir().unwrap(), environment(1), Lifecycle::new());
    let broker = Broker::start(folder.path(), settings(), &environment, &lifecycle).await.unwrap();
    Shop { _folder: Some(folder), ..open(broker, &environment, lifecycle) }
}

/// A broker whose log is in memory.
pub(crate) async fn shop_on(disk: MemoryDisk, settings: Settings) -> Shop {
    let (environment, lifecycle) = (environment(1), Lifecycle::new());
    let engine = Arc::new(Memory::open(disk, environment.clock.clone()));
    let broker = Broker::start_on(engine, settings, &environment, &lifecycle).await.unwrap();
    open(broker, &environment, lifecycle)
}

fn open(broker: Broker, environment: &Environment, lifecycle: Lifecycle) -> Shop {
    let gate = Arc::new(Gate { keyring: keyring(), is_playground: true, hosts: Vec::new(), proxies: Proxies::none() });
    let router = broker.router().merge(broker.subject_events_route("/api/orders/{id}/events"));
    Shop { router: kit::http::finish(router, gate, environment), broker, lifecycle, _folder: None }
}
