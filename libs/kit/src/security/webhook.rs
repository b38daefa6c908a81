//! Signatures of what is sent to subscribers, after Standard Webhooks 1.0 (<https://www.standardwebhooks.com>): HMAC-SHA-256 over
//! `id.seconds.body`.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::Sha256;

use crate::Timestamp;

/// Names a message.
pub const ID: &str = "webhook-id";
/// When it was signed, in seconds since 1970.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// Its signatures, one for each secret that is valid, with a space between them.
pub const SIGNATURE: &str = "webhook-signature";

/// A secret's length, in bytes: the scheme asks for 24 to 64.
pub(super) const SECRET_BYTES: usize = 32;
/// What a secret begins with as text.
const SECRET_PREFIX: &str = "whsec_";
/// What a signature by a shared secret begins with.
const VERSION_PREFIX: &str = "v1,";
/// How old a signature may be, in milliseconds: the scheme asks for a tolerance against replays.
pub(crate) const AGE_MS_MAX: i64 = 5 * 60 * 1_000;

/// What the sender and one receiver share. Neither printed nor logged by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    pub(super) fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// The secret as receivers are given it: `whsec_` and base64.
    pub fn to_text(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(self.0))
    }

    /// Signs a message: `v1,` and base64.
    pub fn sign(&self, id: &str, sent_s: i64, body: &[u8]) -> String {
        format!("{VERSION_PREFIX}{}", STANDARD.encode(self.mac(id, sent_s, body).finalize().into_bytes()))
    }

    /// Whether one of the space-separated `signatures` is by this secret, and fresh at the time `now`.
    pub fn has_signed(&self, signatures: &str, id: &str, sent_s: i64, body: &[u8], now: Timestamp) -> bool {
        let age_ms = now.as_ms().saturating_sub(sent_s.saturating_mul(1_000));
        if age_ms.saturating_abs() > AGE_MS_MAX {
            return false;
        }
        let mac = self.mac(id, sent_s, body);
        signatures
            .split(' ')
            .filter_map(|signature| signature.strip_prefix(VERSION_PREFIX))
            .filter_map(|tag| STANDARD.decode(tag).ok())
            .any(|tag| mac.clone().verify_slice(&tag).is_ok())
    }

    /// Whether a request with these `headers` and this `body` is signed by this secret, and fresh at the time `now`.
    pub fn has_signed_request(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> bool {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(id), Some(sent_s), Some(signatures)) = (text(ID), text(TIMESTAMP), text(SIGNATURE)) else { return false };
        sent_s.parse().is_ok_and(|sent_s| self.has_signed(signatures, id, sent_s, body, now))
    }

    fn mac(&self, id: &str, sent_s: i64, body: &[u8]) -> Hmac<Sha256> {
        // A key of one block is taken as it is; a shorter one is filled up with zeros (RFC 2104, section 2).
        let mut key = [0; 64];
        key.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        let mut mac = Hmac::<Sha256>::new(&key.into());
        mac.update(format!("{id}.{sent_s}.").as_bytes());
        mac.update(body);
        mac
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use standardwebhooks::Webhook;

    use super::*;
    use crate::{Clock, clock::SystemClock};

    const NOW: Timestamp = Timestamp::from_ms(1_000_000_000);

    fn secret() -> Secret {
        Secret::new([7; SECRET_BYTES])
    }

    #[test]
    fn a_message_is_ours_while_it_is_fresh_and_whole() {
        let signature = secret().sign("d-1", 1_000_000, b"[]");
        let is_ours = |id: &str, body: &[u8], now| secret().has_signed(&signature, id, 1_000_000, body, now);
        assert!(is_ours("d-1", b"[]", NOW));
        assert!(!is_ours("d-2", b"[]", NOW));
        assert!(!is_ours("d-1", b"[1]", NOW));
        assert!(!is_ours("d-1", b"[]", NOW.plus_ms(600_000)));
        assert!(!Secret::new([8; SECRET_BYTES]).has_signed(&signature, "d-1", 1_000_000, b"[]", NOW));
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        let (old, new) = (Secret::new([1; SECRET_BYTES]), Secret::new([2; SECRET_BYTES]));
        let both = format!("{} {}", new.sign("d", 1_000_000, b"x"), old.sign("d", 1_000_000, b"x"));
        assert!(old.has_signed(&both, "d", 1_000_000, b"x", NOW) && new.has_signed(&both, "d", 1_000_000, b"x", NOW));
        assert!(!secret().has_signed(&both, "d", 1_000_000, b"x", NOW));
    }

    /// A library that we did not write, with a hash that we did not write.
    #[test]
    fn the_reference_library_takes_what_we_sign_and_we_take_what_it_signs() {
        let (webhook, body) = (Webhook::new(&secret().to_text()).unwrap(), br#"[{"id":"1"}]"#);
        let sent_s = SystemClock.now().as_ms() / 1_000;
        let theirs = webhook.sign("d-1", sent_s, body).unwrap();
        assert_eq!(theirs, secret().sign("d-1", sent_s, body));
        let mut headers = HeaderMap::new();
        let old = Secret::new([1; SECRET_BYTES]).sign("d-1", sent_s, body);
        for (name, value) in [(ID, "d-1".to_owned()), (TIMESTAMP, sent_s.to_string()), (SIGNATURE, format!("{old} {theirs}"))] {
            headers.insert(name, value.parse().unwrap());
        }
        webhook.verify(body, &headers).unwrap();
        assert!(webhook.verify(b"[]", &headers).is_err());
    }

    #[test]
    fn a_secret_is_never_shown_by_accident() {
        assert_eq!(format!("{:?}", secret()), "Secret");
    }

    proptest! {
        #[test]
        fn no_header_is_taken_for_a_signature(text in "(v1,|v1a,|v2,| |=|[A-Za-z0-9+/]|\\PC){0,80}", id in "\\PC{0,20}", sent_s in 999_900_i64..1_000_100) {
            prop_assert!(!secret().has_signed(&text, &id, sent_s, b"[]", NOW));
        }

        #[test]
        fn a_signature_with_anything_changed_is_none(at in 3_usize..46, letter in "[A-Za-z0-9+/]") {
            let signature = secret().sign("d", 1_000_000, b"x");
            let mut changed = signature.clone();
            changed.replace_range(at..=at, &letter);
            prop_assert_eq!(secret().has_signed(&changed, "d", 1_000_000, b"x", NOW), changed == signature);
        }
    }
}
