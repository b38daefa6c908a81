//! Subscriptions, and what operators do with them.

use kit::describe::{Api, Input, Operation, Who, schemas};
use serde_json::{Value, json};

use super::{OPERATED, filters, grace, name, object, or_null, place, types};
use crate::{
    http::{List, arrivals::Explained, audit::Audited, operate::Sought},
    subscriptions::Subscription,
};

const SUBSCRIPTION: &str = "/api/subscriptions/{name}";
const OWNERS: &[Who] = &[Who::Service, Who::Operator, Who::Token("subscribe")];

pub(super) fn describe(api: &mut Api) {
    let list = Operation::new(("get", "/api/subscriptions"), "listSubscriptions", "Who gets what, and how it stands");
    api.add(
        list.tag("subscriptions")
            .by(&[Who::Operator, Who::Token("subscribe"), Who::Token("operate")])
            .answers::<List<Subscription>>(200, "All subscriptions, by name; of an outsider, theirs.")
            .problems(403, &["forbidden"]),
    );
    registering(api);
    operating(api);
}

/// Of the subscription that the path names.
fn one(route: (&'static str, &'static str), id: &'static str, summary: &'static str) -> Operation {
    Operation::new(route, id, summary).with_path(&name("The subscription's name: that of the service.")).problems(403, &["forbidden"])
}

fn registering(api: &mut Api) {
    let if_match = Input {
        name: "If-Match",
        says: "Only if it is what the caller knows: its `ETag`, up to 16 of them, or `*`.",
        schema: json!({"type": "string", "minLength": 1, "maxLength": 1_024}),
    };
    let if_none_match =
        Input { name: "If-None-Match", says: "`*`: only if there is none of this name.", schema: json!({"type": "string", "enum": ["*"]}) };
    let changing = |operation: Operation| {
        let operation = operation.problems(400, &["invalid_condition"]).problems(412, &["precondition_failed"]);
        operation.problems(409, &["version_conflict"]).problems(429, &["busy"]).problems(503, &["disk_full"])
    };
    let admitted = |operation: Operation| {
        let operation = operation.answers::<Subscription>(200, "The subscription; with its secret, if that was just made.");
        let operation = operation.with_headers(&["etag"]).problems(409, &["revision_taken", "too_many_changes", "too_many_subscriptions"]);
        operation.problems(422, &["invalid_subscription", "sink_not_allowed", "consent_refused"])
    };
    let example = json!({"sink": "http://127.0.0.1:9191/events", "types": ["cascade.OrderCompleted.v1"], "revision": 1});
    let put = one(("put", SUBSCRIPTION), "registerSubscription", "Registers a URL for events, or another configuration")
        .says("A higher `revision` replaces everything; a lower one changes nothing. The place in the log stays where it is.")
        .tag("subscriptions")
        .by(OWNERS)
        .takes_what("application/json", wanted(&["sink", "revision"]), vec![example])
        .with_header(&if_match)
        .with_header(&if_none_match);
    api.add(admitted(changing(put)));
    let get = one(("get", SUBSCRIPTION), "readSubscription", "A subscription, and how it stands");
    let readers = [OWNERS, &[Who::Token("operate")]].concat();
    api.add(get.tag("subscriptions").by(&readers).answers::<Subscription>(200, "The subscription.").with_headers(&["etag"]));
    let patch = one(("patch", SUBSCRIPTION), "patchSubscription", "Changes a subscription by a JSON merge patch (RFC 7396)")
        .says("`null` puts a field back to its default. `revision` and `start` cannot be patched.")
        .tag("subscriptions")
        .by(OWNERS)
        .takes_what("application/merge-patch+json", patched(), vec![json!({"batch": {"events_max": 10}, "filters": null})])
        .takes_what("application/json", patched(), vec![])
        .with_header(&if_match);
    api.add(admitted(changing(patch)).problems(428, &["precondition_required"]));
    let delete = one(("delete", SUBSCRIPTION), "removeSubscription", "Removes a subscription with all that it keeps");
    let delete = delete.tag("subscriptions").by(OWNERS).with_header(&if_match).answers_with(204, "It is gone.", vec![]);
    api.add(changing(delete));
    let rotate = one(("post", "/api/subscriptions/{name}/secret/rotate"), "rotateSecret", "Gives a subscription another secret");
    api.add(
        rotate
            .tag("subscriptions")
            .by(OWNERS)
            .takes_what("application/json", object(&[], &json!({"grace_s": grace()})), vec![json!({"grace_s": 3_600})])
            .takes_nothing_too()
            .answers::<Subscription>(200, "The subscription, with its new secret.")
            .with_headers(&["etag"])
            .problems(409, &["derived_secret", "version_conflict"])
            .problems(422, &["invalid_rotation"])
            .problems(503, &["disk_full"]),
    );
}

