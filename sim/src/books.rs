//! The books of all subscriptions, audited against the log: of a copy of the broker's store, as a crash at that moment would leave it.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use broker::{
    audit::{self, AuditError},
    engine::{LogEngine, embedded::Embedded},
};
use kit::{Environment, Lifecycle, environment::RestingDisk};

use crate::{archive::Archive, losses::Saved, partner::Partner, world};

/// The files of the broker's store; where the second is not there, the first is all of it.
const FILES: [&str; 2] = ["broker.db", "broker.db-wal"];
/// How long a store may take to close, in real time.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// Audits the subscriptions of the broker whose store is in `folder`, while no step of the simulation runs; the partner's also against
/// all that the log ever held. Gives what is wrong.
pub(crate) fn audit(folder: &Path, archive: &Archive, partner: &Partner) -> anyhow::Result<Vec<String>> {
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
    runtime.block_on(audit_all(copy.path(), archive, partner))
}

async fn audit_all(folder: &Path, archive: &Archive, partner: &Partner) -> anyhow::Result<Vec<String>> {
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
    if let Some(entry) = engine.state_get(&Saved::key()).await? {
        // What the broker's disk has is in the log, whether anybody was told or not.
        archive.copy(&engine).await?;
        wrong.extend(Saved::parse(&entry.value)?.check(&archive.events(), partner));
    }
    drop(engine);
    anyhow::ensure!(lifecycle.stop(CLOSE_DEADLINE).await, "the copy of the broker's store did not close");
    Ok(wrong)
}
