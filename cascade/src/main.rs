//! Cascade: an event-driven shop in one binary. It parses, configures, wires and runs; what the shop does is in the services.

/// What the command line takes.
mod cli;

/// Reads it, and says in one line what is wrong with it.
mod usage;

/// Settings from defaults, a file, the environment and flags, in this order.
mod settings;

/// `cascade up`: the whole shop in one process.
mod up;

/// `cascade serve`: one service in a process of its own.
mod serve;

/// One process, from its listener to its stop.
mod process;

/// The services, made from the settings.
mod wiring;

/// Which service answers which path.
mod routes;

/// What the services say and take, as documents.
mod contracts;

/// Every event in the terminal, as it happens.
mod terminal;

/// `cascade healthcheck`: whether a service is ready.
mod healthcheck;

/// `cascade secret`: the secret of services that run apart.
mod secret;

/// `cascade backup`: a copy while the shop runs.
mod backup;

/// `cascade bench`: how many cascades a second.
mod bench;

/// `cascade scenario`: one order on a running shop, drawn as it happens.
mod scenario;

/// `cascade tokens`: tokens for programs that are no part of the shop.
mod tokens;

/// `cascade events`: what is in the log, and why an event did not arrive.
mod events;

/// `cascade subscriptions`: who gets what, how it stands, and what can be done about it.
mod subscriptions;

/// `cascade dead-letters`: events that were given up.
mod dead_letters;

/// What an operator's commands begin with.
mod desk;

/// What an operator asks a running shop.
mod operator;

/// How what it answered is printed.
mod form;

/// Rows in columns.
mod table;

/// Times as people read them.
mod when;

/// Which events are meant, as flags.
mod selection;

/// `cascade completions`: for shells.
mod completions;

/// How an event reads on one line.
mod event_line;

/// SIGTERM and SIGINT.
mod signals;

use std::process::ExitCode;

/// Events are allocated by whoever publishes them and freed by whoever needed them last.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match usage::read() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let ran = match &cli.command {
        cli::Command::Up(settings) => up::run(settings),
        cli::Command::Serve(flags) => serve::run(flags),
        cli::Command::Healthcheck(flags) => healthcheck::run(flags),
        cli::Command::Secret { file } => secret::run(file),
        cli::Command::Backup(flags) => backup::run(flags),
        cli::Command::Bench(flags) => bench::run(flags),
        cli::Command::Scenario(flags) => scenario::run(flags),
        cli::Command::Tokens(flags) => tokens::run(flags),
        cli::Command::Events(flags) => events::run(flags),
        cli::Command::Subscriptions(flags) => subscriptions::run(flags),
        cli::Command::DeadLetters(flags) => dead_letters::run(flags),
        cli::Command::Completions { shell } => completions::print(*shell),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: what went wrong, and what led to it.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("cascade: {error:#}\n").as_bytes());
            if error.is::<usage::WrongUsage>() { ExitCode::from(usage::EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}
