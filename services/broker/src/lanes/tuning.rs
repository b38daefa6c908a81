//! The limits of a subscription.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The limits of a subscription.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// The most events in one delivery.
    pub batch_events_max: usize,
    /// About how many bytes one delivery holds at most.
    pub batch_bytes_max: usize,
    /// How long events wait for others to go with them, in milliseconds.
    pub batch_wait_ms: u64,
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
    /// How many lanes may be set aside and not parked; with more, nothing new is read. Each takes about half a KiB of memory.
    pub aside_lanes_max: usize,
    /// After how many failures an event is given up, if others are taken meanwhile.
    pub failures_max: u32,
    /// How long after its first failure an event is given up, if others are taken meanwhile, in milliseconds; none sets no limit.
    pub failing_ms_max: Option<u64>,
    /// What happens to a lane whose event is given up.
    pub on_exhausted: OnExhausted,
    /// The first retry comes within this time; each further one within twice the time before.
    pub backoff_ms: u64,
    /// The longest time to a retry, unless the endpoint asks for a longer one.
    pub backoff_ms_max: u64,
    /// The longest time to the next probe of an endpoint at fault.
    pub probe_ms_max: u64,
}

/// What happens to a lane whose event is given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// It waits behind the dead letter, so that its events stay in sequence.
    #[default]
    Park,
    /// It goes on: its events are not in sequence any more when the dead letter is redriven.
    Continue,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            batch_events_max: 64,
            batch_bytes_max: 1024 * 1024,
            batch_wait_ms: 0,
            deliveries_max: 8,
            window_events_max: 4_096,
            window_bytes_max: 16 * 1024 * 1024,
            lane_events_max: 256,
            failures_until_aside: 3,
            aside_lanes_max: 100_000,
            failures_max: 50,
            failing_ms_max: None,
            on_exhausted: OnExhausted::Park,
            backoff_ms: 100,
            backoff_ms_max: 60_000,
            probe_ms_max: 15_000,
        }
    }
}
