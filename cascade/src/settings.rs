//! Settings from defaults, a file, the environment and flags, in this order: the later one wins.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context, bail};
use broker::{retention::Limits, sink::networks::Networks};
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use kit::{chance::Pace, telemetry::LogFormat};
use serde::{Deserialize, Serialize};

use crate::{
    cli::{Flags, ServeFlags},
    routes::ServiceName,
    usage,
};

/// The port of the whole shop.
const SHOP_PORT: u16 = 4000;

/// What `cascade up` and `cascade serve` run with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The folder that holds everything durable.
    pub(crate) data_dir: PathBuf,
    /// The address to listen on.
    pub(crate) host: IpAddr,
    /// The port to listen on; 0 takes a free one.
    pub(crate) port: u16,
    /// How fast the simulated parts go.
    pub(crate) pace: Pace,
    /// How events and logs look.
    pub(crate) log_format: LogFormat,
    /// The seed of all simulated chance.
    pub(crate) seed: Option<u64>,
    /// What the simulated parts decide.
    pub(crate) luck: Luck,
    /// How many simulated workers there are.
    pub(crate) workers: u32,
    /// Whether events are shown in the terminal.
    pub(crate) shows_events: bool,
    /// How long the broker keeps events, and how many of them.
    pub(crate) retention: Limits,
    /// Networks beside the internet in which sinks of outsiders may be.
    pub(crate) sink_networks: Networks,
    /// Certificates that may vouch for sinks.
    pub(crate) sink_ca_file: Option<PathBuf>,
    /// Names that requests' `Host` may have.
    pub(crate) allowed_hosts: Vec<String>,
    /// The file with the secret; none for one in the data folder.
    pub(crate) secret_file: Option<PathBuf>,
    /// Where the broker is, for services that run apart.
    pub(crate) broker_url: String,
    /// Where the broker delivers to a service that runs apart; none for its own host and port.
    pub(crate) sink_url: Option<String>,
    /// Where a storefront that runs apart orders.
    pub(crate) order_url: String,
}

/// What the simulated parts decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Luck {
    /// By their odds.
    Odds,
    /// Always yes: for measuring.
    Always,
}

/// The shortest time that events are kept, in milliseconds: a subscriber that restarts must not lose any.
const RETENTION_AGE_MS_MIN: u64 = 60_000;
/// The least room for events, in bytes: some batches of the largest ones.
const RETENTION_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// The most simulated workers.
const WORKERS_MAX: u32 = 100_000;

/// The settings as a file or the environment spells them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    data_dir: PathBuf,
    host: String,
    port: u16,
    pace: String,
    log_format: String,
    seed: Option<u64>,
    luck: String,
    workers: u32,
    events: String,
    retention_age_ms: u64,
    retention_bytes: u64,
    sink_networks: String,
    sink_ca_file: Option<PathBuf>,
    allowed_hosts: Vec<String>,
    secret_file: Option<PathBuf>,
    broker_url: String,
    sink_url: Option<String>,
    order_url: String,
}

impl Settings {
    /// Whether the simulated parts may be steered from outside: on loopback only.
    pub(crate) fn is_playground(&self) -> bool {
        self.host.is_loopback()
    }

    /// Reads the settings of the whole shop; an unknown key or a value that does not fit is an error that names it.
    pub(crate) fn read(flags: &Flags) -> anyhow::Result<Self> {
        Self::merge(flags, flags, SHOP_PORT)
    }

    /// The same for a service that runs apart.
    pub(crate) fn read_for(flags: &ServeFlags) -> anyhow::Result<Self> {
        Self::merge(&flags.flags, flags, flags.service.port())
    }

