//! The project's own tasks: `cargo xtask test` runs what the continuous integration runs, and nothing else does.
//!
//! It owns the order of the steps, what must be installed and started for them, the sum of all tests, and the checks of structure. It
//! never changes a source file. Beside them stands what measures our broker and its peers.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]

/// The steps of a test run, in order.
mod suite;

/// What the tests need installed.
mod tools;

/// A container engine for the tests, and the shop's image.
mod engine;

/// Our broker beside others.
mod peers;

/// How many tests passed, failed and were skipped, read from what the test runners print.
mod tally;

/// Who may import whom, what belongs where, how long a file may be.
mod structure;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};

/// The project's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs all checks and tests, as the continuous integration does.
    Test {
        /// Only a part of it.
        scope: Option<Scope>,
        /// Installs what the tests need first (as root, with apt-get, rustup, npm and pip).
        #[arg(long)]
        install: bool,
    },
    /// Checks the structure alone.
    Structure,
    /// Measures our broker, NATS JetStream and Redis streams, one after the other.
    Peers(peers::Flags),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scope {
    /// The inner loop: no processes, no browser, no containers, no simulation.
    Quick,
    /// The shop in containers alone.
    Containers,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.task {
        Task::Test { scope: Some(Scope::Quick), install } => {
            tools::provide("test", tools::QUICK, install).and_then(|()| suite::quick(&root()))
        }
        Task::Test { scope: Some(Scope::Containers), install } => {
            tools::provide("test", tools::CONTAINERS, install).and_then(|()| suite::containers(&root()))
        }
        Task::Test { scope: None, install } => tools::provide("test", tools::ALL, install).and_then(|()| suite::full(&root())),
        Task::Structure => structure::report(&root()),
        Task::Peers(flags) => tools::provide("peers", tools::PEERS, flags.install).and_then(|()| peers::run(&root(), &flags)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace: this crate is one folder below it.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
