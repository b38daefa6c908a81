//! The operator's commands against a running shop: why an event did not arrive, how subscriptions stand, and what is done about both.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod shop;

#[path = "process_operator/desk.rs"]
mod desk;

use std::path::Path;

use desk::{Desk, Subscriber, event, event_of};
use serde_json::json;
use shop::Shop;

const INSTANT: &[&str] = &["--pace", "instant"];

/// A subscriber that is registered, and events that it takes, fails on, and refuses. Positions are 1 to 6 in this sequence.
async fn with_trouble(desk: &Desk) -> Subscriber {
    let subscriber = Subscriber::open().await;
    let file = desk.file("l.json", &subscriber.registration(1));
    let (secret, beside) = desk.run(&["subscriptions", "apply", "l", &file]);
    assert!(secret.starts_with("whsec_") && secret.lines().count() == 1, "{secret}");
    assert!(beside.contains("revision 1, ETag") && !beside.contains(secret.trim()), "{beside}");
    let token = desk.token("l", &["--publish-as", "/l", "--publish", "l.*"]);
    let events = [
        event("1", "well", None),
        event_of("l.Other.v1", "2", "well", None),
        event("3", "poisoned", Some(422)),
        event("4", "poisoned", None),
        event("5", "failing", Some(503)),
        event("6", "failing", None),
    ];
    let file = desk.file("events.jsonl", &events.concat());
    let (said, beside) = desk.run(&["events", "publish", &file, "--token-file", &token]);
    assert!(said.lines().count() == 6 && said.contains("6  `6` of /l") && beside.contains("6 of 6 events"), "{said}{beside}");
    subscriber
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_an_event_did_not_arrive_is_answered_and_mended_from_the_terminal_alone() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), INSTANT);
    let desk = Desk::of(&shop, folder.path());
    let subscriber = with_trouble(&desk).await;
    let why = async |position: &str, expected: &str| desk.waits_for(&["events", "deliveries", position], &[expected]).await;
    why("1", "l delivered It was taken.").await;
    let drawn = why("2", "l filtered It was not asked for:").await;
    assert!(drawn.contains("(/types)") && drawn.contains("Event 2, l.Other.v1 of well"), "{drawn}");
    why("3", "after 1 attempt: 422, the books are closed. To decide: cascade dead-letters show l 3").await;
    why("4", "It waits behind event 3 of the same lane. That one was given up").await;
    why("5", "in vain, last").await;
    let drawn = why("6", "Event 5 of the same lane goes first. That one was sent once in vain, last").await;
    assert!(drawn.contains("the books are closed") && drawn.lines().all(|line| line.chars().count() <= 80), "{drawn}");
    let json = desk.json(&["events", "deliveries", "--source", "/l", "--id", "6"]);
    assert_eq!((&json["event"]["id"], json["items"].as_array().unwrap().len()), (&json!("6"), 4), "{json}");

    let listed = desk.says(&["subscriptions", "list"]);
    assert!(listed.starts_with("NAME") && listed.contains("cascade dead-letters list NAME"), "{listed}");
    let shown = desk.says(&["subscriptions", "show", "l"]);
    for expected in ["l is active", "1 waits for somebody", "the books are closed (20", "5 asked for = 1 delivered + 1 dead", "ETag"] {
        assert!(shown.contains(expected), "{expected} is not in {shown}");
    }
    let letters = desk.says(&["dead-letters", "list", "l"]);
    assert!(letters.lines().count() == 2 && letters.contains("l.Made.v1") && letters.contains("422, the books are closed"), "{letters}");
    let letter = desk.says(&["dead-letters", "show", "l", "3"]);
    assert!(letter.contains("cascade dead-letters redrive l 3") && letter.contains("\"answer\": 422"), "{letter}");

    subscriber.heal();
    assert_eq!(desk.says(&["dead-letters", "redrive", "l", "3"]), "Event 3 is tried again.\n");
    why("3", "l delivered").await;
    why("4", "l delivered").await;
    assert!(desk.says(&["dead-letters", "list", "l"]).contains("no dead letter that is waiting"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_discarded_by_filter_only_when_that_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), INSTANT);
    let desk = Desk::of(&shop, folder.path());
    let _subscriber = with_trouble(&desk).await;
    desk.waits_for(&["dead-letters", "list", "l"], &["422"]).await;
    let discard = ["dead-letters", "discard", "l"];
    let with = |more: &[&'static str]| [&discard, more].concat();
    assert_eq!(desk.says(&with(&["--statuses", "503"])), "No dead letter fits.\n");
    assert_eq!(desk.says(&with(&["--statuses", "422", "--dry-run"])), "1 dead letter would be given up for good: 3\n");
    desk.refuses(&with(&["--statuses", "422"]), 2, "say so with --yes");
    desk.refuses(&with(&[]), 2, "which dead letters?");
    desk.refuses(&with(&["4"]), 1, "event 4 is no dead letter of `l`");
    desk.refuses(&with(&["--filters", "{}"]), 2, "it must be a list");
    assert_eq!(desk.json(&["dead-letters", "list", "l"])["items"].as_array().unwrap().len(), 1, "nothing is gone yet");
    let decided = desk.json(&with(&["--lane", "poisoned", "--types", "l.Made.v1", "--yes"]));
    assert_eq!(decided, json!({"positions": ["3"], "next": null, "dry_run": false}));
    desk.waits_for(&["events", "deliveries", "3"], &["Somebody gave it up for good"]).await;
    desk.waits_for(&["events", "deliveries", "4"], &["l delivered"]).await;
    assert!(desk.says(&["dead-letters", "list", "l", "--state", "all"]).contains("discarded: 422"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_paused_moved_replayed_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), INSTANT);
    let desk = Desk::of(&shop, folder.path());
    let subscriber = with_trouble(&desk).await;
    subscriber.heal();
    desk.waits_for(&["events", "deliveries", "1"], &["l delivered"]).await;
    assert!(desk.says(&["subscriptions", "pause", "l"]).contains("cascade subscriptions resume l"));
    desk.waits_for(&["subscriptions", "show", "l"], &["l is paused"]).await;
    assert!(desk.says(&["subscriptions", "seek", "l", "1", "--dry-run"]).contains("would start over after position 0"));
    desk.refuses(&["subscriptions", "seek", "l", "earliest"], 2, "say so with --yes");
    assert!(desk.says(&["subscriptions", "seek", "l", "1", "--yes"]).contains("starts over after position 0"));
    let waits = "It waits for its turn. But the subscription is paused; to go on: cascade subscriptions resume l";
    desk.waits_for(&["events", "deliveries", "1"], &[waits]).await;
    assert_eq!(desk.json(&["subscriptions", "resume", "l"])["name"], "l");
    desk.waits_for(&["events", "deliveries", "6"], &["l delivered"]).await;

    assert_eq!(desk.says(&["subscriptions", "explain", "l", "1"]), "`l` asks for event 1.\n");
    assert!(desk.says(&["subscriptions", "explain", "l", "2"]).starts_with("`l` does not ask for event 2: "));
    let filters = r#"[{"prefix": {"subject": "fail"}}]"#;
    let tried = desk.says(&["subscriptions", "explain", "l", "1", "--filters", filters]);
    assert!(tried.starts_with("`l` would not ask for event 1: ") && tried.contains("does not begin with"), "{tried}");

    let replay = desk.json(&["subscriptions", "replay", "l", "--from", "1", "--to", "4", "--rate", "1000"]);
    let id = replay["id"].as_str().unwrap();
    let shown = desk.waits_for(&["subscriptions", "replays", "show", "l", id], &["is completed"]).await;
    assert!(shown.contains("events 1 to 4") && shown.contains("3 delivered"), "{shown}");
    assert!(desk.says(&["subscriptions", "replays", "list", "l"]).contains(id));
    assert!(desk.says(&["subscriptions", "replays", "cancel", "l", id]).contains("is completed"));
    desk.refuses(&["subscriptions", "replays", "show", "l", "0"], 1, "no such replay");

    let (secret, beside) = desk.run(&["subscriptions", "rotate-secret", "l", "--grace-hours", "1"]);
    assert!(secret.starts_with("whsec_") && beside.contains("for 1 h with the old one too"), "{secret}{beside}");
    desk.refuses(&["subscriptions", "rotate-secret", "payment"], 1, "payment");
    desk.refuses(&["subscriptions", "delete", "l"], 2, "say so with --yes");
    desk.refuses(&["subscriptions", "delete", "l", "--yes", "--if-match", "stale"], 1, "`cascade subscriptions show l` tells its ETag");
    assert_eq!(desk.says(&["subscriptions", "delete", "l", "--yes"]), "The subscription `l` has ended.\n");
    desk.refuses(&["subscriptions", "show", "l"], 1, "there is no subscription `l`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_changes_only_what_its_author_saw() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), INSTANT);
    let desk = Desk::of(&shop, folder.path());
    let subscriber = Subscriber::open().await;
    let (code, secret, beside) = desk.with_input(&["subscriptions", "apply", "l", "-", "--if-new"], &subscriber.registration(1));
    assert!(code == Some(0) && secret.starts_with("whsec_"), "{beside}");
    let shown = desk.says(&["subscriptions", "show", "l"]);
    let tag = shown.lines().find_map(|line| line.trim().strip_prefix("ETag")).unwrap().trim().to_owned();
    let second = desk.file("second.json", &subscriber.registration(2));
    desk.refuses(&["subscriptions", "apply", "l", &second, "--if-new"], 1, "there is a subscription `l` already");
    let (said, beside) = desk.run(&["subscriptions", "apply", "l", &second, "--if-match", &tag]);
    assert!(said.is_empty() && beside.contains("revision 2"), "a secret is told once: {said}{beside}");
    let third = desk.file("third.json", &subscriber.registration(3));
    desk.refuses(&["subscriptions", "apply", "l", &third, "--if-match", &tag], 1, "`cascade subscriptions show l` tells its ETag");
    let other = subscriber.registration(2).replace("l.Made.v1", "l.Other.v1");
    desk.refuses(&["subscriptions", "apply", "l", &desk.file("other.json", &other)], 1, "asks for something else");
    desk.refuses(&["subscriptions", "apply", "l", &desk.file("bad.json", "{")], 1, "is no JSON");
    desk.refuses(&["subscriptions", "apply", "l", &desk.file("none.json", r#"{"sink": "http://h/"}"#)], 1, "revision");
    desk.refuses(&["subscriptions", "apply", "l", "/nowhere"], 1, "`/nowhere`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_changed_where_it_stands_and_what_was_before_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), INSTANT);
    let desk = Desk::of(&shop, folder.path());
    let subscriber = with_trouble(&desk).await;
    let set = |more: &[&'static str]| [&["subscriptions", "set", "l"], more].concat();
    let change = ["--batch-events", "10", "--retry-attempts", "5", "--types", "l.Made.v1,l.Other.v1"];
    let before = desk.json(&["subscriptions", "show", "l"]);
    let lines = "  types               [\"l.Made.v1\"] -> [\"l.Made.v1\",\"l.Other.v1\"]\n  batch.events_max    64 -> 10\n  \
                 retry.attempts_max  50 -> 5\n";
    assert_eq!(desk.says(&set(&[&change[..], &["--dry-run"]].concat())), format!("The subscription `l` would change:\n{lines}"));
    let would = desk.json(&set(&["--reset", "types", "--dry-run"]));
    assert_eq!(would["changes"], json!([{"field": "types", "from": ["l.Made.v1"], "to": null}]), "{would}");
    assert_eq!(desk.json(&["subscriptions", "show", "l"])["batch"], before["batch"], "nothing has changed yet");

    assert_eq!(desk.says(&set(&change)), format!("The subscription `l` is changed:\n{lines}"));
    assert_eq!(desk.says(&set(&change)), "Nothing changes: that is what `l` asks for.\n");
    let after = desk.json(&set(&["--sink", "http://127.0.0.1:9/elsewhere", "--on-exhausted", "continue"]));
    assert_eq!((&after["sink"], &after["batch"]["events_max"]), (&json!("http://127.0.0.1:9/elsewhere"), &json!(10)));
    assert_eq!(after["revision"], before["revision"], "its place and its revision stay");
    assert!(desk.says(&set(&["--reset", "batch,retry", "--required", "no"])).contains("batch.events_max      10 -> 64\n"));

    let tag = desk.says(&["subscriptions", "show", "l"]);
    let tag = tag.lines().find_map(|line| line.trim().strip_prefix("ETag")).unwrap().trim();
    desk.says(&["subscriptions", "set", "l", "--if-match", tag, "--batch-wait-ms", "7"]);
    desk.refuses(&["subscriptions", "set", "l", "--if-match", tag, "--batch-wait-ms", "8"], 1, "`l` was changed by somebody else");
    desk.refuses(&["subscriptions", "set", "l", "--if-match", tag, "--batch-wait-ms", "8", "--dry-run"], 1, "changed by somebody else");
    desk.refuses(&set(&["--batch-events", "0"]), 1, "`/batch/events_max` must be 1 to 1000");
    desk.refuses(&set(&["--reset", "batch", "--batch-events", "5"]), 2, "`batch` is set and put back");
    desk.refuses(&set(&["--dry-run"]), 2, "what is to change?");
    desk.refuses(&["subscriptions", "set", "nobody", "--batch-events", "5"], 1, "there is no subscription `nobody`");
    desk.refuses(&["subscriptions", "set", "payment", "--sink", "http://127.0.0.1:9/"], 1, "from one URL to another only");
    drop(subscriber);
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), INSTANT);
    let desk = Desk::of(&shop, folder.path());
    for (arguments, code, expected) in [
        (&["subscriptions", "show", "nobody"][..], 1, "there is no subscription `nobody`; `cascade subscriptions list` shows"),
        (&["subscriptions", "pause", "nobody"], 1, "there is no subscription `nobody`"),
        (&["subscriptions", "seek", "nobody", "latest", "--yes"], 1, "there is no subscription `nobody`"),
        (&["subscriptions", "replays", "list", "nobody"], 1, "there is no subscription `nobody`"),
        (&["dead-letters", "list", "nobody"], 1, "there is no subscription `nobody`"),
        (&["dead-letters", "redrive", "nobody", "--all"], 1, "there is no subscription `nobody`"),
        (&["dead-letters", "redrive", "nobody", "1"], 1, "there is no subscription `nobody`"),
        (&["dead-letters", "show", "payment", "1"], 1, "event 1 is no dead letter of `payment`"),
        (&["subscriptions", "show", "Nobody"], 2, "a-z"),
        (&["subscriptions", "seek", "payment", "yesterday"], 2, "`earliest`, `latest`, a position"),
        (&["events", "deliveries", "999"], 1, "there is no event at position 999"),
        (&["events", "deliveries", "first"], 2, "it must be a position"),
        (&["events", "show", "--", "-1"], 2, "it must be a position"),
        (&["events", "show", "--id", "1"], 2, "--source"),
        (&["events", "show", "--source", "/l", "--id", "1"], 1, "there is no event `1` of the source `/l`"),
        (&["subscriptions", "explain", "payment", "999"], 1, "no such event"),
        (&["dead-letters", "list", "payment", "--state", "lost"], 2, "waiting, redriving, discarded, all"),
        (&["dead-letters", "discard", "payment", "1", "--all"], 2, "--all"),
        (&["dead-letters", "discard", "payment", "--statuses", "often"], 2, "HTTP status"),
    ] {
        desk.refuses(arguments, code, expected);
    }
    let reader = desk.token("reader", &["--read", "cascade.*"]);
    let with_token = |arguments: &[&str]| {
        let mut command = desk.command(arguments);
        command.args(["--token-file", &reader]);
        command
    };
    for (arguments, expected) in [
        (&["subscriptions", "pause", "payment"][..], "the token's scope `operate` does not cover the subscription `payment`"),
        (&["dead-letters", "list", "payment"], "the token's scope `operate` does not cover"),
        (&["events", "deliveries", "1"], "the token's scope `operate` does not cover"),
    ] {
        desk::refused(with_token(arguments), 1, expected);
    }
    assert_eq!(desk.json(&["subscriptions", "list"])["items"].as_array().unwrap().len(), 3);
    let stranger = Desk { base: desk.base.clone(), folder: Path::new("/nowhere").to_owned() };
    for arguments in [&["events", "list"][..], &["subscriptions", "list"], &["dead-letters", "list", "payment"]] {
        stranger.refuses(arguments, 1, "--token-file");
    }
    shop.kill();
    for arguments in
        [&["events", "list"][..], &["events", "list", "--follow"], &["subscriptions", "list"], &["dead-letters", "list", "payment"]]
    {
        desk.refuses(arguments, 1, "does not answer");
    }
}
