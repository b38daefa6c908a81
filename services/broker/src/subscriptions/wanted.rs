//! What a subscriber asks for, after the terms of the CloudEvents Subscriptions draft: reading it, its limits, changing it. Pure.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive};

use http::Uri;
use kit::{Position, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    filters::{self, InvalidFilter, Selection},
    lanes::OnExhausted,
    wire,
};

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The longest URL of a sink, in bytes.
const URL_BYTES_MAX: usize = 2_048;
/// The most types that one subscription names, and the longest of them in bytes.
pub(crate) const TYPES_MAX: usize = 256;
pub(crate) const TYPE_BYTES_MAX: usize = 256;
/// The most events in one delivery.
const BATCH_EVENTS_MAX: usize = 1_000;
/// The longest that events wait for others, in milliseconds.
const BATCH_WAIT_MS_MAX: u64 = 10_000;
/// The most attempts.
const ATTEMPTS_MAX: u32 = 1_000;
/// The shortest and the longest time after which a failing event is given up, in milliseconds.
const AGE_MS_MIN: u64 = 1_000;
const AGE_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// The shortest and the longest pause before a retry, in milliseconds.
const BACKOFF_MS_MIN: u64 = 10;
const BACKOFF_MS_MAX: u64 = 3_600_000;

/// What a subscriber asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wanted {
    /// Where the events go; none for a service of this process, which attaches itself.
    #[schemars(length(max = URL_BYTES_MAX), extend("format" = "uri"))]
    pub sink: Option<String>,
    /// Which events are wanted.
    #[serde(flatten)]
    pub selection: Selection,
    /// How they are put together.
    #[serde(default)]
    pub batch: Batch,
    /// Where the subscription starts, when it is made.
    #[serde(default)]
    pub start: Start,
    /// Only rises: an older configuration changes nothing.
    #[schemars(range(min = 1))]
    pub revision: i64,
    /// Whether the log must keep every event until this subscription has it. None chooses: services of the shop do, others do not.
    #[serde(default)]
    pub required: Option<bool>,
    /// How often and when a delivery that fails is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// Whether the sink must be asked if it agrees to be sent events. Outsiders' sinks on the internet always are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<bool>,
    /// What happens to a lane whose event is given up.
    #[serde(default)]
    pub on_exhausted: OnExhausted,
}

/// How events are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// The most events in one delivery: 1 to 1,000.
    #[schemars(range(min = 1, max = BATCH_EVENTS_MAX))]
    pub events_max: usize,
    /// How long events wait for others to go with them, in milliseconds: 0 to 10,000.
    #[schemars(range(max = BATCH_WAIT_MS_MAX))]
    pub wait_ms: u64,
}

/// Where a subscription starts: the first event that it may get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The first event that the log still has.
    #[default]
    Earliest,
    /// The first event that is published from now on.
    Latest,
    /// The event at this position, or the first one after it.
    Position(Position),
    /// The first event that was published at this time or later.
    Time(
        #[serde(with = "wire::time")]
        #[schemars(with = "Timestamp")]
        Timestamp,
    ),
}

/// How often and when a delivery that fails is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// After how many failures an event is given up, if others are taken meanwhile: 1 to 1,000.
    #[schemars(range(min = 1, max = ATTEMPTS_MAX))]
    pub attempts_max: u32,
    /// How long after its first failure an event is given up, if others are taken meanwhile: 1 second to 30 days, in milliseconds; none
    /// sets no limit.
    #[schemars(range(min = AGE_MS_MIN, max = AGE_MS_MAX))]
    pub age_ms_max: Option<u64>,
    /// The first retry comes within this time, each further one within twice the time before.
    #[schemars(range(min = BACKOFF_MS_MIN, max = BACKOFF_MS_MAX))]
    pub backoff_ms: u64,
    /// The longest time to a retry, unless the sink asks for a longer one.
    #[schemars(range(min = BACKOFF_MS_MIN, max = BACKOFF_MS_MAX))]
    pub backoff_ms_max: u64,
}

impl Start {
    /// Checks that it is a place, as the field `field`.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn check(self, field: &str) -> Result<(), Invalid> {
        match self {
            Self::Position(position) if position < Position::START => Err(invalid(field, "must not be before the beginning")),
            Self::Earliest | Self::Latest | Self::Position(_) | Self::Time(_) => Ok(()),
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self { events_max: 64, wait_ms: 0 }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts_max: 50, age_ms_max: None, backoff_ms: 100, backoff_ms_max: 60_000 }
    }
}

