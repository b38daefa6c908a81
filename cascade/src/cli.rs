//! What the command line takes.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use serde::Serialize;

use crate::{
    bench::BenchFlags,
    routes::ServiceName,
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
    Up(Flags),
    /// Run one service of the shop; five of these are the same shop.
    #[command(after_help = SERVE_HELP)]
    Serve(ServeFlags),
    /// Measure how many whole cascades a shop does in a second, and how long each takes.
    Bench(BenchFlags),
    /// Run a scenario on a running shop, and draw its cascade until the order has ended.
    #[command(after_help = SCENARIO_HELP)]
    Scenario(ScenarioFlags),
    /// Make and end tokens for programs that are no part of the shop.
    #[command(after_help = tokens::HELP)]
    Tokens(TokensFlags),
    /// Print a script that completes commands and flags in a shell.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell that is to run the script.
        shell: Shell,
    },
}

const UP_HELP: &str = "\
Each setting may also stand in the configuration file, or in the environment as CASCADE_ and its name in capitals, with underscores: \
CASCADE_PORT=4001. Flags win over the environment, and that over the file.";

const SERVE_HELP: &str = "\
The five may be started in any order, each on its own port: order 4001, payment 4002, delivery 4003, storefront 4004, broker 4005. On one \
machine they may share a data folder, and so a secret; elsewhere each is given the same --secret-file. Each may be given its settings in \
the configuration file or the environment, as with `cascade up`. A load balancer in front makes one shop of them.

GET /ready answers 503 until a service can do its work: until the broker has taken its subscription.";

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
}

fn scenario_number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "it must be a number; `cascade scenario` lists them")
}

/// Flags of `cascade serve`.
#[derive(Debug, Args, Serialize)]
pub(crate) struct ServeFlags {
    /// The service.
    #[serde(skip)]
    pub(crate) service: ServiceName,

    /// Where the broker is [default: http://127.0.0.1:4005].
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) broker_url: Option<String>,

    /// Where the broker delivers events: an address that stands for the service, whichever instances of it there are [default: `/events`
    /// at its own host and port].
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sink_url: Option<String>,

    /// Where the storefront orders [default: http://127.0.0.1:4001].
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order_url: Option<String>,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) flags: Flags,
}

/// Flags of `cascade up`, and of `cascade serve`. Each may also stand in the configuration file, or in the environment as `CASCADE_<NAME>`, with underscores.
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct Flags {
    /// The folder that holds everything durable [default: cascade-data].
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir: Option<PathBuf>,

    /// The address to listen on; others than loopback switch the playground off [default: 127.0.0.1].
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,

    /// The port to listen on; 0 takes a free one [default: 4000, or the service's own].
    #[arg(long, value_name = "PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,

    /// The file that holds the shop's secret, which must be there [default: `secret` in the data folder, made at the first start].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret_file: Option<PathBuf>,

    /// How fast payments, searches and deliveries go: `instant`, `demo` or `slow` [default: demo].
    #[arg(long, value_name = "PACE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pace: Option<String>,

    /// How events and logs look: `text` for people, `json` for machines [default: text].
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_format: Option<String>,

    /// The seed of all simulated chance; the same seed, the same luck for the same order [default: a new one at each start].
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,

    /// What the simulated parts decide: by their `odds`, or `always` yes [default: odds].
    #[arg(long, value_name = "LUCK")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) luck: Option<String>,

    /// How many simulated workers there are [default: 20].
    #[arg(long, value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workers: Option<u32>,

    /// Whether events are shown in the terminal: `on` or `off` [default: on].
    #[arg(long, value_name = "SWITCH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) events: Option<String>,

    /// How long the broker keeps events, in milliseconds [default: 604800000, seven days].
    #[arg(long, value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retention_age_ms: Option<u64>,

    /// How much room the broker's events may take, in bytes, before the oldest go [default: 10737418240, ten gibibytes].
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retention_bytes: Option<u64>,

    /// Networks beside the internet in which sinks of outsiders may be, also without TLS: `none`, or `private` networks, IP addresses and
    /// networks such as 10.0.0.0/8, separated by commas [default: none].
    #[arg(long, value_name = "NETWORKS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sink_networks: Option<String>,

    /// A file of certificates (PEM) that may vouch for sinks, beside the authorities that browsers trust.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sink_ca_file: Option<PathBuf>,

    /// Names beside `localhost` that the shop answers to, in requests' `Host`; separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) allowed_hosts: Vec<String>,

    /// A TOML file whose keys are these flags' names, with underscores.
    #[arg(long, value_name = "FILE", env = "CASCADE_CONFIG", hide_env_values = true, value_hint = ValueHint::FilePath)]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
}
