//! `cascade bench`: how many whole cascades a second, each from the order over HTTP to its last event, all durable.
//!
//! The shop runs in a process of its own, in a temporary folder, with every simulated chance certain; the load comes from this process, so
//! both share the machine. Ends are seen through one live stream. With a rate, an order's time counts from when it was to be sent, not
//! from when there was time to send it.

/// A shop to measure: our own in a temporary folder, or somebody else's.
mod subject;

/// Processes of our own.
mod processes;

/// Sends orders.
mod load;

/// Sees orders end.
mod ends;

/// What came of it.
mod report;

/// The broker alone.
mod broker;

use std::{
    fmt,
    io::{IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use self::{
    broker::{BrokerFlags, SinkFlags},
    ends::Ends,
    load::Load,
    report::Report,
    subject::Subject,
};
use crate::signals::Signals;

/// How long nothing may end before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Flags of `cascade bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchFlags {
    #[command(subcommand)]
    part: Option<Part>,

    /// How many orders are measured.
    #[arg(long, value_name = "COUNT", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    orders: u32,

    /// How many orders go first and are not measured.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    warm_up: u32,

    /// How many requests are under way at once.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    concurrency: u32,

    /// Send so many orders a second, instead of as many as possible.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,

    /// Measure the shop at this URL, instead of one of our own.
    #[arg(long, value_name = "URL", value_parser = crate::usage::base_url)]
    url: Option<String>,

    /// Start our own shop as five processes, one a service, instead of one.
    #[arg(long, conflicts_with = "url")]
    five: bool,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What else can be measured.
#[derive(Debug, Subcommand)]
enum Part {
    /// Measure the broker alone: how much it takes and delivers in a second, how late, and who disturbs whom.
    Broker(BrokerFlags),
    /// Be a subscriber of that measurement.
    #[command(hide = true)]
    Sink(SinkFlags),
}

/// Measures and prints.
pub(crate) fn run(flags: &BenchFlags) -> anyhow::Result<()> {
    match &flags.part {
        None => print(flags.json, &until_signal(measure(flags))?),
        Some(Part::Broker(flags)) => print(flags.json, &until_signal(broker::measure(flags))?),
        Some(Part::Sink(flags)) => broker::run_sink(flags),
    }
}

fn print(as_json: bool, report: &(impl Serialize + fmt::Display)) -> anyhow::Result<()> {
    let text = if as_json { serde_json::to_string(report)? } else { report.to_string() };
    writeln!(std::io::stdout(), "{text}").context("stdout")
}

/// Measures; a signal gives it up, and whatever was started ends.
fn until_signal<T>(measuring: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen().context("signals cannot be listened to")?;
        tokio::select! {
            biased;
            () = signals.next() => bail!("stopped by a signal"),
            measured = measuring => measured,
        }
    })
}

async fn measure(flags: &BenchFlags) -> anyhow::Result<Report> {
    let mut subject = match (&flags.url, flags.five) {
        (Some(url), _) => Subject::at(url),
        (None, false) => Subject::start()?,
        (None, true) => Subject::start_each()?,
    };
    let load = Load::open(&subject).await?;
    let ends = Ends::watch(&subject, &load).await?;
    let bar = progress_bar(flags);
    run_orders(&load, &ends, flags.warm_up, None, flags.concurrency, &bar).await.context("warm-up")?;
    ends.forget();
    bar.reset();
    subject.begin();
    let began = Instant::now();
    let sent = run_orders(&load, &ends, flags.orders, flags.rate, flags.concurrency, &bar).await?;
    let took = began.elapsed();
    bar.finish_and_clear();
    let usage = subject.usage();
    let fdatasync_ms = subject.measure_fdatasync()?;
    Ok(Report::new(flags.orders, took, &ends.cascades_ms(&sent), ends.events(), usage, fdatasync_ms))
}

fn is_progress_shown(as_json: bool) -> bool {
    !as_json && std::io::stderr().is_terminal()
}

fn progress_bar(flags: &BenchFlags) -> ProgressBar {
    if !is_progress_shown(flags.json) {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::from(flags.orders));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} orders, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Sends `count` orders and waits until all have ended; gives when each was sent, or was to be sent.
async fn run_orders(
    load: &Load,
    ends: &Ends,
    count: u32,
    rate: Option<u32>,
    concurrency: u32,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<load::Sent>> {
    let already = ends.count();
    let wait = async {
        let (mut seen, mut changed) = (0, Instant::now());
        loop {
            let ended = ends.count() - already;
            bar.set_position(ended);
            if ended >= u64::from(count) {
                return Ok(());
            }
            if ended > seen {
                (seen, changed) = (ended, Instant::now());
            } else if changed.elapsed() > PATIENCE {
                bail!("{ended} of {count} orders ended, and no other one within {} s", PATIENCE.as_secs());
            }
            tokio::select! {
                biased;
                () = ends.reached(already + u64::from(count)) => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    };
    let (sent, waited) = tokio::join!(load.send(count, rate, concurrency), wait);
    waited?;
    sent
}
