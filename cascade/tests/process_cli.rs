//! The command line against a running shop: what it shows, what it says when something is wrong, and how it ends.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod shop;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use serde_json::Value;
use shop::{
    Shape, Shop, name_of,
    process::{Process, free_port},
    run_to_end,
};

fn cascade(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its end; `--timeout` sees to it that there is one.
fn run(arguments: &[&str]) -> Output {
    cascade(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What was printed as JSON lines: the events, and the summary.
fn read_json(output: &Output) -> (Vec<Value>, Value) {
    let mut lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap_or_else(|| panic!("nothing was printed: {}", text(&output.stderr)));
    (lines, summary)
}

/// Exactly one line on stderr, which names what is wrong; and the exit code.
fn assert_refused(arguments: &[&str], code: i32, expected: &str) {
    let (status, said) = run_to_end(&mut cascade(arguments));
    assert_eq!(status.code(), Some(code), "{arguments:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    assert!(said.starts_with("cascade: ") && said.contains(expected), "{arguments:?}: {said}");
}

#[test]
fn a_scenario_is_drawn_until_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    for (number, end, event) in
        [("2", "Cancelled, nothing charged: 3 events", "PaymentDeclined"), ("3", "Delivered and paid: ", "WorkerOfferExpired")]
    {
        let output = run(&["scenario", number, "--url", &shop.base()]);
        let drawn = text(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty(), "{drawn}{}", text(&output.stderr));
        assert!(drawn.starts_with(&format!("Scenario {number}: ")) && drawn.contains(&shop.base()), "{drawn}");
        assert!(drawn.contains(event) && drawn.lines().last().unwrap().starts_with(end), "{drawn}");
        assert!(!drawn.contains(['\u{1b}', '\r']), "a pipe gets plain text: {drawn:?}");
    }
}

#[test]
fn as_json_every_event_is_a_line_and_the_last_line_is_the_summary() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    for number in [1, 2, 3, 11, 12] {
        let output = run(&["scenario", &number.to_string(), "--json", "--url", &shop.base()]);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
        let (events, summary) = read_json(&output);
        assert_eq!((&summary["scenario"], &summary["is_documented_end"]), (&number.into(), &true.into()), "{summary}");
        assert_eq!((&summary["events"], &summary["interruptions"]), (&events.len().into(), &0.into()), "{summary}");
        assert_eq!(name_of(&events[0]), "OrderCreated");
        let last = name_of(events.last().unwrap());
        assert_eq!(last == "OrderCompleted", summary["end"] == "completed", "{summary}");
        assert!(events.iter().all(|event| event["subject"] == summary["order_id"]), "{summary}");
    }
}

#[test]
fn the_scenarios_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &[]);
    for arguments in [&["scenario", "--url"][..], &["scenario", "--list", "--url"]] {
        let output = run(&[arguments, &[&shop.base()]].concat());
        let listed = text(&output.stdout);
        assert!(output.status.success(), "{listed}");
        assert!(listed.contains("  1  The dummy order") && listed.contains("Ends: cancelled, nothing charged."), "{listed}");
        assert!(listed.lines().all(|line| line.chars().count() < 80), "{listed}");
    }
    let output = run(&["scenario", "--json", "--url", &format!("{}/", shop.base())]);
    let catalogue: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(catalogue["items"][0]["title"], "The dummy order");
}

/// A run whose lines are read while it goes on.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = cascade(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads up to the line that contains `what`.
    fn read_until(&mut self, what: &str) -> String {
        let mut read = String::new();
        while !read.contains(what) {
            assert!(self.lines.read_line(&mut read).unwrap() > 0, "{what} is not in: {read}");
        }
        read
    }

    /// The rest, what was said on stderr, and the exit code.
    fn end(mut self) -> (String, String, Option<i32>) {
        let (mut read, mut said) = (String::new(), String::new());
        self.lines.read_to_string(&mut read).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (read, said, self.child.wait().unwrap().code())
    }
}

