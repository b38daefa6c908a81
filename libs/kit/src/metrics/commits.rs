//! Commits, timed: each one reaches the disk.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Error, Histogram, HistogramOpts, HistogramVec};
use tokio::time::Instant;

use crate::{BoxFuture, Environment, environment::Disk};

/// Seconds.
const BUCKETS_S: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

pub(super) fn timed() -> Result<HistogramVec, Error> {
    let help = "Time that a commit to a store took, its fsync included.";
    let opts = HistogramOpts::new("cascade_store_commit_duration_seconds", help).buckets(BUCKETS_S.to_vec());
    HistogramVec::new(opts, &["store"])
}

pub(super) fn time(environment: &Environment, commits: Histogram) -> Environment {
    let disk = TimedDisk { disk: environment.disk.clone(), began: Mutex::default(), commits };
    Environment { disk: Arc::new(disk), ..environment.clone() }
}

/// A disk whose commits are timed. One writer has it, so there is one commit at a time.
struct TimedDisk {
    disk: Arc<dyn Disk>,
    began: Mutex<Option<Instant>>,
    commits: Histogram,
}

impl TimedDisk {
    fn began(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for TimedDisk {
    fn before_commit(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.disk.before_commit().await;
            *self.began() = Some(Instant::now());
        })
    }

    fn after_commit(&self) -> BoxFuture<'_, ()> {
        let began = self.began().take();
        if let Some(began) = began {
            self.commits.observe(began.elapsed().as_secs_f64());
        }
        self.disk.after_commit()
    }

    fn is_durable(&self) -> bool {
        self.disk.is_durable()
    }
}
