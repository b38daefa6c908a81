//! What a publish request says, in each of the three modes of the CloudEvents HTTP protocol binding 1.0.2, as the JSON of events.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use kit::{
    Problem,
    envelope::{BATCH_JSON, EVENT_JSON, is_json},
    http::extract::parse_json,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::PUBLISH_EVENTS_MAX;

/// How a request holds its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// One event as JSON.
    Structured,
    /// Attributes in headers, data in the body.
    Binary,
    /// Many events as JSON.
    Batch,
}

impl Mode {
    /// The mode of a request, by its media type; 415 when it is none.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let media = media_type(headers)?;
        let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_utf8 = media.split(';').skip(1).all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        });
        if !is_utf8 {
            return Err(unsupported("the body must be UTF-8"));
        }
        match essence.as_str() {
            BATCH_JSON => Ok(Self::Batch),
            EVENT_JSON => Ok(Self::Structured),
            other if other.starts_with("application/cloudevents") => Err(unsupported("of the event formats only JSON is taken")),
            other if headers.contains_key("ce-specversion") => match other.is_empty() || is_json(other) {
                true => Ok(Self::Binary),
                false => Err(unsupported("the data of an event must be JSON")),
            },
            _ => Err(unsupported(format!(
                "the body must be {EVENT_JSON} or {BATCH_JSON}, or the data of an event that stands in headers (`ce-…`)"
            ))),
        }
    }
}

fn media_type(headers: &HeaderMap) -> Result<&str, Problem> {
    headers.get(header::CONTENT_TYPE).map_or(Ok(""), |value| value.to_str().map_err(|_| unsupported("the media type cannot be read")))
}

fn unsupported(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail).field("content-type")
}

/// The events of a request, each as JSON that is not looked into yet.
pub(super) struct Content<'a> {
    pub(super) events: Vec<Cow<'a, RawValue>>,
}

impl<'a> Content<'a> {
    /// Takes a request apart.
    pub(super) fn read(mode: Mode, headers: &HeaderMap, body: &'a Bytes) -> Result<Self, Problem> {
        let events = match mode {
            Mode::Structured => vec![Cow::Borrowed(parse_json(body)?)],
            Mode::Batch => {
                let events: Vec<&RawValue> = parse_json(body)?;
                if events.len() > PUBLISH_EVENTS_MAX {
                    return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", "a batch holds at most 1000 events"));
                }
                events.into_iter().map(Cow::Borrowed).collect()
            }
            Mode::Binary => vec![Cow::Owned(binary(headers, body)?)],
        };
        Ok(Self { events })
    }
}

/// An event in binary mode (section 3.1), as it would be in structured mode.
#[derive(Serialize)]
struct Binary<'a> {
    #[serde(flatten)]
    attributes: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

fn binary(headers: &HeaderMap, body: &Bytes) -> Result<Box<RawValue>, Problem> {
    let mut attributes = BTreeMap::new();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        let is_elsewhere = matches!(attribute, "data" | "datacontenttype");
        if is_elsewhere {
            return Err(bad_header(name, "is the body, with its `Content-Type`"));
        }
        let text = decode(value).map_err(|reason| bad_header(name, reason))?;
        if attributes.insert(attribute, text).is_some() {
            return Err(bad_header(name, "is there more than once"));
        }
    }
    let datacontenttype = Some(media_type(headers)?).filter(|media| !media.is_empty());
    let data: Option<&RawValue> = if body.is_empty() { None } else { Some(parse_json(body).map_err(|problem| problem.field("body"))?) };
    if data.is_some() && datacontenttype.is_none() {
        return Err(unsupported("the data of an event must be JSON, and its `Content-Type` must say so"));
    }
    serde_json::value::to_raw_value(&Binary { attributes, datacontenttype, data }).map_err(|_| Problem::internal())
}

fn bad_header(name: &HeaderName, reason: &str) -> Problem {
    Problem::bad_request("invalid_header", format!("`{name}` {reason}")).field(name.as_str())
}

/// The value of a header (section 3.1.3.2): quotes are taken off, then percent-encoding once.
fn decode(value: &HeaderValue) -> Result<String, &'static str> {
    let bytes = unquote(value.as_bytes())?;
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    while let Some((first, behind)) = rest.split_first() {
        rest = match (first, behind) {
            (b'%', [high, low, behind @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (Some(high), Some(low)) = (digit(high), digit(low)) else { return Err("has a `%` without two hexadecimal digits") };
                decoded.push(high * 16 + low);
                behind
            }
            (b'%', _) => return Err("has a `%` without two hexadecimal digits"),
            (b' '..=b'~' | b'\t', _) => {
                decoded.push(*first);
                behind
            }
            (_, _) => return Err("has a character that must be percent-encoded"),
        };
    }
    String::from_utf8(decoded).map_err(|_| "is not UTF-8 when it is decoded")
}

/// Takes the quotes off a quoted string (RFC 7230, section 3.2.6), as older publishers send them.
fn unquote(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    let [b'"', inside @ .., b'"'] = value else { return Ok(value.to_vec()) };
    let (mut plain, mut is_escaped) = (Vec::with_capacity(inside.len()), false);
    for byte in inside {
        match byte {
            b'\\' if !is_escaped => is_escaped = true,
            b'"' if !is_escaped => return Err("has a quote inside of quotes"),
            byte => {
                plain.push(*byte);
                is_escaped = false;
            }
        }
    }
    if is_escaped { Err("ends its quotes in a backslash") } else { Ok(plain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_unquoted_and_decoded_once() {
        for (value, expected) in [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("Euro%20%e2%82%ac", "Euro €"),
            ("%50%51", "PQ"),
            ("100%25", "100%"),
            ("%2525", "%25"),
            (r#""two words""#, "two words"),
            (r#""a \"quote\" and a \\""#, r#"a "quote" and a \"#),
            (r#""%41""#, "A"),
            (r#"""#, r#"""#),
            (r#""""#, ""),
            ("", ""),
        ] {
            assert_eq!(decode(&HeaderValue::from_str(value).unwrap()), Ok(expected.to_owned()), "{value}");
        }
        for bad in ["%", "%4", "a%zz", "%C0%A0", "%E2%82", "%FF", r#""a"b""#, r#""a\""#] {
            assert!(decode(&HeaderValue::from_str(bad).unwrap()).is_err(), "{bad}");
        }
        assert!(decode(&HeaderValue::from_bytes("ü".as_bytes()).unwrap()).is_err());
    }

    #[test]
    fn the_media_type_and_the_headers_say_the_mode() {
        let of = |media: &str, is_event: bool| {
            let mut headers = HeaderMap::new();
            if !media.is_empty() {
                headers.insert(header::CONTENT_TYPE, media.parse().unwrap());
            }
            if is_event {
                headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
            }
            Mode::of(&headers).ok()
        };
        assert_eq!(of("application/cloudevents+json", false), Some(Mode::Structured));
        assert_eq!(of("Application/CloudEvents+JSON; charset=UTF-8", true), Some(Mode::Structured));
        assert_eq!(of("application/cloudevents-batch+json;charset=\"utf-8\"", false), Some(Mode::Batch));
        assert_eq!(of("application/json", true), Some(Mode::Binary));
        assert_eq!(of("application/vnd.shop+json", true), Some(Mode::Binary));
        assert_eq!(of("", true), Some(Mode::Binary));
        for (media, is_event) in [
            ("application/json", false),
            ("", false),
            ("text/plain", true),
            ("application/cloudevents+avro", true),
            ("application/cloudevents+json; charset=latin1", false),
        ] {
            assert_eq!(of(media, is_event), None, "{media}");
        }
    }
}
