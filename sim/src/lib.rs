//! The whole shop under simulated time, network, disks and crashes.
//!
//! Broker, order, payment, delivery and an outsider run as five hosts in one thread and speak HTTP over a simulated network. A seed decides
//! everything that chance decides: the orders, when they are cancelled, how long messages and commits take, which host crashes when.
//! Stores outlive their hosts. When the faults have stopped and all orders have ended, the invariants are checked against the stores,
//! the log, and the payment provider's own ledger.

/// The clock, the disk and the network that the services are given.
mod world;

/// The services, each as a host.
mod hosts;

/// Who orders, cancels, and sends things twice.
mod customers;

/// An outsider that fails for a while, and its operator.
mod partner;

/// What goes wrong, and when.
mod faults;

/// What must hold in the end.
mod invariants;

/// What the broker counts must be what its log says, at any moment.
mod books;

use std::{cell::RefCell, path::Path, rc::Rc, sync::Arc, time::Duration};

use kit::{ids::Ids, planted::Bug};
use sha2::{Digest, Sha256};

use crate::{customers::Customers, faults::Faults, hosts::Shop, partner::Partner, world::Recorder};

/// How far one step moves time.
const TICK: Duration = Duration::from_millis(1);
/// How long faults go on.
const FAULTY: Duration = Duration::from_millis(4_000);
/// How long the shop may take to end all orders once the faults have stopped.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often the broker's books are audited while there are faults; they are also after each of its crashes, and in the end.
const AUDIT_EVERY_MS: u128 = 500;
/// How long the shop goes on after that: what is sent twice must change nothing.
const AFTERGLOW: Duration = Duration::from_millis(1_500);

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A hash of everything that was observed: the same seed gives the same hash.
    pub hash: String,
    /// What did not hold; empty in a clean run.
    pub violations: Vec<String>,
    /// How many orders were acknowledged.
    pub orders: usize,
    /// How many events the log holds.
    pub events: usize,
    /// How many crashes there were.
    pub crashes: usize,
    /// How long it took, in simulated milliseconds.
    pub simulated_ms: u128,
    /// What happened, line by line.
    pub trace: Vec<String>,
}

/// The planted bugs by the names that the command line knows.
pub const BUGS: [(&str, Bug); 6] = [
    ("acknowledge-before-commit", Bug::AcknowledgeBeforeCommit),
    ("skip-inbox", Bug::SkipInbox),
    ("refund-before-clear", Bug::RefundBeforeClear),
    ("relay-by-id", Bug::RelayById),
    ("lane-not-blocked", Bug::LaneNotBlocked),
    ("count-past-floor", Bug::CountPastFloor),
];

/// The bug of that name.
///
/// # Errors
/// When no bug has that name.
pub fn bug_by_name(name: &str) -> Result<Bug, String> {
    BUGS.iter().find(|(known, _)| *known == name).map(|(_, bug)| *bug).ok_or_else(|| format!("there is no bug `{name}`"))
}

/// Runs the shop once. With a `bug` planted, the run should end in violations for some seeds.
///
/// # Errors
/// When the simulation itself cannot be set up; a service that stops because of a failure is a violation, not an error.
pub fn run(seed: u64, bug: Option<Bug>) -> anyhow::Result<Report> {
    let folder = scratch()?;
    kit::planted::plant(bug);
    let report = run_in(seed, folder.path());
    kit::planted::plant(None);
    report
}

fn scratch() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::Builder::new().prefix("cascade-sim-").tempdir_in(memory) } else { tempfile::tempdir() }
}

fn run_in(seed: u64, folder: &Path) -> anyhow::Result<Report> {
    let chance = Rc::new(Ids::seeded(seed));
    let recorder = Arc::new(Recorder::default());
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(3_600))
        .min_message_latency(Duration::ZERO)
        .max_message_latency(Duration::from_millis(1 + chance.up_to(8)))
        .tcp_capacity(4_096)
        .build();
    let partner = Partner::draw(&chance);
    let shop = Shop::new(seed, folder, recorder.clone(), partner.clone());
    shop.open(&mut sim);
    let acknowledged = Rc::new(RefCell::new(Vec::new()));
    let customers = Customers::draw(&chance, acknowledged.clone(), shop.keyring());
    sim.client("customers", customers.shop());
    let mut faults = Faults::draw(&chance, FAULTY);
    let mut violations = Vec::new();
    let mut ended = None;
    let store = invariants::Stores::new(folder);
    loop {
        let has_broker_crashed = faults.apply(&mut sim, &recorder).contains(&hosts::BROKER);
        let elapsed = sim.elapsed();
        if has_broker_crashed || (elapsed < FAULTY && elapsed.as_millis().is_multiple_of(AUDIT_EVERY_MS)) {
            violations.extend(books::audit(&shop.folder(hosts::BROKER))?);
        }
        let are_customers_done = match sim.step() {
            Ok(done) => done,
            Err(error) => {
                violations.push(format!("a host failed: {error}"));
                break;
            }
        };
        let elapsed = sim.elapsed();
        if ended.is_none() && are_customers_done && elapsed > FAULTY && elapsed.as_millis().is_multiple_of(100) && store.are_all_ended() {
            ended = Some(elapsed);
        }
        match ended {
            Some(at)
                if elapsed > at + AFTERGLOW
                    && elapsed.as_millis().is_multiple_of(100)
                    && store.are_all_relayed()
                    && store.has_no_dead_letters()
                    && partner.missing(&store.log()?).is_empty() =>
            {
                break;
            }
            None | Some(_) if elapsed > FAULTY + PATIENCE => {
                violations.push(format!("not all has ended {} s after the faults: {}", PATIENCE.as_secs(), store.describe_unfinished()));
                break;
            }
            None | Some(_) => {}
        }
    }
    let simulated_ms = sim.elapsed().as_millis();
    // Hosts let go of their stores before these are checked.
    drop(sim);
    let acknowledged = acknowledged.borrow().clone();
    let log = store.log()?;
    violations.extend(partner.missing(&log));
    violations.extend(partner.check(&log));
    let trace = recorder.lines();
    violations.extend(books::audit(&shop.folder(hosts::BROKER))?);
    violations.extend(store.check(&acknowledged, &log, &recorder.observations())?);
    let mut hash = Sha256::new();
    for line in trace.iter().chain(log.iter().map(|event| &event.json)) {
        hash.update(line.as_bytes());
        hash.update(b"\n");
    }
    let hash = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok(Report { seed, hash, violations, orders: acknowledged.len(), events: log.len(), crashes: faults.crashes(), simulated_ms, trace })
}
