//! A world with a manual clock, seeded ids and no other threads.
//!
//! Time is tokio's: a test that runs with `start_paused = true` moves it with `tokio::time::advance`, or by waiting.

use std::{sync::Arc, time::Duration};

use kit::{
    Clock, Environment, Timestamp,
    environment::{RestingDisk, Writers},
    http::client::TcpConnect,
    ids::Ids,
};
use tokio::time::Instant;

/// When every test begins.
pub const BEGINNING: Timestamp = Timestamp::from_ms(1_700_000_000_000);
/// How long [`eventually`] waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// An environment whose chance follows from `seed`, whose clock is tokio's, and whose disk takes no time.
pub fn world(seed: u64) -> Environment {
    Environment {
        clock: Arc::new(TokioClock { start: Instant::now() }),
        ids: Arc::new(Ids::seeded(seed)),
        disk: Arc::new(RestingDisk),
        writers: Writers::Inline,
        connect: Arc::new(TcpConnect),
        observer: None,
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within a minute (of tokio's time).
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "this did not come to be: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct TokioClock {
    start: Instant,
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        BEGINNING.plus_ms(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
