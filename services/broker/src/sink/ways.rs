//! What all sinks behind URLs share: two ways out, and what signs.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use http::Uri;
use kit::{Environment, http::client::Client, security::Keyring};

use super::{
    HttpSink, Target,
    outward::{Guard, Rules, Trusting},
    pace::Pace,
};
use crate::{subscriptions::trust::Trust, tokens::Tokens};

/// What all sinks behind URLs share.
pub(crate) struct Ways {
    trusting: Client,
    guarded: Client,
    /// Looks at where outsiders' sinks are.
    pub(crate) guard: Guard,
    /// What the broker calls itself.
    pub(crate) origin: String,
    pub(super) keyring: Keyring,
    pub(super) tokens: Arc<Tokens>,
    pub(super) environment: Environment,
}

impl fmt::Debug for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ways")
    }
}

impl Ways {
    /// The ways out that `rules` leave open.
    pub(crate) fn new(rules: Rules, keyring: Keyring, tokens: Arc<Tokens>, environment: &Environment) -> Self {
        let Rules { networks, tls, origin, resolve } = rules;
        let trusting = Trusting { connect: environment.connect.clone(), tls: tls.clone() };
        let guard = Guard { resolve, networks, tls };
        Self {
            trusting: Client::new(Arc::new(trusting)),
            guarded: Client::new(Arc::new(guard.clone())),
            guard,
            origin,
            keyring,
            tokens,
            environment: environment.clone(),
        }
    }

    /// The way to an outsider's sink, or to one of the shop's own.
    pub(crate) fn client(&self, is_outsiders: bool) -> &Client {
        if is_outsiders { &self.guarded } else { &self.trusting }
    }

    /// The sink `url` of the subscription `name`.
    pub(crate) fn target(self: &Arc<Self>, name: &str, url: Uri, trust: Trust) -> Target {
        let (ways, subscription, pace) = (self.clone(), name.to_owned(), Mutex::new(Pace::default()));
        Target::Url(Arc::new(HttpSink { ways, subscription, url, trust, pace }))
    }
}
