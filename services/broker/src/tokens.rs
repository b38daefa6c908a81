//! Tokens for outsiders: whoever is no part of the shop and may do some of what its services do. Only their hashes are kept.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kit::{Environment, Timestamp, security::Keyring};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    engine::{EngineError, LogEngine, StatePut},
    keeping,
    publish::PublishRights,
    subscriptions::wanted::{Fields, Invalid, check_name, invalid},
};

/// A token as text.
pub(crate) mod text;

/// What its bearer may do.
pub(crate) mod scopes;

use scopes::Scopes;

/// What all keys of tokens begin with.
const KEY_PREFIX: &str = "token/";
/// The most tokens.
const TOKENS_MAX: usize = 256;
/// For how long a token that was replaced stays valid, unless somebody says otherwise, and at most.
pub(crate) const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
pub(crate) const GRACE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Who bears a token: what it is called, which one of that name it is, and what it lets them do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) token: TokenRef,
    pub(crate) scopes: Scopes,
}

/// One token among all that ever had its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRef {
    pub(crate) name: String,
    pub(crate) id: String,
}

/// A token as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Token")]
pub(crate) struct Shown {
    pub(crate) name: String,
    scopes: Scopes,
    #[schemars(extend("format" = "date-time"))]
    created_at: String,
    /// From then on it is no longer valid; none sets no end.
    #[schemars(extend("format" = "date-time"))]
    expires_at: Option<String>,
    is_expired: bool,
    #[schemars(extend("format" = "date-time"))]
    rotated_at: Option<String>,
    /// Until when the token that it replaced is valid.
    #[schemars(extend("format" = "date-time"))]
    previous_until: Option<String>,
    /// The last day on which it was used, in UTC.
    #[schemars(extend("format" = "date"))]
    last_used_day: Option<String>,
}

/// A token that was just made: the only time that it is shown.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "NewToken")]
pub(crate) struct Made {
    /// The token.
    pub(crate) token: String,
    #[serde(flatten)]
    pub(crate) shown: Shown,
}

/// What a token is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewToken {
    name: String,
    scopes: Scopes,
    expires_at: Option<Timestamp>,
}

/// How a token is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotation {
    grace: Duration,
    /// Its new end, if it is to have another.
    expires_at: Option<Timestamp>,
}

/// Why a token lets nobody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untrusted {
    /// It is not whole.
    #[error("this token is cut off or mistyped: its check digits do not fit")]
    Malformed,
    /// There is no such token, or no more.
    #[error("this token is not known here: it was revoked or replaced, or belongs to another shop")]
    Unknown,
    /// Its time is over.
    #[error("this token has expired")]
    Expired,
}

/// Why nothing was done with a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// A field does not hold what it must.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is one of that name.
    #[error("there is a token `{0}` already; rotate it, or revoke it first")]
    Exists(String),
    /// There is none of that name.
    #[error("there is no token `{0}`")]
    NoSuchToken(String),
    /// There are too many.
    #[error("there are {TOKENS_MAX} tokens already")]
    TooMany,
    /// The engine cannot keep it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Tells it from others that had its name before.
    id: String,
    scopes: Scopes,
    hash: String,
    created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotated_at: Option<Timestamp>,
    /// What it replaced, and until when that is valid too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Previous>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used_day: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Previous {
    hash: String,
    until: Timestamp,
}

#[derive(Clone)]
struct Entry {
    kept: Kept,
    version: i64,
}

