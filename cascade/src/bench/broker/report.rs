//! What came of it.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::bench::report::{percentile, round};

/// All that was measured.
#[derive(Debug, Default)]
pub(in crate::bench) struct Report {
    pub(super) published: Option<Speed>,
    pub(super) batched: Option<Speed>,
    pub(super) delivered: Option<Speed>,
    pub(super) delay: Option<Delay>,
    pub(super) silent: Option<Disturbance>,
    pub(super) backlog: Option<Disturbance>,
    pub(super) failing: Option<Disturbance>,
    /// How long each of some syncs took between the measurements.
    pub(super) sync_times_ms: Vec<f64>,
}

/// How fast events went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speed {
    events: u64,
    per_s: f64,
    cpu_us_per_event: f64,
    load_cpu_us_per_event: f64,
    pub(super) repeated: u64,
    pub(super) out_of_order: u64,
}

impl Speed {
    /// `events` in the time that they `took`, and what that cost.
    pub(super) fn new(events: u64, took: Duration, cost: Cost) -> Self {
        let us_per_event = |cpu: Duration| round(cpu.as_secs_f64() * 1e6 / events.max(1) as f64);
        let (cpu_us_per_event, load_cpu_us_per_event) = (us_per_event(cost.broker), us_per_event(cost.load));
        Self { events, per_s: per_s(events, took), cpu_us_per_event, load_cpu_us_per_event, repeated: 0, out_of_order: 0 }
    }
}

/// Time on processors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Of the broker.
    pub(super) broker: Duration,
    /// Of whoever publishes.
    pub(super) load: Duration,
}

impl Cost {
    /// What came since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self { broker: self.broker.saturating_sub(before.broker), load: self.load.saturating_sub(before.load) }
    }
}

/// How late events were.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Delay {
    events: usize,
    ms_p50: f64,
    ms_p99: f64,
    ms_max: f64,
}

impl Delay {
    /// `delays_ms` ascend.
    pub(super) fn of(delays_ms: &[f64]) -> Self {
        let part = |part| percentile(delays_ms, part);
        Self { events: delays_ms.len(), ms_p50: part(0.5), ms_p99: part(0.99), ms_max: part(1.0) }
    }
}

/// How late events were beside something that disturbs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Disturbance {
    /// How many subscribers, events or orders disturbed.
    count: u64,
    quiet: Delay,
    disturbed: Delay,
    /// The disturbed broker's memory.
    rss_bytes_before: u64,
    rss_bytes_after: u64,
    pub(super) catch_up: Option<CatchUp>,
}

/// What happened while a subscriber that was behind caught up.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct CatchUp {
    /// How late the others' events were meanwhile.
    delay: Delay,
    /// How fast it caught up.
    events_per_s: f64,
    rss_bytes: u64,
}

impl CatchUp {
    /// `events` were taken in the time that it `took`.
    pub(super) fn new(delay: Delay, events: u64, took: Duration, rss_bytes: u64) -> Self {
        Self { delay, events_per_s: per_s(events, took), rss_bytes }
    }
}

impl Disturbance {
    /// What `count` of something did to a broker beside one without; `rss_bytes` before and after.
    pub(super) fn new(count: u64, quiet_delays_ms: &[f64], delays_ms: &[f64], rss_bytes: (u64, u64)) -> Self {
        let (quiet, disturbed) = (Delay::of(quiet_delays_ms), Delay::of(delays_ms));
        Self { count, quiet, disturbed, rss_bytes_before: rss_bytes.0, rss_bytes_after: rss_bytes.1, catch_up: None }
    }
}

/// The names in JSON never change their meaning; what was not measured is null. `…cpu_us` is for one event: of the broker, and
/// `load_cpu_us` of whoever publishes events one by one.
#[derive(Serialize)]
struct Json {
    published_per_s: Option<f64>,
    published_cpu_us: Option<f64>,
    load_cpu_us: Option<f64>,
    published_batched_per_s: Option<f64>,
    published_batched_cpu_us: Option<f64>,
    delivered_per_s: Option<f64>,
    delivered_cpu_us: Option<f64>,
    delivered_repeated: Option<u64>,
    delivered_out_of_order: Option<u64>,
    delivery_ms_p50: Option<f64>,
    delivery_ms_p99: Option<f64>,
    delivery_ms_max: Option<f64>,
    silent: Option<Disturbance>,
    backlog: Option<Disturbance>,
    failing: Option<Disturbance>,
    fdatasync_ms_p50: f64,
    fdatasync_ms_p99: f64,
}

