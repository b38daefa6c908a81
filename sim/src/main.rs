//! Replays one seed of the simulation, or runs through many.

use clap::Parser;
use kit::planted::Bug;

/// Runs the whole shop under simulated time, network, disks and crashes.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Flags {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// A fault to plant: acknowledge-before-commit, skip-inbox, refund-before-clear, relay-by-id, lane-not-blocked,
    /// count-past-floor or lose-required.
    #[arg(long, value_parser = sim::bug_by_name)]
    bug: Option<Bug>,
    /// Show what happened; `RUST_LOG` says which logs are shown beside it, on stderr.
    #[arg(long)]
    trace: bool,
}

fn main() -> std::process::ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("sim: {error:#}\n").as_bytes());
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    if flags.trace {
        kit::telemetry::start(kit::telemetry::LogFormat::Text, kit::telemetry::Color::Auto);
    }
    let mut found = 0_u64;
    for seed in flags.seed..flags.seed.saturating_add(flags.count) {
        let report = sim::run(seed, flags.bug)?;
        let mut page = String::new();
        if flags.trace {
            page.extend(report.trace.iter().map(|line| format!("{line}\n")));
        }
        let sim::Report { orders, events, crashes, trims, lost, refusals, simulated_ms: ms, hash, .. } = &report;
        page.push_str(&format!("seed {seed}: {orders} orders, {events} events, {crashes} crashes, {trims} trims, "));
        page.push_str(&format!("{lost} lost, {refusals} refusals, {ms} ms, hash {hash}\n"));
        page.extend(report.violations.iter().map(|violation| format!("  violated: {violation}\n")));
        std::io::Write::write_all(&mut std::io::stdout(), page.as_bytes())?;
        found += u64::from(!report.violations.is_empty());
    }
    anyhow::ensure!(found == 0, "{found} of {} seeds violate the invariants", flags.count);
    Ok(())
}
