//! Events: publishing, reading, live.

use kit::{
    Envelope, Recorded,
    describe::{Api, Input, Operation, Who, schemas},
    envelope::{ATTRIBUTE_BYTES_MAX, BATCH_JSON, EVENT_JSON},
};
use serde_json::{Value, json};

use crate::http::{
    arrivals::Deliveries,
    events::{PAGE, PAGE_MAX, Page},
    publish::{Limits, PUBLISH_EVENTS_MAX, Published},
};

const READERS: &[Who] = &[Who::Guest, Who::Operator, Who::Token("read"), Who::Everybody];

pub(super) fn describe(api: &mut Api) {
    publishing(api);
    api.add(
        reading(("get", "/api/events"), "readEvents", "The log, oldest first: one's own events, all, or what a token covers")
            .with_query(&[
                Input {
                    name: "subject",
                    says: "Only events of this subject.",
                    schema: json!({"type": "string", "minLength": 1, "maxLength": ATTRIBUTE_BYTES_MAX}),
                },
                Input {
                    name: "source",
                    says: "With `id`, and nothing else but `share`: the one event of this name, as a page.",
                    schema: json!({"type": "string", "minLength": 1, "maxLength": ATTRIBUTE_BYTES_MAX}),
                },
                Input {
                    name: "id",
                    says: "With `source`: see there.",
                    schema: json!({"type": "string", "minLength": 1, "maxLength": ATTRIBUTE_BYTES_MAX}),
                },
            ])
            .problems(404, &["not_found"]),
    );
    let one = Operation::new(("get", "/api/events/{position}"), "readEvent", "One event");
    api.add(
        one.tag("events")
            .by(READERS)
            .with_path(&schemas::position("position", "Where it stands in the log."))
            .with_query(&[schemas::share()])
            .answers_as::<Recorded>(EVENT_JSON, 200, "The event, in structured mode.")
            .problems(403, &["forbidden"])
            .problems(410, &["trimmed"])
            .problems(500, &["log_damaged"]),
    );
    let deliveries = Operation::new(
        ("get", "/api/events/{position}/deliveries"),
        "readDeliveries",
        "Why an event did or did not arrive, for each subscription",
    );
    api.add(
        deliveries
            .tag("operating")
            .by(&[Who::Operator, Who::Token("operate")])
            .with_path(&schemas::position("position", "Where it stands in the log."))
            .answers::<Deliveries>(200, "The event, and where it stands with each subscription.")
            .problems(403, &["forbidden"])
            .problems(410, &["trimmed"])
            .problems(500, &["log_damaged"]),
    );
    live(api);
}

/// The route of an order's events, which the shop has below its orders.
pub(crate) fn subject_events(api: &mut Api, path: &'static str, subject: &Input) {
    api.add(reading(("get", path), "readOrderEvents", "An order's events, in sequence").with_path(subject));
}

/// What all pages of events have.
fn reading(route: (&'static str, &'static str), id: &'static str, summary: &'static str) -> Operation {
    let types = Input {
        name: "types",
        says: "Only events of these types, with commas between them. A page may then hold fewer events than `limit`, and still have a `next`.",
        schema: json!({"type": "string", "minLength": 1, "maxLength": 65_536}),
    };
    Operation::new(route, id, summary)
        .tag("events")
        .by(READERS)
        .with_query(&[schemas::after(), schemas::limit(PAGE, PAGE_MAX), types, schemas::share()])
        .answers::<Page>(200, "A page. `next` is what to give as `after`; null at the end.")
        .problems(403, &["forbidden"])
        .problems(410, &["trimmed"])
        .problems(429, &["busy"])
        .problems(500, &["log_damaged"])
}

fn publishing(api: &mut Api) {
    let example = json!({
        "specversion": "1.0", "id": "1", "source": "/loyalty", "type": "loyalty.PointsEarned.v1", "subject": "member-7",
        "data": {"points": 12},
    });
    // Without limits: they hold in binary mode alone, in which alone these headers are read.
    let attribute = |name, says| Input { name, says, schema: json!({"type": "string"}) };
    let publish = Operation::new(("post", "/api/events"), "publishEvents", "Publishes one event or a batch of them").says(
        "In each of the three modes of the CloudEvents HTTP protocol binding 1.0.2: structured and batch by the media type; binary where the \
         attributes stand in headers `ce-…`, percent-encoded, and the body is the data. All of them are on disk when it is answered with 202. \
         An event that is refused ends the batch: those before it are in the log, and `landed` says how many they are.",
    );
    api.add(
        publish
            .tag("events")
            .by(&[Who::Service, Who::Token("publish")])
            .takes::<Envelope>(EVENT_JSON, vec![example.clone()])
            .takes_what(BATCH_JSON, batch(), vec![json!([example])])
            .takes_what("application/json", json!({"description": "Binary mode: the data, with the attributes in headers."}), vec![])
            .takes_nothing_too()
            .with_header(&attribute("ce-specversion", "Binary mode: `1.0`. Not read in another mode."))
            .with_header(&attribute("ce-id", "Binary mode: the event's `id`, at most 1,024 bytes. Not read in another mode."))
            .with_header(&attribute("ce-source", "Binary mode: the event's `source`, at most 1,024 bytes. Not read in another mode."))
            .with_header(&attribute("ce-type", "Binary mode: the event's `type`, at most 1,024 bytes. Not read in another mode."))
            .answers::<Published>(202, "Where each event of the request stands, in its order.")
            .such_as(json!({"results": [{"position": "12", "duplicate": false}]}))
            .problems(400, &["invalid_header", "too_deep"])
            .problems(409, &["other_content"])
            .problems(413, &["event_too_large", "too_many_events"])
            .problems(422, &["invalid_event", "unknown_event_type"])
            .problems(429, &["busy"])
            .problems(503, &["disk_full", "log_full"]),
    );
    let limits = Operation::new(("options", "/api/events"), "readPublishLimits", "What may be published: media types and limits");
    api.add(limits.tag("events").by_everybody().answers::<Limits>(200, "The limits.").with_headers(&["allow", "accept-post"]));
}

fn batch() -> Value {
    json!({"type": "array", "maxItems": PUBLISH_EVENTS_MAX, "items": {"$ref": "#/components/schemas/Event"}})
}

fn live(api: &mut Api) {
    let cursor = json!({"type": "string", "pattern": "^[0-9]{1,18}$"});
    let live = Operation::new(("get", "/api/live"), "watchEvents", "Events as they happen, as server-sent events or over WebSocket").says(
        "With `Accept: text/event-stream`, or as a WebSocket (subprotocol `cloudevents.json`). What is sent is described by `/asyncapi.json`.",
    );
    api.add(
        live.tag("events")
            .by(READERS)
            .with_query(&[
                Input {
                    name: "subject",
                    says: "One subject, from its first event. Without it: all that the caller may see, from now on.",
                    schema: json!({"type": "string", "minLength": 1, "maxLength": ATTRIBUTE_BYTES_MAX}),
                },
                Input { name: "after", says: "Only what comes after this position.", schema: cursor.clone() },
                schemas::share(),
            ])
            .with_header(&Input { name: "Last-Event-ID", says: "The same as `after`, and counts more.", schema: cursor })
            .answers_with(101, "A WebSocket.", vec![])
            .answers_with(200, "Server-sent events; `id` is the position.", vec![("text/event-stream", json!({"type": "string"}))])
            .problems(400, &["invalid_cursor", "unsupported_subprotocol"])
            .problems(403, &["forbidden"])
            .problems(404, &["not_found"])
            .problems(426, &["upgrade_required"]),
    );
}
