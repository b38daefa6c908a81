//! `cascade events` against a running shop: reading the log, following it, publishing into it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod shop;

#[path = "process_operator/desk.rs"]
mod desk;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
};

use desk::{Desk, event, event_of};
use serde_json::Value;
use shop::{Customer, Shop, name_of};

const INSTANT: &[&str] = &["--pace", "instant"];

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_listed_one_event_a_line_and_one_event_is_shown_whole() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), INSTANT);
    let desk = Desk::of(&shop, folder.path());
    let customer = Customer::visit(&shop).await;
    let orders = [customer.run(2).await, customer.run(2).await];
    for order in &orders {
        customer.all_events_of(order).await;
    }
    let drawn = desk.says(&["events", "list"]);
    assert_eq!(drawn.lines().count(), 7, "a day and six events: {drawn}");
    assert!(drawn.lines().next().unwrap().ends_with(" UTC") && drawn.contains("PaymentDeclined"), "{drawn}");
    assert!(drawn.contains(&orders[0][28..]), "{drawn}");

    let events = lines(&desk.says(&["events", "list", "--subject", &orders[1], "--json"]));
    assert_eq!(events.iter().map(name_of).collect::<Vec<_>>(), ["OrderCreated", "PaymentDeclined", "OrderCancelled"]);
    assert!(events.iter().all(|event| event["subject"] == orders[1].as_str()));
    let declined = lines(&desk.says(&["events", "list", "--types", "PaymentDeclined,OrderDeleted", "--json"]));
    assert_eq!(declined.iter().map(name_of).collect::<Vec<_>>(), ["PaymentDeclined"; 2]);
    let (first, beside) = desk.run(&["events", "list", "--limit", "2", "--json"]);
    assert_eq!((lines(&first).len(), beside.as_str()), (2, "There are more: --after 2\n"));
    let rest = lines(&desk.says(&["events", "list", "--after", "2", "--json"]));
    assert_eq!((rest.len(), rest[0]["position"].as_str()), (4, Some("3")));
    let newest = lines(&desk.says(&["events", "list", "--last", "1", "--json"]));
    assert_eq!((newest.len(), newest[0]["position"].as_str()), (1, Some("6")));
    let (none, beside) = desk.run(&["events", "list", "--types", "l.Made.v1"]);
    assert_eq!((none.as_str(), beside.as_str()), ("", "The log has no such event.\n"));

    let shown = desk.says(&["events", "show", "6"]);
    assert!(shown.contains("Event 6, OrderCancelled of ") && shown.contains("\"reason\": \"payment_declined\""), "{shown}");
    let by_place = desk.json(&["events", "show", "6"]);
    let by_name = desk.json(&["events", "show", "--source", "/order", "--id", by_place["id"].as_str().unwrap()]);
    assert_eq!(by_place, by_name);
}

