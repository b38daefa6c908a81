//! What any bytes from outside are put through: each function takes whatever comes, and fails an assertion where a promise is broken. The
//! fuzz targets in `fuzz/` call them with what libFuzzer finds, and the tests with a small corpus and what is made from it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use kit::{
    Envelope, Problem, Timestamp,
    envelope::{EVENT_BYTES_MAX, EVENT_JSON},
    security::{Keyring, webhook},
};
use serde_json::Value;

use crate::{filters, http::publish::read_events, live, tokens};

#[cfg(test)]
mod tests;

/// The longest that the words of a problem may be, in bytes: an answer does not give back what was sent.
const DETAIL_BYTES_MAX: usize = 1_024;
/// When everything happens here.
const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);

/// A request that publishes: lines of headers, an empty line, a body. An event that is taken means the same when it is sent on.
pub fn event(input: &[u8]) {
    let (headers, body) = message(input);
    match read_events(&headers, &body) {
        Ok(events) => events.iter().for_each(assert_is_lasting),
        Err(problem) => assert_is_clear(&problem),
    }
}

fn assert_is_lasting(event: &Envelope) {
    assert_eq!(event.check(), Ok(()));
    assert!(!event.lane().is_empty());
    let sent = to_json(event);
    // Escapes may have made it longer than it came.
    if sent.len() > EVENT_BYTES_MAX {
        return;
    }
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_JSON))]);
    let again = read_events(&headers, &Bytes::from(sent.clone()));
    assert!(matches!(again.as_deref(), Ok([again]) if to_json(again) == sent), "{sent} is read as {again:?}");
}

fn assert_is_clear(problem: &Problem) {
    assert!(problem.status.is_client_error() && !problem.code.is_empty() && !problem.detail.is_empty(), "{problem:?}");
    assert!(problem.detail.len() <= DETAIL_BYTES_MAX, "{} bytes of detail", problem.detail.len());
    assert!(problem.field.as_ref().is_none_or(|field| !field.is_empty() && field.len() <= DETAIL_BYTES_MAX), "{problem:?}");
}

/// Filters as JSON. What is taken means the same when it was stored, and says why an event does not fit.
pub fn filter(input: &[u8]) {
    let Ok(json) = serde_json::from_slice::<Value>(input) else { return };
    let filters = match filters::parse(&json, "/filters") {
        Ok(filters) => filters,
        Err(fault) => {
            assert!(fault.field.starts_with("/filters") && fault.field.len() <= DETAIL_BYTES_MAX && !fault.reason.is_empty(), "{fault:?}");
            return;
        }
    };
    let stored = serde_json::from_str::<Value>(&to_json(&filters)).unwrap_or_default();
    assert_eq!(filters::parse(&stored, "/filters").as_ref(), Ok(&filters));
    let selection = filters::Selection { types: None, filters };
    for event in EVENTS.iter().filter_map(|json| serde_json::from_str::<Envelope>(json).ok()) {
        let clause = selection.matches(&event).err();
        assert_eq!(selection.takes(&event), clause.is_none());
        assert!(clause.is_none_or(|clause| clause.field.starts_with("/filters/") && !clause.reason.is_empty()));
    }
}

/// Events that filters may fit.
const EVENTS: &[&str] = &[
    r#"{"specversion":"1.0","id":"1","source":"/order","type":"a"}"#,
    r#"{"specversion":"1.0","id":"\u00e4","source":"/order","type":"b","subject":"s","owner":"o","time":"2026-01-31T12:00:00Z",
        "sequence":"7","region":"north","urgent":true,"weight":-1,"data":[]}"#,
];

/// A line that is `Last-Event-ID`, and the rest, which is `after`. What is taken is a position, and the same when it comes again.
pub fn cursor(input: &[u8]) {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let id = lines.next().and_then(|line| HeaderValue::from_bytes(line).ok());
    let after = lines.next().and_then(|rest| std::str::from_utf8(rest).ok());
    let headers = |id| HeaderMap::from_iter([(HeaderName::from_static("last-event-id"), id)]);
    match live::cursor_of(&id.map(headers).unwrap_or_default(), after) {
        Ok(None) => {}
        Ok(Some(position)) => {
            assert!(position.0 >= 0);
            let again = HeaderValue::from(position.0);
            assert!(live::cursor_of(&headers(again), None).is_ok_and(|again| again == Some(position)));
        }
        Err(problem) => {
            assert_is_clear(&problem);
            assert!(["after", "last-event-id"].map(Some).contains(&problem.field.as_deref()), "{problem:?}");
        }
    }
}

/// A signed request, in the same form as for [`event`]. Nobody forges one; beside any other signature, the right one counts, for its body alone.
pub fn signature(input: &[u8]) {
    let (mut headers, body) = message(input);
    let secret = keyring().webhook_secret("fuzzing", None);
    assert!(!secret.has_signed_request(&headers, &body, NOW), "forged");
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (id, others, sent_s) = (text(webhook::ID), text(webhook::SIGNATURE), NOW.as_ms() / 1_000);
    let signatures = format!("{others} {}", secret.sign(&id, sent_s, &body));
    for (name, value) in [(webhook::ID, id), (webhook::TIMESTAMP, sent_s.to_string()), (webhook::SIGNATURE, signatures)] {
        // It was the value of a header before, or is a few letters of ours.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    assert!(secret.has_signed_request(&headers, &body, NOW), "not known again: {headers:?}");
    assert!(!secret.has_signed_request(&headers, &[&body[..], b" "].concat(), NOW), "for another body");
    assert!(!secret.has_signed_request(&headers, &body, NOW.plus_ms(600_000)), "for ever");
}

/// A text that may be a token, a session or a share token. Nobody forges one; an outsider's is whole or none.
pub fn token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let keyring = keyring();
    assert_eq!((keyring.open_session(text), keyring.open_service_token(text)), (None, None), "forged");
    assert!(!keyring.is_share_token(text, "subject"), "forged");
    let Some(name) = tokens::text::name_of(text) else { return };
    assert!(!name.is_empty() && text.starts_with(&format!("cascade_{name}_")), "{name} of {text}");
    for (at, letter) in text.char_indices() {
        let other = if letter == '0' { "1" } else { "0" };
        let mut changed = text.to_owned();
        changed.replace_range(at..at + letter.len_utf8(), other);
        assert_eq!(tokens::text::name_of(&changed), None, "{changed}");
    }
}

/// Takes a request apart: lines of headers, an empty line, a body.
fn message(input: &[u8]) -> (HeaderMap, Bytes) {
    let (mut headers, mut rest) = (HeaderMap::new(), input);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, behind) = rest.split_at(end);
        rest = behind.get(1..).unwrap_or_default();
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    (headers, Bytes::copy_from_slice(rest))
}

fn keyring() -> Keyring {
    Keyring::from_secret([7; 32])
}

fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
