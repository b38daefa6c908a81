//! What `cascade subscriptions` takes.

/// Changing one, field by field.
mod set;

use std::path::PathBuf;

use axum::http::HeaderValue;
use clap::{Args, Subcommand, ValueHint};
use kit::{Position, Timestamp};
use serde_json::{Value, json};

use crate::{
    desk::OperatorFlags,
    form::Sure,
    operator::{Condition, name, position},
    selection::Selection,
};
pub(super) use set::Set;

/// Stands at the end of the help.
pub(crate) const HELP: &str = "\
Examples:
  cascade subscriptions list
  cascade subscriptions show loyalty
  cascade subscriptions apply loyalty loyalty.json > loyalty.secret
  cascade subscriptions set loyalty --batch-events 10 --retry-attempts 5 --dry-run
  cascade subscriptions seek loyalty 2026-01-31T12:00:00Z --dry-run
  cascade subscriptions replay loyalty --from 42 --to 99 --rate 50

A place in the log is `earliest`, `latest`, a position, or a time (RFC 3339).";

/// Flags of `cascade subscriptions`.
#[derive(Debug, Args)]
pub(crate) struct SubscriptionsFlags {
    /// What to do.
    #[command(subcommand)]
    pub(super) action: Action,

    #[command(flatten)]
    pub(super) operator: OperatorFlags,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List all subscriptions, and how each stands.
    List,
    /// Show one: what it asks for, how far it is, what is wrong, what became of its events.
    Show {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Register or change one as a file says. Its secret, if it gets one, is printed this once.
    Apply(Apply),
    /// Change what one asks for where it stands, and say what was before. Its service may undo that with a higher revision.
    Set(Box<Set>),
    /// Deliver nothing to it until it is resumed.
    Pause {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Go on after a pause.
    Resume {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Start over at another place in the log.
    Seek(Seek),
    /// Say whether it asks for an event, and if not, by which clause; or try another filter on it.
    Explain(Explain),
    /// Send a part of the log again, beside what is delivered anyway.
    Replay(Replay),
    /// See replays, and end them.
    Replays {
        /// What to do.
        #[command(subcommand)]
        action: Replays,
    },
    /// Give it another secret to sign with, and print that; the old one signs beside it for some time.
    RotateSecret {
        /// Its name.
        #[arg(value_parser = name)]
        name: String,

        /// For how many hours the old one signs too, at most 720; 0 ends it at once.
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(0..=720))]
        grace_hours: u64,
    },
    /// End it, with its place, its dead letters and its replays.
    Delete(Delete),
}

/// Flags of `apply`.
#[derive(Debug, Args)]
pub(super) struct Apply {
    /// Its name.
    #[arg(value_parser = name)]
    pub(super) name: String,

    /// JSON, as `PUT /api/subscriptions/{name}` takes it; `-` is stdin.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(super) file: PathBuf,

    /// Only if it is still this version: the ETag that `show` tells.
    #[arg(long, value_name = "ETAG", value_parser = tag)]
    if_match: Option<HeaderValue>,

    /// Only if there is none of this name.
    #[arg(long, conflicts_with = "if_match")]
    if_new: bool,
}

impl Apply {
    /// What must be there for it to be done.
    pub(super) fn condition(&self) -> Option<Condition> {
        if self.if_new { Some(Condition::IfNone) } else { self.if_match.clone().map(Condition::IfMatch) }
    }
}

/// Flags of `delete`.
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Its name.
    #[arg(value_parser = name)]
    pub(super) name: String,

    /// Only if it is still this version: the ETag that `show` tells.
    #[arg(long, value_name = "ETAG", value_parser = tag)]
    pub(super) if_match: Option<HeaderValue>,

    #[command(flatten)]
    pub(super) sure: Sure,
}

/// Flags of `seek`.
#[derive(Debug, Args)]
pub(super) struct Seek {
    /// Its name.
    #[arg(value_parser = name)]
    pub(super) name: String,

    /// The place: `earliest`, `latest`, a position, or a time.
    #[arg(value_name = "PLACE", value_parser = place)]
    pub(super) to: Place,

    /// Only say what would happen.
    #[arg(long)]
    pub(super) dry_run: bool,

    #[command(flatten)]
    pub(super) sure: Sure,
}

