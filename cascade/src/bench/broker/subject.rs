//! The broker that is measured, in a process of its own, and its subscribers, each in another one.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail, ensure};
use kit::{http::identity::OPERATOR, security::Keyring};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    connection::Connection,
    publisher::Publisher,
    report::Cost,
    sink::{Manner, ONE_FAILS_OF, Seen},
};
use crate::bench::processes::{Processes, cpu_of};

/// How long nothing may arrive before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take until failing orders are set aside.
const ASIDE_MAX: Duration = Duration::from_secs(120);
/// How often somebody is asked how far it is.
const LOOK: Duration = Duration::from_millis(20);

/// A broker with an empty log.
pub(super) struct Subject {
    // First in line: it is what is ended first.
    processes: Processes,
    address: SocketAddr,
    token: String,
    /// Who publishes there.
    pub(super) publisher: Publisher,
}

impl Subject {
    /// Starts one.
    pub(super) fn start(name: &str) -> anyhow::Result<Self> {
        let mut processes = Processes::new(name);
        let url = processes.spawn_shop(&["serve", "broker", "--port", "0"])?;
        let address = address_of(&url)?;
        let keyring = Keyring::load(&processes.folder().join("secret"))?;
        let publisher = Publisher::new(address, &keyring.service_token("order"));
        Ok(Self { processes, address, token: keyring.service_token(OPERATOR), publisher })
    }

    /// Starts a subscriber called `name`, and subscribes it to events of `types`.
    pub(super) async fn subscribe(&mut self, name: &str, types: &[&str], manner: Manner) -> anyhow::Result<Subscriber> {
        let url = self.processes.spawn_self(&["bench", "sink", "--manner", manner.as_str()])?;
        let wanted = serde_json::json!({"sink": format!("{url}/events"), "types": types, "revision": 1}).to_string();
        let subscriber = Subscriber { name: name.to_owned(), wanted, manner, address: address_of(&url)? };
        self.call("PUT", &subscriber.name, &subscriber.wanted).await?;
        Ok(subscriber)
    }

    /// Mends a subscriber that was away, and lets the broker know that it is there.
    pub(super) async fn mend(&self, subscriber: &Subscriber) -> anyhow::Result<()> {
        subscriber.ask::<serde_json::Value>("/mend").await?;
        self.call("PUT", &subscriber.name, &subscriber.wanted).await?;
        Ok(())
    }

    /// Waits until `count` lanes of a subscription are set aside.
    pub(super) async fn has_set_aside(&self, subscriber: &Subscriber, count: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let told = self.call("GET", &subscriber.name, "").await?;
            let aside = told.pointer("/status/lanes_set_aside").and_then(serde_json::Value::as_u64);
            let aside = aside.context("a subscription does not say how many of its lanes are set aside")?;
            if aside >= count {
                return Ok(());
            }
            ensure!(began.elapsed() < ASIDE_MAX, "{aside} of {count} lanes were set aside within {} s", ASIDE_MAX.as_secs());
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn call(&self, method: &str, name: &str, body: &str) -> anyhow::Result<serde_json::Value> {
        let (address, token, length) = (self.address, &self.token, body.len());
        let request = format!(
            "{method} /api/subscriptions/{name} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let mut connection = Connection::open(address).await?;
        let body = connection.expect(request.as_bytes(), 200).await.with_context(|| format!("subscription `{name}`"))?;
        Ok(serde_json::from_slice(body)?)
    }

    /// The memory that the broker has now, in bytes.
    pub(super) fn rss_bytes(&self) -> anyhow::Result<u64> {
        self.processes.first_rss_bytes().context("the broker's memory cannot be read")
    }

    /// Time on processors that the broker and this process had so far.
    pub(super) fn cost(&self) -> anyhow::Result<Cost> {
        let broker = self.processes.first_cpu().context("the broker's time on processors cannot be read")?;
        let load = cpu_of(std::process::id()).context("the time on processors cannot be read")?;
        Ok(Cost { broker, load })
    }
}

/// A subscriber. It ends with its broker.
pub(super) struct Subscriber {
    name: String,
    wanted: String,
    manner: Manner,
    address: SocketAddr,
}

impl Subscriber {
    /// Whether it takes events of `order`.
    pub(super) fn takes(&self, order: u64) -> bool {
        self.manner != Manner::Fail || !order.is_multiple_of(ONE_FAILS_OF)
    }

    /// What it saw since it was told to forget.
    pub(super) async fn seen(&self) -> anyhow::Result<Seen> {
        self.ask("/seen").await
    }

    /// From when each event was to be sent until it was there, in milliseconds, ascending.
    pub(super) async fn delays_ms(&self) -> anyhow::Result<Vec<f64>> {
        let mut delays_us: Vec<u32> = self.ask("/delays").await?;
        delays_us.sort_unstable();
        Ok(delays_us.into_iter().map(|delay_us| f64::from(delay_us) / 1_000.0).collect())
    }

    /// Makes it forget what it saw, but for which events it has.
    pub(super) async fn forget(&self) -> anyhow::Result<()> {
        self.ask::<serde_json::Value>("/forget").await.map(drop)
    }

    /// Waits until it has taken `count` events.
    pub(super) async fn has_taken(&self, count: u64) -> anyhow::Result<Seen> {
        let (mut before, mut changed) = (0, Instant::now());
        loop {
            let seen = self.seen().await?;
            if seen.taken >= count {
                return Ok(seen);
            }
            if seen.taken > before {
                (before, changed) = (seen.taken, Instant::now());
            } else if changed.elapsed() > PATIENCE {
                bail!("{} of {count} events arrived at `{}`, and no other one within {} s", seen.taken, self.name, PATIENCE.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let subscriber = || format!("subscriber `{}`", self.name);
        let mut connection = Connection::open(self.address).await.with_context(subscriber)?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        let body = connection.expect(request.as_bytes(), 200).await.with_context(subscriber)?;
        Ok(serde_json::from_slice(body)?)
    }
}

/// `localhost` in a URL is the loopback address.
fn address_of(url: &str) -> anyhow::Result<SocketAddr> {
    let authority = url.trim_start_matches("http://").replace("localhost", "127.0.0.1");
    authority.parse().with_context(|| format!("`{url}` is no URL of this machine"))
}
