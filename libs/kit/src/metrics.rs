//! What is counted and measured of a process, in Prometheus' text format (version 0.0.4).
//!
//! Some numbers are kept as things happen: requests, commits. All others are asked for when somebody looks, from whoever has them anyway
//! (a `Source`). There is no global registry. Labels hold names from the code, and names of subscriptions, whose number is limited.

/// Requests, counted and timed.
mod requests;

/// Commits, timed.
mod commits;

/// The route, and who may look.
mod door;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::Router;
use prometheus::{CounterVec, GaugeVec, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::{BoxFuture, Environment};

pub use door::{ScrapeToken, TokenError, describe, route};

/// Numbers that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name; a counter's ends in `_total`.
    pub name: &'static str,
    /// What it says, in one sentence.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

/// Who is asked for numbers when somebody looks.
pub trait Source: Send + Sync + 'static {
    /// Writes its numbers onto `page`.
    fn read<'a>(&'a self, page: &'a mut Page) -> BoxFuture<'a, ()>;
}

/// What is counted and measured of a process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    commits: HistogramVec,
    sources: Mutex<Vec<Arc<dyn Source>>>,
    /// One look at a time: sources read the log and the stores.
    looking: tokio::sync::Mutex<()>,
}

impl Metrics {
    /// Nothing was counted yet, but for what the operating system knows of the process.
    ///
    /// # Errors
    /// When two families have one name: a fault of the code.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        let (requests, durations, commits) = (requests::counted()?, requests::timed()?, commits::timed()?);
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(commits.clone()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Arc::new(Self { registry, requests, durations, commits, sources: Mutex::default(), looking: tokio::sync::Mutex::default() }))
    }

    /// From now on `source` is asked, too.
    pub fn add(&self, source: Arc<dyn Source>) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(source);
    }

    /// Counts the requests to `router`, which is finished, as those of `service`.
    pub fn count_requests(&self, service: &'static str, router: Router) -> Router {
        requests::count(router, service, self.requests.clone(), self.durations.clone())
    }

    /// The same environment, in which each commit to `store` is timed. For one writer.
    pub fn time_commits(&self, store: &'static str, environment: &Environment) -> Environment {
        commits::time(environment, self.commits.with_label_values(&[store]))
    }

    /// Everything, as it stands now.
    ///
    /// # Errors
    /// When it cannot be written as text: a fault of the code.
    pub async fn show(&self) -> Result<String, prometheus::Error> {
        let _one_at_a_time = self.looking.lock().await;
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut page = Page::default();
        for source in sources {
            source.read(&mut page).await;
        }
        let mut families = self.registry.gather();
        families.extend(page.registry.gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

/// Numbers as they stand at one look.
#[derive(Default)]
pub struct Page {
    registry: Registry,
    gauges: BTreeMap<&'static str, GaugeVec>,
    counters: BTreeMap<&'static str, CounterVec>,
}

impl Page {
    /// A number that rises and falls.
    pub fn gauge(&mut self, family: &Family, labels: &[&str], value: f64) {
        let written = self.gauges_of(family).and_then(|gauges| gauges.get_metric_with_label_values(labels)).map(|gauge| gauge.set(value));
        complain(family, written);
    }

    /// A number that rises, until whoever counts it begins anew.
    pub fn counter(&mut self, family: &Family, labels: &[&str], value: f64) {
        let written = self.counters_of(family).and_then(|counters| counters.get_metric_with_label_values(labels));
        complain(family, written.map(|counter| counter.inc_by(value)));
    }

    fn gauges_of(&mut self, family: &Family) -> Result<GaugeVec, prometheus::Error> {
        if let Some(gauges) = self.gauges.get(family.name) {
            return Ok(gauges.clone());
        }
        let gauges = GaugeVec::new(Opts::new(family.name, family.help), family.labels)?;
        self.registry.register(Box::new(gauges.clone()))?;
        self.gauges.insert(family.name, gauges.clone());
        Ok(gauges)
    }

    fn counters_of(&mut self, family: &Family) -> Result<CounterVec, prometheus::Error> {
        if let Some(counters) = self.counters.get(family.name) {
            return Ok(counters.clone());
        }
        let counters = CounterVec::new(Opts::new(family.name, family.help), family.labels)?;
        self.registry.register(Box::new(counters.clone()))?;
        self.counters.insert(family.name, counters.clone());
        Ok(counters)
    }
}

/// Labels that do not fit their family are a fault of the code; whoever looks gets all other numbers.
fn complain(family: &Family, written: Result<(), prometheus::Error>) {
    if let Err(error) = written {
        tracing::error!(family = family.name, %error, "a number cannot be shown");
    }
}

/// A count as Prometheus takes numbers; exact up to 2^53.
#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "nothing here counts that far")]
pub fn number(count: i64) -> f64 {
    count as f64
}
