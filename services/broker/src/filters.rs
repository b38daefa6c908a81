//! Which events a subscription asks for: types, and filters after the CloudEvents Subscriptions draft (section "Filters"). Pure.
//!
//! An event is taken when its type is among `types` (if there are any) and every filter holds. A filter is an object with one
//! dialect: `exact`, `prefix` and `suffix` compare attributes as texts, and all of the attributes they name must fit; `all`, `any` and
//! `not` combine filters. An attribute that an event does not have fits nothing.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use kit::Envelope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Reads filters, within their limits.
mod parse;

/// What filters look like.
mod schema;

#[cfg(test)]
mod tests;

pub use parse::{InvalidFilter, parse};

/// How deep filters may nest.
pub const DEPTH_MAX: usize = 8;
/// How many filters and compared attributes there may be in all.
pub const CLAUSES_MAX: usize = 64;

/// How much of a clause is shown, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// A condition on an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Each of these attributes is this text.
    Exact(BTreeMap<String, String>),
    /// Each of these attributes begins with this text.
    Prefix(BTreeMap<String, String>),
    /// Each of these attributes ends with this text.
    Suffix(BTreeMap<String, String>),
    /// All of these hold.
    All(Vec<Filter>),
    /// At least one of these holds.
    Any(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
}

/// What a subscription asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Selection {
    /// The types of events; none asks for every type.
    #[serde(default)]
    #[schemars(with = "Option<schema::Types>")]
    pub types: Option<BTreeSet<String>>,
    /// All of these must hold.
    #[schemars(length(max = CLAUSES_MAX))]
    #[serde(default, deserialize_with = "parse::stored")]
    pub filters: Vec<Filter>,
}

/// What an event was filtered by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Clause {
    /// Where it stands in the subscription, as a JSON pointer: `/types`, `/filters/0/any`.
    pub field: String,
    /// What it says, as JSON; of a long one the beginning.
    pub says: String,
    /// Why it does not hold for the event, in words.
    pub reason: String,
}

impl Selection {
    /// Asks for `types` alone.
    pub fn of_types(types: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { types: Some(types.into_iter().map(Into::into).collect()), filters: Vec::new() }
    }

    /// Whether `event` is asked for.
    pub fn takes(&self, event: &Envelope) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(&event.ty)) && self.filters.iter().all(|filter| filter.holds(event))
    }

    /// Whether `event` is asked for, and if not, why not.
    ///
    /// # Errors
    /// The first clause that does not hold; of filters that all must hold the innermost one.
    pub fn matches(&self, event: &Envelope) -> Result<(), Clause> {
        if let Some(types) = self.types.as_ref().filter(|types| !types.contains(&event.ty)) {
            let reason = format!("`type` is `{}`, which is not among the types", event.ty);
            return Err(Clause { field: String::from("/types"), says: show(types), reason });
        }
        match self.filters.iter().enumerate().find(|(_, filter)| !filter.holds(event)) {
            Some((index, filter)) => Err(filter.blame(event, &format!("/filters/{index}"))),
            None => Ok(()),
        }
    }
}

impl Filter {
    /// Whether it holds for `event`.
    pub fn holds(&self, event: &Envelope) -> bool {
        match self {
            Self::Exact(texts) => texts.iter().all(|(name, text)| Test::Exact.fits(event, name, text)),
            Self::Prefix(texts) => texts.iter().all(|(name, text)| Test::Prefix.fits(event, name, text)),
            Self::Suffix(texts) => texts.iter().all(|(name, text)| Test::Suffix.fits(event, name, text)),
            Self::All(filters) => filters.iter().all(|filter| filter.holds(event)),
            Self::Any(filters) => filters.iter().any(|filter| filter.holds(event)),
            Self::Not(filter) => !filter.holds(event),
        }
    }

    /// Why it, at `field`, does not hold for `event`.
    fn blame(&self, event: &Envelope, field: &str) -> Clause {
        let clause = |dialect: &str, reason: String| Clause { field: format!("{field}/{dialect}"), says: show(self), reason };
        match self {
            Self::Exact(texts) => clause("exact", Test::Exact.blame(event, texts)),
            Self::Prefix(texts) => clause("prefix", Test::Prefix.blame(event, texts)),
            Self::Suffix(texts) => clause("suffix", Test::Suffix.blame(event, texts)),
            Self::All(filters) => match filters.iter().enumerate().find(|(_, filter)| !filter.holds(event)) {
                Some((index, filter)) => filter.blame(event, &format!("{field}/all/{index}")),
                None => clause("all", String::from("all of them hold")),
            },
            Self::Any(filters) => clause("any", format!("none of its {} filters holds", filters.len())),
            Self::Not(_) => clause("not", String::from("what it excludes holds")),
        }
    }
}

/// How an attribute is compared.
#[derive(Clone, Copy)]
enum Test {
    Exact,
    Prefix,
    Suffix,
}

impl Test {
    fn fits(self, event: &Envelope, name: &str, text: &str) -> bool {
        attribute(event, name).is_some_and(|value| match self {
            Self::Exact => value == text,
            Self::Prefix => value.starts_with(text),
            Self::Suffix => value.ends_with(text),
        })
    }

    fn blame(self, event: &Envelope, texts: &BTreeMap<String, String>) -> String {
        let Some((name, text)) = texts.iter().find(|(name, text)| !self.fits(event, name, text)) else {
            return String::from("all of its attributes fit");
        };
        match attribute(event, name) {
            None => format!("the event has no `{name}`"),
            Some(value) => format!("`{name}` is `{}`, which {self} `{}`", shorten(&value), shorten(text)),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "is not",
            Self::Prefix => "does not begin with",
            Self::Suffix => "does not end with",
        })
    }
}

/// An attribute in its canonical text (CloudEvents 1.0, section 3 "Type System"), as it is sent to subscribers.
fn attribute<'a>(event: &'a Envelope, name: &str) -> Option<Cow<'a, str>> {
    let text = |text: &'a str| Some(Cow::Borrowed(text));
    match name {
        "specversion" => text("1.0"),
        "id" => text(event.id.as_str()),
        "source" => text(&event.source),
        "type" => text(&event.ty),
        "subject" => event.subject.as_deref().map(Cow::Borrowed),
        "time" => event.time.map(|time| Cow::Owned(time.to_rfc3339())),
        "traceparent" => event.traceparent.as_deref().map(Cow::Borrowed),
        "causationid" => event.causationid.as_ref().map(|id| Cow::Borrowed(id.as_str())),
        "sequence" => event.sequence.map(|sequence| Cow::Owned(sequence.to_string())),
        "owner" => event.owner.as_deref().map(Cow::Borrowed),
        "scenario" => event.scenario.as_deref().map(Cow::Borrowed),
        "datacontenttype" => event.datacontenttype().map(Cow::Borrowed),
        _ => event.extensions.get(name).map(|value| match value {
            Value::String(value) => Cow::Borrowed(value.as_str()),
            other => Cow::Owned(other.to_string()),
        }),
    }
}

fn show(json: &impl Serialize) -> String {
    // Plain data with text keys: it cannot fail.
    shorten(&serde_json::to_string(json).unwrap_or_default()).into_owned()
}

fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}
