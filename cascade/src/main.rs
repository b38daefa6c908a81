//! Cascade: an event-driven shop in one binary. It parses, configures, wires and runs; what the shop does is in the services.

/// What the command line takes.
mod cli;

/// Settings from defaults, a file, the environment and flags, in this order.
mod settings;

/// `cascade up`: the whole shop in one process.
mod up;

/// Every event in the terminal, as it happens.
mod terminal;

/// SIGTERM and SIGINT.
mod signals;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let cli::Command::Up(flags) = cli.command;
    let ran = settings::Settings::read(&flags).and_then(|settings| up::run(&settings));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: what went wrong, and what led to it.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("cascade: {error:#}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}
