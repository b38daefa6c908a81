//! What the bearer of a token may do: reading it, its limits, and whether it covers a request. Pure.

use std::{collections::BTreeSet, fmt};

use kit::Envelope;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    publish::PublishRights,
    subscriptions::wanted::{Fields, Invalid, invalid},
};

/// The most patterns in one scope, and the longest of them in bytes.
const PATTERNS_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 256;
/// The longest source, in bytes.
const SOURCE_BYTES_MAX: usize = 256;

/// What the bearer of a token may do. What is not there they may not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Scopes {
    /// Publish events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) publish: Option<Publish>,
    /// Register and change subscriptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subscribe: Option<Subscribe>,
    /// Read the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read: Option<Read>,
    /// Operate these subscriptions: see how they stand, pause, resume, seek, replay, and decide on dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operate: Option<Patterns>,
    /// Make and revoke tokens: whoever may do that may do everything.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) tokens: bool,
}

/// As whom, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PublishScope")]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    /// The `source` of every event.
    #[schemars(length(min = 1, max = SOURCE_BYTES_MAX))]
    pub(crate) source: String,
    /// Their types.
    pub(crate) types: Patterns,
}

/// Under which names, and what. Events come whole, whosever they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "SubscribeScope")]
#[serde(deny_unknown_fields)]
pub(crate) struct Subscribe {
    /// The names of subscriptions.
    pub(crate) names: Patterns,
    /// The types that they may ask for.
    pub(crate) types: Patterns,
}

/// What.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ReadScope")]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    /// The types of events.
    pub(crate) types: Patterns,
    /// Whether events that belong to somebody (that have an `owner`) are among them.
    #[serde(default)]
    pub(crate) owners: bool,
}

/// Texts, each exact or, with a `*` at its end, all that begin so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Patterns(#[schemars(schema_with = "patterns")] BTreeSet<String>);

fn patterns(_: &mut SchemaGenerator) -> Schema {
    let pattern = json_schema!({"type": "string", "minLength": 1, "maxLength": PATTERN_BYTES_MAX, "pattern": r"^[^*]*\*?$"});
    json_schema!({"type": "array", "minItems": 1, "maxItems": PATTERNS_MAX, "items": pattern})
}

/// A kind of scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Publishing events.
    Publish,
    /// Looking after subscriptions.
    Subscribe,
    /// Reading the log.
    Read,
    /// Operating subscriptions.
    Operate,
    /// Making and revoking tokens.
    Tokens,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Tokens => "tokens",
        })
    }
}

/// A scope does not cover what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token's scope `{scope}` does not cover {what}")]
pub struct Missing {
    /// The scope.
    pub scope: Scope,
    /// What it would have to cover.
    what: String,
    /// The field of the request that asked for it, if it was one.
    pub(crate) field: Option<&'static str>,
}

impl Missing {
    fn new(scope: Scope, what: String) -> Self {
        Self { scope, what, field: None }
    }

    fn at(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }
}

impl Scopes {
    /// Reads what somebody sent; `rights` are those of the shop's services, which nobody else can be given.
    ///
    /// # Errors
    /// The first field that does not hold what it must.
    pub(crate) fn parse(json: Value, rights: &PublishRights) -> Result<Self, Invalid> {
        let mut fields = object(json, "/scopes")?;
        let scopes = Self {
            publish: take(&mut fields, "publish", |json, at| Publish::parse(json, at, rights))?,
            subscribe: take(&mut fields, "subscribe", |json, at| Subscribe::parse(json, at, rights))?,
            read: take(&mut fields, "read", Read::parse)?,
            operate: take(&mut fields, "operate", Patterns::parse)?,
            tokens: fields.take("tokens").map_err(|error| below("/scopes", error))?.unwrap_or(false),
        };
        fields.finish().map_err(|error| below("/scopes", error))?;
        if scopes == Self::default() {
            return Err(invalid("/scopes", "must hold at least one of `publish`, `subscribe`, `read`, `operate` and `tokens`"));
        }
        Ok(scopes)
    }