fn operating(api: &mut Api) {
    for (path, id, summary) in [
        ("/api/subscriptions/{name}/pause", "pauseSubscription", "Delivers nothing until it is resumed"),
        ("/api/subscriptions/{name}/resume", "resumeSubscription", "Delivers again"),
    ] {
        let operation = one(("post", path), id, summary).tag("operating").by(OPERATED);
        api.add(operation.answers::<Subscription>(200, "The subscription.").with_headers(&["etag"]).problems(503, &["disk_full"]));
    }
    let seek = object(&["to"], &json!({"to": place(), "dry_run": or_null(&json!({"type": "boolean", "default": false}))}));
    let operation = one(("post", "/api/subscriptions/{name}/seek"), "seekSubscription", "Starts over elsewhere in the log");
    api.add(
        operation
            .tag("operating")
            .by(OPERATED)
            .takes_what("application/json", seek, vec![json!({"to": {"position": "42"}, "dry_run": true})])
            .answers::<Sought>(200, "What it does, or would do.")
            .such_as(json!({"after": "41", "lanes_dissolved": 0, "dead_letters_dropped": 0, "dry_run": true}))
            .problems(422, &["invalid_seek"])
            .problems(503, &["disk_full"]),
    );
    let question = json!({
        "position": {"type": ["string", "integer", "null"], "pattern": "^[0-9]{1,18}$", "minimum": 0},
        "event": or_null(&json!({"$ref": "#/components/schemas/Event"})),
        "types": types(),
        "filters": filters(),
    });
    let operation =
        one(("post", "/api/subscriptions/{name}/explain"), "explainSubscription", "Whether an event is asked for, and if not, why not");
    api.add(
        operation
            .says("The event is named by `position`, or given as `event`. `types` and `filters` may stand in for the subscription's own.")
            .tag("operating")
            .by(OPERATED)
            .takes_what("application/json", object(&[], &question), vec![json!({"position": "42"})])
            .answers::<Explained>(200, "Whether it is, or which clause does not hold.")
            .problems(410, &["trimmed"])
            .problems(422, &["invalid_question"])
            .problems(500, &["log_damaged"]),
    );
    let operation = one(("get", "/api/subscriptions/{name}/audit"), "auditSubscription", "Counts again what became of the events");
    api.add(
        operation
            .says(
                "Reads the log once more, and compares it with the books. One audit runs at a time. After ten seconds it answers how far it \
                 came, as `next`: ask again with that as `after`, and it goes on.",
            )
            .tag("operating")
            .by(OPERATED)
            .with_query(&[Input { says: "Goes on with the audit that was left here: the `next` of its last answer.", ..schemas::after() }])
            .answers::<Audited<'static>>(200, "Both counts, and whether they agree; or how far the log was read.")
            .problems(409, &["other_audit"])
            .problems(410, &["trimmed"])
            .problems(429, &["busy"])
            .problems(500, &["log_damaged"]),
    );
}

/// What a subscriber asks for. Beside what the type says: no field that is not known, and `null` for what is left out.
fn wanted(required: &[&str]) -> Value {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12()
        .for_deserialize()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.definitions_path = "/components/schemas".into();
        })
        .into_generator();
    let schema = generator.subschema_for::<crate::subscriptions::wanted::Wanted>().to_value();
    let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let properties = properties.into_iter().map(|(field, mut schema)| match field.as_str() {
        // Only a service of the broker's own process has none.
        "sink" => {
            if let Some(fields) = schema.as_object_mut() {
                fields.insert("type".to_owned(), json!("string"));
            }
            (field, schema)
        }
        "revision" => (field, schema),
        _ => (field, or_null(&schema)),
    });
    object(required, &Value::Object(properties.collect()))
}

/// The same, as a patch: what is not named stays.
fn patched() -> Value {
    let mut schema = wanted(&[]);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.remove("revision");
        properties.remove("start");
    }
    schema
}
