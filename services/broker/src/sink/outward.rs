//! How connections to sinks are opened: for the shop's own as they come; for outsiders' only to addresses that were checked.
//!
//! An outsider's host name is resolved once for each connection, and the connection goes to an address that was checked, never to the
//! name: whoever changes what the name means between the two gains nothing.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use http::Uri;
use kit::{
    BoxFuture,
    http::{client::Connect, server::Stream},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::networks::{Networks, Place};

/// How many addresses of one host are tried.
const ADDRESSES_MAX: usize = 4;

/// What a broker is told about sinks.
#[derive(Clone)]
pub struct Rules {
    pub(super) networks: Networks,
    pub(super) tls: Tls,
    pub(super) origin: String,
    pub(super) resolve: Arc<dyn Resolve>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rules({}, {})", self.networks, self.origin)
    }
}

impl Rules {
    /// Outsiders' sinks may be on the internet, and in `networks`. Who vouches for a sink that speaks TLS is whom browsers trust, and the
    /// certificates in the file `authorities` (PEM). When the broker asks a sink for consent it calls itself `origin`, a DNS name.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn new(networks: Networks, authorities: Option<&Path>, origin: impl Into<String>) -> Result<Self, AuthoritiesError> {
        Ok(Self { networks, tls: Tls::new(authorities)?, origin: origin.into(), resolve: Arc::new(SystemResolver) })
    }

    /// The same, where names mean what `resolve` says.
    #[cfg(test)]
    pub(crate) fn resolving(self, resolve: Arc<dyn Resolve>) -> Self {
        Self { resolve, ..self }
    }
}

/// Why sinks cannot be reached over TLS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthoritiesError {
    /// The file cannot be read.
    #[error("certificates in `{path}` cannot be read: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something in the library does not fit together.
    #[error("TLS cannot be used: {0}")]
    Tls(String),
}

/// Speaks TLS with whomever one of the authorities vouches for.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl Tls {
    /// Trusts whom browsers trust, and the certificates in the file `authorities`.
    ///
    /// # Errors
    /// See [`AuthoritiesError`].
    pub(crate) fn new(authorities: Option<&Path>) -> Result<Self, AuthoritiesError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = authorities {
            let failed = |reason: String| AuthoritiesError::File { path: path.into(), reason };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
            let before = roots.len();
            for certificate in certificates {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
            if roots.len() == before {
                return Err(failed(String::from("there is none in it")));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| AuthoritiesError::Tls(error.to_string()))?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    async fn wrap(&self, host: &str, stream: Box<dyn Stream>) -> io::Result<Box<dyn Stream>> {
        let name =
            ServerName::try_from(bare(host).to_owned()).map_err(|_| refused("the host has no name that a certificate could be for"))?;
        Ok(Box::new(self.0.connect(name, stream).await?))
    }
}

/// The way to sinks of the shop's own: wherever they are.
pub(crate) struct Trusting {
    pub(crate) connect: Arc<dyn Connect>,
    pub(crate) tls: Tls,
}

impl Connect for Trusting {
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        self.connect.connect(host, port)
    }

    fn connect_tls(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let (stream, tls) = (self.connect.connect(host.clone(), port), self.tls.clone());
        Box::pin(async move { tls.wrap(&host, stream.await?).await })
    }
}

/// Finds out which addresses a host has.
pub(crate) trait Resolve: Send + Sync + 'static {
    /// The addresses of `host`.
    fn resolve(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Asks the operating system.
pub(crate) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// The way to outsiders' sinks: only to where they may be, and in the clear only to networks that were allowed.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) resolve: Arc<dyn Resolve>,
    pub(crate) networks: Networks,
    pub(crate) tls: Tls,
}

/// Why a sink may not be where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAllowed {
    /// Nobody knows the host.
    #[error("leads to a host that has no address")]
    NoAddress,
    /// It is at an address where no outsider's sink may be.
    #[error("leads into a network that is closed to sinks of outsiders; the broker's setting `sink_networks` opens networks")]
    Closed,
    /// It would be reached in the clear, over the internet.
    #[error("must begin with https://, unless it is in a network of the broker's setting `sink_networks`")]
    InTheClear,
}

impl Guard {
    /// Where the sink `url` is.
    ///
    /// # Errors
    /// See [`NotAllowed`].
    pub(crate) async fn check(&self, url: &Uri) -> Result<Place, NotAllowed> {
        let places = self.resolve(url.host().unwrap_or_default()).await?;
        if places.is_empty() {
            return Err(NotAllowed::NoAddress);
        }
        let is_at = |wanted| places.iter().any(|(_, place)| *place == wanted);
        let is_tls = url.scheme_str() == Some("https");
        match () {
            // One of several addresses would be enough to lead some of the deliveries there.
            () if is_at(Place::Refused) => Err(NotAllowed::Closed),
            () if is_at(Place::Public) && !is_tls => Err(NotAllowed::InTheClear),
            () if is_at(Place::Public) => Ok(Place::Public),
            () => Ok(Place::Allowed),
        }
    }

    async fn resolve(&self, host: &str) -> Result<Vec<(IpAddr, Place)>, NotAllowed> {
        let addresses = self.resolve.resolve(bare(host).to_owned()).await.map_err(|_| NotAllowed::NoAddress)?;
        Ok(addresses.into_iter().map(|address| (address, self.networks.place(address))).collect())
    }

    /// Opens a connection to the first address that may be connected to.
    async fn open(self, host: &str, port: u16, is_open_to: impl Fn(Place) -> bool) -> io::Result<TcpStream> {
        let places = self.resolve(host).await.map_err(|error| refused(&format!("the sink {error}")))?;
        let allowed = places.iter().filter(|(_, place)| is_open_to(*place)).take(ADDRESSES_MAX);
        let mut failed = None;
        for (address, _) in allowed {
            match TcpStream::connect(SocketAddr::new(*address, port)).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => failed = Some(error),
            }
        }
        let is_public = places.iter().any(|(_, place)| *place == Place::Public);
        let closed = if is_public { NotAllowed::InTheClear } else { NotAllowed::Closed };
        Err(failed.unwrap_or_else(|| refused(&format!("the sink {closed}"))))
    }
}

impl Connect for Guard {
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let guard = self.clone();
        Box::pin(async move {
            let stream = guard.open(&host, port, |place| place == Place::Allowed).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn connect_tls(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let (guard, tls) = (self.clone(), self.tls.clone());
        Box::pin(async move {
            let stream = guard.open(&host, port, |place| place != Place::Refused).await?;
            tls.wrap(&host, Box::new(stream)).await
        })
    }
}

/// A host as resolvers and certificates have it: an IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason.to_owned())
}
