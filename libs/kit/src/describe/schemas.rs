//! Schemas of what is said everywhere: positions, ids, events, problem documents, headers, and who is asking.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::Contract, json_schema};
use serde_json::{Value, json};

use crate::{
    Envelope, EventId, Position, Problem, Recorded, Timestamp,
    envelope::{ATTRIBUTE_BYTES_MAX, EXTENSIONS_MAX},
    http::identity::SESSION_COOKIE,
};

/// A position in the log, as a text.
const POSITION: &str = "^[0-9]{1,19}$";

impl JsonSchema for Position {
    fn schema_name() -> Cow<'static, str> {
        "Position".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let text = json_schema!({"type": "string", "pattern": POSITION, "maxLength": 19, "description": "A place in the log. It rises."});
        if *generator.contract() == Contract::Serialize {
            return text;
        }
        // A number is read as well.
        json_schema!({"anyOf": [text, {"type": "integer", "minimum": 0, "maximum": i64::MAX}]})
    }
}

impl JsonSchema for EventId {
    fn schema_name() -> Cow<'static, str> {
        "EventId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": ATTRIBUTE_BYTES_MAX})
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// As it is sent, which is always by way of its text.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "maxLength": 40})
    }
}

impl JsonSchema for Envelope {
    fn schema_name() -> Cow<'static, str> {
        "Event".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::try_from(event()).unwrap_or_default()
    }
}

impl JsonSchema for Recorded {
    fn schema_name() -> Cow<'static, str> {
        "RecordedEvent".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let position = generator.subschema_for::<Position>();
        json_schema!({
            "description": "An event with its place in the log.",
            "allOf": [generator.subschema_for::<Envelope>()],
            "required": ["position"],
            "properties": {"position": position},
        })
    }
}

impl JsonSchema for Problem {
    fn schema_name() -> Cow<'static, str> {
        "Problem".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An error (RFC 9457). Programs go by `code`; its meaning never changes.",
            "type": "object",
            "required": ["status", "title", "code", "detail"],
            "properties": {
                "status": {"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status."},
                "title": {"type": "string", "description": "The status in words."},
                "code": {"type": "string", "pattern": "^[a-z_]+$", "description": "What a program can tell the problem by."},
                "detail": {"type": "string", "description": "What a person should know."},
                "field": {"type": "string", "description": "The field at fault: a name, or a JSON pointer."},
                "landed": {"type": "integer", "minimum": 0, "description": "How many items of a batch were done before the one at fault."},
                "retry_after_s": {"type": "integer", "minimum": 0, "description": "After how many seconds a retry makes sense; also sent as `Retry-After`."},
            },
            "additionalProperties": false,
        })
    }
}

/// A CloudEvent as it is sent and taken: attributes of ours by name, others by what they may be.
fn event() -> Value {
    let text = |says: &str| json!({"type": "string", "minLength": 1, "maxLength": ATTRIBUTE_BYTES_MAX, "description": says});
    json!({
        "description": "A CloudEvents 1.0 event whose data is JSON, at most 256 KiB and 64 levels of it.",
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text("Unique within the source."),
            "source": text("Who says it."),
            "type": text("What happened."),
            "subject": text("What it happened to: of the shop's own events, the order."),
            "time": {"type": "string", "format": "date-time", "maxLength": 64, "description": "When it happened."},
            "traceparent": text("The trace that it belongs to (W3C Trace Context)."),
            "causationid": text("The id of the event that led to it."),
            "sequence": {"type": ["string", "integer"], "pattern": "^[0-9]+$", "minimum": 1, "description": "Counts 1, 2, 3, … within source and subject. Sent as a text."},
            "owner": text("Whose it is: an opaque name."),
            "scenario": text("Which script the simulated parts follow."),
            "partitionkey": text("What keeps events in sequence, in the subject's place."),
            "datacontenttype": {"type": "string", "maxLength": ATTRIBUTE_BYTES_MAX, "description": "A media type of JSON."},
            "data": true,
            "position": {"type": "string", "pattern": POSITION, "description": "Its place in the log: given by the broker, passed over when it is sent here."},
        },
        "propertyNames": {"pattern": "^[a-z0-9_]+$"},
        "maxProperties": EXTENSIONS_MAX.saturating_add(15),
        "additionalProperties": {"type": ["string", "integer", "boolean"], "maxLength": ATTRIBUTE_BYTES_MAX},
    })
}

/// Who is asking, and by what they are known.
pub(super) fn security() -> Value {
    let bearer = |says: &str| json!({"type": "http", "scheme": "bearer", "description": says});
    json!({
        "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE, "description": "A customer: every page opens a session, and so does the first order."},
        "service": bearer("A service of the shop, by the token that follows from the shop's secret and its name."),
        "operator": bearer("Whoever operates the shop: the same, with the name `operator`."),
        "token": bearer("An outsider, by a token that an operator made. It reads `cascade_<name>_<40 hexadecimal digits>`; the roles here are its scopes."),
    })
}

/// Headers of answers.
pub(super) fn headers() -> Value {
    let header = |says: &str, schema: &Value| json!({"description": says, "schema": schema});
    json!({
        "x-request-id": {"required": true, "description": "Names the request, in logs too.", "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}},
        "retry-after": {"required": true, "description": "After how many seconds a retry makes sense.", "schema": {"type": "integer", "minimum": 0}},
        "etag": header("Names this version, for `If-Match`.", &json!({"type": "string"})),
        "location": header("Where what was made is found.", &json!({"type": "string", "format": "uri-reference"})),
        "set-cookie": header("The session that the answer opens.", &json!({"type": "string"})),
        "allow": header("The methods of the path.", &json!({"type": "string"})),
        "accept-post": header("The media types that are taken.", &json!({"type": "string"})),
        "idempotency-replayed": header("The key was known, and nothing was done now.", &json!({"const": "true"})),
    })
}

/// A key that makes a request harmless to repeat, at most `bytes_max` long.
pub fn idempotency_key(bytes_max: usize) -> super::Input {
    super::Input {
        name: "Idempotency-Key",
        says: "Names the request: whoever sends it again with the same key finds what the first one made.",
        schema: json!({"type": "string", "minLength": 1, "maxLength": bytes_max, "pattern": "^[!-~]+$"}),
    }
}

/// Where a page of a list goes on: the `next` of the page before.
pub fn after() -> super::Input {
    super::Input {
        name: "after",
        says: "Only what comes after this position: the `next` of the page before.",
        schema: json!({"type": "string", "pattern": POSITION, "maxLength": 19}),
    }
}

/// How many items a page has, `usual` if nobody says.
pub fn limit(usual: usize, max: usize) -> super::Input {
    super::Input {
        name: "limit",
        says: "How many items the page has at most.",
        schema: json!({"type": "integer", "minimum": 1, "maximum": max, "default": usual}),
    }
}

/// A position, in a path.
pub fn position(name: &'static str, says: &'static str) -> super::Input {
    super::Input { name, says, schema: json!({"type": "string", "pattern": POSITION, "maxLength": 19}) }
}

/// A token that shares one order.
pub fn share() -> super::Input {
    super::Input {
        name: "share",
        says: "A share token for the subject, from an order's links: lets its bearer read that one order. A text that is none shares nothing.",
        schema: json!({"type": "string"}),
    }
}
