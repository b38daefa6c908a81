//! What a stream says beside events. Each notice is a CloudEvent of its own type: the subprotocol `cloudevents.json` promises that every
//! text frame is one, so a client that knows only the log's events passes these over by type. A notice has no `position`; an event has.

use std::time::Duration;

use kit::{Environment, Position, Timestamp};
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{
    start::{Gone, Reset, Start},
    view::View,
};

/// What a stream says beside events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Notice {
    /// The first message.
    Welcome {
        /// The stream shows what comes after this.
        after: Position,
        /// What it shows.
        shows: Shows,
        /// Which subject, if it shows one.
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// A stream that is silent for longer than this is dead.
        heartbeat_ms: u64,
        /// When it ends, so that its reader comes back and is looked at again.
        #[serde(serialize_with = "as_time")]
        #[schemars(with = "Timestamp")]
        ends_at: Timestamp,
        /// Whether a reset comes next: until then the reader's own cursor is the better one.
        #[serde(skip)]
        is_reset: bool,
    },
    /// The stream is alive.
    Heartbeat {
        /// Everything up to here was shown: a cursor that is as good as that of the last event, and later.
        after: Position,
    },
    /// What comes next does not follow on what the reader has seen.
    Reset {
        /// Why.
        reason: Gone,
        /// The cursor that cannot be gone on from.
        asked: Position,
        /// The stream goes on after this.
        after: Position,
    },
    /// The last message.
    End {
        /// Why.
        reason: Ending,
        /// The cursor to come back with.
        after: Position,
    },
}

/// Which events a stream shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Shows {
    /// Everybody's.
    All,
    /// The caller's own.
    Own,
    /// One subject's.
    Subject,
    /// What a token covers, of one subject or of all.
    Granted,
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    /// The broker stops.
    Stopping,
    /// It has been open for so long that the caller is to be looked at again.
    SessionCheck,
    /// The reader takes what it is given too slowly.
    TooSlow,
    /// The log cannot be read.
    Unreadable,
}

impl Ending {
    /// The close code of a WebSocket: registered ones (RFC 6455, section 7.4.1), or ours, which are 4000 and the like-minded HTTP status.
    pub(super) fn close_code(self) -> u16 {
        match self {
            Self::Stopping => 1001,
            Self::Unreadable => 1011,
            Self::SessionCheck => 4401,
            Self::TooSlow => 4408,
        }
    }

    /// The name, as in the notice.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::SessionCheck => "session_check",
            Self::TooSlow => "too_slow",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Notice {
    /// The first message of a stream of `view`.
    pub(super) fn welcome(view: &View, start: Start, heartbeat: Duration, ends_at: Timestamp) -> Self {
        let (shows, subject) = match view {
            View::All => (Shows::All, None),
            View::Granted { subject, .. } => (Shows::Granted, subject.clone()),
            View::Own { .. } => (Shows::Own, None),
            View::Subject { subject, .. } => (Shows::Subject, Some(subject.clone())),
        };
        let heartbeat_ms = u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX);
        Self::Welcome { after: start.after, shows, subject, heartbeat_ms, ends_at, is_reset: start.reset.is_some() }
    }

    /// The stream goes on after `after`, which does not follow on what the reader has seen.
    pub(super) fn reset(reset: Reset, after: Position) -> Self {
        Self::Reset { reason: reset.reason, asked: reset.asked, after }
    }

    /// The cursor that whoever has got this may come back with; none if it says nothing better than what they have.
    pub(super) fn cursor(&self) -> Option<Position> {
        match self {
            Self::Welcome { is_reset: true, .. } => None,
            Self::Welcome { after, .. } | Self::Heartbeat { after } | Self::Reset { after, .. } | Self::End { after, .. } => Some(*after),
        }
    }