impl Report {
    /// The share `part` of the syncs took no longer.
    fn fdatasync_ms(&self, part: f64) -> f64 {
        let mut times_ms = self.sync_times_ms.clone();
        times_ms.sort_by(f64::total_cmp);
        percentile(&times_ms, part)
    }
}

impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = Json {
            published_per_s: self.published.map(|speed| speed.per_s),
            published_cpu_us: self.published.map(|speed| speed.cpu_us_per_event),
            load_cpu_us: self.published.map(|speed| speed.load_cpu_us_per_event),
            published_batched_per_s: self.batched.map(|speed| speed.per_s),
            published_batched_cpu_us: self.batched.map(|speed| speed.cpu_us_per_event),
            delivered_per_s: self.delivered.map(|speed| speed.per_s),
            delivered_cpu_us: self.delivered.map(|speed| speed.cpu_us_per_event),
            delivered_repeated: self.delivered.map(|speed| speed.repeated),
            delivered_out_of_order: self.delivered.map(|speed| speed.out_of_order),
            delivery_ms_p50: self.delay.map(|delay| delay.ms_p50),
            delivery_ms_p99: self.delay.map(|delay| delay.ms_p99),
            delivery_ms_max: self.delay.map(|delay| delay.ms_max),
            silent: self.silent,
            backlog: self.backlog,
            failing: self.failing,
            fdatasync_ms_p50: self.fdatasync_ms(0.5),
            fdatasync_ms_p99: self.fdatasync_ms(0.99),
        };
        json.serialize(serializer)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let speeds = [("published one by one", self.published), ("published in batches", self.batched), ("delivered", self.delivered)];
        for (name, speed) in speeds {
            if let Some(speed) = speed {
                let (broker, load) = (speed.cpu_us_per_event, speed.load_cpu_us_per_event);
                writeln!(f, "{name:<21} {:>9.0} events/s   CPU an event: broker {broker:.1} µs, load {load:.1} µs", speed.per_s)?;
                if speed.repeated + speed.out_of_order > 0 {
                    let (count, events) = (speed.repeated + speed.out_of_order, speed.events);
                    writeln!(f, "{:<21} {count} of {events} events came again, or behind a later one of their order", "")?;
                }
            }
        }
        if let Some(delay) = self.delay {
            writeln!(f, "{:<21} {delay}", "delay")?;
        }
        let subject = [("silent subscriber", self.silent), ("backlog", self.backlog), ("failing orders", self.failing)];
        for (name, disturbance) in subject {
            if let Some(disturbance) = disturbance {
                disturbance.write(name, f)?;
            }
        }
        write!(f, "{:<21} p50 {:>7.3} ms   p99 {:>7.3} ms", "fdatasync", self.fdatasync_ms(0.5), self.fdatasync_ms(0.99))
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:>7.3} ms   p99 {:>7.3} ms   max {:>8.3} ms   ({} events)", self.ms_p50, self.ms_p99, self.ms_max, self.events)
    }
}

impl Disturbance {
    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.count == 1 { name.to_owned() } else { format!("{name} ({})", self.count) };
        writeln!(f, "{name}")?;
        writeln!(f, "{:<21} {}", "  without", self.quiet)?;
        writeln!(f, "{:<21} {}", "  with", self.disturbed)?;
        if let Some(catch_up) = &self.catch_up {
            writeln!(f, "{:<21} {}   {:.0} events/s", "  catching up", catch_up.delay, catch_up.events_per_s)?;
        }
        writeln!(f, "{:<21} {:.1} MiB before, {:.1} MiB after", "  memory", mib(self.rss_bytes_before), mib(self.rss_bytes_after))
    }
}

fn per_s(events: u64, took: Duration) -> f64 {
    round(events as f64 / took.as_secs_f64().max(1e-6))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
