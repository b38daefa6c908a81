//! `cascade bench broker`: how many events a second the broker takes and delivers, how late they are, and who disturbs whom; all durable.
//!
//! Each measurement has a broker of its own with an empty log, in a process of its own; subscribers are processes too. The load comes
//! from this process. All share the machine.

/// The events that are sent.
mod event;

/// One kept connection.
mod connection;

/// Publishes events.
mod publisher;

/// A subscriber in a process of its own.
mod sink;

/// The broker that is measured, and its subscribers.
mod subject;

/// How fast it is.
mod speed;

/// Whether one subscriber, or many failing orders, make others late.
mod disturbance;

/// What came of it.
mod report;

use std::{
    io::Write,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use self::publisher::Limit;
pub(super) use self::{
    report::Report,
    sink::{SinkFlags, run as run_sink},
};
use super::{
    is_progress_shown,
    processes::{is_in_memory, sync_times_ms},
};

/// An event's type: what everybody is measured with.
const LIVE: &str = "cascade.OrderCreated.v1";
/// Another one, of which a backlog is made.
const OLD: &str = "cascade.OrderCompleted.v1";

/// How often the screen shows that it goes on.
const TICK: Duration = Duration::from_millis(200);

/// Flags of `cascade bench broker`.
#[derive(Debug, Args)]
pub(crate) struct BrokerFlags {
    /// How many events a measurement of speed sends at most.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    events: u32,

    /// How long each measurement sends at most, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,

    /// How many events go first and are not measured.
    #[arg(long, value_name = "COUNT", default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    warm_up: u32,

    /// How many connections send events one by one.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    concurrency: u32,

    /// How many events a second are sent where delays are measured.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// How many events wait for the subscriber that is behind.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    backlog: u32,

    /// How many orders fail for ever, among twenty times as many.
    #[arg(long, value_name = "COUNT", default_value_t = 2_500, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    failing: u32,

    /// Measure these alone, separated by commas.
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    only: Vec<Measurement>,

    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Publishing alone, one event a request.
    Published,
    /// Publishing alone, a hundred events a request.
    Batched,
    /// From publishing to acknowledged by a subscriber, a hundred events a request.
    Delivered,
    /// The delay from when an event was to be sent to its arrival, at a steady rate.
    Delay,
    /// The same beside a subscriber that never answers.
    Silent,
    /// The same beside a subscriber that is far behind, and catches up.
    Backlog,
    /// The same for the other orders while many fail.
    Failing,
}

/// Measures everything that `flags` ask for, one after the other.
pub(super) async fn measure(flags: &BrokerFlags) -> anyhow::Result<Report> {
    let progress = if is_progress_shown(flags.json) { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    progress.enable_steady_tick(TICK);
    let folder = std::env::temp_dir();
    if is_in_memory(&folder) {
        let advice = format!("`{}` is in memory, so nothing is durable here; TMPDIR can name a folder on a disk", folder.display());
        writeln!(std::io::stderr(), "cascade: {advice}").context("stderr")?;
    }
    let mut report = Report::default();
    for measurement in Measurement::value_variants() {
        if !flags.only.is_empty() && !flags.only.contains(measurement) {
            continue;
        }
        announce(&progress, *measurement);
        report.sync_times_ms.extend(sync_times_ms(&folder)?);
        match measurement {
            Measurement::Published => report.published = Some(speed::published(flags).await?),
            Measurement::Batched => report.batched = Some(speed::batched(flags).await?),
            Measurement::Delivered => report.delivered = Some(speed::delivered(flags).await?),
            Measurement::Delay => report.delay = Some(speed::delay(flags).await?),
            Measurement::Silent => report.silent = Some(disturbance::silent(flags).await?),
            Measurement::Backlog => report.backlog = Some(disturbance::backlog(flags).await?),
            Measurement::Failing => report.failing = Some(disturbance::failing(flags).await?),
        }
    }
    progress.finish_and_clear();
    Ok(report)
}

fn announce(progress: &ProgressBar, measurement: Measurement) {
    let help = measurement.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
    progress.set_message(help.unwrap_or_default());
}

impl BrokerFlags {
    /// What a measurement of speed sends at most.
    fn limit(&self) -> Limit {
        Limit { events: self.events.into(), time: self.time() }
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

/// So many events, however long that takes within an hour.
fn all_of(events: u64) -> Limit {
    Limit { events, time: Duration::from_secs(3_600) }
}

/// The time in microseconds, by the clock that all processes of a machine share.
fn now_us() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "what is measured begins in one process and ends in another: no other clock is in both")]
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
