//! The books of all subscriptions, audited against the log: of a copy of the broker's store, as a crash at that moment would leave it.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use broker::{
    audit::{self, AuditError},
    engine::embedded::Embedded,
};
use kit::{BoxFuture, Environment, Lifecycle, environment::Disk};

use crate::world;

/// The files of the broker's store; where the second is not there, the first is all of it.
const FILES: [&str; 2] = ["broker.db", "broker.db-wal"];
/// How long a store may take to close, in real time.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// Audits the subscriptions of the broker whose store is in `folder`, while no step of the simulation runs. Gives what is wrong.
pub(crate) fn audit(folder: &Path) -> anyhow::Result<Vec<String>> {
    if !folder.join("broker.db").exists() {
        return Ok(Vec::new());
    }
    let copy = crate::scratch()?;
    for file in FILES {
        if folder.join(file).exists() {
            std::fs::copy(folder.join(file), copy.path().join(file)).with_context(|| format!("a copy of {file}"))?;
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(audit_all(copy.path()))
}

async fn audit_all(folder: &Path) -> anyhow::Result<Vec<String>> {
    let lifecycle = Lifecycle::new();
    let environment = Environment { disk: Arc::new(RestingDisk), ..world::environment(0, Arc::default()) };
    let engine = Embedded::start(folder, &environment, &lifecycle)?;
    let mut wrong = Vec::new();
    for name in audit::names(&engine).await? {
        match audit::check(&engine, &name).await {
            Ok(_) => {}
            Err(error @ AuditError::Wrong { .. }) => wrong.push(error.to_string()),
            Err(error) => return Err(error).with_context(|| format!("the audit of subscription {name}")),
        }
    }
    drop(engine);
    anyhow::ensure!(lifecycle.stop(CLOSE_DEADLINE).await, "the copy of the broker's store did not close");
    Ok(wrong)
}

/// A disk that takes no time: nothing of the copy is kept.
struct RestingDisk;

impl Disk for RestingDisk {
    fn before_commit(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn after_commit(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn is_durable(&self) -> bool {
        false
    }
}