#[test]
fn a_run_goes_on_by_itself_when_the_shop_was_killed_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &["--pace", "demo"]);
    let base = shop.base();
    let mut drawn = Running::start(&["scenario", "3", "--url", &base]);
    let mut printed = Running::start(&["scenario", "3", "--json", "--url", &base]);
    let mut all = drawn.read_until("WorkerDeclinedJob");
    let mut json = printed.read_until("WorkerDeclinedJob");
    shop.kill();
    all += &drawn.read_until("the shop is away");
    shop.restart();

    let (rest, said, code) = printed.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the shop is away") && said.contains("the shop is back"), "{said}");
    json += &rest;
    let events: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, events) = events.split_last().unwrap();
    assert_eq!((&summary["end"], &summary["interruptions"]), (&"completed".into(), &1.into()));
    assert_each_follows_its_cause_once(events);

    let (rest, said, code) = drawn.end();
    assert_eq!((code, said.as_str()), (Some(0), ""));
    all += &rest;
    assert!(rest.contains("the shop is back after ") && rest.contains("\nDelivered and paid: "), "{all}");
    for once in ["OrderCreated", "WorkerDeclinedJob", "WorkerOfferExpired", "WorkerAcceptedJob", "OrderCompleted"] {
        assert_eq!(all.matches(once).count(), 1, "{once} in {all}");
    }
}

fn assert_each_follows_its_cause_once(events: &[Value]) {
    for (index, event) in events.iter().enumerate() {
        let before: Vec<&Value> = events[..index].iter().map(|event| &event["id"]).collect();
        assert!(!before.contains(&&event["id"]), "twice: {event}");
        assert!(event["causationid"].is_null() || before.contains(&&event["causationid"]), "before its cause: {event}");
    }
}

#[test]
fn a_cancellation_is_an_end_that_the_scenario_does_not_have() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "slow"]);
    let mut running = Running::start(&["scenario", "3", "--json", "--url", &shop.base()]);
    let event: Value = serde_json::from_str(&running.read_until("OrderCreated")).unwrap();
    let owner = event["owner"].as_str().unwrap();
    let keyring = kit::security::Keyring::load(&folder.path().join("secret")).unwrap();
    let cookie = kit::http::identity::session_cookie(&keyring, owner, kit::http::Scheme::Http).unwrap();
    let cookie = axum::http::HeaderValue::try_from(cookie.to_str().unwrap().split(';').next().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(shop::Customer::stranger(&shop).with_cookie(Some(&cookie)).cancel(event["subject"].as_str().unwrap()));
    assert!(answer.status.is_success(), "{answer:?}");
    let (rest, said, code) = running.end();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said, "cascade: the order ended as `cancelled_customer_request`, which is no end of scenario 3\n");
    let summary: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["end"], &summary["is_documented_end"]), (&"cancelled_customer_request".into(), &false.into()));
}

#[test]
fn what_does_not_end_in_time_is_given_up_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &["--pace", "slow"]);
    let base = shop.base();
    assert_refused(&["scenario", "3", "--timeout", "1", "--url", &base], 1, "scenario 3 reached no end within 1 s");
    let mut running = Running::start(&["scenario", "3", "--timeout", "3", "--json", "--url", &base]);
    running.read_until("OrderCreated");
    shop.kill();
    let (rest, said, code) = running.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.lines().last().unwrap().contains("reached no end within 3 s: the shop does not answer"), "{said}");
    let summary: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert!(summary["end"].is_null() && summary["order_id"].is_string(), "{summary}");
}

#[test]
fn an_interrupt_leaves_at_once_with_the_code_that_shells_know() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "slow"]);
    let mut running = Running::start(&["scenario", "3", "--url", &shop.base()]);
    running.read_until("OrderCreated");
    assert!(Command::new("kill").args(["-INT", &running.child.id().to_string()]).status().unwrap().success());
    let (_, said, code) = running.end();
    assert_eq!((code, said.as_str()), (Some(130), ""));
}

