//! Which addresses an outsider's sink may have. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use kit::http::networks::NetworksError;

/// Where clouds answer their own machines, and hand out credentials: never meant by `private`.
const METADATA: &[IpAddr] = &[
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Networks beside the internet in which outsiders' sinks may be, in the clear too; none by default. `private` means loopback, RFC 1918 and
/// RFC 4193 addresses; see [`kit::http::networks::Networks`] for the rest of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(kit::http::networks::Networks);

/// What an address is to outsiders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a network that was allowed.
    Allowed,
    /// Somewhere on the internet.
    Public,
    /// Nowhere that a sink may be.
    Refused,
}

impl FromStr for Networks {
    type Err = NetworksError;

    fn from_str(text: &str) -> Result<Self, NetworksError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Networks {
    /// The machine itself.
    pub fn loopback() -> Self {
        Self(kit::http::networks::Networks::loopback())
    }

    /// What `address` is to outsiders.
    pub(crate) fn place(&self, address: IpAddr) -> Place {
        // An IPv4 address may come in an IPv6 dress.
        let address = address.to_canonical();
        // A connection to "no address" goes to this machine.
        if address.is_unspecified() || address.is_multicast() {
            return Place::Refused;
        }
        if self.0.names(address) || (self.0.has_private() && is_private(address) && !METADATA.contains(&address)) {
            Place::Allowed
        } else if is_public(address) {
            Place::Public
        } else {
            Place::Refused
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}

/// Whether an address can be that of another machine on the internet (the IANA registries of special-purpose addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_for_protocols = a == 192 && b == 0 && c == 0;
            let is_old_relay = a == 192 && b == 88 && c == 99;
            let is_for_benchmarks = a == 198 && (18..20).contains(&b);
            let is_special = ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_documentation() || ip.is_multicast();
            !(a == 0 || a >= 240 || is_special || is_shared || is_for_protocols || is_old_relay || is_for_benchmarks)
        }
        IpAddr::V6(ip) => {
            // Only 2000::/3 was given out. What carries an IPv4 address inside (6to4, Teredo) could lead anywhere.
            let [a, b, ..] = ip.segments();
            let is_for_protocols = a == 0x2001 && b < 0x200;
            let is_documentation = (a == 0x2001 && b == 0xdb8) || (a == 0x3fff && b < 0x1000);
            a & 0xe000 == 0x2000 && !is_for_protocols && !is_documentation && a != 0x2002
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(networks: &str, address: &str) -> Place {
        networks.parse::<Networks>().unwrap().place(address.parse().unwrap())
    }

    #[test]
    fn only_the_internet_is_open_unless_networks_are_allowed() {
        for address in ["93.184.215.14", "1.1.1.1", "100.63.255.255", "100.128.0.0", "198.20.0.1", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert_eq!(place("none", address), Place::Public, "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::7f00:1",
            "64:ff9b::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert_eq!(place("none", address), Place::Refused, "{address}");
        }
    }

    #[test]
    fn private_means_ones_own_networks_and_never_where_clouds_hand_out_credentials() {
        for address in ["10.0.0.1", "127.0.0.1", "172.20.0.1", "192.168.1.1", "::1", "fd12::1", "::ffff:10.0.0.1"] {
            assert_eq!(place("private", address), Place::Allowed, "{address}");
        }
        for address in ["169.254.169.254", "169.254.1.1", "fe80::1", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "0.0.0.0", "::"] {
            assert_eq!(place("private", address), Place::Refused, "{address}");
        }
    }

    #[test]
    fn a_network_that_is_named_is_allowed_and_its_neighbours_are_not() {
        assert_eq!(place("10.1.0.0/16, fe80::/10", "10.1.255.1"), Place::Allowed);
        assert_eq!(place("10.1.0.0/16, fe80::/10", "fe80::1"), Place::Allowed);
        assert_eq!(place("10.1.0.0/16", "10.2.0.1"), Place::Refused);
        assert_eq!(place("169.254.169.254", "169.254.169.254"), Place::Allowed);
        assert_eq!(place("1.1.1.1", "1.1.1.1"), Place::Allowed);
        assert_eq!(place("0.0.0.0/0", "0.0.0.0"), Place::Refused);
        assert_eq!(place("0.0.0.0/0,::/0", "ff02::1"), Place::Refused);
    }

    #[test]
    fn a_text_names_networks_or_the_part_that_is_none() {
        for (text, shown) in [("none", "none"), ("private", "private"), ("10.0.0.0/8, private ,::1", "private,10.0.0.0/8,::1")] {
            let networks: Networks = text.parse().unwrap();
            assert_eq!((networks.to_string().as_str(), networks.to_string().parse()), (shown, Ok(networks)));
        }
        for (text, part) in [("", ""), ("private,none", "none"), ("10.0.0.0/33", "10.0.0.0/33"), ("localhost", "localhost")] {
            assert_eq!(text.parse::<Networks>(), Err(NetworksError::Part(part.to_owned())));
        }
        assert_eq!(vec!["1.1.1.1"; 257].join(",").parse::<Networks>(), Err(NetworksError::TooMany));
    }
}
