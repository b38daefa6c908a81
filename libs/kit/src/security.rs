//! Keys, tokens, sessions and signatures. One secret is the root of them all; each purpose has a key of its own (HKDF, RFC 5869).

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{Timestamp, ids::Ids};

/// The secret's length, in bytes.
const SECRET_BYTES: usize = 32;
/// How old a signed delivery may be, in milliseconds: Standard Webhooks asks for a tolerance against replays.
const SIGNATURE_AGE_MS_MAX: i64 = 5 * 60 * 1_000;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("secret file `{path}`: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        cause: std::io::Error,
    },
    /// The file does not hold a secret.
    #[error("secret file `{path}` must hold exactly 64 hexadecimal digits")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner can read the file.
    #[error("secret file `{path}` can be read by others; run `chmod 600` on it")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

/// All keys of a shop. Neither printed nor logged.
#[derive(Clone)]
pub struct Keyring {
    root: [u8; SECRET_BYTES],
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring")
    }
}

impl Keyring {
    /// Takes the root secret itself.
    pub fn from_secret(root: [u8; SECRET_BYTES]) -> Self {
        Self { root }
    }

    /// Reads the secret in the file `path`, or makes one there (mode 0600).
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn load_or_create(path: &Path, ids: &Ids) -> Result<Self, SecretError> {
        let failed = |cause| SecretError::File { path: path.into(), cause };
        if !path.exists() {
            let mut root = [0; SECRET_BYTES];
            ids.fill(&mut root);
            // Written aside and linked, so that a crash leaves a whole secret or none, and of two that start at once one wins.
            let aside = path.with_extension(format!("{:016x}.new", ids.up_to(u64::MAX)));
            let mut file = File::options().create_new(true).write(true).mode(0o600).open(&aside).map_err(failed)?;
            file.write_all(hex(&root).as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            let linked = std::fs::hard_link(&aside, path);
            std::fs::remove_file(&aside).map_err(failed)?;
            match linked {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Self::load(path)
    }

    /// Reads the secret in the file `path`.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn load(path: &Path) -> Result<Self, SecretError> {
        let failed = |cause| SecretError::File { path: path.into(), cause };
        let mut file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(SecretError::Exposed { path: path.into() });
        }
        let mut text = String::new();
        Read::by_ref(&mut file).take(256).read_to_string(&mut text).map_err(failed)?;
        let root = unhex(text.trim()).ok_or_else(|| SecretError::Malformed { path: path.into() })?;
        Ok(Self { root })
    }

    /// The cookie value that opens a session for `owner`.
    pub fn session(&self, owner: &str) -> String {
        format!("{owner}.{}", self.tag("session", &[owner]))
    }

    /// Whose session a cookie value opens; none if it is not ours.
    pub fn open_session(&self, cookie: &str) -> Option<String> {
        let (owner, tag) = cookie.rsplit_once('.')?;
        self.is_tag(tag, "session", &[owner]).then(|| owner.to_owned())
    }

    /// A token that lets its bearer read what concerns `subject`, and nothing else.
    pub fn share_token(&self, subject: &str) -> String {
        self.tag("share", &[subject])
    }

    /// Whether `token` lets its bearer read what concerns `subject`.
    pub fn is_share_token(&self, token: &str, subject: &str) -> bool {
        self.is_tag(token, "share", &[subject])
    }

    /// The bearer token of the service `name`: with it goes the right to publish what that service emits.
    pub fn service_token(&self, name: &str) -> String {
        format!("{name}.{}", self.tag("service", &[name]))
    }

    /// Which service a bearer token belongs to; none if it is not ours.
    pub fn open_service_token(&self, token: &str) -> Option<String> {
        let (name, tag) = token.rsplit_once('.')?;
        self.is_tag(tag, "service", &[name]).then(|| name.to_owned())
    }

    /// A hash of `bytes` that nobody without the secret can guess from what they hold.
    pub fn fingerprint(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = self.mac("fingerprint");
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }

    /// Signs a delivery after the Standard Webhooks scheme: `v1,` and the tag of `id.seconds.body`.
    pub fn sign_delivery(&self, id: &str, sent_s: i64, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.delivery_mac(id, sent_s, body).finalize().into_bytes()))
    }

    /// Whether one of the space-separated `signatures` is ours and fresh at the time `now`.
    pub fn is_delivery_signature(&self, signatures: &str, id: &str, sent_s: i64, body: &[u8], now: Timestamp) -> bool {
        let age_ms = now.as_ms().saturating_sub(sent_s.saturating_mul(1_000));
        if age_ms.saturating_abs() > SIGNATURE_AGE_MS_MAX {
            return false;
        }
        signatures
            .split(' ')
            .filter_map(|signature| signature.strip_prefix("v1,"))
            .filter_map(|tag| STANDARD.decode(tag).ok())
            .any(|tag| self.delivery_mac(id, sent_s, body).verify_slice(&tag).is_ok())
    }

    fn delivery_mac(&self, id: &str, sent_s: i64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac("delivery");
        mac.update(format!("{id}.{sent_s}.").as_bytes());
        mac.update(body);
        mac
    }

    fn tag(&self, purpose: &str, parts: &[&str]) -> String {
        let mut mac = self.mac(purpose);
        for part in parts {
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            mac.update(part.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    fn is_tag(&self, tag: &str, purpose: &str, parts: &[&str]) -> bool {
        self.tag(purpose, parts).as_bytes().ct_eq(tag.as_bytes()).into()
    }

    fn mac(&self, purpose: &str) -> Hmac<Sha256> {
        let mut key = [0; 64];
        // One HMAC block, and within what HKDF-SHA-256 can give (255 times 32 bytes): it cannot fail.
        let _ = Hkdf::<Sha256>::new(None, &self.root).expand(format!("cascade/{purpose}/1").as_bytes(), &mut key);
        Hmac::<Sha256>::new(&key.into())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut bytes = [0; SECRET_BYTES];
    if text.len() != 2 * SECRET_BYTES || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        Keyring::from_secret([7; 32])
    }

    #[test]
    fn a_session_is_opened_by_its_own_cookie_only() {
        let cookie = keyring().session("guest-1");
        assert_eq!(keyring().open_session(&cookie).as_deref(), Some("guest-1"));
        assert_eq!(keyring().open_session(&cookie.replace("guest-1", "guest-2")), None);
        assert_eq!(Keyring::from_secret([8; 32]).open_session(&cookie), None);
        assert_eq!(keyring().open_service_token(&cookie), None);
        assert_eq!(keyring().open_session(""), None);
    }

    #[test]
    fn a_share_token_is_for_one_subject() {
        let token = keyring().share_token("o-1");
        assert!(keyring().is_share_token(&token, "o-1"));
        assert!(!keyring().is_share_token(&token, "o-2"));
    }

    #[test]
    fn a_delivery_is_ours_while_it_is_fresh_and_whole() {
        let now = Timestamp::from_ms(1_000_000_000);
        let signature = keyring().sign_delivery("d-1", 1_000_000, b"[]");
        let is_ours = |id: &str, body: &[u8], now| keyring().is_delivery_signature(&signature, id, 1_000_000, body, now);
        assert!(is_ours("d-1", b"[]", now));
        assert!(!is_ours("d-2", b"[]", now));
        assert!(!is_ours("d-1", b"[1]", now));
        assert!(!is_ours("d-1", b"[]", now.plus_ms(600_000)));
    }

    #[test]
    fn the_secret_is_made_once_and_kept_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let made = Keyring::load_or_create(&path, &Ids::seeded(1)).unwrap();
        let loaded = Keyring::load_or_create(&path, &Ids::seeded(2)).unwrap();
        assert_eq!(made.session("a"), loaded.session("a"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Keyring::load(&path), Err(SecretError::Exposed { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "not a secret").unwrap();
        assert!(matches!(Keyring::load(&path), Err(SecretError::Malformed { .. })));
    }
}
