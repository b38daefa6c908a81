//! Where a request came from when a proxy stands in front: whose word is taken, and what it says.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::request::Parts,
};
use http::{Extensions, HeaderMap};

use super::networks::{Networks, NetworksError};

/// The header in which each proxy adds the address that it was asked from.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// The header in which a proxy says how it was asked: `http` or `https`.
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The proxies whose word is taken about where a request came from; none by default. `private` means loopback, RFC 1918, RFC 4193 and
/// link-local addresses; see [`Networks`] for the rest of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Networks);

impl FromStr for Proxies {
    type Err = NetworksError;

    fn from_str(text: &str) -> Result<Self, NetworksError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Proxies {
    /// Nobody's word is taken.
    pub fn none() -> Self {
        Self::default()
    }

    fn are_trusted_at(&self, address: IpAddr) -> bool {
        (self.0.has_private() && is_private(address)) || self.0.names(address)
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// How the client speaks to the shop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear, or not known otherwise.
    #[default]
    Http,
    /// Encrypted, as a trusted proxy says.
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Scheme {
    /// As URLs spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Where a request came from. Handlers take it as an argument; the default is what is known without a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remote {
    /// The client's address; none for a request that came over no connection. It is personal: not to be logged.
    pub address: Option<IpAddr>,
    /// How the client speaks to the shop.
    pub scheme: Scheme,
}

impl Remote {
    /// Reads where a request came from. Only what comes from a trusted proxy is believed, and what cannot be read is not there.
    pub(super) fn read(proxies: &Proxies, extensions: &Extensions, headers: &HeaderMap) -> Self {
        let Some(ConnectInfo(peer)) = extensions.get::<ConnectInfo<SocketAddr>>() else { return Self::default() };
        // A listener on `::` shows IPv4 peers as IPv6 addresses.
        let peer = peer.ip().to_canonical();
        if !proxies.are_trusted_at(peer) {
            return Self { address: Some(peer), scheme: Scheme::Http };
        }
        Self { address: Some(client(proxies, peer, headers)), scheme: scheme(headers).unwrap_or_default() }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Remote {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_default())
    }
}

/// Each proxy adds on the right whom it was asked by. From there each trusted one vouches for its neighbour on the left; the first that
/// is not trusted is the client. What stands left of it, or of something unreadable, may be made up.
fn client(proxies: &Proxies, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut known = peer;
    let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    for entry in lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        if !proxies.are_trusted_at(known) {
            break;
        }
        match address(entry) {
            Some(address) => known = address,
            None => break,
        }
    }
    known
}

/// An address, perhaps with a port, as some proxies write it.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?.trim();
    let address = text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// A word about the scheme; several that differ say nothing.
fn scheme(headers: &HeaderMap) -> Option<Scheme> {
    let mut lines = headers.get_all(FORWARDED_PROTO).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let word = line.to_str().ok()?.trim();
    [Scheme::Http, Scheme::Https].into_iter().find(|scheme| word.eq_ignore_ascii_case(scheme.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(proxies: &str, peer: &str, forwarded: &[(&'static str, &str)]) -> (String, Scheme) {
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 50_000)));
        let mut headers = HeaderMap::new();
        for (name, value) in forwarded {
            headers.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let remote = Remote::read(&proxies.parse().unwrap(), &extensions, &headers);
        (remote.address.unwrap().to_string(), remote.scheme)
    }

    fn client_of(proxies: &str, peer: &str, forwarded_for: &[&str]) -> String {
        let forwarded: Vec<_> = forwarded_for.iter().map(|value| (FORWARDED_FOR, *value)).collect();
        remote(proxies, peer, &forwarded).0
    }

    #[test]
    fn the_word_of_a_stranger_is_not_taken() {
        let said = [(FORWARDED_FOR, "198.51.100.7"), (FORWARDED_PROTO, "https")];
        for proxies in ["none", "192.0.2.1", "198.51.100.0/24"] {
            assert_eq!(remote(proxies, "10.0.0.2", &said), (String::from("10.0.0.2"), Scheme::Http), "{proxies}");
        }
        assert_eq!(remote("private", "203.0.113.9", &said), (String::from("203.0.113.9"), Scheme::Http));
        assert_eq!(remote("private", "10.0.0.2", &said), (String::from("198.51.100.7"), Scheme::Https));
    }

    #[test]
    fn the_client_is_the_right_most_that_is_no_trusted_proxy() {
        for (forwarded_for, client) in [
            (&["198.51.100.7"][..], "198.51.100.7"),
            (&["198.51.100.7, 10.0.0.3"], "198.51.100.7"),
            // What the client itself sent along stands left of its address.
            (&["203.0.113.1, 198.51.100.7, 10.0.0.3"], "198.51.100.7"),
            (&["203.0.113.1", "198.51.100.7", "10.0.0.3"], "198.51.100.7"),
            (&["192.168.0.9, 10.0.0.3"], "192.168.0.9"),
            (&["198.51.100.7:4711"], "198.51.100.7"),
            (&["[2001:db8::7]:4711"], "2001:db8::7"),
            (&["2001:db8::7, fd00::1, fe80::1, ::1"], "2001:db8::7"),
            (&["::ffff:198.51.100.7, ::ffff:10.0.0.3"], "198.51.100.7"),
            (&[], "10.0.0.2"),
        ] {
            assert_eq!(client_of("private", "10.0.0.2", forwarded_for), client, "{forwarded_for:?}");
        }
        assert_eq!(client_of("private", "::ffff:10.0.0.2", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client_of("192.0.2.0/24,10.0.0.2", "10.0.0.2", &["198.51.100.7, 192.0.2.77"]), "198.51.100.7");
    }

    #[test]
    fn what_cannot_be_read_is_not_believed_nor_what_stands_left_of_it() {
        for (forwarded_for, client) in [
            ("unknown", "10.0.0.2"),
            ("", "10.0.0.2"),
            ("198.51.100.7, unknown, 10.0.0.3", "10.0.0.3"),
            ("198.51.100.7,", "10.0.0.2"),
            ("198.51.100.7, 10.0.0.256", "10.0.0.2"),
            ("198.51.100.7, ü", "10.0.0.2"),
        ] {
            assert_eq!(client_of("private", "10.0.0.2", &[forwarded_for]), client, "{forwarded_for}");
        }
        for (words, scheme) in [
            (&["https"][..], Scheme::Https),
            (&["HTTPS "], Scheme::Https),
            (&["http"], Scheme::Http),
            (&["ftp"], Scheme::Http),
            (&["https, http"], Scheme::Http),
            (&["https", "https"], Scheme::Http),
            (&[""], Scheme::Http),
        ] {
            let said: Vec<_> = words.iter().map(|word| (FORWARDED_PROTO, *word)).collect();
            assert_eq!(remote("private", "10.0.0.2", &said).1, scheme, "{words:?}");
        }
    }

    #[test]
    fn private_is_loopback_the_private_networks_and_link_local() {
        let private: Proxies = "private".parse().unwrap();
        for address in ["127.0.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.1.1", "::1", "fd12::1", "fe80::1"]
        {
            assert!(private.are_trusted_at(address.parse().unwrap()), "{address}");
        }
        for address in ["0.0.0.0", "172.32.0.1", "192.169.0.1", "100.64.0.1", "8.8.8.8", "::", "2001:db8::1", "fec0::1"] {
            assert!(!private.are_trusted_at(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn proxies_survive_the_way_through_text() {
        for (text, shown) in [
            ("none", "none"),
            ("private", "private"),
            (" 192.0.2.1 , private", "private,192.0.2.1"),
            ("10.0.0.0/8,2001:db8::/32,::1", "10.0.0.0/8,2001:db8::/32,::1"),
        ] {
            let proxies: Proxies = text.parse().unwrap();
            assert_eq!(proxies.to_string(), shown);
            assert_eq!(shown.parse(), Ok(proxies));
        }
        assert_eq!(Proxies::default().to_string(), "none");
        for (text, part) in [("", ""), ("none,private", "none"), ("caddy", "caddy"), ("10.0.0.0/33", "10.0.0.0/33"), ("10.0.0.1,", "")] {
            assert_eq!(text.parse::<Proxies>(), Err(NetworksError::Part(part.to_owned())), "{text}");
        }
        let many = vec!["192.0.2.1"; 257].join(",");
        assert_eq!(many.parse::<Proxies>(), Err(NetworksError::TooMany));
    }
}
