//! Dead letters and replays: what is sent again.

use kit::describe::{Api, Input, Operation, schemas};
use serde_json::{Value, json};

use super::{OPERATED, filters, name, object, or_null, place, types};
use crate::{
    http::{
        List, PAGE, PAGE_MAX,
        dead_letters::{Decided, Full, Page},
    },
    subscriptions::{
        letters::LOOK_MAX,
        replays::{RATE_PER_S, RATE_PER_S_MAX, Shown},
    },
};

pub(super) fn describe(api: &mut Api) {
    dead_letters(api);
    replays(api);
}

/// Of the subscription that the path names.
fn one(route: (&'static str, &'static str), id: &'static str, summary: &'static str) -> Operation {
    let operation = Operation::new(route, id, summary).by(OPERATED).with_path(&name("The subscription's name."));
    operation.problems(403, &["forbidden"])
}

fn dead_letters(api: &mut Api) {
    let state = Input {
        name: "state",
        says: "Which of them.",
        schema: json!({"type": "string", "enum": ["waiting", "redriving", "discarded", "all"], "default": "waiting"}),
    };
    let list = one(("get", "/api/subscriptions/{name}/dead-letters"), "listDeadLetters", "Events that were given up, by position");
    api.add(
        list.tag("dead letters")
            .with_query(&[schemas::after(), schemas::limit(PAGE, PAGE_MAX), state])
            .answers::<Page>(200, "A page. `next` is what to give as `after`; null at the end.")
            .problems(500, &["log_damaged"]),
    );
    let position = schemas::position("position", "Where the event stands in the log.");
    let read =
        one(("get", "/api/subscriptions/{name}/dead-letters/{position}"), "readDeadLetter", "A dead letter with all that is known of it");
    api.add(read.tag("dead letters").with_path(&position).answers::<Full>(200, "The dead letter.").problems(500, &["log_damaged"]));
    for (path, some_path, ids, summaries) in [
        (
            "/api/subscriptions/{name}/dead-letters/{position}/redrive",
            "/api/subscriptions/{name}/dead-letters/redrive",
            ("redriveDeadLetter", "redriveDeadLetters"),
            ("Tries a dead letter again", "Tries dead letters again: all that wait and fit"),
        ),
        (
            "/api/subscriptions/{name}/dead-letters/{position}/discard",
            "/api/subscriptions/{name}/dead-letters/discard",
            ("discardDeadLetter", "discardDeadLetters"),
            ("Gives a dead letter up for good", "Gives dead letters up for good: all that wait and fit"),
        ),
    ] {
        let operation = one(("post", path), ids.0, summaries.0).tag("dead letters").with_path(&position);
        api.add(operation.answers::<Decided>(200, "It was decided.").problems(503, &["disk_full"]));
        let operation = one(("post", some_path), ids.1, summaries.1)
            .says("1,000 are looked at in one request; with `next`, ask again with it as `after`. `{}` means all.")
            .tag("dead letters")
            .takes_what("application/json", choice(), vec![json!({"statuses": [422, null], "dry_run": true})]);
        api.add(
            operation
                .answers::<Decided>(200, "Which they are.")
                .such_as(json!({"positions": ["45"], "next": null, "dry_run": true}))
                .problems(422, &["invalid_choice"])
                .problems(500, &["log_damaged"])
                .problems(503, &["disk_full"]),
        );
    }
}

/// Which dead letters are meant.
fn choice() -> Value {
    let position = json!({"type": ["string", "integer"], "pattern": "^[0-9]{1,18}$", "minimum": 0});
    let status = json!({"type": ["integer", "null"], "minimum": 0, "maximum": u16::MAX});
    object(
        &[],
        &json!({
            "positions": or_null(&json!({"type": "array", "minItems": 1, "maxItems": LOOK_MAX, "items": position})),
            "lane": {"type": ["string", "null"], "description": "Those of this order."},
            "statuses": or_null(&json!({"type": "array", "minItems": 1, "items": status, "description": "With one of these last statuses; null is no answer."})),
            "types": types(),
            "filters": filters(),
            "after": or_null(&position),
            "dry_run": {"type": ["boolean", "null"], "default": false},
        }),
    )
}

fn replays(api: &mut Api) {
    let list = one(("get", "/api/subscriptions/{name}/replays"), "listReplays", "The replays of a subscription, the oldest first");
    api.add(list.tag("replays").answers::<List<Shown>>(200, "The last 32."));
    let asked = json!({
        "from": or_null(&place()),
        "to": or_null(&place()),
        "types": types(),
        "filters": filters(),
        "rate_per_s": or_null(&json!({"type": "integer", "minimum": 1, "maximum": RATE_PER_S_MAX, "default": RATE_PER_S})),
    });
    let create = one(("post", "/api/subscriptions/{name}/replays"), "createReplay", "Sends a part of the log to the sink again");
    api.add(
        create
            .says("`from` is the earliest and `to` the latest event if nobody says otherwise; `to` cannot be `earliest`.")
            .tag("replays")
            .takes_what("application/json", object(&[], &asked), vec![json!({"from": {"position": "12"}, "rate_per_s": 50})])
            .answers::<Shown>(201, "The replay.")
            .with_headers(&["location"])
            .problems(409, &["too_many_replays"])
            .problems(422, &["invalid_replay"])
            .problems(503, &["disk_full"]),
    );
    let id = Input { name: "id", says: "The replay.", schema: json!({"type": "string", "format": "uuid"}) };
    let read = one(("get", "/api/subscriptions/{name}/replays/{id}"), "readReplay", "A replay, and how it stands");
    api.add(read.tag("replays").with_path(&id).answers::<Shown>(200, "The replay."));
    let cancel = one(("post", "/api/subscriptions/{name}/replays/{id}/cancel"), "cancelReplay", "Ends a replay");
    api.add(cancel.tag("replays").with_path(&id).answers::<Shown>(200, "The replay.").problems(503, &["disk_full"]));
}
