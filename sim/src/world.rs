//! The clock, the disk and the network that the services are given.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kit::{
    BoxFuture, Clock, Environment, Timestamp,
    environment::{Disk, Writers},
    http::{
        client::Connect,
        server::{Listener, Stream},
    },
    ids::Ids,
    trace::{Observation, Observer},
};

/// When every simulation begins.
const BEGINNING: Timestamp = Timestamp::from_ms(1_700_000_000_000);

/// A new environment for one life of a host.
pub(crate) fn environment(seed: u64, recorder: Arc<Recorder>) -> Environment {
    let ids = Arc::new(Ids::seeded(seed));
    Environment {
        clock: Arc::new(SimulatedClock),
        disk: Arc::new(SimulatedDisk { chance: ids.clone() }),
        ids,
        writers: Writers::Inline,
        connect: Arc::new(SimulatedConnect),
        observer: Some(recorder),
    }
}

/// Milliseconds of simulated time; zero outside of a simulation.
pub(crate) fn elapsed_ms() -> u64 {
    turmoil::sim_elapsed().map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

struct SimulatedClock;

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        BEGINNING.plus_ms(elapsed_ms())
    }
}

/// A disk whose commits take time. A crash before the commit drops the transaction, a crash after it keeps it unanswered.
struct SimulatedDisk {
    chance: Arc<Ids>,
}

impl SimulatedDisk {
    /// Most commits are quick, some are not.
    fn wait(&self) -> BoxFuture<'_, ()> {
        let ms = if self.chance.up_to(9) == 0 { self.chance.up_to(120) } else { self.chance.up_to(3) };
        Box::pin(tokio::time::sleep(Duration::from_millis(ms)))
    }
}

impl Disk for SimulatedDisk {
    fn before_commit(&self) -> BoxFuture<'_, ()> {
        self.wait()
    }

    fn after_commit(&self) -> BoxFuture<'_, ()> {
        self.wait()
    }

    fn is_durable(&self) -> bool {
        false
    }
}

struct SimulatedConnect;

impl Connect for SimulatedConnect {
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = turmoil::net::TcpStream::connect((host.as_str(), port)).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Connections of the simulated network.
pub(crate) struct SimulatedListener(pub(crate) turmoil::net::TcpListener);

impl Listener for SimulatedListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async {
            let (stream, peer) = self.0.accept().await?;
            Ok((Box::new(stream) as Box<dyn Stream>, peer))
        })
    }
}

/// Takes down what happens.
#[derive(Default)]
pub(crate) struct Recorder {
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    observations: Vec<Observation>,
    lines: Vec<String>,
}

impl Recorder {
    /// Takes a line down, with the time.
    pub(crate) fn note(&self, at_ms: u128, line: &str) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).lines.push(format!("{at_ms:>7} {line}"));
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).lines.clone()
    }

    /// What the services did so far.
    pub(crate) fn observations(&self) -> Vec<Observation> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).observations.clone()
    }
}

impl Observer for Recorder {
    fn observe(&self, observation: Observation) {
        self.note(u128::from(elapsed_ms()), &format!("{observation:?}"));
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).observations.push(observation);
    }
}
