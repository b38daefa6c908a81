//! What a delivery looks like to whoever takes it.

use kit::{
    envelope::BATCH_JSON,
    security::webhook,
    transport::log_first::{LOG_FIRST, LOG_SIGNATURE},
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{ATTEMPT, Body, DEADLINE, REPLAY, REQUEST_ORIGIN, SUBSCRIPTION, TRACEPARENT};

/// Its headers, as the schema of an object of them.
pub(crate) fn headers() -> Value {
    let text = |says: &str| json!({"type": "string", "description": says});
    let shaped = |pattern: &str, says: &str| json!({"type": "string", "pattern": pattern, "description": says});
    let signatures = "^v1,[A-Za-z0-9+/]{43}=( v1,[A-Za-z0-9+/]{43}=)?$";
    let signature = shaped(
        signatures,
        "`v1,` and the base64 of HMAC-SHA-256 over `id.timestamp.body`; two with a space between them while a secret is replaced.",
    );
    let always = [
        ("content-type", json!({"const": BATCH_JSON})),
        (webhook::ID, text("Names the delivery (Standard Webhooks).")),
        (webhook::TIMESTAMP, shaped("^[0-9]+$", "When it was signed, in seconds since 1970.")),
        (webhook::SIGNATURE, signature),
        (LOG_FIRST, shaped("^[0-9]+$", "Where the log begins: events before this position are not sent any more.")),
        (LOG_SIGNATURE, shaped(signatures, "Signs `cascade-log-first` as `webhook-signature` signs the body.")),
    ];
    let ours = [
        (SUBSCRIPTION, shaped("^[a-z][a-z0-9-]{0,63}$", "The subscription.")),
        (ATTEMPT, shaped("^[1-9][0-9]*$", "1, 2, 3, …; in a batch that of the event that was sent most often.")),
        (DEADLINE, json!({"type": "string", "format": "date-time", "description": "Until when an answer counts."})),
    ];
    let sometimes = [
        (REPLAY, text("The replay that it belongs to, if it does.")),
        (REQUEST_ORIGIN, text("To whose events the sink agreed, if it was asked.")),
        (TRACEPARENT, text("The events' trace, if they all have the same (W3C Trace Context).")),
    ];
    let always = always.into_iter().map(|(name, schema)| (name.to_owned(), schema));
    let mut properties: Map<_, _> = always.chain(ours.into_iter().map(|(name, schema)| (name.to_string(), schema))).collect();
    let required: Vec<_> = properties.keys().cloned().collect();
    properties.extend(sometimes.into_iter().map(|(name, schema)| (name.to_string(), schema)));
    json!({"type": "object", "required": required, "properties": properties})
}

/// What a 200 may say of events that were not taken.
pub(crate) fn answer() -> Value {
    let settings = SchemaSettings::draft07().for_deserialize().with(|settings| settings.inline_subschemas = true);
    let mut generator = settings.into_generator();
    Body::json_schema(&mut generator).to_value()
}