/// Why this cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {reason}")]
pub struct Invalid {
    /// The field: its name, or a JSON pointer to it.
    pub field: String,
    /// What it must hold.
    pub reason: String,
}

impl From<InvalidFilter> for Invalid {
    fn from(error: InvalidFilter) -> Self {
        invalid(&error.field, error.reason)
    }
}

impl Wanted {
    /// Reads what a subscriber sent. A URL is asked for by [`Wanted::url`].
    ///
    /// # Errors
    /// The first field that does not hold what it must, or that there is not.
    pub fn parse(json: Value) -> Result<Self, Invalid> {
        let Value::Object(map) = json else { return Err(invalid("", "the body must be a JSON object")) };
        let mut fields = Fields(map);
        let wanted = Self {
            sink: fields.take("sink")?,
            selection: Selection {
                types: fields.take("types")?,
                filters: match fields.0.remove("filters") {
                    Some(Value::Null) | None => Vec::new(),
                    Some(json) => filters::parse(&json, "/filters")?,
                },
            },
            batch: fields.take("batch")?.unwrap_or_default(),
            start: fields.take("start")?.unwrap_or_default(),
            revision: fields.take("revision")?.ok_or_else(|| invalid("revision", "must be there: a number that only rises"))?,
            required: fields.take("required")?,
            retry: fields.take("retry")?.unwrap_or_default(),
            consent: fields.take("consent")?,
            on_exhausted: fields.take("on_exhausted")?.unwrap_or_default(),
        };
        fields.finish()?;
        wanted.check()?;
        Ok(wanted)
    }

    /// This, changed by a JSON merge patch (RFC 7396): `null` puts a field back to what it is without being named.
    ///
    /// # Errors
    /// The first field that would not hold what it must, or that cannot be changed so.
    pub fn patched(&self, patch: &Value) -> Result<Self, Invalid> {
        let fields = patch.as_object().ok_or_else(|| invalid("", "the patch must be a JSON object"))?;
        for (field, reason) in [
            ("revision", "is what the subscriber says when it registers; a patch keeps it"),
            ("start", "counts when a subscription is made; use seek to go elsewhere"),
        ] {
            if fields.contains_key(field) {
                return Err(invalid(field, reason));
            }
        }
        if fields.contains_key("sink") && (self.sink.is_none() || fields.get("sink").is_some_and(Value::is_null)) {
            return Err(invalid("sink", "can be changed from one URL to another only"));
        }
        // Plain data with text keys: it cannot fail.
        let mut json = serde_json::to_value(self).unwrap_or_default();
        merge(&mut json, patch);
        Self::parse(json)
    }

    /// Where the sink is; none for a service of this process.
    ///
    /// # Errors
    /// When it is not a URL that events can be sent to.
    pub fn url(&self) -> Result<Option<Uri>, Invalid> {
        let Some(sink) = &self.sink else { return Ok(None) };
        match sink.parse::<Uri>() {
            Ok(url) if sink.len() <= URL_BYTES_MAX && is_reachable(&url) => Ok(Some(url)),
            _ => Err(invalid("sink", "must be a URL like http://host:port/path, or https, without a user name")),
        }
    }

    /// Whether both ask for the same, wherever it goes. Where a subscription started is no part of that.
    pub(crate) fn is_same_but_for_the_sink(&self, other: &Self) -> bool {
        let without = |wanted: &Self| Self { sink: None, start: Start::Earliest, ..wanted.clone() };
        without(self) == without(other)
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// The first field beyond its limit.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        if let Some(types) = &self.selection.types {
            check_types(types)?;
        }
        if self.revision < 1 {
            return Err(invalid("revision", "must be at least 1"));
        }
        self.start.check("start")?;
        let Retry { attempts_max, age_ms_max, backoff_ms, backoff_ms_max } = self.retry;
        check_range("/batch/events_max", self.batch.events_max, 1..=BATCH_EVENTS_MAX)?;
        check_range("/batch/wait_ms", self.batch.wait_ms, 0..=BATCH_WAIT_MS_MAX)?;
        check_range("/retry/attempts_max", attempts_max, 1..=ATTEMPTS_MAX)?;
        check_range("/retry/age_ms_max", age_ms_max.unwrap_or(AGE_MS_MAX), AGE_MS_MIN..=AGE_MS_MAX)?;
        check_range("/retry/backoff_ms", backoff_ms, BACKOFF_MS_MIN..=BACKOFF_MS_MAX)?;
        check_range("/retry/backoff_ms_max", backoff_ms_max, backoff_ms..=BACKOFF_MS_MAX)?;
        self.url().map(|_| ())
    }
}

