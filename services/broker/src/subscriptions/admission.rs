//! Whether a sink may be registered: for outsiders, where it is and whether it agrees; for all, if they ask for it, whether it agrees.

use std::{sync::Arc, time::Duration};

use http::Uri;
use serde_json::Value;

use super::{RegisterError, Subscriptions, stored::Stored, trust::Trust, wanted::Wanted};
use crate::{
    sink::{
        consent::{self, Consent, NoConsent},
        networks::Place,
        outward::NotAllowed,
    },
    tokens::{Grant, scopes::Missing},
};

/// How long it may take to find out where a sink is.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a sink may not be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// It is where no outsider's sink may be.
    #[error("the sink {0}")]
    Place(String),
    /// It does not agree.
    #[error(transparent)]
    Consent(#[from] NoConsent),
    /// A token does not cover it.
    #[error(transparent)]
    Scope(#[from] Missing),
}

impl From<NotAllowed> for NotAdmitted {
    fn from(error: NotAllowed) -> Self {
        Self::Place(error.to_string())
    }
}

/// On what a sink is registered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admission {
    /// The sink that was looked at.
    sink: Option<String>,
    /// Who registers it, if it is an outsider.
    grant: Option<Arc<Grant>>,
    /// What it agreed to.
    consent: Option<Consent>,
}

impl Admission {
    /// Whether it is for `wanted`, which may have become something else meanwhile.
    pub(super) fn check(&self, name: &str, wanted: &Wanted) -> Result<(), RegisterError> {
        if let Some(grant) = &self.grant {
            grant.scopes.may_subscribe(name, wanted.selection.types.as_ref()).map_err(NotAdmitted::Scope)?;
        }
        if self.sink == wanted.sink { Ok(()) } else { Err(RegisterError::OtherVersion(name.to_owned())) }
    }

    /// What deliveries stand on from now on, when the subscriber registers; `before` is what they stand on until now.
    pub(super) fn trust(&self, before: Option<&Stored>) -> Trust {
        let is_moved = before.is_none_or(|before| before.wanted.sink != self.sink);
        let before = before.map(|before| before.trust.clone()).unwrap_or_default();
        let consent = self.consent.clone().or_else(|| before.consent.clone().filter(|_| !is_moved));
        before.admitted(self.grant.as_ref().map(|grant| grant.token.clone()), consent)
    }

    /// The same, when somebody patches it: whoever leaves the sink where it is does not vouch for it.
    pub(super) fn trust_when_patched(&self, before: &Stored) -> Trust {
        let trust = self.trust(Some(before));
        let is_moved = before.wanted.sink != self.sink;
        if is_moved { trust } else { trust.clone().admitted(before.trust.token.clone(), trust.consent) }
    }
}

impl Subscriptions {
    /// Looks at the sink that `wanted` names, for `grant` if an outsider registers it.
    ///
    /// # Errors
    /// When it may not be registered.
    pub(crate) async fn admit(&self, name: &str, wanted: &Wanted, grant: Option<Arc<Grant>>) -> Result<Admission, RegisterError> {
        let sink = wanted.sink.clone();
        if let Some(grant) = &grant {
            grant.scopes.may_subscribe(name, wanted.selection.types.as_ref()).map_err(NotAdmitted::Scope)?;
        }
        let Some(url) = wanted.url()? else { return Ok(Admission { sink, grant, consent: None }) };
        let place = match &grant {
            Some(_) => self.place(&url).await?,
            None => Place::Allowed,
        };
        let is_needed = wanted.consent == Some(true) || place == Place::Public;
        let origin = &self.ways.origin;
        let has_agreed =
            |stored: &Stored| stored.wanted.sink == sink && stored.trust.consent.as_ref().is_some_and(|consent| consent.origin == *origin);
        let has_agreed = self.entries().get(name).is_some_and(|entry| has_agreed(&entry.stored));
        let consent = if is_needed && !has_agreed { Some(self.ask(&url, grant.is_some()).await?) } else { None };
        Ok(Admission { sink, grant, consent })
    }

    /// The same, for a subscription that is patched.
    pub(crate) async fn admit_patch(&self, name: &str, patch: &Value, grant: Option<Arc<Grant>>) -> Result<Admission, RegisterError> {
        // What is not there is said when it is changed.
        let stored = self.entries().get(name).map(|entry| entry.stored.clone());
        let Some(before) = stored else { return Ok(Admission::default()) };
        let wanted = before.wanted.patched(patch)?;
        let is_asked_anew = wanted.consent == Some(true) && before.wanted.consent != Some(true);
        if wanted.sink == before.wanted.sink && !is_asked_anew {
            // Nothing new to look at: a sink that cannot be reached just now can still be patched.
            return Ok(Admission { sink: wanted.sink, grant, consent: None });
        }
        self.admit(name, &wanted, grant).await
    }

    async fn place(&self, url: &Uri) -> Result<Place, NotAdmitted> {
        let place = tokio::time::timeout(RESOLVE_TIMEOUT, self.ways.guard.check(url)).await;
        Ok(place.unwrap_or(Err(NotAllowed::NoAddress))?)
    }

    async fn ask(&self, url: &Uri, is_outsiders: bool) -> Result<Consent, NotAdmitted> {
        let client = self.ways.client(is_outsiders);
        Ok(consent::ask(client, url, &self.ways.origin, self.environment.clock.now()).await?)
    }
}
