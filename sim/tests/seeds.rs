//! A thousand seeds are clean, and each planted bug is found among them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by a panic, and says what it found")]

use std::sync::atomic::{AtomicU64, Ordering};

use kit::planted::Bug;

/// The seeds that are run.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=1_000;

/// Runs seeds on all processors until `stop_at` gives something for one; gives the first that it gave something for.
fn run_seeds<T: Send>(bug: Option<Bug>, stop_at: impl Fn(&sim::Report) -> Option<T> + Sync) -> Option<T> {
    let next = AtomicU64::new(*SEEDS.start());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if !SEEDS.contains(&seed) {
                return None;
            }
            if let Some(found) = stop_at(&sim::run(seed, bug).unwrap()) {
                next.store(*SEEDS.end() + 1, Ordering::SeqCst);
                return Some(found);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).next()
    })
}

fn replay(seed: u64, bug: Option<&str>) -> String {
    let bug = bug.map(|bug| format!(" --bug {bug}")).unwrap_or_default();
    format!("cargo run --release -p sim -- --seed {seed}{bug} --trace")
}

#[test]
fn a_thousand_seeds_are_clean() {
    let [crashes, trims, lost, refusals] = [const { AtomicU64::new(0) }; 4];
    let dirty = run_seeds(None, |report| {
        crashes.fetch_add(report.crashes as u64, Ordering::SeqCst);
        trims.fetch_add(report.trims as u64, Ordering::SeqCst);
        lost.fetch_add(report.lost.unsigned_abs(), Ordering::SeqCst);
        refusals.fetch_add(report.refusals as u64, Ordering::SeqCst);
        (!report.violations.is_empty())
            .then(|| format!("seed {}: {:#?}\nreplay: {}", report.seed, report.violations, replay(report.seed, None)))
    });
    assert_eq!(dirty, None);
    assert!(crashes.load(Ordering::SeqCst) > 1_000, "the faults must bite");
    assert!(trims.load(Ordering::SeqCst) > 1_000, "the log must forget");
    assert!(lost.load(Ordering::SeqCst) > 1_000, "the outsider must lose events");
    assert!(refusals.load(Ordering::SeqCst) > 100, "the log must be full now and then");
}

/// Each bug is found by the violation that it causes, not by an accident.
fn is_found(name: &str, expected: &[&str]) {
    let bug = sim::bug_by_name(name).unwrap();
    let found = run_seeds(Some(bug), |report| {
        let violation = report.violations.iter().find(|violation| expected.iter().any(|words| violation.contains(words)))?;
        Some(format!("{violation}; replay: {}", replay(report.seed, Some(name))))
    });
    println!("{name}: {}", found.as_deref().unwrap_or("not found"));
    assert!(found.is_some(), "{name} is not found");
}

#[test]
fn acknowledging_before_the_commit_is_found() {
    is_found("acknowledge-before-commit", &["is gone", "not all has ended", "has not ended", "which the log does not have"]);
}

#[test]
fn skipping_the_inbox_is_found() {
    is_found("skip-inbox", &["twice"]);
}

#[test]
fn refunding_before_delivery_is_clear_is_found() {
    is_found("refund-before-clear", &["is completed and the ledger says", "is cancelled and delivered"]);
}

#[test]
fn relaying_by_id_is_found() {
    is_found("relay-by-id", &["comes next"]);
}

#[test]
fn a_lane_that_is_not_blocked_is_found() {
    is_found("lane-not-blocked", &["out of sequence"]);
}

#[test]
fn books_that_count_past_the_saved_floor_are_found() {
    is_found("count-past-floor", &["are wrong: matched"]);
}

#[test]
fn a_required_subscription_that_does_not_hold_the_log_is_found() {
    is_found("lose-required", &["was trimmed before"]);
}

#[test]
fn the_same_seed_gives_the_same_hash_in_two_processes() {
    let hash = || {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sim")).args(["--seed", "7", "--count", "3"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let first = hash();
    assert!(first.contains("hash "), "{first}");
    assert_eq!(first, hash());
}
