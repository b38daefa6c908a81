//! A shop to measure: our own in a temporary folder, or somebody else's.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Context;
use axum::http::Uri;

use super::{
    processes::{Processes, sync_times_ms},
    report::percentile,
};
use crate::routes::{self, ServiceName};

/// What a shop used between two looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Time on processors, of all threads.
    pub(crate) cpu: Duration,
    /// The most memory it had at once.
    pub(crate) peak_rss_bytes: u64,
}

/// The shop that is measured.
pub(crate) struct Subject {
    bases: Bases,
    own: Option<Processes>,
    cpu_at_begin: Duration,
    /// Where the disk is measured.
    folder: PathBuf,
}

/// Where it is.
enum Bases {
    /// Everything under one URL.
    One(String),
    /// Each service under its own.
    Each(BTreeMap<ServiceName, String>),
}

impl Subject {
    /// A shop that runs already.
    pub(crate) fn at(url: &str) -> Self {
        Self { bases: Bases::One(url.to_owned()), own: None, cpu_at_begin: Duration::ZERO, folder: std::env::temp_dir() }
    }

    /// Starts a shop of our own, in one process.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut own = Processes::new("shop");
        let url = own.spawn_shop(&["up", "--port", "0"])?;
        Ok(Self::of(Bases::One(url), own))
    }

    /// Starts a shop of our own, each service in a process of its own.
    pub(crate) fn start_each() -> anyhow::Result<Self> {
        let mut own = Processes::new("shop");
        let mut urls = BTreeMap::new();
        let broker = own.spawn_shop(&["serve", "broker", "--port", "0"])?;
        for service in [ServiceName::Order, ServiceName::Payment, ServiceName::Delivery] {
            urls.insert(service, own.spawn_shop(&["serve", service.as_str(), "--port", "0", "--broker-url", &broker])?);
        }
        let order = urls.get(&ServiceName::Order).context("order did not start")?.clone();
        urls.insert(ServiceName::Storefront, own.spawn_shop(&["serve", "storefront", "--port", "0", "--order-url", &order])?);
        urls.insert(ServiceName::Broker, broker);
        Ok(Self::of(Bases::Each(urls), own))
    }

    fn of(bases: Bases, own: Processes) -> Self {
        Self { bases, folder: own.folder().to_owned(), own: Some(own), cpu_at_begin: Duration::ZERO }
    }

    /// The URL of `path`.
    pub(crate) fn url(&self, path: &str) -> anyhow::Result<Uri> {
        let base = match &self.bases {
            Bases::One(url) => Some(url),
            Bases::Each(urls) => routes::find(path).and_then(|service| urls.get(&service)),
        };
        let url = format!("{}{path}", base.with_context(|| format!("nobody answers {path}"))?);
        url.parse().with_context(|| format!("`{url}` is no URL"))
    }

    /// From now on its use counts.
    pub(crate) fn begin(&mut self) {
        self.cpu_at_begin = self.own.as_ref().and_then(Processes::cpu).unwrap_or_default();
    }

    /// What it used since then; none for a shop that is not ours.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let own = self.own.as_ref()?;
        Some(Usage { cpu: own.cpu()?.checked_sub(self.cpu_at_begin)?, peak_rss_bytes: own.peak_rss_bytes()? })
    }

    /// How long a sync takes on the shop's disk, in milliseconds: the median.
    pub(crate) fn measure_fdatasync(&self) -> anyhow::Result<f64> {
        let mut times_ms = sync_times_ms(&self.folder)?;
        times_ms.sort_by(f64::total_cmp);
        Ok(percentile(&times_ms, 0.5))
    }
}
