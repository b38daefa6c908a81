//! The whole shop under simulated time, network, disks and crashes.
//!
//! Broker, order, payment, delivery and an outsider run as five hosts in one thread and speak HTTP over a simulated network. A seed decides
//! everything that chance decides: the orders, when they are cancelled, how long messages and commits take, which host crashes when.
//! Stores outlive their hosts. In half of the runs the log forgets its oldest events again and again, and an outsider that is away loses
//! some; an archive outside of the shop keeps them. When the faults have stopped and all orders have ended, the invariants are checked against the stores,
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

/// Everything that the log ever held.
mod archive;

/// The broker's log engine, watched.
mod watched;

/// What the log may lose.
mod losses;

/// What must hold in the end.
mod invariants;

/// What the broker counts must be what its log says, at any moment.
mod books;

use std::{
    cell::{Cell, RefCell},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use kit::{Recorded, ids::Ids, planted::Bug};
use sha2::{Digest, Sha256};

use crate::{
    archive::{Archive, Logged},
    customers::Customers,
    faults::Faults,
    hosts::Shop,
    invariants::Stores,
    losses::{Retention, Witness},
    partner::Partner,
    world::Recorder,
};

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
    /// How many events the log ever held.
    pub events: usize,
    /// How often it was trimmed.
    pub trims: usize,
    /// How many events of the outsider's it lost.
    pub lost: i64,
    /// How often the log was full, so that an answer to a service said so.
    pub refusals: usize,
    /// How many crashes there were.
    pub crashes: usize,
    /// How long it took, in simulated milliseconds.
    pub simulated_ms: u128,
    /// What happened, line by line.
    pub trace: Vec<String>,
}

/// The planted bugs by the names that the command line knows.
pub const BUGS: [(&str, Bug); 7] = [
    ("acknowledge-before-commit", Bug::AcknowledgeBeforeCommit),
    ("skip-inbox", Bug::SkipInbox),
    ("refund-before-clear", Bug::RefundBeforeClear),
    ("relay-by-id", Bug::RelayById),
    ("lane-not-blocked", Bug::LaneNotBlocked),
    ("count-past-floor", Bug::CountPastFloor),
    ("lose-required", Bug::LoseRequired),
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
    let store = Stores::new(folder);
    let retention = Retention::draw(seed);
    let partner = Partner::draw(&chance, retention);
    let archive = Archive::default();
    let witness = Witness::new(archive.clone(), store.clone(), partner.clone());
    let shop = Shop::new(seed, folder, recorder.clone(), partner.clone(), witness);
    shop.open(&mut sim);
    let acknowledged = Rc::new(RefCell::new(Vec::new()));
    // Whoever registers late starts where the log begins. So orders come when all are there, if the log forgets within seconds.
    let is_open = Rc::new(Cell::new(retention.is_none()));
    let customers = Customers::draw(&chance, acknowledged.clone(), shop.keyring(), is_open.clone());
    sim.client("customers", customers.shop());
    let mut faults = Faults::draw(&chance, FAULTY);
    let mut violations = Vec::new();
    let mut ended = None;
    loop {
        let has_broker_crashed = faults.apply(&mut sim, &recorder).contains(&hosts::BROKER);
        let elapsed = sim.elapsed();
        if has_broker_crashed {
            archive.crash(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        }
        if has_broker_crashed || (elapsed < FAULTY && elapsed.as_millis().is_multiple_of(AUDIT_EVERY_MS)) {
            violations.extend(books::audit(&shop.folder(hosts::BROKER), &archive, &partner)?);
        }
        let are_customers_done = match sim.step() {
            Ok(done) => done,
            Err(error) => {
                violations.push(format!("a host failed: {error}"));
                break;
            }
        };
        if !archive.wrong().is_empty() {
            // What is lost never comes back.
            break;
        }
        let elapsed = sim.elapsed();
        let is_time_to_look = elapsed.as_millis().is_multiple_of(100);
        if !is_open.get() && is_time_to_look {
            is_open.set(store.are_all_registered());
        }
        if ended.is_none() && are_customers_done && elapsed > FAULTY && is_time_to_look && store.are_all_ended() {
            ended = Some(elapsed);
        }
        match ended {
            Some(at)
                if elapsed > at + AFTERGLOW
                    && is_time_to_look
                    && store.are_all_relayed()
                    && store.has_no_dead_letters()
                    && store.are_replays_ended()
                    && is_all_taken(&store, &partner)? =>
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
    archive.add(store.log()?);
    let (log, trace) = (archive.events(), recorder.lines());
    violations.extend(archive.wrong());
    // What was broken off has no end to check.
    if archive.wrong().is_empty() {
        violations.extend(losses::check_end(&store, &log, &partner)?);
        violations.extend(partner.check(&log));
        violations.extend(books::audit(&shop.folder(hosts::BROKER), &archive, &partner)?);
        violations.extend(archive.wrong());
        violations.extend(store.check(&acknowledged, &log, &recorder.observations())?);
    }
    let mut hash = Sha256::new();
    let events = log.iter().map(|one| serde_json::to_string(&*one.event));
    for line in trace.iter().cloned().map(Ok).chain(events) {
        hash.update(line?.as_bytes());
        hash.update(b"\n");
    }
    let hash = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok(Report {
        seed,
        hash,
        violations,
        orders: acknowledged.len(),
        events: log.len(),
        trims: archive.trims(),
        lost: store.partner_books()?.map_or(0, |saved| saved.counts.expired),
        refusals: shop.refusals(),
        crashes: faults.crashes(),
        simulated_ms,
        trace,
    })
}

/// Whether everybody has what the log holds, but for what was given up for good. Where an answer was lost that may take as long as the broker
/// waits for it.
fn is_all_taken(store: &Stores, partner: &Partner) -> anyhow::Result<bool> {
    let log = logged(store)?;
    Ok(losses::unapplied(store, &log)?.is_empty() && partner.missing(&log).len() <= discarded(store)?)
}

fn logged(store: &Stores) -> anyhow::Result<Vec<Logged>> {
    let one = |Recorded { position, event }| Logged { position, event, is_again: false };
    Ok(store.log()?.into_iter().map(one).collect())
}

fn discarded(store: &Stores) -> anyhow::Result<usize> {
    Ok(store.partner_books()?.map_or(0, |saved| usize::try_from(saved.counts.discarded).unwrap_or(0)))
}
