//! The subscriptions as those who may still need events of the log.

use std::sync::atomic::Ordering;

use kit::{BoxFuture, Position};
use tokio::sync::{mpsc, oneshot};

use super::{OperateError, Subscriptions};
use crate::{dispatcher::Instruction, engine::EngineError, retention::Holders};

impl Holders for Subscriptions {
    fn release(&self, up_to: Position) -> BoxFuture<'_, Result<Position, EngineError>> {
        Box::pin(async move {
            // Whoever begins meanwhile would not be asked: they begin afterwards, behind what goes.
            let _one_at_a_time = self.changing.lock().await;
            // First those that hold the log: nobody loses an event for the sake of one that stays.
            let mut held = up_to;
            for (name, is_required) in self.names() {
                if is_required {
                    held = self.release_one(&name, held).await?.min(held);
                }
            }
            for (name, is_required) in self.names() {
                if !is_required {
                    self.release_one(&name, held).await?;
                }
                self.release_replays(&name, held).await?;
            }
            self.let_go.fetch_max(held.0, Ordering::Relaxed);
            Ok(held)
        })
    }
}

impl Subscriptions {
    async fn release_one(&self, name: &str, up_to: Position) -> Result<Position, EngineError> {
        match self.tell(name, |reply| Instruction::Release { up_to, reply }).await {
            // It was removed meanwhile.
            Err(OperateError::Unknown(_)) => Ok(up_to),
            Err(OperateError::Engine(error)) => Err(error),
            Ok(released) => Ok(released),
        }
    }

    async fn release_replays(&self, name: &str, up_to: Position) -> Result<(), EngineError> {
        let (sender, mut replies) = mpsc::unbounded_channel();
        self.tell_replays(name, || {
            let (reply, answer) = oneshot::channel();
            let _ = sender.send(answer);
            Instruction::Release { up_to, reply }
        })
        .await;
        drop(sender);
        while let Some(answer) = replies.recv().await {
            // One that has ended meanwhile needs nothing.
            answer.await.unwrap_or(Ok(up_to))?;
        }
        Ok(())
    }

    fn names(&self) -> Vec<(String, bool)> {
        self.entries().iter().map(|(name, entry)| (name.clone(), entry.stored.wanted.required == Some(true))).collect()
    }
}
