//! One event as it came, or where it is at fault.

use http::StatusCode;
use kit::{
    Envelope, Problem,
    envelope::{ATTRIBUTE_BYTES_MAX, EVENT_BYTES_MAX, InvalidEnvelope},
};

use super::{DEPTH_MAX, Mode};

/// Where in a request an event stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) mode: Mode,
    pub(super) index: usize,
}

impl Place {
    /// Says in `problem` which event is at fault, and which attribute of it, if that is known.
    pub(super) fn blame(self, problem: Problem, attribute: Option<&str>) -> Problem {
        match (self.mode, attribute) {
            (Mode::Batch, None) => problem.field(format!("/{}", self.index)),
            (Mode::Batch, Some(attribute)) => problem.field(format!("/{}/{attribute}", self.index)),
            (Mode::Structured, Some(attribute)) => problem.field(format!("/{attribute}")),
            (Mode::Binary, Some("data")) => problem.field("body"),
            (Mode::Binary, Some("datacontenttype")) => problem.field("content-type"),
            (Mode::Binary, Some(attribute)) => problem.field(format!("ce-{attribute}")),
            (Mode::Structured | Mode::Binary, None) => problem,
        }
    }
}

/// Reads an event from its JSON.
pub(super) fn parse(json: &str, place: Place) -> Result<Envelope, Problem> {
    if json.len() > EVENT_BYTES_MAX {
        return Err(place.blame(too_large(), None));
    }
    if is_too_deep(json.as_bytes()) {
        return Err(place.blame(Problem::bad_request("too_deep", "the JSON of an event nests at most 64 deep"), None));
    }
    let event: Envelope = serde_json::from_str(json).map_err(|error| unreadable(json, &error, place))?;
    match event.check() {
        Ok(()) => Ok(event),
        Err(fault) => {
            let problem = Problem::unprocessable("invalid_event", fault.to_string());
            Err(place.blame(problem, Some(extension(&event, fault).unwrap_or(attribute(fault)))))
        }
    }
}

/// 413: an event is too large.
pub(super) fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "event_too_large", "an event holds at most 256 KiB")
}

/// The attribute that a check found at fault.
pub(super) fn attribute(fault: InvalidEnvelope) -> &'static str {
    match fault {
        InvalidEnvelope::Empty(name) | InvalidEnvelope::TooLong(name) | InvalidEnvelope::ControlCharacter(name) => name,
        InvalidEnvelope::NotCounting => "sequence",
        InvalidEnvelope::TooManyExtensions => "extensions",
    }
}

/// The extension at fault, where it is one of many.
fn extension(event: &Envelope, fault: InvalidEnvelope) -> Option<&str> {
    let is_at_fault = |text: &str| match fault {
        InvalidEnvelope::TooLong("extension") => text.len() > ATTRIBUTE_BYTES_MAX,
        InvalidEnvelope::ControlCharacter("extension") => text.chars().any(char::is_control),
        _ => false,
    };
    event.extensions.iter().find(|(_, value)| value.as_str().is_some_and(is_at_fault)).map(|(name, _)| name.as_str())
}

/// It is JSON, and no event: reads it once more to learn where.
fn unreadable(json: &str, error: &serde_json::Error, place: Place) -> Problem {
    let traced: Result<Envelope, _> = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(json));
    let path = traced.err().map(|error| error.path().to_string()).filter(|path| path != ".");
    // Where it stands in our own JSON says nothing to whoever sent headers.
    let detail = error.to_string();
    let detail = detail.split(" at line ").next().unwrap_or_default();
    // What is missing, or does not fit what it says, is named by the message alone.
    let named = detail.split('`').nth(1).filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
    let code = if place.mode == Mode::Binary { "invalid_event" } else { "invalid_body" };
    place.blame(Problem::unprocessable(code, detail), path.as_deref().or(named))
}

/// Whether JSON nests deeper than every subscriber can read. Most has fewer brackets than that, which are counted much faster.
fn is_too_deep(json: &[u8]) -> bool {
    let brackets = json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    brackets > DEPTH_MAX && depth(json) > DEPTH_MAX
}

/// How deep JSON nests. It is known to be JSON: a bracket outside of a text opens or closes.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut is_text, mut is_escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
