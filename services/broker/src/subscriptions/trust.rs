//! What a subscription's deliveries stand on: who registered the sink, which keys sign, and whether the sink agreed. Pure.
//!
//! No secret is stored. A key is a name from which, with the shop's root secret, the subscription's secret follows; another key gives
//! another secret.

use std::time::Duration;

use kit::{
    Timestamp,
    ids::Ids,
    security::{Keyring, webhook::Secret},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{sink::consent::Consent, tokens::TokenRef, wire};

/// What a subscription's deliveries stand on. By default the shop's own word: the secret follows from the subscription's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trust {
    /// The token of the outsider who registered the sink; none for services of the shop and operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<TokenRef>,
    /// The sink agreed to be sent events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) consent: Option<Consent>,
    /// What signs; none where the secret follows from the name alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Key>,
    /// What signs beside that, for some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Previous>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    id: String,
    since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Previous {
    key: Option<Key>,
    until: Timestamp,
}

/// From what the secret of a subscription follows, beside the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signs {
    /// From its name alone: services of the shop have the root, and work it out.
    ByName,
    /// From a key of its own: whoever has no root is told the secret once.
    ByKey,
}

/// How a subscription's deliveries are secured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Security {
    /// The token of the outsider who registered the sink; none for services of the shop and operators.
    pub token: Option<String>,
    /// Since when the secret that signs is valid; none where it follows from the subscription's name alone.
    #[serde(with = "wire::optional_time")]
    #[schemars(with = "Option<Timestamp>")]
    pub secret_since: Option<Timestamp>,
    /// Until when deliveries are signed with the secret before that too.
    #[serde(with = "wire::optional_time")]
    #[schemars(with = "Option<Timestamp>")]
    pub previous_secret_until: Option<Timestamp>,
    /// Whether the sink agreed to be sent events; none where it was not asked.
    pub consent: Option<Consent>,
}

impl Trust {
    /// This, when the sink was registered on the word of `token`, or of the shop itself, and agreed to `consent`, if it was asked.
    pub(crate) fn admitted(self, token: Option<TokenRef>, consent: Option<Consent>) -> Self {
        Self { token, consent, ..self }
    }

    /// This, when it signs as `signs` says. A key that it has stays.
    pub(crate) fn signing(self, signs: Signs, ids: &Ids, now: Timestamp) -> Self {
        let key = match signs {
            Signs::ByName => None,
            Signs::ByKey => self.key.or_else(|| Some(Key::new(ids, now))),
        };
        Self { key, ..self }
    }

    /// This with a new key; what signed before signs too, for some time.
    pub(crate) fn rotated(self, ids: &Ids, now: Timestamp, grace: Duration) -> Self {
        let until = now.plus_ms(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        let previous = (until > now).then_some(Previous { key: self.key, until });
        Self { key: Some(Key::new(ids, now)), previous, ..self }
    }

    /// Whether both sign with the same secret.
    pub(crate) fn has_key_of(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// What signs the deliveries of the subscription `name` at `now`, the newest first.
    pub(crate) fn secrets(&self, keyring: &Keyring, name: &str, now: Timestamp) -> Vec<Secret> {
        let previous = self.previous.as_ref().filter(|previous| previous.until > now).map(|previous| previous.key.as_ref());
        let keys = std::iter::once(self.key.as_ref()).chain(previous);
        keys.map(|key| keyring.webhook_secret(name, key.map(|key| key.id.as_str()))).collect()
    }

    /// How it looks at `now`.
    pub(crate) fn show(&self, now: Timestamp) -> Security {
        Security {
            token: self.token.as_ref().map(|token| token.name.clone()),
            secret_since: self.key.as_ref().map(|key| key.since),
            previous_secret_until: self.previous.as_ref().map(|previous| previous.until).filter(|until| *until > now),
            consent: self.consent.clone(),
        }
    }

    /// Whether it is what is taken for granted, and need not be stored.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Key {
    fn new(ids: &Ids, now: Timestamp) -> Self {
        Self { id: ids.uuid_v7(now).simple().to_string(), since: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn texts(trust: &Trust, name: &str, now: Timestamp) -> Vec<String> {
        let keyring = Keyring::from_secret([7; 32]);
        trust.secrets(&keyring, name, now).iter().map(Secret::to_text).collect()
    }

    #[test]
    fn a_service_works_out_its_secret_and_an_outsider_is_given_one() {
        let ids = Ids::seeded(1);
        let of_the_shop = Trust::default().signing(Signs::ByName, &ids, NOW);
        assert!(of_the_shop.is_default());
        let derived = Keyring::from_secret([7; 32]).webhook_secret("payment", None).to_text();
        assert_eq!(texts(&of_the_shop, "payment", NOW), [derived]);
        let outside = Trust::default().signing(Signs::ByKey, &ids, NOW);
        assert_ne!(texts(&outside, "payment", NOW), texts(&of_the_shop, "payment", NOW));
        assert_eq!(outside.clone().signing(Signs::ByKey, &ids, NOW.plus_ms(1)), outside, "a key stays");
        let again = Trust::default().signing(Signs::ByKey, &ids, NOW);
        assert_ne!(texts(&again, "payment", NOW), texts(&outside, "payment", NOW), "who has the name later has another secret");
    }

    #[test]
    fn both_secrets_sign_for_as_long_as_was_said() {
        let ids = Ids::seeded(1);
        let before = Trust::default().signing(Signs::ByKey, &ids, NOW);
        let after = before.clone().rotated(&ids, NOW, HOUR);
        let (old, both) = (texts(&before, "a", NOW), texts(&after, "a", NOW));
        assert!(both.len() == 2 && both[0] != both[1] && both[1] == old[0]);
        assert_eq!(texts(&after, "a", NOW.plus_ms(3_599_999)), both);
        assert_eq!(texts(&after, "a", NOW.plus_ms(3_600_000)), both[..1]);
        let at_once = before.rotated(&ids, NOW, Duration::ZERO);
        assert_eq!(texts(&at_once, "a", NOW).len(), 1);
    }

    #[test]
    fn what_is_stored_holds_no_secret_and_is_read_as_it_was() {
        let ids = Ids::seeded(1);
        let trust = Trust::default().signing(Signs::ByKey, &ids, NOW).rotated(&ids, NOW, HOUR);
        let text = serde_json::to_string(&trust).unwrap();
        assert_eq!(serde_json::from_str::<Trust>(&text).unwrap(), trust);
        for secret in texts(&trust, "a", NOW) {
            assert!(!text.contains(secret.trim_start_matches("whsec_")));
        }
        assert_eq!(serde_json::from_str::<Trust>("{}").unwrap(), Trust::default());
    }
}
