//! Where an event stands with a subscription, in a plain sentence. Pure.

use kit::Position;
use serde::Deserialize;

use crate::{
    form::Mood,
    when::{Time, When},
};

/// Where an event stands with one subscription, as the shop says it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Arrival {
    pub(super) subscription: String,
    pub(super) subscription_state: String,
    #[serde(flatten)]
    pub(super) stage: Stage,
}

/// Where an event stands.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Stage {
    Delivered,
    Filtered {
        clause: Clause,
    },
    BeforeStart {
        after: Position,
    },
    Queued,
    InFlight {
        attempt: u32,
    },
    Retrying {
        attempts: u32,
        next_attempt: Time,
        last_attempt: Option<Tried>,
    },
    Blocked {
        by: Position,
    },
    Parked {
        by: Position,
    },
    DeadLettered {
        attempts: u32,
        status: Option<u16>,
        reason: String,
        given_up_at: Time,
    },
    Discarded {
        at: Time,
    },
    Expired,
    /// A newer shop may know more.
    #[serde(other)]
    Unknown,
}

/// What an event was filtered by.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Clause {
    field: String,
    says: String,
    reason: String,
}

/// One attempt.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Tried {
    at: Time,
    status: Option<u16>,
    reason: String,
}

/// How a subscription stands, as far as it explains why nothing comes.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Standing {
    last_error: Option<Tried>,
    next_attempt: Option<Time>,
}

/// What was found out about what an event waits for.
#[derive(Debug, Clone, Default)]
pub(super) struct Behind {
    /// Where the event stands that it waits for.
    pub(super) by: Option<Stage>,
    /// How a subscription stands that delivers nothing.
    pub(super) standing: Option<Standing>,
}

impl Clause {
    /// Why it does not hold, and where it stands.
    pub(crate) fn words(&self) -> String {
        match self.field.starts_with("/filters") {
            true => format!("{} ({} in {})", self.reason, self.field, self.says),
            false => format!("{} ({})", self.reason, self.field),
        }
    }
}