/// Checks the name of a subscription.
///
/// # Errors
/// When it is none.
pub(crate) fn check_name(name: &str) -> Result<(), Invalid> {
    let is_fine = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if is_fine { Ok(()) } else { Err(invalid("name", "must be 1 to 64 of a-z, 0-9 and `-`, and begin with a letter")) }
}

/// Checks types of events.
///
/// # Errors
/// When there are none, too many, or one is none.
pub(crate) fn check_types(types: &BTreeSet<String>) -> Result<(), Invalid> {
    if types.is_empty() || types.len() > TYPES_MAX {
        return Err(invalid("types", "must name 1 to 256 types, or not be there to ask for all"));
    }
    let is_type =
        |ty: &String| (1..=TYPE_BYTES_MAX).contains(&ty.len()) && !ty.contains(|letter: char| letter.is_control() || letter == ' ');
    if types.iter().all(is_type) { Ok(()) } else { Err(invalid("types", "must be texts of 1 to 256 bytes without spaces")) }
}

fn check_range<T: PartialOrd + Copy + fmt::Display>(field: &str, value: T, range: RangeInclusive<T>) -> Result<(), Invalid> {
    let (min, max) = range.into_inner();
    if value >= min && value <= max { Ok(()) } else { Err(invalid(field, &format!("must be {min} to {max}"))) }
}

fn is_reachable(url: &Uri) -> bool {
    let is_plain = |authority: &str| !authority.contains('@');
    matches!(url.scheme_str(), Some("http" | "https"))
        && url.host().is_some_and(|host| !host.is_empty())
        && url.authority().is_some_and(|a| is_plain(a.as_str()))
}

/// An error that says which field is at fault.
pub(crate) fn invalid(field: &str, reason: &str) -> Invalid {
    Invalid { field: field.to_owned(), reason: reason.to_owned() }
}

/// The fields of an object, read one by one, so that an error names the one at fault.
pub(crate) struct Fields(pub(crate) Map<String, Value>);

