//! Keys, tokens, sessions and signatures. One secret is the root of them all; each purpose has a key of its own (HKDF, RFC 5869).

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::ids::Ids;

/// Signatures of what is sent to subscribers.
pub mod webhook;

/// The secret's length, in bytes.
const SECRET_BYTES: usize = 32;

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

    /// What is kept of a bearer token, so that it can be recognised and not be told.
    pub fn token_hash(&self, token: &str) -> String {
        self.tag("token", &[token])
    }

    /// Whether `hash` was kept of `token`.
    pub fn is_token_hash(&self, hash: &str, token: &str) -> bool {
        self.is_tag(hash, "token", &[token])
    }

    /// The secret that signs what is sent to the subscription `name` with the key `key`; without one, the secret that a subscriber who
    /// has the root itself works out by its own name. A name has no slash.
    pub fn webhook_secret(&self, name: &str, key: Option<&str>) -> webhook::Secret {
        let purpose = key.map_or_else(|| format!("webhook/{name}"), |key| format!("webhook/{name}/{key}"));
        let mut secret = [0; webhook::SECRET_BYTES];
        self.expand(&purpose, &mut secret);
        webhook::Secret::new(secret)
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
        self.expand(purpose, &mut key);
        Hmac::<Sha256>::new(&key.into())
    }

    fn expand(&self, purpose: &str, key: &mut [u8]) {
        // Within what HKDF-SHA-256 can give (255 times 32 bytes): it cannot fail.
        let _ = Hkdf::<Sha256>::new(None, &self.root).expand(format!("cascade/{purpose}/1").as_bytes(), key);
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
    fn every_subscription_and_every_key_has_a_secret_of_its_own() {
        let secret = |name, key| keyring().webhook_secret(name, key).to_text();
        let all = [secret("payment", None), secret("delivery", None), secret("payment", Some("1")), secret("payment", Some("2"))];
        for (index, one) in all.iter().enumerate() {
            assert!(all.iter().skip(index + 1).all(|other| other != one));
        }
        assert_eq!(secret("payment", None), all[0]);
    }

    #[test]
    fn a_token_is_recognised_by_what_is_kept_of_it() {
        let hash = keyring().token_hash("cascade_a_1");
        assert!(keyring().is_token_hash(&hash, "cascade_a_1") && !hash.contains("cascade_a_1"));
        assert!(!keyring().is_token_hash(&hash, "cascade_a_2") && !keyring().is_token_hash("", "cascade_a_1"));
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
