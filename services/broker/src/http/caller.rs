//! Who is asking: whom every service knows, and outsiders beside them, whose tokens the broker alone knows.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::{StatusCode, request::Parts};
use kit::{
    Problem,
    http::{Caller as Known, Gate, identity::bearer},
};

use crate::{
    Shared,
    tokens::{Grant, Untrusted, scopes::Missing, text::PREFIX},
};

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Somebody without a session.
    Anonymous,
    /// A customer with a session.
    Guest(String),
    /// A service of the shop, by its bearer token.
    Service(String),
    /// An outsider, by a token that an operator made.
    Outsider(Arc<Grant>),
    /// Whoever operates the shop.
    Operator,
}

impl Caller {
    /// Whether they may read what belongs to `owner` and concerns `subject`, perhaps because they were given a `share` token. What an
    /// outsider may read is said by their token alone.
    pub(crate) fn may_read(&self, gate: &Gate, owner: Option<&str>, subject: &str, share: Option<&str>) -> bool {
        let known = match self {
            Self::Operator => Known::Operator,
            Self::Guest(owner) => Known::Guest(owner.clone()),
            Self::Service(name) => Known::Service(name.clone()),
            Self::Anonymous | Self::Outsider(_) => Known::Anonymous,
        };
        known.may_read(gate, owner, subject, share)
    }
}

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Problem;

    /// A bearer token that is not ours, or no more, is 401.
    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        if let Some(token) = bearer(&parts.headers).filter(|token| token.starts_with(PREFIX)) {
            let grant = shared.tokens.verify(token).map_err(|error| untrusted(&error))?;
            shared.tokens.note_use(&grant.token).await;
            return Ok(Self::Outsider(Arc::new(grant)));
        }
        Ok(match Known::from_request_parts(parts, shared).await? {
            Known::Anonymous => Self::Anonymous,
            Known::Guest(owner) => Self::Guest(owner),
            Known::Service(name) => Self::Service(name),
            Known::Operator => Self::Operator,
        })
    }
}

fn untrusted(error: &Untrusted) -> Problem {
    let code = match error {
        Untrusted::Malformed => "malformed_token",
        Untrusted::Unknown => "unknown_token",
        Untrusted::Expired => "expired_token",
    };
    Problem::new(StatusCode::UNAUTHORIZED, code, error.to_string())
}

/// 403: a token's scope does not cover what was asked for.
pub(crate) fn missing_scope(missing: &Missing) -> Problem {
    let problem = Problem::new(StatusCode::FORBIDDEN, "missing_scope", missing.to_string());
    match missing.field {
        Some(field) => problem.field(field),
        None => problem,
    }
}

/// Operators may do everything; an outsider what `allowed` says of their token.
pub(crate) fn operators_or(caller: &Caller, allowed: impl FnOnce(&Grant) -> Result<(), Missing>) -> Result<(), Problem> {
    match caller {
        Caller::Operator => Ok(()),
        Caller::Outsider(grant) => allowed(grant).map_err(|missing| missing_scope(&missing)),
        Caller::Anonymous => Err(Problem::unauthorized()),
        Caller::Guest(_) | Caller::Service(_) => Err(Problem::forbidden("this is for operators")),
    }
}
