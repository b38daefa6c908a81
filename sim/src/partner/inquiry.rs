//! What the broker says became of an event, while the log is losing some: it must fit what the services and the outsider have.

use http::StatusCode;
use kit::Position;
use serde_json::Value;

use super::PARTNER;
use crate::{archive::Archive, losses::Witness};

/// What is asked about: the last event that was lost, the first that was not, and one in the middle of the rest.
pub(super) fn positions(archive: &Archive) -> Vec<Position> {
    let (told, last) = (archive.told_and_forgotten().0, archive.last());
    let mut positions = vec![told, told.next(), Position(i64::midpoint(told.0, last.0))];
    positions.retain(|position| *position > Position::START && *position <= last);
    positions.dedup();
    positions
}

/// What is wrong with an answer about the event at `position`, when the log had forgotten the events up to `forgotten` before the question.
pub(super) fn check(witness: &Witness, (position, forgotten): (Position, Position), status: StatusCode, body: &Value) -> Vec<String> {
    let told = witness.archive.told_and_forgotten().0;
    match status {
        // What the log was let go of counts as gone, although it may still be there.
        StatusCode::GONE if position > told.max(witness.released()) => {
            vec![format!("the event at {position} is said to be trimmed, and is not")]
        }
        StatusCode::NOT_FOUND => vec![format!("the event at {position} is said never to have been")],
        StatusCode::OK if position <= forgotten => vec![format!("the event at {position} was trimmed, and is shown")],
        StatusCode::OK => check_stages(witness, position, body),
        _ => Vec::new(),
    }
}

/// What is wrong with how the outsider's subscription is said to stand.
pub(super) fn check_status(status: StatusCode, body: &Value) -> Vec<String> {
    let count = |name: &str| body.pointer(&format!("/status/counts/{name}")).and_then(Value::as_i64);
    let parts: Option<i64> = ["delivered", "dead_lettered", "discarded", "expired", "pending"].into_iter().map(count).sum();
    let is_told = count("expired") == Some(0) || body.pointer("/status/reset/expired").is_some();
    match status {
        StatusCode::GONE => vec![String::from("the partner's subscription is said to be trimmed")],
        StatusCode::OK if parts.is_none() || parts != count("matched") || !is_told => vec![format!("the partner stands wrong: {body}")],
        _ => Vec::new(),
    }
}

/// What is wrong with the broker's own audit.
pub(super) fn check_audit(status: StatusCode, body: &Value) -> Option<String> {
    let is_wrong = status == StatusCode::OK && body.get("agrees") != Some(&Value::Bool(true));
    is_wrong.then(|| format!("the broker finds books wrong: {body}"))
}

fn check_stages(witness: &Witness, position: Position, body: &Value) -> Vec<String> {
    let text = |json: &Value, name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(one) = witness.archive.events().into_iter().find(|one| one.position == position) else { return Vec::new() };
    let event = body.get("event").cloned().unwrap_or_default();
    if (&*text(&event, "source"), &*text(&event, "id")) != one.name() {
        return vec![format!("the event at {position} is another one than before: {event}")];
    }
    let mut wrong = Vec::new();
    for item in body.get("items").and_then(Value::as_array).into_iter().flatten() {
        let (name, state) = (text(item, "subscription"), text(item, "state"));
        let is_right = match (&*name, &*state) {
            (PARTNER, "delivered") => witness.partner_has(&one),
            (PARTNER, "before_start" | "filtered") => true,
            (PARTNER, _) => !witness.is_known_to_be_taken(&one),
            (service, "delivered") => witness.is_applied(service, &one),
            (_, "expired") => false,
            _ => true,
        };
        if !is_right {
            wrong.push(format!("the event at {position} is said to be {state} for {name}: {item}"));
        }
    }
    wrong
}
