//! What a dispatcher is told while it runs, and how it obeys.

use std::sync::Arc;

use kit::{Position, transport::Sink};
use tokio::sync::oneshot;

use super::{Dispatcher, Run, tuning};
use crate::{
    engine::EngineError,
    keeping,
    subscriptions::stored::{Stored, TooManyChanges},
};

/// What a dispatcher is told while it runs.
pub(crate) enum Instruction {
    /// The subscriber can be had through this.
    Attach(Arc<dyn Sink>),
    /// The subscriber has shown that it is there.
    Nudge,
    /// Ask for this from now on, and send it there, if that is named.
    Configure { after: Box<Stored>, sink: Option<Arc<dyn Sink>>, reply: oneshot::Sender<Result<Configured, ConfigureError>> },
    /// Try the dead letter at this position again.
    Redrive(Position, oneshot::Sender<bool>),
    /// Give up the dead letter at this position for good.
    Discard(Position, oneshot::Sender<bool>),
    /// The subscription is gone: end, and save nothing any more.
    End,
}

/// What a subscription asks for, as it was saved.
pub(crate) struct Configured {
    pub(crate) stored: Stored,
    pub(crate) version: i64,
}

/// Why a subscription does not ask for something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigureError {
    /// Too much would have to be kept in mind.
    #[error(transparent)]
    TooManyChanges(#[from] TooManyChanges),
    /// It could not be saved.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Dispatcher {
    /// Does what it is told. Answers whether it goes on.
    pub(super) async fn obey(&mut self, run: &mut Run, instruction: Instruction) -> bool {
        let now = self.environment.clock.now();
        match instruction {
            Instruction::Attach(sink) => {
                self.sink = Some(sink);
                run.lanes.nudge(now);
            }
            Instruction::Nudge => run.lanes.nudge(now),
            Instruction::Configure { after, sink, reply } => {
                let configured = self.configure(run, *after, sink).await;
                drop(reply.send(configured));
            }
            Instruction::Redrive(position, reply) => drop(reply.send(run.lanes.redrive(position, now))),
            Instruction::Discard(position, reply) => drop(reply.send(run.lanes.discard(position))),
            Instruction::End => {
                if let Some(saving) = run.saving.take() {
                    let _ = saving.await;
                }
                return false;
            }
        }
        true
    }

    /// What was read already stays chosen by what was asked for then.
    async fn configure(&mut self, run: &mut Run, mut after: Stored, sink: Option<Arc<dyn Sink>>) -> Result<Configured, ConfigureError> {
        after.remember(&self.stored, run.lanes.read_head(), run.lanes.settled_up_to())?;
        keeping::configure(self.engine.as_ref(), &self.name, &after, self.version).await?;
        (self.stored, self.version) = (after, self.version + 1);
        run.lanes.tune(tuning(&self.stored.wanted));
        if let Some(sink) = sink {
            self.sink = Some(sink);
        }
        run.lanes.nudge(self.environment.clock.now());
        Ok(Configured { stored: self.stored.clone(), version: self.version })
    }
}
