//! What `cascade subscriptions set` takes, and the patch that it means.

use axum::http::HeaderValue;
use clap::{Args, ValueEnum, ValueHint};
use serde_json::{Map, Value, json};

use super::tag;
use crate::{operator::name, selection::Selection, usage::WrongUsage};

/// Flags of `set`. The shop knows the limits of each.
#[derive(Debug, Args)]
pub(in crate::subscriptions) struct Set {
    /// Its name.
    #[arg(value_parser = name)]
    pub(in crate::subscriptions) name: String,

    /// Where its events go.
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    sink: Option<String>,

    /// Which events it gets.
    #[command(flatten)]
    selection: Selection,

    /// The most events in one delivery.
    #[arg(long, value_name = "EVENTS")]
    batch_events: Option<u64>,

    /// How long events wait for others to go with them, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS")]
    batch_wait_ms: Option<u64>,

    /// After how many failures an event is given up.
    #[arg(long, value_name = "ATTEMPTS")]
    retry_attempts: Option<u64>,

    /// How long after its first failure an event is given up, in milliseconds, or `none`.
    #[arg(long, value_name = "MILLISECONDS", value_parser = age)]
    retry_age_ms: Option<Value>,

    /// Within which time the first retry comes, in milliseconds; each further one within twice the time before.
    #[arg(long, value_name = "MILLISECONDS")]
    retry_backoff_ms: Option<u64>,

    /// The longest time to a retry, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS")]
    retry_backoff_ms_max: Option<u64>,

    /// What happens to the lane of an event that was given up: it waits (`park`) or goes on (`continue`).
    #[arg(long, value_name = "WHAT", value_parser = ["park", "continue"], hide_possible_values = true)]
    on_exhausted: Option<String>,

    /// Whether the log keeps each event until this subscription has it: `yes` or `no`.
    #[arg(long, value_name = "YES", value_parser = ["yes", "no"], hide_possible_values = true)]
    required: Option<String>,

    /// What goes back to its default, separated by commas: `types`, `filters`, `batch`, `retry`, `on-exhausted`, `required`.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', hide_possible_values = true)]
    reset: Vec<Field>,

    /// Only if it is still this version: the ETag that `show` tells.
    #[arg(long, value_name = "ETAG", value_parser = tag)]
    pub(in crate::subscriptions) if_match: Option<HeaderValue>,

    /// Only say what would change.
    #[arg(long)]
    pub(in crate::subscriptions) dry_run: bool,
}

/// What has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Field {
    Types,
    Filters,
    Batch,
    Retry,
    OnExhausted,
    Required,
}

impl Field {
    fn name(self) -> &'static str {
        match self {
            Self::Types => "types",
            Self::Filters => "filters",
            Self::Batch => "batch",
            Self::Retry => "retry",
            Self::OnExhausted => "on_exhausted",
            Self::Required => "required",
        }
    }
}

impl Set {
    /// What changes, as a JSON merge patch (RFC 7396).
    ///
    /// # Errors
    /// When nothing changes, or something is set and put back at once.
    pub(in crate::subscriptions) fn patch(&self) -> Result<Value, WrongUsage> {
        let mut patch = Map::new();
        self.selection.write(&mut patch);
        let number = |value: Option<u64>| value.map(|value| json!(value));
        let batch = [("events_max", number(self.batch_events)), ("wait_ms", number(self.batch_wait_ms))];
        let retry = [
            ("attempts_max", number(self.retry_attempts)),
            ("age_ms_max", self.retry_age_ms.clone()),
            ("backoff_ms", number(self.retry_backoff_ms)),
            ("backoff_ms_max", number(self.retry_backoff_ms_max)),
        ];
        let fields = [
            ("sink", self.sink.as_ref().map(|sink| json!(sink))),
            ("batch", object(batch)),
            ("retry", object(retry)),
            ("on_exhausted", self.on_exhausted.as_ref().map(|what| json!(what))),
            ("required", self.required.as_ref().map(|required| json!(required == "yes"))),
        ];
        patch.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        for field in self.reset.iter().map(|field| field.name()) {
            if patch.get(field).is_some_and(|value| !value.is_null()) {
                return Err(WrongUsage(format!("`{field}` is set and put back to its default at once; do one of them")));
            }
            patch.insert(field.to_owned(), Value::Null);
        }
        if patch.is_empty() {
            return Err(WrongUsage(String::from("what is to change? `cascade subscriptions set --help` lists the fields")));
        }
        Ok(Value::Object(patch))
    }
}

/// An object of what is there; none of nothing.
fn object<const COUNT: usize>(fields: [(&str, Option<Value>); COUNT]) -> Option<Value> {
    let fields: Map<_, _> = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    (!fields.is_empty()).then_some(Value::Object(fields))
}

fn age(text: &str) -> Result<Value, &'static str> {
    match text {
        "none" => Ok(Value::Null),
        number => number.parse::<u64>().map(|number| json!(number)).map_err(|_| "it must be a number of milliseconds, or `none`"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        set: Set,
    }

    fn patch(flags: &[&str]) -> Option<Result<Value, String>> {
        let line = Line::try_parse_from([&["set", "loyalty"], flags].concat()).ok()?;
        Some(line.set.patch().map_err(|error| error.to_string()))
    }

    #[test]
    fn what_is_named_is_patched_and_nothing_else() {
        let all = [
            "--sink=https://l.example/in",
            "--types=OrderCreated,l.*",
            "--filters=[]",
            "--batch-events=10",
            "--batch-wait-ms=5",
            "--retry-attempts=3",
            "--retry-age-ms=none",
            "--retry-backoff-ms=20",
            "--retry-backoff-ms-max=40",
            "--on-exhausted=continue",
            "--required=no",
        ];
        let expected = json!({
            "sink": "https://l.example/in", "types": ["cascade.OrderCreated.v1", "l.*"], "filters": [],
            "batch": {"events_max": 10, "wait_ms": 5},
            "retry": {"attempts_max": 3, "age_ms_max": null, "backoff_ms": 20, "backoff_ms_max": 40},
            "on_exhausted": "continue", "required": false,
        });
        assert_eq!(patch(&all), Some(Ok(expected)));
        assert_eq!(patch(&["--batch-events", "10"]), Some(Ok(json!({"batch": {"events_max": 10}}))));
        assert_eq!(patch(&["--reset", "types,on-exhausted"]), Some(Ok(json!({"types": null, "on_exhausted": null}))));
    }

    #[test]
    fn who_changes_nothing_or_one_thing_twice_is_told_so() {
        for nothing in [&[][..], &["--dry-run"], &["--if-match", "3"]] {
            assert!(patch(nothing).unwrap().is_err_and(|said| said.contains("what is to change")), "{nothing:?}");
        }
        for wrong in [&["--required", "perhaps"][..], &["--retry-age-ms", "long"], &["--reset", "sink"]] {
            assert_eq!(patch(wrong), None, "{wrong:?}");
        }
        assert!(patch(&["--reset", "batch", "--batch-wait-ms", "5"]).unwrap().is_err_and(|said| said.contains("`batch`")));
    }
}
