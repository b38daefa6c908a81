//! What the command line takes.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

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
    Up(Flags),
}

/// Flags of `cascade up`. Each may also stand in the configuration file, or in the environment as `CASCADE_<NAME>`, with underscores.
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct Flags {
    /// The folder that holds everything durable [default: cascade-data].
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir: Option<PathBuf>,

    /// The address to listen on; others than loopback switch the playground mode off [default: 127.0.0.1].
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,

    /// The port to listen on; 0 takes a free one [default: 4000].
    #[arg(long, value_name = "PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,

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

    /// Names beside `localhost` that the shop answers to, in requests' `Host`; separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) allowed_hosts: Vec<String>,

    /// A configuration file (TOML), whose keys are these flags' names with underscores.
    #[arg(long, value_name = "FILE", env = "CASCADE_CONFIG")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
}
