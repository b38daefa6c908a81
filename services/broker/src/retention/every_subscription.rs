//! Subscriptions that hold all that they have not settled.

use std::sync::Arc;

use kit::{BoxFuture, Position};

use super::Holders;
use crate::{
    engine::{EngineError, LogEngine},
    shelf::{CONFIG_PREFIX, Shelf},
};

/// Every subscription that is registered, by what it has saved: what is saved is never ahead of what is true.
pub(crate) struct EverySubscription(pub(crate) Arc<dyn LogEngine>);

impl Holders for EverySubscription {
    fn release(&self, mut up_to: Position) -> BoxFuture<'_, Result<Position, EngineError>> {
        Box::pin(async move {
            for entry in self.0.state_list(CONFIG_PREFIX).await? {
                let (_, saved) = Shelf::load(self.0.as_ref(), entry.key.trim_start_matches(CONFIG_PREFIX)).await?;
                let first_row = saved.rows.iter().map(|row| Position(row.first.0 - 1)).min();
                up_to = first_row.into_iter().chain([saved.floor]).fold(up_to, Position::min);
            }
            Ok(up_to)
        })
    }
}