    fn merge(flags: &Flags, all_flags: impl Serialize, port: u16) -> anyhow::Result<Self> {
        let local = |service: ServiceName| format!("http://127.0.0.1:{}", service.port());
        let defaults = Raw {
            data_dir: PathBuf::from("cascade-data"),
            host: String::from("127.0.0.1"),
            port,
            pace: String::from("demo"),
            log_format: String::from("text"),
            seed: None,
            luck: String::from("odds"),
            workers: 20,
            events: String::from("on"),
            retention_age_ms: Limits::default().age_ms_max,
            retention_bytes: Limits::default().bytes_max,
            sink_networks: String::from("none"),
            sink_ca_file: None,
            allowed_hosts: Vec::new(),
            secret_file: None,
            broker_url: local(ServiceName::Broker),
            sink_url: None,
            order_url: local(ServiceName::Order),
        };
        let mut figment = Figment::from(Serialized::defaults(defaults));
        if let Some(file) = &flags.config {
            if !file.is_file() {
                bail!("configuration file `{}` is not there", file.display());
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let raw: Raw = figment
            .merge(Env::prefixed("CASCADE_").ignore(&["config"]))
            .merge(Serialized::defaults(all_flags))
            .extract()
            .map_err(|error| anyhow::anyhow!(error.to_string().replace('\n', "; ")))
            .context("configuration")?;
        let host = raw.host.parse().with_context(|| format!("`host` must be an IP address, and `{}` is none", raw.host))?;
        let luck = match raw.luck.as_str() {
            "odds" => Luck::Odds,
            "always" => Luck::Always,
            _ => bail!("luck is `odds` or `always`"),
        };
        let shows_events = match raw.events.as_str() {
            "on" => true,
            "off" => false,
            _ => bail!("events is `on` or `off`"),
        };
        if !(1..=WORKERS_MAX).contains(&raw.workers) {
            bail!("workers is a number from 1 to {WORKERS_MAX}");
        }
        if raw.retention_age_ms < RETENTION_AGE_MS_MIN {
            bail!("retention-age-ms is at least {RETENTION_AGE_MS_MIN}");
        }
        if raw.retention_bytes < RETENTION_BYTES_MIN {
            bail!("retention-bytes is at least {RETENTION_BYTES_MIN}");
        }
        Ok(Self {
            data_dir: raw.data_dir,
            host,
            port: raw.port,
            pace: raw.pace.parse().map_err(anyhow::Error::msg)?,
            log_format: raw.log_format.parse().map_err(anyhow::Error::msg)?,
            seed: raw.seed,
            luck,
            workers: raw.workers,
            shows_events,
            retention: Limits { age_ms_max: raw.retention_age_ms, bytes_max: raw.retention_bytes },
            sink_networks: raw.sink_networks.parse().with_context(|| String::from("`sink-networks`"))?,
            sink_ca_file: raw.sink_ca_file,
            allowed_hosts: raw.allowed_hosts,
            secret_file: raw.secret_file,
            broker_url: url("broker-url", &raw.broker_url)?,
            sink_url: raw.sink_url.map(|sink| url("sink-url", &sink)).transpose()?,
            order_url: url("order-url", &raw.order_url)?,
        })
    }
}

fn url(name: &str, text: &str) -> anyhow::Result<String> {
    usage::base_url(text).map_err(|reason| anyhow::anyhow!("`{name}` is `{text}`; {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str, flags: Flags) -> anyhow::Result<Settings> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cascade.toml");
        std::fs::write(&file, text).unwrap();
        Settings::read(&Flags { config: Some(file), ..flags })
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let settings = from_file("port = 4100\npace = \"slow\"", Flags { port: Some(4200), ..Flags::default() }).unwrap();
        assert_eq!((settings.port, settings.pace), (4200, Pace::Slow));
        assert!(settings.is_playground());
        let outside = from_file("host = \"0.0.0.0\"", Flags::default()).unwrap();
        assert!(!outside.is_playground());
    }

    #[test]
    fn a_service_that_runs_apart_has_a_port_of_its_own_unless_told_otherwise() {
        let of = |service, flags| {
            let flags = ServeFlags { service, broker_url: None, sink_url: Some("http://order:81/events".into()), order_url: None, flags };
            Settings::read_for(&flags).unwrap()
        };
        let settings = of(ServiceName::Order, Flags::default());
        assert_eq!((settings.port, settings.broker_url.as_str()), (4001, "http://127.0.0.1:4005"));
        assert_eq!(settings.sink_url.as_deref(), Some("http://order:81/events"));
        assert_eq!(of(ServiceName::Broker, Flags { port: Some(0), ..Flags::default() }).port, 0);
    }

    #[test]
    fn a_broken_configuration_says_in_one_line_what_is_wrong() {
        for (text, expected) in [
            ("prot = 1", "prot"),
            ("port = 70000", "port"),
            ("port = \"many\"", "port"),
            ("pace = \"fast\"", "instant"),
            ("log_format = \"xml\"", "json"),
            ("host = \"shop.example\"", "IP address"),
            ("luck = \"good\"", "always"),
            ("events = \"some\"", "off"),
            ("workers = 0", "workers"),
            ("sink_networks = \"localhost\"", "sink-networks"),
            ("retention_age_ms = 59999", "retention-age-ms"),
            ("retention_bytes = 1", "retention-bytes"),
            ("retention_bytes = -1", "retention_bytes"),
            ("broker_url = \"broker:4005\"", "broker-url"),
            ("sink_url = \"https://order\"", "sink-url"),
            ("order_url = \"\"", "order-url"),
            ("port = ", "configuration"),
        ] {
            let error = format!("{:#}", from_file(text, Flags::default()).unwrap_err());
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
        let missing = Settings::read(&Flags { config: Some("/nowhere/cascade.toml".into()), ..Flags::default() });
        assert!(missing.unwrap_err().to_string().contains("is not there"));
    }
}
