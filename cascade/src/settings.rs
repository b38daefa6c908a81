//! Settings from defaults, a file, the environment and flags, in this order: the later one wins.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context, bail};
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use kit::{chance::Pace, telemetry::LogFormat};
use serde::{Deserialize, Serialize};

use crate::cli::Flags;

/// What `cascade up` runs with.
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
    /// Names that requests' `Host` may have.
    pub(crate) allowed_hosts: Vec<String>,
}

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
    allowed_hosts: Vec<String>,
}

impl Settings {
    /// Whether the simulated parts may be steered from outside: on loopback only.
    pub(crate) fn is_playground(&self) -> bool {
        self.host.is_loopback()
    }

    /// Reads the settings; an unknown key or a value that does not fit is an error that names it.
    pub(crate) fn read(flags: &Flags) -> anyhow::Result<Self> {
        let defaults = Raw {
            data_dir: PathBuf::from("cascade-data"),
            host: String::from("127.0.0.1"),
            port: 4000,
            pace: String::from("demo"),
            log_format: String::from("text"),
            seed: None,
            allowed_hosts: Vec::new(),
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
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| anyhow::anyhow!(error.to_string().replace('\n', "; ")))
            .context("configuration")?;
        let host = raw.host.parse().with_context(|| format!("`host` must be an IP address, and `{}` is none", raw.host))?;
        Ok(Self {
            data_dir: raw.data_dir,
            host,
            port: raw.port,
            pace: raw.pace.parse().map_err(anyhow::Error::msg)?,
            log_format: raw.log_format.parse().map_err(anyhow::Error::msg)?,
            seed: raw.seed,
            allowed_hosts: raw.allowed_hosts,
        })
    }
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
    fn a_broken_configuration_says_in_one_line_what_is_wrong() {
        for (text, expected) in [
            ("prot = 1", "prot"),
            ("port = 70000", "port"),
            ("port = \"many\"", "port"),
            ("pace = \"fast\"", "instant"),
            ("log_format = \"xml\"", "json"),
            ("host = \"shop.example\"", "IP address"),
            ("port = ", "configuration"),
        ] {
            let error = format!("{:#}", from_file(text, Flags::default()).unwrap_err());
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
        let missing = Settings::read(&Flags { config: Some("/nowhere/cascade.toml".into()), ..Flags::default() });
        assert!(missing.unwrap_err().to_string().contains("is not there"));
    }
}
