//! What a service is given to live in: clock, ids, disk, network. Production gives the real ones, the simulation its own.

use std::{fmt, sync::Arc};

use crate::{
    BoxFuture, Clock,
    clock::SystemClock,
    http::client::{Connect, TcpConnect},
    ids::Ids,
    trace::Observer,
};

/// What a service is given to live in.
#[derive(Clone)]
pub struct Environment {
    /// Who tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where ids and jitter come from.
    pub ids: Arc<Ids>,
    /// How long a commit takes, and whether it survives a crash in between.
    pub disk: Arc<dyn Disk>,
    /// Where writer loops run.
    pub writers: Writers,
    /// How connections are opened.
    pub connect: Arc<dyn Connect>,
    /// Who watches; nobody in production.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Environment {
    /// The real world.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn real() -> Result<Self, rand::rngs::SysError> {
        Ok(Self {
            clock: Arc::new(SystemClock),
            ids: Arc::new(Ids::from_system()?),
            disk: Arc::new(RealDisk),
            writers: Writers::OwnThreads,
            connect: Arc::new(TcpConnect),
            observer: None,
        })
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// Where writer loops run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Each on a thread of its own, because it waits for the disk.
    OwnThreads,
    /// As a task beside all others: the simulation has one thread.
    Inline,
}

/// The seam around a durable commit. The commit itself is SQLite's; simulated time passes before and after it.
pub trait Disk: Send + Sync + 'static {
    /// Called when a transaction is complete and not yet committed.
    fn before_commit(&self) -> BoxFuture<'_, ()>;
    /// Called when it is committed and nobody has been told.
    fn after_commit(&self) -> BoxFuture<'_, ()>;
    /// Whether commits must reach the platter; only a simulated disk may say no.
    fn is_durable(&self) -> bool {
        true
    }
}

/// The machine's disk: the commit is all there is.
#[derive(Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn before_commit(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn after_commit(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A disk that takes no time and promises nothing: for tests, and for copies that nobody keeps.
#[derive(Debug)]
pub struct RestingDisk;

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
