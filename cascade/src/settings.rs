//! The settings of `cascade up` and `cascade serve`. Each is declared here and nowhere else: its flag, its variable (`CASCADE_<NAME>`),
//! its key in the configuration file and its line in the help and in the documentation come from the declaration.

/// Where values come from that no flag gives.
pub(crate) mod layers;

/// The table in the documentation.
#[cfg(test)]
mod table;

use std::{net::IpAddr, path::PathBuf};

use broker::sink::networks::Networks;
use clap::{
    Args, ValueEnum, ValueHint,
    builder::{PossibleValuesParser, TypedValueParser},
};
use kit::{
    chance::Pace,
    http::Proxies,
    telemetry::{Color, LogFormat},
};

use crate::usage;

/// The port of the whole shop.
pub(crate) const SHOP_PORT: u16 = 4000;

/// What every process of the shop runs with.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// The folder that holds everything durable.
    #[arg(long, value_name = "FOLDER", default_value = "cascade-data", value_hint = ValueHint::DirPath)]
    pub(crate) data_dir: PathBuf,

    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = ip_address)]
    pub(crate) host: IpAddr,

    /// The port to listen on; 0 takes a free one [default: 4000, or the service's own].
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    /// The file that holds the shop's secret, which must be there [default: `secret` in the data folder, made at the first start].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) secret_file: Option<PathBuf>,

    /// Names beside `localhost` that the shop answers to, in requests' `Host`; separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = host_name)]
    pub(crate) allowed_hosts: Vec<String>,

    /// Proxies in front whose word is taken about where a request came from: `none`, or `private` networks, IP addresses and networks
    /// such as 10.0.0.0/8, separated by commas.
    #[arg(long, value_name = "PROXIES", default_value_t)]
    pub(crate) trusted_proxies: Proxies,

    /// Whether visitors may run scenarios, and so steer the simulated parts: `on`, `off`, or `auto`, which is on when it listens on
    /// loopback.
    #[arg(long, value_name = "MODE", default_value = "auto", hide_possible_values = true)]
    pub(crate) playground: Playground,

    /// How long to go on serving after SIGTERM, with `/ready` off, in milliseconds, at most 60000: for a load balancer that must first notice.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub(crate) drain_ms: u64,

    /// Whether events are shown in the terminal: `on` or `off`.
    #[arg(long, value_name = "SWITCH", default_value = "on", hide_possible_values = true)]
    pub(crate) events: Switch,

    /// How events and logs look: `text` for people, `json` for machines.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = log_format(), hide_possible_values = true)]
    pub(crate) log_format: LogFormat,

    /// When there are colours: `always`, `never`, or `auto`, on a terminal unless NO_COLOR is set.
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = color(), hide_possible_values = true)]
    pub(crate) color: Color,

    /// How fast payments, searches and deliveries go: `instant`, `demo` or `slow`.
    #[arg(long, value_name = "PACE", default_value = "demo", value_parser = pace(), hide_possible_values = true)]
    pub(crate) pace: Pace,

    /// The seed of all simulated chance; the same seed, the same luck for the same order [default: a new one at each start].
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,

    /// What the simulated parts decide: by their `odds`, or `always` yes.
    #[arg(long, value_name = "LUCK", default_value = "odds", hide_possible_values = true)]
    pub(crate) luck: Luck,

    /// How many simulated workers there are, at most 100000.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) workers: u32,

    /// How long the broker keeps events, in milliseconds, at least 60000; seven days unless told otherwise.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 604_800_000, value_parser = clap::value_parser!(u64).range(60_000..))]
    pub(crate) retention_age_ms: u64,

    /// How much room the broker's events may take before the oldest go, in bytes, at least 67108864; ten gibibytes unless told otherwise.
    #[arg(long, value_name = "BYTES", default_value_t = 10_737_418_240, value_parser = clap::value_parser!(u64).range(67_108_864..))]
    pub(crate) retention_bytes: u64,

    /// Networks beside the internet in which sinks of outsiders may be, there also without TLS: `none`, or `private` networks, IP
    /// addresses and networks such as 10.0.0.0/8, separated by commas [default: loopback where the playground is on, it listens on
    /// loopback and has no other names; else `none`].
    #[arg(long, value_name = "NETWORKS")]
    pub(crate) sink_networks: Option<Networks>,

    /// A file of certificates (PEM) that may vouch for sinks, beside the authorities that browsers trust [default: those alone].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sink_ca_file: Option<PathBuf>,

    /// A file that holds a token of 16 to 1024 characters, by which `/metrics` can be read [default: only operators can].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) metrics_token_file: Option<PathBuf>,

    /// A TOML file whose keys are these flags' names, with underscores.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
}

