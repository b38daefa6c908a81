//! What is said in events, as AsyncAPI 3.0: the log's events, what a live stream says beside them, and how they are delivered.

use contract::{OrderId, events};
use kit::{
    Envelope, Recorded,
    envelope::{BATCH_JSON, EVENT_JSON},
};
use schemars::{
    SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

/// Where the document keeps its messages, as a reference begins.
const MESSAGES: &str = "#/components/messages";

/// The whole document.
pub(super) fn document() -> Value {
    let mut generator = generator();
    let (said, notices) = (said(&mut generator), notices(&mut generator));
    let mut messages: Map<String, Value> = said.iter().chain(&notices).cloned().collect();
    let recorded = generator.subschema_for::<Recorded>();
    messages.insert("delivery".to_owned(), delivery(&recorded.to_value()));
    messages.insert("answer".to_owned(), answer());
    messages.insert("anyEvent".to_owned(), any_event(&generator.subschema_for::<Envelope>().to_value()));
    let live: Vec<&str> = said.iter().chain(&notices).map(|(name, _)| name.as_str()).collect();
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:cascade:shop",
        "info": info(),
        "defaultContentType": EVENT_JSON,
        "servers": {"shop": {
            "host": "localhost:4000", "protocol": "http", "description": "A shop; the same port speaks WebSocket.",
        }},
        "channels": {
            "live": channel(&json!("/api/live"), "Events as they happen, over WebSocket (subprotocol `cloudevents.json`) or as server-sent events. How to ask for them stands in `/openapi.json`.", &live),
            "published": channel(&json!("/api/events"), "What others publish. Modes and limits stand in `/openapi.json`.", &["anyEvent"]),
            "sink": channel(&Value::Null, "The URL that a subscription names.", &["delivery"]),
            "answers": channel(&Value::Null, "What a sink answers.", &["answer"]),
        },
        "operations": {
            "showEvents": operation("send", "live", "Each event, and four notices that have no `position`", &live),
            "takeEvents": operation("receive", "published", "Publishing an event", &["anyEvent"]),
            "deliverEvents": deliver(),
        },
        "components": {
            "messages": messages,
            "schemas": generator.take_definitions(true),
        },
    })
}

/// AsyncAPI's own schemas are those of JSON Schema draft 7.
fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings.contract = Contract::Serialize;
    });
    settings.into_generator()
}

fn info() -> Value {
    let mut info =
        super::info("Cascade", "What an event-driven shop says. All events are CloudEvents 1.0 in JSON; an order's come in sequence.");
    if let Some(info) = info.as_object_mut() {
        info.insert("license".to_owned(), json!({"name": "MIT OR Apache-2.0", "url": "https://spdx.org/licenses/"}));
        info.insert("tags".to_owned(), json!([{"name": "events", "description": "What happened to an order."}]));
    }
    info
}

/// The shop's own events: each type by its name, with its data.
fn said(generator: &mut SchemaGenerator) -> Vec<(String, Value)> {
    let (envelope, order_id) = (generator.subschema_for::<Recorded>(), generator.subschema_for::<OrderId>());
    let sources = events::CATALOGUE.iter().map(|(_, source)| *source);
    let schemas = events::schemas(generator).into_iter().zip(sources);
    let messages = schemas.map(|((wire_type, says, data), source)| {
        let properties = json!({
            "type": {"const": wire_type}, "source": {"const": source}, "subject": order_id, "data": data,
            "datacontenttype": {"const": "application/json"},
        });
        let payload = json!({"allOf": [envelope, {"properties": properties, "required": ["subject", "time", "sequence", "data"]}]});
        (wire_type.to_owned(), message(wire_type, says, &payload))
    });
    messages.collect()
}

/// What a live stream says beside events.
fn notices(generator: &mut SchemaGenerator) -> Vec<(String, Value)> {
    let envelope = generator.subschema_for::<Envelope>();
    let messages = broker::describe_notices(generator).into_iter().map(|(wire_type, says, data)| {
        let properties = json!({"type": {"const": wire_type}, "source": {"const": "/broker"}, "data": data, "position": false});
        let payload = json!({"allOf": [envelope, {"properties": properties, "required": ["data"]}]});
        let message = message(&wire_type, says, &payload);
        (wire_type, message)
    });
    messages.collect()
}

fn message(wire_type: &str, says: &str, payload: &Value) -> Value {
    json!({"name": wire_type, "title": wire_type, "summary": says, "contentType": EVENT_JSON, "payload": payload})
}

/// What a sink gets.
fn delivery(event: &Value) -> Value {
    json!({
        "name": "delivery",
        "title": "Delivery",
        "summary": "Events for a subscription, at most one of each order, signed as Standard Webhooks say.",
        "contentType": BATCH_JSON,
        "headers": broker::describe_delivery_headers(),
        "payload": {"type": "array", "minItems": 1, "maxItems": 1000, "items": event},
    })
}

fn answer() -> Value {
    json!({
        "name": "answer",
        "title": "Answer",
        "summary": "2xx without a body: all taken. 200 with a body: all but the listed ones.",
        "contentType": "application/json",
        "payload": broker::describe_delivery_answer(),
    })
}

/// What others publish.
fn any_event(event: &Value) -> Value {
    json!({"name": "anyEvent", "title": "Any event", "summary": "An event of whoever may publish it.", "contentType": EVENT_JSON, "payload": event})
}

fn channel(address: &Value, description: &str, messages: &[&str]) -> Value {
    let messages: Map<_, _> = messages.iter().map(|name| ((*name).to_owned(), json!({"$ref": format!("{MESSAGES}/{name}")}))).collect();
    json!({"address": address, "description": description, "messages": messages})
}

fn operation(action: &str, channel: &str, summary: &str, messages: &[&str]) -> Value {
    json!({
        "action": action,
        "summary": summary,
        "channel": {"$ref": format!("#/channels/{channel}")},
        "messages": messages.iter().map(|name| json!({"$ref": format!("#/channels/{channel}/messages/{name}")})).collect::<Vec<_>>(),
    })
}

fn deliver() -> Value {
    let mut operation = operation("send", "sink", "Delivering events to a subscriber", &["delivery"]);
    let reply = json!({"channel": {"$ref": "#/channels/answers"}, "messages": [{"$ref": "#/channels/answers/messages/answer"}]});
    if let Some(operation) = operation.as_object_mut() {
        operation.insert("reply".to_owned(), reply);
        operation.insert(
            "description".to_owned(),
            json!("A delivery is repeated until it is taken or given up, so events can come twice. 429 and `Retry-After` are honoured."),
        );
    }
    operation
}
