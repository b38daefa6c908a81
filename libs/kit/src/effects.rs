//! Performs durable effects and brings their outcomes back.
//!
//! An effect's row stays in the store until its outcome is applied: after a crash it is performed again.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

use crate::{Context, Lifecycle, Machine, writer::Job};

/// How many effects are under way at once.
const EFFECTS_MAX: usize = 1_024;
/// How long an effect may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long an effect rests that broke instead of answering.
const REST: Duration = Duration::from_secs(30);

/// An effect that is durable and not done.
pub(crate) struct PendingEffect<M: Machine> {
    /// Its row.
    pub(crate) id: i64,
    pub(crate) effect: M::Effect,
    pub(crate) context: Context,
    /// Whether it broke before, so that it rests first.
    pub(crate) rests: bool,
}

/// Performs what comes in until the lifecycle halts.
pub(crate) async fn run<M: Machine>(
    machine: Arc<M>,
    mut pending: mpsc::UnboundedReceiver<PendingEffect<M>>,
    outcomes: mpsc::Sender<Job<M>>,
    lifecycle: Lifecycle,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = lifecycle.halted() => return,
            Some(job) = under_way.next(), if !under_way.is_empty() => {
                if outcomes.send(job).await.is_err() {
                    return;
                }
            }
            next = pending.recv(), if under_way.len() < EFFECTS_MAX => match next {
                Some(effect) => under_way.push(perform(machine.clone(), effect)),
                None => return,
            },
        }
    }
}

async fn perform<M: Machine>(machine: Arc<M>, pending: PendingEffect<M>) -> Job<M> {
    let PendingEffect { id, effect, context, mut rests } = pending;
    loop {
        if rests {
            tokio::time::sleep(REST).await;
        }
        let attempt = AssertUnwindSafe(async { machine.perform(effect.clone(), context.clone()).await }).catch_unwind();
        match tokio::time::timeout(TIMEOUT, attempt).await {
            Ok(Ok(outcomes)) => return Job::Outcome { effect_id: id, effect, context, outcomes },
            Ok(Err(_)) => tracing::error!(service = M::NAME, effect.id = id, "an effect panicked; it is performed again later"),
            Err(_) => tracing::error!(service = M::NAME, effect.id = id, "an effect took too long; it is performed again later"),
        }
        rests = true;
    }
}
