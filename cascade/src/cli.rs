//! What the command line takes.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use kit::telemetry::Color;

use crate::{
    bench::BenchFlags,
    dead_letters::{self, DeadLettersFlags},
    events::{self, EventsFlags},
    routes::ServiceName,
    settings::{self, Partners, Settings},
    subscriptions::{self, SubscriptionsFlags},
    tokens::{self, TokensFlags},
    usage,
};

/// Where a shop is if nobody says otherwise.
pub(crate) const URL: &str = "http://localhost:4000";

/// An event-driven shop: order, payment, delivery and a broker, in one binary.
#[derive(Debug, Parser)]
#[command(name = "cascade", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole shop in one process, and show every event as it happens.
    #[command(after_help = UP_HELP)]
    Up(Box<Settings>),
    /// Run one service of the shop; five of these are the same shop.
    #[command(after_help = SERVE_HELP)]
    Serve(Box<ServeFlags>),
    /// Ask whether a service on this machine, or the whole shop, is ready.
    #[command(after_help = HEALTHCHECK_HELP)]
    Healthcheck(HealthcheckFlags),
    /// Make the secret that all services of a shop share.
    #[command(after_help = SECRET_HELP)]
    Secret {
        /// The file; one that holds a secret is left as it is.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Copy all stores of a shop, as they are at one instant, while it runs.
    #[command(after_help = BACKUP_HELP)]
    Backup(BackupFlags),
    /// Measure how many whole cascades a shop does in a second, and how long each takes.
    Bench(BenchFlags),
    /// Run a scenario on a running shop, and draw its cascade until the order has ended.
    #[command(after_help = SCENARIO_HELP)]
    Scenario(ScenarioFlags),
    /// Make and end tokens for programs that are no part of the shop.
    #[command(after_help = tokens::HELP)]
    Tokens(TokensFlags),
    /// Look into the log of events, find out why one did not arrive, and publish.
    #[command(after_help = events::HELP)]
    Events(EventsFlags),
    /// See who gets which events and how that stands; pause, move, replay and change it.
    #[command(after_help = subscriptions::HELP)]
    Subscriptions(SubscriptionsFlags),
    /// See which events were given up, and try them again or give them up for good.
    #[command(after_help = dead_letters::HELP)]
    DeadLetters(DeadLettersFlags),
    /// Print a script that completes commands and flags in a shell.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell that is to run the script.
        shell: Shell,
    },
}

const UP_HELP: &str = "\
Each setting may also stand in the configuration file, or in the environment as CASCADE_ and its name in capitals, with underscores: \
CASCADE_PORT=4001. Flags win over the environment, and that over the file. A variable that is empty counts as one that is not set; \
CASCADE_ and a name that is no setting is an error.";

const SERVE_HELP: &str = "\
The five may be started in any order, each on its own port: order 4001, payment 4002, delivery 4003, storefront 4004, broker 4005. On one \
machine they may share a data folder, and so a secret; elsewhere each is given the same --secret-file. Each may be given its settings in \
the configuration file or the environment, as with `cascade up`. A load balancer in front makes one shop of them.

GET /ready answers 503 until a service can do its work: until the broker has taken its subscription.";

const HEALTHCHECK_HELP: &str = "\
It asks /ready, waits 3 seconds at most, and needs no data. Settings in the environment or the configuration file hold, so that it asks \
where the service with the same settings listens. Exit code: 0 when it is ready; 1 when it is not, and one line says why; 2 for wrong flags.";

const SECRET_HELP: &str = "\
It is readable by its owner alone, and is never printed. Services that run apart are given it as --secret-file.";

const BACKUP_HELP: &str = "\
Where services run apart, each has a data folder of its own: name all of them. The copy holds the secret too, if a data folder has it or \
--secret-file names it. It is a data folder: start a shop on it, or on a copy of it, and it goes on from that instant.

Example: cascade backup --to backups/monday";

const SCENARIO_HELP: &str = "\
Exit code: 0 when the order came to an end that the scenario may have; 1 when it did not, or not in time; 2 for wrong flags.

Examples:
  cascade scenario            list the scenarios
  cascade scenario 1          run the first one
  cascade scenario 1 --json   print its events as JSON lines, and last a summary";

const COMPLETIONS_HELP: &str = "\
Where shells look for it:
  bash   ~/.local/share/bash-completion/completions/cascade
  fish   ~/.config/fish/completions/cascade.fish
  zsh    a file `_cascade` in a folder of $fpath";

/// Flags of `cascade scenario`.
#[derive(Debug, Args)]
pub(crate) struct ScenarioFlags {
    /// The scenario's number; without it, all of them are listed.
    #[arg(value_parser = scenario_number)]
    pub(crate) number: Option<u32>,

    /// List the scenarios, and run none.
    #[arg(long, conflicts_with = "number")]
    pub(crate) list: bool,

    /// Where the shop is.
    #[arg(long, value_name = "URL", default_value = URL, value_parser = usage::base_url, value_hint = ValueHint::Url)]
    pub(crate) url: String,

    /// How long the order may take to end, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,

    /// Print JSON, for machines.
    #[arg(long)]
    pub(crate) json: bool,

    /// When there are colours: `always`, `never`, or `auto`, on a terminal unless NO_COLOR is set.
    #[arg(long, value_name = "WHEN", value_parser = settings::color(), hide_possible_values = true)]
    pub(crate) color: Color,
}

fn scenario_number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "it must be a number; `cascade scenario` lists them")
}

/// Flags of `cascade serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeFlags {
    /// The service.
    pub(crate) service: ServiceName,

    #[command(flatten)]
    pub(crate) partners: Partners,

    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// Flags of `cascade healthcheck`.
#[derive(Debug, Args)]
pub(crate) struct HealthcheckFlags {
    /// The service; without it, the whole shop in one process.
    pub(crate) service: Option<ServiceName>,

    /// The address that it listens on.
    #[arg(long, value_name = "ADDRESS", value_parser = settings::ip_address)]
    pub(crate) host: IpAddr,

    /// The port that it listens on [default: 4000, or the service's own].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,

    /// The TOML file that it has its settings from.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
}

/// Flags of `cascade backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupFlags {
    /// The folder to make; what is there already must be empty.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) to: PathBuf,

    /// The data folders of all services.
    #[arg(value_name = "DATA_FOLDER", value_hint = ValueHint::DirPath)]
    pub(crate) data_dir: Vec<PathBuf>,

    /// The file that holds the shop's secret [default: `secret` in a data folder].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) secret_file: Option<PathBuf>,

    /// The TOML file that the shop has its settings from.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
}
