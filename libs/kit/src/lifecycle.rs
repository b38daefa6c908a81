//! Starting, serving and stopping in order.
//!
//! A stop has three phases. *Leaving*: the service says that it is not ready and asks for each connection to be closed with the answer,
//! but serves on, for as long as a load balancer needs to notice. *Draining*: it takes no new connections and finishes the requests it
//! has. *Halting*: writer loops commit what is queued, every other loop ends. What is not finished then is durable and goes on after the
//! next start.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::FutureExt;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::environment::Writers;

/// Every task of a process, and the signals that end them. Clones are the same lifecycle.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    leaving: CancellationToken,
    draining: CancellationToken,
    halting: CancellationToken,
    requests: TaskTracker,
    loops: TaskTracker,
    failure: Arc<OnceLock<String>>,
}

impl Lifecycle {
    /// A lifecycle that has just begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` until it ends; a loop must end when [`Lifecycle::halted`] does. A panic fails the process.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let guarded = self.guard(name, task);
        drop(self.loops.spawn(guarded));
    }

    /// Runs `task` as part of answering requests: draining waits for it.
    pub fn spawn_request(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.requests.spawn(task));
    }

    /// Draining waits until the token is dropped, too: for whoever may still spawn requests.
    pub(crate) fn expect_requests(&self) -> TaskTrackerToken {
        self.requests.token()
    }

    /// Runs a loop that waits for the disk, where `writers` says.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn spawn_writer(
        &self,
        writers: Writers,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        match writers {
            Writers::Inline => self.spawn(name, task),
            Writers::OwnThreads => {
                let guarded = self.loops.track_future(self.guard(name, task));
                let runtime = tokio::runtime::Handle::current();
                std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(guarded))?;
            }
        }
        Ok(())
    }

    fn guard(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
        let lifecycle = self.clone();
        async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                lifecycle.fail(format!("{name} panicked"));
            }
        }
    }

    /// Ends the process because of `reason`; the first reason is kept.
    pub fn fail(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(reason, "stopping because something broke");
        let _ = self.failure.set(reason);
        self.drain();
        self.halting.cancel();
    }

    /// Why the process is ending, if something broke.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Whether the service is to be left alone: it is not ready any more.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    /// Whether no new work is taken any more.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Ends when no new work is to be taken any more.
    pub fn drained(&self) -> WaitForCancellationFuture<'_> {
        self.draining.cancelled()
    }

    /// Ends when loops are to end.
    pub fn halted(&self) -> WaitForCancellationFuture<'_> {
        self.halting.cancelled()
    }

    /// Whether loops are to end.
    pub fn is_halting(&self) -> bool {
        self.halting.is_cancelled()
    }

    /// Leaves: for `linger` everything is served as before, new connections too, while `/ready` answers 503 and each answer asks for its
    /// connection to be closed, so that a load balancer goes elsewhere without ever meeting a connection that is being closed. Returns
    /// at once when `linger` is zero, and early when something breaks. To be followed by [`Lifecycle::stop`].
    pub async fn leave(&self, linger: Duration) {
        self.leaving.cancel();
        if linger.is_zero() {
            return;
        }
        tokio::select! {
            biased;
            () = self.drained() => {}
            () = tokio::time::sleep(linger) => {}
        }
    }

    /// Stops in order: drains, then halts, within `deadline` in all. Answers whether all ended in time.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.drain();
        self.requests.close();
        let all = async {
            // Half of the time is for requests; what they began must still be committed.
            let _ = tokio::time::timeout(deadline / 2, self.requests.wait()).await;
            self.halting.cancel();
            self.loops.close();
            self.loops.wait().await;
        };
        tokio::time::timeout(deadline, all).await.is_ok()
    }

    fn drain(&self) {
        self.leaving.cancel();
        self.draining.cancel();
    }
}
