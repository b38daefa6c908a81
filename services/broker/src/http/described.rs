//! What the broker's routes look like from outside.

/// Events: publishing, reading, live.
mod events;

/// Subscriptions, and what operators do with them.
mod subscriptions;

/// Dead letters and replays.
mod again;

/// Tokens for outsiders.
mod tokens;

use kit::describe::{Api, Input, Who};
use serde_json::{Value, json};

pub(crate) use events::subject_events;

/// Whoever may operate a subscription.
const OPERATED: &[Who] = &[Who::Operator, Who::Token("operate")];

/// Every route of the broker, except [`subject_events`].
pub(crate) fn describe(api: &mut Api) {
    events::describe(api);
    subscriptions::describe(api);
    again::describe(api);
    tokens::describe(api);
}

/// The name of a subscription or a token, in a path.
pub(super) fn name(says: &'static str) -> Input {
    Input { name: "name", says, schema: json!({"type": "string", "pattern": "^[a-z][a-z0-9-]{0,63}$"}) }
}

/// An object with these fields and no others.
pub(super) fn object(required: &[&str], properties: &Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

/// A field that may be `null`, which is as if it were not there.
pub(super) fn or_null(schema: &Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

/// A place in the log.
fn place() -> Value {
    let position = json!({"anyOf": [
        {"type": "string", "pattern": "^[0-9]{1,18}$"},
        {"type": "integer", "minimum": 0, "maximum": i64::MAX},
    ]});
    json!({
        "description": "A place in the log: the first event at or behind it.",
        "oneOf": [
            {"enum": ["earliest", "latest"]},
            object(&["position"], &json!({"position": position})),
            object(&["time"], &json!({"time": {"type": "string", "format": "date-time", "maxLength": 64}})),
        ],
    })
}

/// Filters, as requests have them.
fn filters() -> Value {
    or_null(&json!({"type": "array", "maxItems": crate::filters::CLAUSES_MAX, "items": {"$ref": "#/components/schemas/Filter"}}))
}

/// Types of events, as requests have them.
fn types() -> Value {
    or_null(&json!({"$ref": "#/components/schemas/EventTypes"}))
}

/// For how long what is replaced stays valid.
pub(super) fn grace() -> Value {
    let usual = crate::tokens::GRACE.as_secs();
    let grace = json!({"type": "integer", "minimum": 0, "maximum": crate::tokens::GRACE_MAX.as_secs(), "default": usual});
    or_null(&grace)
}