impl Fields {
    /// Takes the field `name`; none when it is not there or null.
    ///
    /// # Errors
    /// When it has another shape.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Invalid> {
        match self.0.remove(name) {
            Some(Value::Null) | None => Ok(None),
            Some(json) => serde_json::from_value(json).map(Some).map_err(|error| invalid(name, &format!("cannot be read: {error}"))),
        }
    }

    /// Nothing must be left.
    ///
    /// # Errors
    /// When there is a field that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), Invalid> {
        match self.0.keys().next() {
            Some(name) => Err(invalid(&name.chars().take(NAME_BYTES_MAX).collect::<String>(), "is not a field that is known here")),
            None => Ok(()),
        }
    }
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn minimal() -> Value {
        json!({"sink": "http://h/", "types": ["a"], "revision": 1})
    }

    fn with(field: &str, value: Value) -> Value {
        let mut json = minimal();
        json[field] = value;
        json
    }

    #[test]
    fn what_services_send_is_enough_and_the_rest_has_a_default() {
        let wanted = Wanted::parse(minimal()).unwrap();
        assert_eq!(
            wanted,
            Wanted { sink: Some("http://h/".into()), selection: Selection::of_types(["a"]), revision: 1, ..Wanted::default() }
        );
        assert_eq!((wanted.batch.events_max, wanted.retry.attempts_max, wanted.start), (64, 50, Start::Earliest));
    }

    #[test]
    fn a_registration_that_was_stored_before_there_was_more_stays_readable() {
        let stored = r#"{"sink":null,"types":["cascade.OrderCreated.v1"],"revision":3}"#;
        let wanted: Wanted = serde_json::from_str(stored).unwrap();
        assert_eq!(wanted, Wanted { selection: Selection::of_types(["cascade.OrderCreated.v1"]), revision: 3, ..Wanted::default() });
    }

    #[test]
    fn what_is_stored_is_read_as_it_was() {
        let full = json!({
            "sink": "http://h:1/x", "types": ["a", "b"], "filters": [{"not": {"exact": {"owner": "o"}}}], "revision": 7, "required": true,
            "batch": {"events_max": 3, "wait_ms": 20}, "on_exhausted": "continue", "start": {"position": "9223372036854775807"},
            "retry": {"attempts_max": 2, "age_ms_max": 60_000, "backoff_ms": 20, "backoff_ms_max": 30},
        });
        let wanted = Wanted::parse(full.clone()).unwrap();
        assert_eq!(serde_json::from_str::<Wanted>(&serde_json::to_string(&wanted).unwrap()).unwrap(), wanted);
        for (field, value) in full.as_object().unwrap() {
            assert_eq!(&serde_json::to_value(&wanted).unwrap()[field], value, "{field}");
        }
        for start in [json!("earliest"), json!("latest"), json!({"time": "2026-01-31T12:00:00.000Z"})] {
            let wanted = Wanted::parse(with("start", start.clone())).unwrap();
            assert_eq!(serde_json::to_value(wanted.start).unwrap(), start);
        }
    }

    #[test]
    fn a_field_that_does_not_hold_what_it_must_is_named() {
        for (json, field) in [
            (json!([]), ""),
            (json!({"types": ["a"]}), "revision"),
            (with("revision", json!(0)), "revision"),
            (with("revision", json!("1")), "revision"),
            (with("sink", json!("ftp://h/")), "sink"),
            (with("sink", json!("https://u:p@h/")), "sink"),
            (with("consent", json!("yes")), "consent"),
            (with("sink", json!("http://u@h/")), "sink"),
            (with("sink", json!("/events")), "sink"),
            (with("sink", json!(format!("http://h/{}", "x".repeat(3_000)))), "sink"),
            (with("types", json!([])), "types"),
            (with("types", json!("a")), "types"),
            (with("types", json!(["a b"])), "types"),
            (with("types", json!((0..257).map(|n| n.to_string()).collect::<Vec<_>>())), "types"),
            (with("filters", json!([{"any": [{"like": {}}]}])), "/filters/0/any/0"),
            (with("batch", json!({"events_max": 0})), "/batch/events_max"),
            (with("batch", json!({"events_max": 1_001})), "/batch/events_max"),
            (with("batch", json!({"events": 1})), "batch"),
            (with("batch", json!({"wait_ms": 10_001})), "/batch/wait_ms"),
            (with("batch", json!({"wait_ms": -1})), "batch"),
            (with("on_exhausted", json!("stop")), "on_exhausted"),
            (with("retry", json!({"age_ms_max": 999})), "/retry/age_ms_max"),
            (with("start", json!("now")), "start"),
            (with("start", json!({"position": "seven"})), "start"),
            (with("start", json!({"position": "-1"})), "start"),
            (with("start", json!({"time": "noon"})), "start"),
            (with("retry", json!({"attempts_max": 0})), "/retry/attempts_max"),
            (with("retry", json!({"backoff_ms": 9})), "/retry/backoff_ms"),
            (with("retry", json!({"backoff_ms": 500, "backoff_ms_max": 499})), "/retry/backoff_ms_max"),
            (with("required", json!("yes")), "required"),
            (with("more", json!(1)), "more"),
        ] {
            assert_eq!(Wanted::parse(json.clone()).unwrap_err().field, field, "{json}");
        }
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_puts_it_back() {
        let wanted = Wanted::parse(with("retry", json!({"attempts_max": 3, "backoff_ms": 50}))).unwrap();
        let patched = wanted.patched(&json!({"retry": {"attempts_max": 9}, "types": null, "sink": "http://other/"})).unwrap();
        assert_eq!((patched.retry.attempts_max, patched.retry.backoff_ms), (9, 50));
        assert_eq!((&patched.selection, patched.sink.as_deref()), (&Selection::default(), Some("http://other/")));
        assert_eq!(patched.patched(&json!({"retry": null})).unwrap().retry, Retry::default());
        assert_eq!(patched.patched(&json!({})).unwrap(), patched);
        for (patch, field) in [
            (json!(7), ""),
            (json!({"revision": 2}), "revision"),
            (json!({"start": "latest"}), "start"),
            (json!({"sink": null}), "sink"),
            (json!({"sink": "nowhere"}), "sink"),
            (json!({"retry": {"attempts_max": {"deep": 1}}}), "retry"),
            (json!({"colour": "red"}), "colour"),
        ] {
            assert_eq!(wanted.patched(&patch).unwrap_err().field, field, "{patch}");
        }
        let handle = Wanted { sink: None, ..wanted };
        assert_eq!(handle.patched(&json!({"sink": "http://h/"})).unwrap_err().field, "sink");
    }
}
