//! Who is asking, and what they may see.

use std::{convert::Infallible, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts};
use http::{HeaderMap, HeaderValue, header};

use super::{Proxies, Scheme};
use crate::{Problem, security::Keyring};

/// The name of the session cookie.
pub const SESSION_COOKIE: &str = "cascade_session";
/// The service name whose token opens the operator's view.
pub const OPERATOR: &str = "operator";

/// What a service's routes know of the outside: keys, modes, allowed hosts. One for each router, handed to [`super::finish`].
#[derive(Debug)]
pub struct Gate {
    /// All keys.
    pub keyring: Keyring,
    /// Whether the simulated parts may be steered from outside.
    pub is_playground: bool,
    /// Names that the `Host` header may have, beside `localhost` and loopback addresses; without ports.
    pub hosts: Vec<String>,
    /// Whose word is taken about where a request came from.
    pub proxies: Proxies,
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Somebody without a session.
    Anonymous,
    /// A customer with a session.
    Guest(String),
    /// A service of the shop, by its bearer token.
    Service(String),
    /// Whoever operates the shop.
    Operator,
}

impl Caller {
    /// The customer's opaque name; none for others.
    pub fn owner(&self) -> Option<&str> {
        match self {
            Self::Guest(owner) => Some(owner),
            Self::Anonymous | Self::Service(_) | Self::Operator => None,
        }
    }

    /// Whether they may read what belongs to `owner` and concerns `subject`, perhaps because they were given a `share` token.
    pub fn may_read(&self, gate: &Gate, owner: Option<&str>, subject: &str, share: Option<&str>) -> bool {
        let by_name = match self {
            Self::Operator => true,
            Self::Guest(guest) => owner == Some(guest),
            Self::Anonymous | Self::Service(_) => false,
        };
        by_name || share.is_some_and(|token| gate.keyring.is_share_token(token, subject))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    /// A bearer token that is not ours is 401; a cookie that is not ours is no session.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Ok(GateOf(gate)) = GateOf::from_request_parts(parts, state).await;
        let Some(gate) = gate else { return Err(Problem::internal()) };
        if let Some(token) = bearer(&parts.headers) {
            return match gate.keyring.open_service_token(token) {
                Some(name) if name == OPERATOR => Ok(Self::Operator),
                Some(name) => Ok(Self::Service(name)),
                None => Err(Problem::unauthorized()),
            };
        }
        Ok(session(&parts.headers, &gate.keyring).map_or(Self::Anonymous, Self::Guest))
    }
}

/// The gate of the router that a request came in by.
#[derive(Debug, Clone)]
pub struct GateOf(pub Option<Arc<Gate>>);

impl<S: Send + Sync> FromRequestParts<S> for GateOf {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Arc<Gate>>().cloned()))
    }
}

/// The bearer token that a request carries (RFC 6750, section 2.1).
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn session(headers: &HeaderMap, keyring: &Keyring) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == SESSION_COOKIE)
        .find_map(|(_, value)| keyring.open_session(value))
}

/// The `Set-Cookie` value that opens a session for `owner`: for this browser, not for scripts, not for other sites. Who came encrypted
/// gets one that is never sent in the clear.
pub fn session_cookie(keyring: &Keyring, owner: &str, scheme: Scheme) -> Option<HeaderValue> {
    let secure = match scheme {
        Scheme::Http => "",
        Scheme::Https => "; Secure",
    };
    let session = keyring.session(owner);
    HeaderValue::try_from(format!("{SESSION_COOKIE}={session}; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000{secure}")).ok()
}
