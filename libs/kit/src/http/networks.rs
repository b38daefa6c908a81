//! Networks as a setting names them. What `private` means, each setting says for itself.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

/// The most networks in a setting.
const NETWORKS_MAX: usize = 256;

/// Networks of addresses; none by default. As text `none`, or a list with commas of `private`, addresses, and networks such as
/// `192.0.2.0/24`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    has_private: bool,
    networks: Vec<IpNet>,
}

/// A text that names no networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworksError {
    /// A part of it is neither a word nor an address nor a network.
    #[error("`{0}` is neither `private`, nor an IP address, nor a network such as 10.0.0.0/8; `none` stands alone")]
    Part(String),
    /// There are too many of them.
    #[error("at most {NETWORKS_MAX} networks can be named")]
    TooMany,
}

impl FromStr for Networks {
    type Err = NetworksError;

    fn from_str(text: &str) -> Result<Self, NetworksError> {
        let mut networks = Self::default();
        if text.trim() == "none" {
            return Ok(networks);
        }
        for part in text.split(',').map(str::trim) {
            if part == "private" {
                networks.has_private = true;
                continue;
            }
            let network = part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from));
            networks.networks.push(network.map_err(|_| NetworksError::Part(part.to_owned()))?);
            if networks.networks.len() > NETWORKS_MAX {
                return Err(NetworksError::TooMany);
            }
        }
        Ok(networks)
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let private = self.has_private.then(|| String::from("private"));
        let networks = self.networks.iter().map(|network| {
            let is_one_address = network.prefix_len() == network.max_prefix_len();
            if is_one_address { network.addr().to_string() } else { network.to_string() }
        });
        let parts: Vec<_> = private.into_iter().chain(networks).collect();
        f.write_str(if parts.is_empty() { "none" } else { "" })?;
        f.write_str(&parts.join(","))
    }
}

impl Networks {
    /// The machine itself.
    pub fn loopback() -> Self {
        let networks = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].map(IpNet::from).to_vec();
        Self { has_private: false, networks }
    }

    /// Whether `private` is among them.
    pub fn has_private(&self) -> bool {
        self.has_private
    }

    /// Whether one of those that are named by their addresses holds `address`.
    pub fn names(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}
