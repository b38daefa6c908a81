//! What a commit means to others: the log's tail moves, and whoever waits is answered.

use kit::{Lifecycle, Position, Recorded};
use tokio::sync::mpsc;

use super::{Done, Job, Undone};
use crate::engine::tail::TailSender;

/// What came of some work.
#[derive(Default)]
pub(super) struct Outcome {
    /// The log is durable up to here, if it grew.
    pub(super) moved_to: Option<Position>,
    /// The work, and what its caller is told.
    pub(super) answers: Vec<(Job, Result<Done, Undone>)>,
    /// Events that memory has no room for any more.
    pub(super) evicted: Vec<Recorded>,
}

/// The way from the writer's thread over to the runtime. What a commit means goes over as one message: to wake each waiter from here
/// would cost about a system call for each, and to free what others allocated costs time too, while the next commit waits.
pub(in super::super) struct Handout(mpsc::UnboundedSender<Outcome>);

impl Handout {
    /// Starts what moves `tail` and answers. Its queue needs no limit of its own: whatever is in it was let in as work.
    pub(in super::super) fn start(tail: TailSender, lifecycle: &Lifecycle) -> Self {
        let (sender, mut outcomes) = mpsc::unbounded_channel();
        lifecycle.spawn("log handout", async move {
            while let Some(Outcome { moved_to, answers, evicted }) = outcomes.recv().await {
                // Before the answers: whoever has one must find what they wrote.
                if let Some(last) = moved_to {
                    tail.move_to(last);
                }
                let (done, replies): (Vec<_>, Vec<_>) =
                    answers.into_iter().map(|(Job { work, reply }, answer)| (work, (reply, answer))).unzip();
                for (reply, answer) in replies {
                    // A caller that has gone away does not mind.
                    let _ = reply.send(answer);
                }
                drop((done, evicted));
            }
        });
        Self(sender)
    }

    /// Hands `outcome` over.
    pub(super) fn give(&self, outcome: Outcome) {
        // Only a runtime that has ended takes none, and then nobody waits.
        let _ = self.0.send(outcome);
    }

    /// Answers `jobs`, and means nothing to others.
    pub(super) fn answer(&self, jobs: impl IntoIterator<Item = (Job, Result<Done, Undone>)>) {
        self.give(Outcome { answers: jobs.into_iter().collect(), ..Outcome::default() });
    }
}
