//! `cascade bench` measures a shop of its own, or another one, and says what it found.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod shop;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;
use shop::{Shop, run_to_end, wait_until};

fn bench(flags: &[&str]) -> Value {
    measure(&[&["bench", "--orders", "200", "--warm-up", "10", "--json"], flags].concat())
}

/// The smallest measurement of the broker.
fn bench_broker(only: &str) -> Value {
    let small = ["--events", "200", "--seconds", "1", "--warm-up", "10", "--rate", "100", "--backlog", "100", "--failing", "2"];
    measure(&[&["bench", "broker", "--json", "--only", only], &small[..]].concat())
}

fn measure(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_cascade")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_shop_of_its_own_is_measured_whole() {
    let report = bench(&[]);
    for figure in [
        "orders_per_s",
        "events_per_s",
        "cascade_ms_p50",
        "cascade_ms_p95",
        "cascade_ms_p99",
        "cpu_s_per_1000_orders",
        "peak_rss_bytes",
        "fdatasync_ms_p50",
    ] {
        assert!(report[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {report}");
    }
    // Every chance is certain: each order is eight events, from created to completed.
    let events_per_order = report["events_per_s"].as_f64().unwrap() / report["orders_per_s"].as_f64().unwrap();
    assert!((events_per_order - 8.0).abs() < 0.1, "{report}");
}

#[test]
fn five_processes_are_the_same_shop() {
    let report = bench(&["--five"]);
    let events_per_order = report["events_per_s"].as_f64().unwrap() / report["orders_per_s"].as_f64().unwrap();
    assert!((events_per_order - 8.0).abs() < 0.1, "{report}");
}

#[test]
fn a_running_shop_is_measured_from_outside_and_at_a_rate() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant", "--luck", "always"]);
    let report = bench(&["--url", &shop.base(), "--rate", "200"]);
    assert!(report["cpu_s_per_1000_orders"].is_null() && report["cascade_ms_p50"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn a_broker_is_measured_from_publishing_to_acknowledged() {
    let report = bench_broker("published,batched,delivered,delay");
    for figure in
        ["published_per_s", "published_batched_per_s", "delivered_per_s", "delivery_ms_p50", "delivery_ms_p99", "fdatasync_ms_p50"]
    {
        assert!(report[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {report}");
    }
    assert!(report["delivery_ms_p50"].as_f64() <= report["delivery_ms_p99"].as_f64(), "{report}");
    assert_eq!((&report["delivered_repeated"], &report["delivered_out_of_order"]), (&Value::from(0), &Value::from(0)), "{report}");
    assert!(report["silent"].is_null(), "what was not asked for is not there: {report}");
}

#[test]
fn a_disturbed_broker_is_measured_beside_a_quiet_one() {
    let report = bench_broker("silent,backlog,failing");
    // A hundred events a second for a second; one order in twenty fails.
    for (disturbance, count, events) in [("silent", 1, 100), ("backlog", 100, 100), ("failing", 2, 95)] {
        let found = &report[disturbance];
        assert_eq!(found["count"], count, "{report}");
        assert_eq!((&found["quiet"]["events"], &found["disturbed"]["events"]), (&Value::from(100), &Value::from(events)), "{report}");
        for side in ["quiet", "disturbed"] {
            assert!(found[side]["ms_p99"].as_f64().is_some_and(|value| value > 0.0), "{disturbance}, {side}: {report}");
        }
        assert!(found["rss_bytes_before"].as_u64() > Some(1_000_000) && found["rss_bytes_after"].as_u64() > Some(1_000_000), "{report}");
    }
    assert!(report["backlog"]["catch_up"]["events_per_s"].as_f64() > Some(0.0), "{report}");
    assert!(report["published_per_s"].is_null(), "what was not asked for is not there: {report}");
}

#[tokio::test]
async fn a_measurement_that_is_given_up_leaves_nothing_behind() {
    let mut measuring = Command::new(env!("CARGO_BIN_EXE_cascade"));
    let measuring = measuring.args(["bench", "broker", "--seconds", "600", "--only", "delay"]).stderr(Stdio::piped()).spawn().unwrap();
    let pid = measuring.id();
    let own_folders = || -> Vec<PathBuf> {
        let all = std::fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.to_string_lossy().contains(&format!("cascade-bench-{pid}-"))).collect()
    };
    wait_until("a folder of its own", async || own_folders().pop()).await;
    assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap().success());
    let ended = measuring.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), &*String::from_utf8_lossy(&ended.stderr)), (Some(1), "cascade: stopped by a signal\n"));
    assert_eq!(own_folders(), Vec::<PathBuf>::new());
}

#[test]
fn what_cannot_be_measured_is_said_in_one_line() {
    for (arguments, code) in [
        (&["--url", "http://127.0.0.1:1"][..], 1),
        (&["--url", "nonsense"], 2),
        (&["broker", "--only", "everything"], 2),
        (&["broker", "--events", "0"], 2),
        (&["broker", "--url", "http://localhost:4000"], 2),
        (&["--five", "broker"], 2),
    ] {
        let (status, said) = run_to_end(Command::new(env!("CARGO_BIN_EXE_cascade")).arg("bench").args(arguments));
        assert_eq!(status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.trim_end().lines().count() == 1, "{said}");
    }
}