impl Stage {
    /// The event that it waits for.
    pub(super) fn by(&self) -> Option<Position> {
        match self {
            Self::Blocked { by } | Self::Parked { by } => Some(*by),
            _ => None,
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Filtered { .. } => "filtered",
            Self::BeforeStart { .. } => "before start",
            Self::Queued => "queued",
            Self::InFlight { .. } => "in flight",
            Self::Retrying { .. } => "retrying",
            Self::Blocked { .. } => "blocked",
            Self::Parked { .. } => "parked",
            Self::DeadLettered { .. } => "dead letter",
            Self::Discarded { .. } => "discarded",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    /// Whether somebody has to do something.
    pub(super) fn mood(&self) -> Mood {
        match self {
            Self::Delivered => Mood::Well,
            Self::Queued | Self::InFlight { .. } | Self::Retrying { .. } | Self::Blocked { .. } => Mood::Waits,
            Self::Parked { .. } | Self::DeadLettered { .. } | Self::Discarded { .. } | Self::Expired => Mood::Wrong,
            Self::Filtered { .. } | Self::BeforeStart { .. } | Self::Unknown => Mood::Plain,
        }
    }

    /// Whether the subscription's own state decides when it goes on.
    fn is_on_its_way(&self) -> bool {
        matches!(self, Self::Queued | Self::InFlight { .. } | Self::Retrying { .. } | Self::Blocked { .. })
    }
}

impl Arrival {
    /// Whether nothing comes because the subscription delivers nothing.
    pub(super) fn is_held(&self) -> bool {
        self.stage.is_on_its_way() && self.subscription_state != "active"
    }

    /// Why it did or did not arrive.
    pub(super) fn sentence(&self, position: Position, behind: &Behind, when: &When) -> String {
        let stage = stage(&self.stage, &self.subscription, position, behind, when);
        if self.is_held() { format!("{stage} {}", held(&self.subscription_state, &self.subscription, behind, when)) } else { stage }
    }
}

fn stage(stage: &Stage, subscription: &str, position: Position, behind: &Behind, when: &When) -> String {
    match stage {
        Stage::Delivered => String::from("It was taken."),
        Stage::Filtered { clause } => format!("It was not asked for: {}.", clause.words()),
        Stage::BeforeStart { after } => format!("It was there before the subscription's start, which is after position {after}."),
        Stage::Queued => String::from("It waits for its turn."),
        Stage::InFlight { attempt: 1 } => String::from("It is on its way."),
        Stage::InFlight { attempt } => format!("It is on its way, attempt {attempt}."),
        Stage::Retrying { attempts, next_attempt, last_attempt } => {
            let last = last_attempt.as_ref().map(|last| format!(", last {}: {}", when.distance(last.at.0), words(last)));
            format!(
                "It was sent {} in vain{}. The next attempt is due {} ({}).",
                times(*attempts),
                last.unwrap_or_default(),
                when.due(next_attempt.0),
                when.moment(next_attempt.0)
            )
        }
        Stage::Blocked { by } => match &behind.by {
            Some(first) => format!("Event {by} of the same lane goes first. {}", of_another(first, subscription, *by, when)),
            None => format!("Event {by} of the same lane goes first, and was not taken yet."),
        },
        Stage::Parked { by } => match &behind.by {
            Some(first @ Stage::DeadLettered { .. }) => {
                format!("It waits behind event {by} of the same lane. {}", of_another(first, subscription, *by, when))
            }
            Some(_) | None => format!("It waits behind event {by} of the same lane, which was given up. {}", decide(subscription, *by)),
        },
        Stage::DeadLettered { attempts, status, reason, given_up_at } => format!(
            "It was given up {} after {}: {}. {}",
            when.distance(given_up_at.0),
            attempts_made(*attempts),
            with_status(*status, reason),
            decide(subscription, position)
        ),
        Stage::Discarded { at } => format!("Somebody gave it up for good {} ({}).", when.distance(at.0), when.moment(at.0)),
        Stage::Expired => String::from("The log lost it before it was taken."),
        Stage::Unknown => String::from("The shop says what this version of the command does not know: see --json."),
    }
}

/// The same of the event that another one waits for.
fn of_another(first: &Stage, subscription: &str, by: Position, when: &When) -> String {
    let sentence = stage(first, subscription, by, &Behind::default(), when);
    match sentence.strip_prefix("It ") {
        Some(rest) => format!("That one {rest}"),
        None => sentence,
    }
}

fn held(state: &str, subscription: &str, behind: &Behind, when: &When) -> String {
    match state {
        "paused" => format!("But the subscription is paused; to go on: cascade subscriptions resume {subscription}"),
        "unattached" => String::from("But the service that takes it has not come back yet."),
        "holding" => {
            let standing = behind.standing.as_ref();
            let error = standing.and_then(|standing| standing.last_error.as_ref());
            let next = standing.and_then(|standing| standing.next_attempt);
            format!(
                "But the sink is at fault{}; it is probed with one event until it answers{}.",
                error.map(|error| format!(" ({}, {})", words(error), when.distance(error.at.0))).unwrap_or_default(),
                next.map(|next| format!(", next {}", when.due(next.0))).unwrap_or_default()
            )
        }
        other => format!("But the subscription is {other}."),
    }
}

fn decide(subscription: &str, position: Position) -> String {
    format!("To decide: cascade dead-letters show {subscription} {position}")
}

fn words(tried: &Tried) -> String {
    with_status(tried.status, &tried.reason)
}

/// The reason, with the status unless it names that itself.
pub(crate) fn with_status(status: Option<u16>, reason: &str) -> String {
    // An answer without a body leaves nothing behind the status.
    let reason = reason.trim().trim_end_matches(':');
    match status {
        Some(status) if reason.is_empty() => status.to_string(),
        Some(status) if !reason.contains(&status.to_string()) => format!("{status}, {reason}"),
        Some(_) | None => reason.to_owned(),
    }
}

fn times(count: u32) -> String {
    if count == 1 { String::from("once") } else { format!("{count} times") }
}

fn attempts_made(count: u32) -> String {
    if count == 1 { String::from("1 attempt") } else { format!("{count} attempts") }
}

#[cfg(test)]
mod tests {
    use kit::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn sentence(arrival: Value, behind: &Behind) -> String {
        let when = When::utc(Timestamp::from_rfc3339("2026-01-31T12:01:00Z").unwrap());
        let mut whole = json!({"subscription": "loyalty", "subscription_state": "active"});
        let Value::Object(fields) = arrival else { panic!("{arrival}") };
        whole.as_object_mut().unwrap().extend(fields);
        serde_json::from_value::<Arrival>(whole).unwrap().sentence(Position(45), behind, &when)
    }

    fn stage_of(json: Value) -> Stage {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn every_state_is_a_sentence_that_says_what_to_do() {
        let at = "2026-01-31T12:00:00.000Z";
        let tried = json!({"at": at, "status": 503, "reason": "the sink answered 503"});
        for (arrival, expected) in [
            (json!({"state": "delivered"}), "It was taken."),
            (
                json!({"state": "filtered", "clause": {"field": "/filters/0/exact", "says": "{\"exact\": …}", "reason": "`region` is `north`, which is not `south`"}}),
                "It was not asked for: `region` is `north`, which is not `south` (/filters/0/exact in {\"exact\": …}).",
            ),
            (json!({"state": "before_start", "after": "90"}), "It was there before the subscription's start, which is after position 90."),
            (json!({"state": "queued"}), "It waits for its turn."),
            (json!({"state": "in_flight", "attempt": 2}), "It is on its way, attempt 2."),
            (
                json!({"state": "retrying", "attempts": 4, "next_attempt": "2026-01-31T12:01:12.000Z", "last_attempt": tried}),
                "It was sent 4 times in vain, last 1 min ago: the sink answered 503. The next attempt is due in 12 s (2026-01-31 12:01:12 UTC).",
            ),
            (json!({"state": "blocked", "by": "44"}), "Event 44 of the same lane goes first, and was not taken yet."),
            (
                json!({"state": "parked", "by": "44"}),
                "It waits behind event 44 of the same lane, which was given up. To decide: cascade dead-letters show loyalty 44",
            ),
            (
                json!({"state": "dead_lettered", "attempts": 1, "status": 422, "reason": "no such order", "given_up_at": at}),
                "It was given up 1 min ago after 1 attempt: 422, no such order. To decide: cascade dead-letters show loyalty 45",
            ),
            (json!({"state": "discarded", "at": at}), "Somebody gave it up for good 1 min ago (2026-01-31 12:00:00 UTC)."),
            (json!({"state": "expired"}), "The log lost it before it was taken."),
        ] {
            assert_eq!(sentence(arrival, &Behind::default()), expected);
        }
        assert!(sentence(json!({"state": "teleported"}), &Behind::default()).contains("--json"));
    }

    #[test]
    fn a_status_is_said_once() {
        for (status, reason, expected) in [
            (Some(401), "401 Unauthorized: ", "401 Unauthorized"),
            (Some(422), "no such order", "422, no such order"),
            (Some(503), "", "503"),
            (None, "connection refused", "connection refused"),
        ] {
            assert_eq!(with_status(status, reason), expected);
        }
    }

    #[test]
    fn what_an_event_waits_for_is_explained_too() {
        let retrying = json!({"state": "retrying", "attempts": 1, "next_attempt": "2026-01-31T12:01:12.000Z", "last_attempt": null});
        let behind = Behind { by: Some(stage_of(retrying)), standing: None };
        assert_eq!(
            sentence(json!({"state": "blocked", "by": "44"}), &behind),
            "Event 44 of the same lane goes first. That one was sent once in vain. The next attempt is due in 12 s (2026-01-31 12:01:12 UTC)."
        );
        let given_up =
            json!({"state": "dead_lettered", "attempts": 3, "status": null, "reason": "no answer", "given_up_at": "2026-01-31T11:00:00Z"});
        let behind = Behind { by: Some(stage_of(given_up)), standing: None };
        assert_eq!(
            sentence(json!({"state": "parked", "by": "44"}), &behind),
            "It waits behind event 44 of the same lane. That one was given up 1 h 1 min ago after 3 attempts: no answer. To decide: cascade dead-letters show loyalty 44"
        );
    }

    #[test]
    fn a_subscription_that_delivers_nothing_is_named_as_the_reason() {
        let queued = |state: &str| json!({"subscription_state": state, "state": "queued"});
        assert_eq!(
            sentence(queued("paused"), &Behind::default()),
            "It waits for its turn. But the subscription is paused; to go on: cascade subscriptions resume loyalty"
        );
        assert!(sentence(queued("unattached"), &Behind::default()).contains("has not come back"));
        let standing = json!({"last_error": {"at": "2026-01-31T12:00:55Z", "status": null, "reason": "connection refused"}, "next_attempt": "2026-01-31T12:01:03Z"});
        let behind = Behind { by: None, standing: Some(serde_json::from_value(standing).unwrap()) };
        assert_eq!(
            sentence(queued("holding"), &behind),
            "It waits for its turn. But the sink is at fault (connection refused, 5 s ago); it is probed with one event until it answers, next in 3 s."
        );
        assert_eq!(sentence(json!({"subscription_state": "paused", "state": "delivered"}), &Behind::default()), "It was taken.");
    }
}
