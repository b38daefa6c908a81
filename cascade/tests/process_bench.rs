//! `cascade bench` measures a shop of its own, or another one, and says what it found.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod shop;

use std::process::Command;

use serde_json::Value;
use shop::{Shop, run_to_end};

fn bench(flags: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_cascade"))
        .args(["bench", "--orders", "200", "--warm-up", "10", "--json"])
        .args(flags)
        .output()
        .unwrap();
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
fn what_cannot_be_measured_is_said_in_one_line() {
    for (url, code) in [("http://127.0.0.1:1", 1), ("nonsense", 2)] {
        let (status, said) = run_to_end(Command::new(env!("CARGO_BIN_EXE_cascade")).args(["bench", "--url", url]));
        assert_eq!(status.code(), Some(code));
        assert!(said.trim_end().lines().count() == 1, "{said}");
    }
}