    /// Its name among server-sent events, and in its type. Sent; never renamed.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Welcome { .. } => "welcome",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Reset { .. } => "reset",
            Self::End { .. } => "end",
        }
    }

    /// The notice as a CloudEvent in JSON.
    pub(super) fn to_json(&self, environment: &Environment) -> String {
        #[derive(Serialize)]
        struct Message<'a> {
            specversion: &'static str,
            id: String,
            source: &'static str,
            r#type: String,
            time: String,
            datacontenttype: &'static str,
            data: &'a Notice,
        }
        let now = environment.clock.now();
        let message = Message {
            specversion: "1.0",
            id: environment.ids.event_id(now).to_string(),
            source: "/broker",
            r#type: wire_type(self.name()),
            time: now.to_rfc3339(),
            datacontenttype: "application/json",
            data: self,
        };
        // Texts and numbers only: it cannot fail.
        serde_json::to_string(&message).unwrap_or_default()
    }
}

/// The type of each notice, what it means, and the schema of its data.
pub(crate) fn describe(generator: &mut SchemaGenerator) -> Vec<(String, &'static str, Value)> {
    let names = [
        ("welcome", "First: the stream shows what comes after `after`."),
        ("heartbeat", "The stream is alive: all that is yours up to `after` was shown."),
        ("reset", "The stream cannot go on from `asked`, and goes on after `after`: forget what you have."),
        ("end", "Last: come back with `after`."),
    ];
    let schema = Notice::json_schema(generator).to_value();
    let variants = schema.get("anyOf").and_then(Value::as_array).cloned().unwrap_or_default();
    names.into_iter().zip(variants).map(|((name, says), data)| (wire_type(name), says, data)).collect()
}

fn wire_type(name: &str) -> String {
    format!("cascade.live.{name}.v1")
}

fn as_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&time.to_rfc3339())
}

#[cfg(test)]
mod tests {
    use kit::Envelope;
    use serde_json::json;

    use super::*;
    use crate::tests::environment;

    #[test]
    fn every_notice_is_a_cloud_event_that_no_log_has() {
        let (environment, after) = (environment(1), Position(7));
        let view = View::Subject { subject: "o-1".into(), only_of: None };
        let notices = [
            Notice::welcome(&view, Start { after, reset: None }, Duration::from_secs(20), Timestamp::from_ms(1_800_000_000_000)),
            Notice::Heartbeat { after },
            Notice::reset(Reset { reason: Gone::Trimmed, asked: Position(3) }, after),
            Notice::End { reason: Ending::TooSlow, after },
        ];
        let data = notices.map(|notice| {
            let text = notice.to_json(&environment);
            let event: Envelope = serde_json::from_str(&text).unwrap();
            assert_eq!(event.check(), Ok(()));
            assert_eq!((event.source.as_str(), event.ty), ("/broker", format!("cascade.live.{}.v1", notice.name())));
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(value.get("position").is_none() && value.get("subject").is_none(), "{text}");
            value["data"].clone()
        });
        let ends_at = "2027-01-15T08:00:00.000Z";
        let welcome = json!({"after": "7", "shows": "subject", "subject": "o-1", "heartbeat_ms": 20_000, "ends_at": ends_at});
        assert_eq!(data[0], welcome);
        assert_eq!(data[1], json!({"after": "7"}));
        assert_eq!(data[2], json!({"reason": "trimmed", "asked": "3", "after": "7"}));
        assert_eq!(data[3], json!({"reason": "too_slow", "after": "7"}));
        // Each is described under its own name, with the fields that it has.
        let described = describe(&mut schemars::SchemaGenerator::default());
        assert_eq!(described.len(), data.len());
        for ((wire_type, _, schema), (name, data)) in described.iter().zip(["welcome", "heartbeat", "reset", "end"].iter().zip(&data)) {
            assert_eq!(*wire_type, format!("cascade.live.{name}.v1"));
            let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
            assert_eq!(fields(&schema["properties"]), fields(data), "{name}");
        }
    }

    #[test]
    fn an_ending_has_one_name() {
        for ending in [Ending::Stopping, Ending::SessionCheck, Ending::TooSlow, Ending::Unreadable] {
            assert_eq!(json!(ending), json!(ending.name()));
        }
    }
}