/// All tokens.
pub(crate) struct Tokens {
    engine: Arc<dyn LogEngine>,
    keyring: Keyring,
    environment: Environment,
    entries: Mutex<BTreeMap<String, Entry>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl NewToken {
    /// Reads what somebody sent: `name`, `scopes`, and perhaps `expires_at`. `rights` are those of the shop's services.
    ///
    /// # Errors
    /// The first field that does not hold what it must.
    pub(crate) fn parse(json: Value, rights: &PublishRights, now: Timestamp) -> Result<Self, Invalid> {
        let Value::Object(map) = json else { return Err(invalid("", "the body must be a JSON object")) };
        let mut fields = Fields(map);
        let name: String = fields.take("name")?.ok_or_else(|| invalid("name", "must be there"))?;
        check_name(&name)?;
        let scopes = fields.0.remove("scopes").ok_or_else(|| invalid("scopes", "must be there"))?;
        let expires_at = expiry(&mut fields, now)?;
        let scopes = Scopes::parse(scopes, rights)?;
        fields.finish()?;
        Ok(Self { name, scopes, expires_at })
    }
}

impl Rotation {
    /// Reads what somebody sent: perhaps `grace_s` and `expires_at`.
    ///
    /// # Errors
    /// The first field that does not hold what it must.
    pub(crate) fn parse(json: Value, now: Timestamp) -> Result<Self, Invalid> {
        let Value::Object(map) = json else { return Err(invalid("", "the body must be a JSON object")) };
        let mut fields = Fields(map);
        let rotation = Self { grace: grace(&mut fields)?, expires_at: expiry(&mut fields, now)? };
        fields.finish()?;
        Ok(rotation)
    }
}

/// For how long what is replaced stays valid.
///
/// # Errors
/// When it is longer than it may be.
pub(crate) fn grace(fields: &mut Fields) -> Result<Duration, Invalid> {
    let grace = fields.take("grace_s")?.map_or(GRACE, Duration::from_secs);
    if grace <= GRACE_MAX { Ok(grace) } else { Err(invalid("grace_s", "must be 0 to 2592000 seconds, which is 30 days")) }
}

fn expiry(fields: &mut Fields, now: Timestamp) -> Result<Option<Timestamp>, Invalid> {
    let Some(text) = fields.take::<String>("expires_at")? else { return Ok(None) };
    match Timestamp::from_rfc3339(&text) {
        Some(at) if at > now => Ok(Some(at)),
        Some(_) => Err(invalid("expires_at", "must be in the future")),
        None => Err(invalid("expires_at", "must be a time such as 2027-01-31T12:00:00Z")),
    }
}

impl Tokens {
    /// Reads all tokens.
    pub(crate) async fn load(engine: Arc<dyn LogEngine>, keyring: Keyring, environment: &Environment) -> Result<Self, EngineError> {
        let mut entries = BTreeMap::new();
        for entry in engine.state_list(KEY_PREFIX).await? {
            let name = entry.key.trim_start_matches(KEY_PREFIX).to_owned();
            entries.insert(name, Entry { kept: keeping::parse(&entry)?, version: entry.version });
        }
        let environment = environment.clone();
        Ok(Self { engine, keyring, environment, entries: Mutex::new(entries), changing: tokio::sync::Mutex::default() })
    }

    /// Makes a token.
    pub(crate) async fn create(&self, new: NewToken) -> Result<Made, TokenError> {
        let _one_at_a_time = self.changing.lock().await;
        let NewToken { name, scopes, expires_at } = new;
        let count = {
            let entries = self.entries();
            if entries.contains_key(&name) {
                return Err(TokenError::Exists(name));
            }
            entries.len()
        };
        if count >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let now = self.environment.clock.now();
        let token = text::make(&name, &self.environment.ids);
        let kept = Kept {
            id: self.environment.ids.uuid_v7(now).to_string(),
            scopes,
            hash: self.keyring.token_hash(&token),
            created_at: now,
            expires_at,
            rotated_at: None,
            previous: None,
            last_used_day: None,
        };
        let shown = self.keep(&name, kept, 0).await?;
        Ok(Made { token, shown })
    }

    /// Replaces a token by another one that may do the same; the old one stays valid for some time. Of two rotations in that time, the
    /// first one's old token ends at once.
    pub(crate) async fn rotate(&self, name: &str, rotation: Rotation) -> Result<Made, TokenError> {
        let _one_at_a_time = self.changing.lock().await;
        let Entry { kept, version } = self.entry(name)?;
        let now = self.environment.clock.now();
        let until = now.plus_ms(u64::try_from(rotation.grace.as_millis()).unwrap_or(u64::MAX));
        let token = text::make(name, &self.environment.ids);
        let kept = Kept {
            previous: (until > now).then_some(Previous { hash: kept.hash, until }),
            hash: self.keyring.token_hash(&token),
            rotated_at: Some(now),
            expires_at: rotation.expires_at.or(kept.expires_at),
            ..kept
        };
        let shown = self.keep(name, kept, version).await?;
        Ok(Made { token, shown })
    }