    /// Whether anything may be published.
    ///
    /// # Errors
    /// See [`Missing`].
    pub(crate) fn may_publish_any(&self) -> Result<&Publish, Missing> {
        self.publish.as_ref().ok_or_else(|| Missing::new(Scope::Publish, String::from("any event")))
    }

    /// Whether `event` may be published.
    ///
    /// # Errors
    /// See [`Missing`].
    pub(crate) fn may_publish(&self, event: &Envelope) -> Result<(), Missing> {
        let publish = self.may_publish_any()?;
        let missing = |what, field| Err(Missing::new(Scope::Publish, what).at(field));
        if publish.source != event.source {
            return missing(format!("the source `{}`", shorten(&event.source)), "source");
        }
        if !publish.types.cover(&event.ty) {
            return missing(format!("the type `{}`", shorten(&event.ty)), "type");
        }
        Ok(())
    }

    /// Whether they look after the subscription `name`.
    ///
    /// # Errors
    /// See [`Missing`].
    pub(crate) fn may_own(&self, name: &str) -> Result<(), Missing> {
        let is_covered = self.subscribe.as_ref().is_some_and(|subscribe| subscribe.names.cover(name));
        if is_covered { Ok(()) } else { Err(Missing::new(Scope::Subscribe, format!("the subscription `{}`", shorten(name)))) }
    }

    /// Whether the subscription `name` may ask for `types`, or for all.
    ///
    /// # Errors
    /// See [`Missing`].
    pub(crate) fn may_subscribe(&self, name: &str, types: Option<&BTreeSet<String>>) -> Result<(), Missing> {
        self.may_own(name)?;
        let missing = |what| Err(Missing::new(Scope::Subscribe, what).at("types"));
        let Some(subscribe) = &self.subscribe else { return missing(String::from("any event")) };
        match types {
            None if subscribe.types.cover_all() => Ok(()),
            None => missing(String::from("all types")),
            Some(types) => match types.iter().find(|ty| !subscribe.types.cover(ty)) {
                Some(ty) => missing(format!("the type `{}`", shorten(ty))),
                None => Ok(()),
            },
        }
    }

    /// Which events may be read.
    ///
    /// # Errors
    /// See [`Missing`].
    pub(crate) fn may_read(&self) -> Result<&Read, Missing> {
        self.read.as_ref().ok_or_else(|| Missing::new(Scope::Read, String::from("any event")))
    }

    /// Whether they may operate the subscription `name`.
    ///
    /// # Errors
    /// See [`Missing`].
    pub(crate) fn may_operate(&self, name: &str) -> Result<(), Missing> {
        let is_covered = self.operate.as_ref().is_some_and(|names| names.cover(name));
        if is_covered { Ok(()) } else { Err(Missing::new(Scope::Operate, format!("the subscription `{}`", shorten(name)))) }
    }

    /// Whether they may operate all subscriptions.
    ///
    /// # Errors
    /// See [`Missing`].
    pub(crate) fn may_operate_all(&self) -> Result<(), Missing> {
        let is_covered = self.operate.as_ref().is_some_and(Patterns::cover_all);
        if is_covered { Ok(()) } else { Err(Missing::new(Scope::Operate, String::from("all subscriptions"))) }
    }

    /// Whether they may make and revoke tokens.
    ///
    /// # Errors
    /// See [`Missing`].
    pub(crate) fn may_make_tokens(&self) -> Result<(), Missing> {
        if self.tokens { Ok(()) } else { Err(Missing::new(Scope::Tokens, String::from("tokens"))) }
    }
}

impl Publish {
    fn parse(json: Value, at: &str, rights: &PublishRights) -> Result<Self, Invalid> {
        let mut fields = object(json, at)?;
        let source: String = required(&mut fields, "source", at)?;
        let types = required(&mut fields, "types", at).and_then(|json| Patterns::parse(json, &format!("{at}/types")))?;
        fields.finish().map_err(|error| below(at, error))?;
        if source.is_empty() || source.len() > SOURCE_BYTES_MAX || source.contains(|letter: char| letter.is_control() || letter == ' ') {
            return Err(invalid(&format!("{at}/source"), "must be a text of 1 to 256 bytes without spaces, such as /loyalty"));
        }
        if source.strip_prefix('/').is_some_and(|name| rights.is_of_the_shop(name)) {
            return Err(invalid(&format!("{at}/source"), "is that of a service of the shop"));
        }
        if let Some(ty) = rights.types().find(|ty| types.cover(ty)) {
            return Err(invalid(&format!("{at}/types"), &format!("cover `{ty}`, which a service of the shop emits")));
        }
        Ok(Self { source, types })
    }
}