/// Flags of `explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// Its name.
    #[arg(value_parser = name)]
    pub(super) name: String,

    /// The position of an event of the log.
    #[arg(value_parser = position, required_unless_present = "event", conflicts_with = "event")]
    pub(super) position: Option<Position>,

    /// A file with another event, as JSON; `-` is stdin.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) event: Option<PathBuf>,

    /// What to ask for instead of what it does.
    #[command(flatten)]
    pub(super) selection: Selection,
}

/// Flags of `replay`.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Its name.
    #[arg(value_parser = name)]
    pub(super) name: String,

    /// Where it begins.
    #[arg(long, value_name = "PLACE", default_value = "earliest", value_parser = place)]
    pub(super) from: Place,

    /// Where it ends, that event included.
    #[arg(long, value_name = "PLACE", default_value = "latest", value_parser = place)]
    pub(super) to: Place,

    /// Which events, beside what the subscription asks for.
    #[command(flatten)]
    pub(super) selection: Selection,

    /// How many events a second, at most 10000.
    #[arg(long, value_name = "EVENTS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) rate: u32,
}

/// What can be done with replays.
#[derive(Debug, Subcommand)]
pub(super) enum Replays {
    /// List those of a subscription: the ones that run, and the last that ended.
    List {
        /// The subscription.
        #[arg(value_parser = name)]
        name: String,
    },
    /// Show one.
    Show {
        /// The subscription.
        #[arg(value_parser = name)]
        name: String,

        /// The replay's id.
        #[arg(value_parser = replay_id)]
        id: String,
    },
    /// End one.
    Cancel {
        /// The subscription.
        #[arg(value_parser = name)]
        name: String,

        /// The replay's id.
        #[arg(value_parser = replay_id)]
        id: String,
    },
}

impl Replays {
    /// The subscription.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::List { name } | Self::Show { name, .. } | Self::Cancel { name, .. } => name,
        }
    }
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Earliest,
    Latest,
    Position(Position),
    Time(Timestamp),
}

impl Place {
    /// As the API has it.
    pub(super) fn to_json(self) -> Value {
        match self {
            Self::Earliest => json!("earliest"),
            Self::Latest => json!("latest"),
            Self::Position(position) => json!({"position": position}),
            Self::Time(time) => json!({"time": time.to_rfc3339()}),
        }
    }
}

fn place(text: &str) -> Result<Place, &'static str> {
    match text {
        "earliest" => Ok(Place::Earliest),
        "latest" => Ok(Place::Latest),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => position(number).map(Place::Position),
        time => match Timestamp::from_rfc3339(time) {
            Some(time) => Ok(Place::Time(time)),
            None => Err("it must be `earliest`, `latest`, a position such as 42, or a time such as 2026-01-31T12:00:00Z"),
        },
    }
}

/// An ETag; who leaves out the quotes, which a shell takes, means one all the same.
fn tag(text: &str) -> Result<HeaderValue, &'static str> {
    let is_whole = text == "*" || text.starts_with('"') || text.starts_with("W/");
    let whole = if is_whole { text.to_owned() } else { format!("\"{text}\"") };
    HeaderValue::try_from(whole).map_err(|_| "it must be the ETag that `show` tells")
}

/// An id goes into a path.
fn replay_id(text: &str) -> Result<String, &'static str> {
    let is_id = !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_id { Ok(text.to_owned()) } else { Err("it must be the id of a replay; `cascade subscriptions replays list` shows them") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_word_a_position_or_a_time() {
        assert_eq!(place("42"), Ok(Place::Position(Position(42))));
        assert_eq!(place("2026-01-31T12:00:00Z").map(Place::to_json), Ok(json!({"time": "2026-01-31T12:00:00.000Z"})));
        assert_eq!(place("latest").map(Place::to_json), Ok(json!("latest")));
        assert_eq!(place("42").map(Place::to_json), Ok(json!({"position": "42"})));
        for bad in ["", "-1", "yesterday", "99999999999999999999"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tag_may_come_without_the_quotes_that_a_shell_takes() {
        for (text, expected) in [("\"3\"", "\"3\""), ("3", "\"3\""), ("*", "*")] {
            assert_eq!(tag(text).unwrap(), expected);
        }
        assert!(tag("a\nb").is_err());
    }
}