    /// Ends a token at once.
    pub(crate) async fn revoke(&self, name: &str) -> Result<(), TokenError> {
        let _one_at_a_time = self.changing.lock().await;
        let version = self.entry(name)?.version;
        self.engine.state_put(vec![StatePut { key: key(name), value: None, expected_version: Some(version) }]).await?;
        self.entries().remove(name);
        Ok(())
    }

    /// All tokens, by name.
    pub(crate) fn list(&self) -> Vec<Shown> {
        let now = self.environment.clock.now();
        self.entries().iter().map(|(name, entry)| show(name, &entry.kept, now)).collect()
    }

    /// The token `name`.
    pub(crate) fn get(&self, name: &str) -> Result<Shown, TokenError> {
        Ok(show(name, &self.entry(name)?.kept, self.environment.clock.now()))
    }

    /// Who bears the token `token`.
    ///
    /// # Errors
    /// See [`Untrusted`].
    pub(crate) fn verify(&self, token: &str) -> Result<Grant, Untrusted> {
        let name = text::name_of(token).ok_or(Untrusted::Malformed)?;
        let entry = self.entries().get(name).cloned().ok_or(Untrusted::Unknown)?;
        let (kept, now) = (entry.kept, self.environment.clock.now());
        let is_previous = |previous: &Previous| previous.until > now && self.keyring.is_token_hash(&previous.hash, token);
        if !self.keyring.is_token_hash(&kept.hash, token) && !kept.previous.as_ref().is_some_and(is_previous) {
            return Err(Untrusted::Unknown);
        }
        if is_expired(&kept, now) {
            return Err(Untrusted::Expired);
        }
        Ok(Grant { token: TokenRef { name: name.to_owned(), id: kept.id }, scopes: kept.scopes })
    }

    /// Whether the token is valid still.
    pub(crate) fn is_valid(&self, token: &TokenRef) -> bool {
        let now = self.environment.clock.now();
        self.entries().get(&token.name).is_some_and(|entry| entry.kept.id == token.id && !is_expired(&entry.kept, now))
    }

    /// Keeps in mind that the token was used today: one write a day at most.
    pub(crate) async fn note_use(&self, token: &TokenRef) {
        let today = self.environment.clock.now().to_rfc3339().chars().take(10).collect::<String>();
        let is_unknown = |entry: &Entry| entry.kept.id == token.id && entry.kept.last_used_day.as_ref() != Some(&today);
        if !self.entries().get(&token.name).is_some_and(is_unknown) {
            return;
        }
        let _one_at_a_time = self.changing.lock().await;
        let Some(entry) = self.entries().get(&token.name).cloned().filter(is_unknown) else { return };
        let kept = Kept { last_used_day: Some(today.clone()), ..entry.kept };
        if let Err(error) = self.keep(&token.name, kept, entry.version).await {
            // It is for people who wonder whether a token is in use: nothing depends on it.
            tracing::warn!(token = token.name, %error, "the day of a token's use could not be kept");
        }
    }

    async fn keep(&self, name: &str, kept: Kept, version: i64) -> Result<Shown, EngineError> {
        let put = StatePut { key: key(name), value: Some(keeping::to_json(&kept)), expected_version: Some(version) };
        self.engine.state_put(vec![put]).await?;
        let shown = show(name, &kept, self.environment.clock.now());
        self.entries().insert(name.to_owned(), Entry { kept, version: version + 1 });
        Ok(shown)
    }

    fn entry(&self, name: &str) -> Result<Entry, TokenError> {
        self.entries().get(name).cloned().ok_or_else(|| TokenError::NoSuchToken(name.chars().take(64).collect()))
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_expired(kept: &Kept, now: Timestamp) -> bool {
    kept.expires_at.is_some_and(|at| at <= now)
}

fn show(name: &str, kept: &Kept, now: Timestamp) -> Shown {
    let previous = kept.previous.as_ref().filter(|previous| previous.until > now);
    Shown {
        name: name.to_owned(),
        scopes: kept.scopes.clone(),
        created_at: kept.created_at.to_rfc3339(),
        expires_at: kept.expires_at.map(Timestamp::to_rfc3339),
        is_expired: is_expired(kept, now),
        rotated_at: kept.rotated_at.map(Timestamp::to_rfc3339),
        previous_until: previous.map(|previous| previous.until.to_rfc3339()),
        last_used_day: kept.last_used_day.clone(),
    }
}

fn key(name: &str) -> String {
    format!("{KEY_PREFIX}{name}")
}