/// A command whose lines are read while it goes on.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).unwrap() > 0, "it has ended");
        serde_json::from_str(&line).unwrap()
    }

    fn end(mut self) -> (String, Option<i32>) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (said, self.child.wait().unwrap().code())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_followed_across_a_kill_of_the_shop_and_each_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), INSTANT);
    let desk = Desk::of(&shop, folder.path());
    let customer = Customer::visit(&shop).await;
    let follow = ["events", "list", "--follow", "--json", "--after", "0", "--types", "OrderCreated,OrderCancelled"];
    let mut running = Running::start(desk.command(&[&follow[..], &["--limit", "4"]].concat()));
    customer.run(2).await;
    let mut seen = vec![running.next(), running.next()];
    shop.kill();
    shop.restart();
    let order = customer.at(&shop).run(2).await;
    seen.extend([running.next(), running.next()]);
    let (said, code) = running.end();
    assert_eq!(code, Some(0), "it ends at its limit: {said}");
    assert_eq!(seen.iter().map(name_of).collect::<Vec<_>>(), ["OrderCreated", "OrderCancelled", "OrderCreated", "OrderCancelled"]);
    assert!(seen[2]["subject"] == order.as_str() && said.contains("waiting for the shop") && said.contains("going on"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_and_a_reader_that_leaves_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), INSTANT);
    let desk = Desk::of(&shop, folder.path());
    let customer = Customer::visit(&shop).await;
    let follow = || Running::start(desk.command(&["events", "list", "--follow", "--json", "--after", "0"]));
    let (mut interrupted, mut left) = (follow(), follow());
    customer.run(2).await;
    interrupted.next();
    assert!(Command::new("kill").args(["-INT", &interrupted.child.id().to_string()]).status().unwrap().success());
    assert_eq!(interrupted.end(), (String::new(), Some(130)));
    left.next();
    let Running { mut child, lines } = left;
    drop(lines);
    customer.run(2).await;
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn publishing_says_what_landed_and_which_event_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), INSTANT);
    let desk = Desk::of(&shop, folder.path());
    let token = desk.token("l", &["--publish-as", "/l", "--publish", "l.*"]);
    let publish = |text: &str| desk.with_input(&["events", "publish", "-", "--token-file", &token], text);
    let (code, said, beside) = publish(&event("1", "a", None));
    assert_eq!((code, said.as_str()), (Some(0), "       1  `1` of /l\n"), "{beside}");
    let list = format!("[{},{}]", event("1", "a", None), event("2", "a", None));
    let (code, said, beside) = publish(&list);
    assert_eq!((code, said.lines().count()), (Some(0), 2), "{beside}");
    assert!(said.contains("was there already") && beside == "2 of 2 events are in the log, 1 of them before.\n", "{said}{beside}");

    let refused = |text: &str, expected: &str| {
        let (code, said, beside) = publish(text);
        assert_eq!((code, said.as_str(), beside.lines().count()), (Some(1), "", 1), "{beside}");
        assert!(beside.contains(expected), "{expected} is not in {beside}");
    };
    let forged = event_of("cascade.PaymentAccepted.v1", "4", "a", None);
    refused(&(event("3", "a", None) + &forged), "event 2, `4` of /l, on line 2 was refused: the token's scope `publish` does not cover");
    refused(&(event("3", "a", None) + &forged), "(`type`); the first 1 of 2 events are in the log");
    refused(&event("1", "b", None), "event 1, `1` of /l, on line 1 was refused");
    refused(&event("5", "", None), "nothing of the file is in the log");
    refused("{\"specversion\":", "stdin: EOF");
    refused("", "holds no event");
    let json = desk.with_input(&["events", "publish", "-", "--token-file", &token, "--json"], &event("3", "a", None)).1;
    assert_eq!(lines(&json)[0]["results"][0], serde_json::json!({"position": "3", "duplicate": true}));

    let file = desk.file("e.json", &event("9", "a", None));
    desk.refuses(&["events", "publish", &file], 2, "--token-file");
    let reader = desk.token("reader", &["--read", "l.*"]);
    desk.refuses(&["events", "publish", &file, "--token-file", &reader], 1, "the token's scope `publish` does not cover");
    desk.refuses(&["events", "publish", "/nowhere", "--token-file", &token], 1, "`/nowhere`");
}

#[test]
fn every_help_text_fits_a_terminal_and_shells_complete_the_commands() {
    let help = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
        let output = command.env_clear().env("COLUMNS", "80").args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("Usage: cascade"), "{arguments:?}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    };
    for (command, actions) in [
        ("events", &["list", "show", "deliveries", "publish"][..]),
        ("subscriptions", &["list", "show", "apply", "pause", "resume", "seek", "explain", "replay", "replays", "rotate-secret", "delete"]),
        ("dead-letters", &["list", "show", "redrive", "discard"]),
    ] {
        help(&[command, "--help"]);
        for action in actions {
            help(&[command, action, "--help"]);
        }
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(env!("CARGO_BIN_EXE_cascade")).env_clear().args(["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        for expected in ["dead-letters", "rotate-secret", "deliveries", "if-match", "statuses"] {
            assert!(script.contains(expected), "{shell}: {expected}");
        }
    }
}
