//! The limits of a subscription.

/// The limits of a subscription.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// The most events in one delivery.
    pub batch_events_max: usize,
    /// About how many bytes one delivery holds at most.
    pub batch_bytes_max: usize,
    /// The most deliveries in flight; at least 2, so that failing events never take all of them.
    pub deliveries_max: usize,
    /// How many events may wait in memory.
    pub window_events_max: usize,
    /// About how many bytes of events may wait in memory.
    pub window_bytes_max: usize,
    /// How many events of one lane may wait in memory; with more it is set aside.
    pub lane_events_max: usize,
    /// After how many failures a lane is set aside.
    pub failures_until_aside: u32,
    /// After how many failures an event is given up, if others are taken meanwhile.
    pub failures_max: u32,
    /// The first retry comes within this time; each further one within twice the time before.
    pub backoff_ms: u64,
    /// The longest time to a retry, unless the endpoint asks for a longer one.
    pub backoff_ms_max: u64,
    /// The longest time to the next probe of an endpoint at fault.
    pub probe_ms_max: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            batch_events_max: 64,
            batch_bytes_max: 1024 * 1024,
            deliveries_max: 4,
            window_events_max: 4_096,
            window_bytes_max: 16 * 1024 * 1024,
            lane_events_max: 256,
            failures_until_aside: 3,
            failures_max: 50,
            backoff_ms: 100,
            backoff_ms_max: 60_000,
            probe_ms_max: 15_000,
        }
    }
}
