//! What came of it.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::subject::Usage;

/// The figures of a run. The names in JSON never change their meaning.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    orders: u32,
    orders_per_s: f64,
    events_per_s: f64,
    cascade_ms_p50: f64,
    cascade_ms_p95: f64,
    cascade_ms_p99: f64,
    /// None where the shop is not a process of ours.
    cpu_s_per_1000_orders: Option<f64>,
    /// None where the shop is not a process of ours.
    peak_rss_bytes: Option<u64>,
    fdatasync_ms_p50: f64,
}

impl Report {
    /// `cascades_ms` are the orders' times from sending to end, in milliseconds, ascending.
    pub(crate) fn new(orders: u32, took: Duration, cascades_ms: &[f64], events: u64, usage: Option<Usage>, fdatasync_ms_p50: f64) -> Self {
        let per_s = |count: f64| count / took.as_secs_f64();
        Self {
            orders,
            orders_per_s: round(per_s(f64::from(orders))),
            events_per_s: round(per_s(events as f64)),
            cascade_ms_p50: percentile(cascades_ms, 0.50),
            cascade_ms_p95: percentile(cascades_ms, 0.95),
            cascade_ms_p99: percentile(cascades_ms, 0.99),
            cpu_s_per_1000_orders: usage.map(|usage| round(usage.cpu.as_secs_f64() * 1_000.0 / f64::from(orders))),
            peak_rss_bytes: usage.map(|usage| usage.peak_rss_bytes),
            fdatasync_ms_p50,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} orders, {:.0} orders/s, {:.0} events/s", self.orders, self.orders_per_s, self.events_per_s)?;
        writeln!(f, "cascade   p50 {:.1} ms   p95 {:.1} ms   p99 {:.1} ms", self.cascade_ms_p50, self.cascade_ms_p95, self.cascade_ms_p99)?;
        if let (Some(cpu), Some(rss)) = (self.cpu_s_per_1000_orders, self.peak_rss_bytes) {
            writeln!(f, "shop      {cpu:.2} CPU s per 1000 orders   peak {:.1} MiB", rss as f64 / 1_048_576.0)?;
        }
        write!(f, "fdatasync p50 {:.3} ms", self.fdatasync_ms_p50)
    }
}

/// The value below which the share `part` of `sorted` lies; zero of nothing.
pub(crate) fn percentile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    round(sorted.get(rank.saturating_sub(1)).or(sorted.last()).copied().unwrap_or(0.0))
}

/// To a thousandth: more digits say nothing.
pub(crate) fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_value_at_its_rank() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.50), 50.0);
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values[..1], 0.99), 1.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}