impl Settings {
    /// Whether the simulated parts may be steered from outside.
    pub(crate) fn is_playground(&self) -> bool {
        match self.playground {
            Playground::Auto => self.host.is_loopback(),
            Playground::On => true,
            Playground::Off => false,
        }
    }

    /// Where sinks of outsiders may be beside the internet. Unless told otherwise, on this machine while nobody else can reach the shop: whoever
    /// is on a machine can call its loopback anyhow. A proxy in front brings others in, and must be told to the shop by its name.
    pub(crate) fn sink_networks(&self) -> Networks {
        let is_alone = self.host.is_loopback() && self.allowed_hosts.is_empty() && self.is_playground();
        self.sink_networks.clone().unwrap_or_else(|| if is_alone { Networks::loopback() } else { Networks::default() })
    }
}

/// What a service that runs apart must know of the others.
#[derive(Debug, Clone, Args)]
pub(crate) struct Partners {
    /// Where the broker is.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4005", value_parser = usage::base_url, value_hint = ValueHint::Url)]
    pub(crate) broker_url: String,

    /// Where the broker delivers events: an address that stands for the service, whichever instances of it there are [default: `/events`
    /// at its own host and port].
    #[arg(long, value_name = "URL", value_parser = usage::base_url, value_hint = ValueHint::Url)]
    pub(crate) sink_url: Option<String>,

    /// Where the storefront orders.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4001", value_parser = usage::base_url, value_hint = ValueHint::Url)]
    pub(crate) order_url: String,
}

/// Whether the simulated parts may be steered from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Playground {
    /// When nobody but this machine can.
    Auto,
    /// Whoever comes may.
    On,
    /// Nobody may.
    Off,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// It is done.
    On,
    /// It is not.
    Off,
}

/// What the simulated parts decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Luck {
    /// By their odds.
    Odds,
    /// Yes: for measuring.
    Always,
}

/// When there are colours, as a flag.
pub(crate) fn color() -> impl TypedValueParser<Value = Color> {
    PossibleValuesParser::new(["auto", "always", "never"]).try_map(|text| text.parse::<Color>())
}

fn log_format() -> impl TypedValueParser<Value = LogFormat> {
    PossibleValuesParser::new(["text", "json"]).try_map(|text| text.parse::<LogFormat>())
}

fn pace() -> impl TypedValueParser<Value = Pace> {
    PossibleValuesParser::new(["instant", "demo", "slow"]).try_map(|text| text.parse::<Pace>())
}

/// An address, as a flag.
pub(crate) fn ip_address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "it must be an IP address, such as 127.0.0.1 or 0.0.0.0")
}

/// A name as it stands in `Host`, without a port.
fn host_name(text: &str) -> Result<String, &'static str> {
    let name = text.trim();
    let is_bracketed = name.starts_with('[') && name.ends_with(']');
    let is_name = !name.is_empty() && !name.contains(|letter: char| letter == '/' || letter.is_whitespace());
    if is_name && (is_bracketed || !name.contains(':')) {
        Ok(name.to_owned())
    } else {
        Err("it must be a name such as shop.example, without a port")
    }
}