#[test]
fn what_is_no_shop_or_does_not_run_it_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &[]);
    let base = shop.base();
    assert_refused(&["scenario", "99", "--url", &base], 1, "there is no scenario 99; this shop has 1, 2, 3");
    assert_refused(&["scenario", "1", "--url", &format!("{base}/elsewhere")], 1, "nothing can be found");
    shop.kill();
    assert_refused(&["scenario", "1", "--url", &base], 1, &format!("no shop answers at {base}"));

    // Others that answer: with a page, and with what is no HTTP at all.
    for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>", "SSH-2.0-OpenSSH_9.2\r\n"] {
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", stranger.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut socket, _) = stranger.accept().unwrap();
            let _ = socket.read(&mut [0; 1024]);
            let _ = std::io::Write::write_all(&mut socket, answer.as_bytes());
        });
        assert_refused(&["scenario", "1", "--url", &url], 1, "no shop");
    }
}

#[test]
fn a_shop_that_is_no_playground_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["up", "--data-dir", folder.path().to_str().unwrap(), "--host", "0.0.0.0", "--allowed-hosts", "shop.example"];
    let mut shop = Process::new(arguments.map(str::to_owned).into(), free_port());
    shop.spawn();
    shop.wait_until_ready();
    assert_refused(&["scenario", "1", "--url", &shop.base()], 1, "scenarios run in playground mode only");
}

#[test]
fn in_five_processes_a_run_waits_for_the_service_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_as(Shape::FiveProcesses, folder.path(), &["--pace", "demo"]);
    shop.service("order").kill();
    let mut running = Running::start(&["scenario", "3", "--url", &shop.base()]);
    let mut drawn = running.read_until("the shop is away");
    shop.service("order").start();
    drawn += &running.read_until("WorkerSearchStarted");
    shop.service("broker").kill();
    drawn += &running.read_until("the shop is away");
    shop.service("broker").start();
    let (rest, said, code) = running.end();
    drawn += &rest;
    assert_eq!((code, said.as_str()), (Some(0), ""), "{drawn}");
    assert_eq!(drawn.matches("the shop is back after").count(), 2, "{drawn}");
    assert_eq!(drawn.matches("OrderCreated").count(), 1, "{drawn}");
    assert!(rest.contains("\nDelivered and paid: "), "{drawn}");
}

#[test]
fn wrong_flags_get_one_line_and_exit_code_2() {
    for (arguments, expected) in [
        (&["up", "--prot", "1"][..], "--port"),
        (&["scenario", "one"], "it must be a number"),
        (&["scenario", "1", "2"], "unexpected argument '2'"),
        (&["scenario", "1", "--list"], "--list"),
        (&["scenario", "1", "--url", "localhost:4000"], "it must begin with http://"),
        (&["scenario", "1", "--timeout", "0"], "--timeout"),
        (&["scenario", "1", "--timeout"], "--timeout"),
        (&["completions"], "<SHELL>"),
        (&["completions", "csh"], "bash"),
        (&["frobnicate"], "frobnicate"),
    ] {
        assert_refused(arguments, 2, expected);
    }
}

#[test]
fn every_help_text_fits_a_terminal_and_shells_get_completions() {
    for arguments in [
        &["--help"][..],
        &["up", "--help"],
        &["scenario", "--help"],
        &["completions", "--help"],
        &["serve", "--help"],
        &["healthcheck", "--help"],
        &["secret", "--help"],
        &["backup", "--help"],
        &["bench", "--help"],
    ] {
        let output = cascade(arguments).env("COLUMNS", "80").output().unwrap();
        let help = text(&output.stdout);
        assert!(output.status.success() && help.contains("Usage: cascade"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        let script = text(&output.stdout);
        assert!(output.status.success() && script.contains("scenario") && script.contains("data-dir"), "{shell}: {script}");
    }
}

#[test]
fn a_reader_that_leaves_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "demo"]);
    let mut running = Running::start(&["scenario", "3", "--json", "--url", &shop.base()]);
    running.read_until("OrderCreated");
    let Running { mut child, lines } = running;
    drop(lines);
    // Its next event goes nowhere: long before its time is over.
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