impl Subscribe {
    fn parse(json: Value, at: &str, rights: &PublishRights) -> Result<Self, Invalid> {
        let mut fields = object(json, at)?;
        let names = required(&mut fields, "names", at).and_then(|json| Patterns::parse(json, &format!("{at}/names")))?;
        let types = required(&mut fields, "types", at).and_then(|json| Patterns::parse(json, &format!("{at}/types")))?;
        fields.finish().map_err(|error| below(at, error))?;
        if let Some(name) = rights.services().into_iter().find(|name| names.cover(name)) {
            return Err(invalid(&format!("{at}/names"), &format!("cover `{name}`, which is a service of the shop")));
        }
        Ok(Self { names, types })
    }
}

impl Read {
    fn parse(json: Value, at: &str) -> Result<Self, Invalid> {
        let mut fields = object(json, at)?;
        let types = required(&mut fields, "types", at).and_then(|json| Patterns::parse(json, &format!("{at}/types")))?;
        let owners = fields.take("owners").map_err(|error| below(at, error))?.unwrap_or(false);
        fields.finish().map_err(|error| below(at, error))?;
        Ok(Self { types, owners })
    }

    /// Whether `event` may be seen.
    pub(crate) fn shows(&self, event: &Envelope) -> bool {
        self.types.cover(&event.ty) && (self.owners || event.owner.is_none())
    }
}

impl Patterns {
    fn parse(json: Value, at: &str) -> Result<Self, Invalid> {
        let wrong = || {
            invalid(
                at,
                "must be a list of 1 to 64 texts, each of 1 to 256 bytes without spaces; one that ends in `*` covers all that begin so",
            )
        };
        let patterns: BTreeSet<String> = serde_json::from_value(json).map_err(|_| wrong())?;
        let is_pattern = |text: &String| {
            (1..=PATTERN_BYTES_MAX).contains(&text.len())
                && !text.contains(|letter: char| letter.is_control() || letter == ' ')
                && !text.strip_suffix('*').unwrap_or(text).contains('*')
        };
        if (1..=PATTERNS_MAX).contains(&patterns.len()) && patterns.iter().all(is_pattern) { Ok(Self(patterns)) } else { Err(wrong()) }
    }

    /// Whether one of them covers `text`.
    pub(crate) fn cover(&self, text: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => text.starts_with(beginning),
            None => text == pattern,
        })
    }

    /// Whether one of them covers whatever there is.
    pub(crate) fn cover_all(&self) -> bool {
        self.0.contains("*")
    }
}

fn object(json: Value, at: &str) -> Result<Fields, Invalid> {
    match json {
        Value::Object(map) => Ok(Fields(map)),
        _ => Err(invalid(at, "must be a JSON object")),
    }
}

fn take<T>(fields: &mut Fields, name: &str, parse: impl FnOnce(Value, &str) -> Result<T, Invalid>) -> Result<Option<T>, Invalid> {
    match fields.0.remove(name) {
        Some(Value::Null) | None => Ok(None),
        Some(json) => parse(json, &format!("/scopes/{name}")).map(Some),
    }
}

fn required<T: serde::de::DeserializeOwned>(fields: &mut Fields, name: &str, at: &str) -> Result<T, Invalid> {
    let missing = || invalid(&format!("{at}/{name}"), "must be there");
    fields.take(name).map_err(|error| below(at, error))?.ok_or_else(missing)
}

/// The same error, of a field below `at`.
fn below(at: &str, error: Invalid) -> Invalid {
    Invalid { field: format!("{at}/{}", error.field), ..error }
}

fn shorten(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests;
