//! `/metrics` as Prometheus reads it: who may, what it shows, and that its own tool takes it, and the alerts of the documentation too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

#[macro_use]
mod shop;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use axum::http::{Method, StatusCode};
use kit::security::Keyring;
use shop::{Customer, Shop};

const TOKEN: &str = "scrape-0123456789abcdef";
const OPERATING: &str = include_str!("../../docs/operating.md");

in_both_shapes!(every_process_shows_what_it_counts_and_matched_is_the_sum_of_the_rest);

/// Flags that name a file with [`TOKEN`], made in `folder`.
fn flags(folder: &Path) -> Vec<String> {
    let file = folder.join("scrape.token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    ["--pace", "instant", "--luck", "always", "--metrics-token-file", file.to_str().unwrap()].map(str::to_owned).into()
}

/// What the process at `base` shows to whoever has `token`.
async fn scrape(base: &str, token: &str) -> (StatusCode, String) {
    let uri = format!("{base}/metrics").parse().unwrap();
    let client = kit::http::client::Client::new(std::sync::Arc::new(kit::http::client::TcpConnect));
    let mut headers = axum::http::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    let limits = kit::http::client::Limits { timeout: std::time::Duration::from_secs(10), answer_bytes_max: 4 * 1024 * 1024 };
    let answer = client.send(Method::GET, &uri, headers, axum::body::Bytes::new(), limits).await.unwrap();
    (answer.status(), String::from_utf8(answer.body().to_vec()).unwrap())
}

/// Each sample's name and labels, and its value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// The families that `text` declares.
fn families(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect()
}

/// Has promtool look at `input`.
fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.testbed/unpacked/prometheus/usr/bin/promtool"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool, which `cargo xtask test --install` brings");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

async fn every_process_shows_what_it_counts_and_matched_is_the_sum_of_the_rest(shape: shop::Shape) {
    let folder = tempfile::tempdir().unwrap();
    let flags = flags(folder.path());
    let mut shop = Shop::open_as(shape, folder.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let customer = Customer::visit(&shop).await;
    let order_id = customer.order("first").await.unwrap();
    customer.end_of(&order_id).await;
    let names: &[&str] = match shape {
        shop::Shape::OneProcess => &["up"],
        shop::Shape::FiveProcesses => &["broker", "order", "payment", "delivery", "storefront"],
    };
    let (mut shown, mut all) = (BTreeSet::new(), BTreeMap::new());
    for name in names {
        let (status, text) = scrape(&shop.service(name).base(), TOKEN).await;
        assert_eq!(status, StatusCode::OK, "{name}: {text}");
        promtool(&["check", "metrics"], &text);
        shown.extend(families(&text));
        all.extend(samples(&text));
        let own = samples(&text);
        assert!(own["process_resident_memory_bytes"] > 1e6 && own["process_open_fds"] > 3.0, "{name}");
    }
    for service in ["order", "payment", "delivery"] {
        let of = |name: &str| all[&format!("{name}{{subscription=\"{service}\"}}")];
        let rest = ["delivered_total", "dead_lettered", "discarded_total", "expired_total", "pending"];
        let sum: f64 = rest.iter().map(|end| of(&format!("cascade_subscription_events_{end}"))).sum();
        let matched = of("cascade_subscription_events_matched_total");
        assert!(matched > 0.0 && matched.to_bits() == sum.to_bits(), "{service}: {matched} is not {sum}");
        let is_active = format!("cascade_subscription_state{{state=\"active\",subscription=\"{service}\"}}");
        assert!(all[&is_active].to_bits() == 1_f64.to_bits(), "{service}");
        let taken = format!("cascade_subscription_attempts_total{{outcome=\"taken\",subscription=\"{service}\"}}");
        assert!(all[&taken] >= 1.0, "{service}");
        assert!(all[&format!("cascade_inbox_rows{{service=\"{service}\"}}")] >= 0.0);
    }
    let created = "cascade_http_requests_total{method=\"POST\",route=\"/api/orders\",service=\"order\",status=\"201\"}";
    assert!(all[created].to_bits() == 1_f64.to_bits(), "{created}");
    assert!(all["cascade_store_commit_duration_seconds_count{store=\"broker\"}"] >= 1.0);
    assert!(all["cascade_log_appended_total"] >= 8.0 && all["cascade_log_full"] == 0.0);

    let documented = OPERATING.lines().filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next());
    let documented: BTreeSet<_> = documented.filter(|name| name.starts_with("cascade_")).map(str::to_owned).collect();
    let ours: BTreeSet<_> = shown.into_iter().filter(|name| name.starts_with("cascade_")).collect();
    assert_eq!(ours, documented, "what is shown, and what docs/operating.md says");
}

#[tokio::test]
async fn metrics_are_for_operators_and_for_who_has_the_token_and_show_no_path_that_somebody_made_up() {
    let folder = tempfile::tempdir().unwrap();
    let flags = flags(folder.path());
    let shop = Shop::open(folder.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let keyring = Keyring::load(&folder.path().join("secret")).unwrap();
    let customer = Customer::visit(&shop).await;
    assert_eq!(Customer::stranger(&shop).get("/metrics").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(customer.get("/metrics").await.status, StatusCode::FORBIDDEN);
    for (token, expected) in [
        (keyring.service_token("order"), StatusCode::FORBIDDEN),
        (format!("{TOKEN}0"), StatusCode::UNAUTHORIZED),
        (keyring.service_token("operator"), StatusCode::OK),
        (TOKEN.to_owned(), StatusCode::OK),
    ] {
        assert_eq!(scrape(&shop.base(), &token).await.0, expected);
    }
    for path in ["/made/up/7", "/api/orders/made/up/7"] {
        assert_eq!(customer.get(path).await.status, StatusCode::NOT_FOUND);
    }
    let text = scrape(&shop.base(), TOKEN).await.1;
    assert!(!text.contains("made/up") && text.contains("route=\"unmatched\",service=\"order\",status=\"404\""), "{text}");
    // The token opens nothing else.
    let mut stranger = Customer::stranger(&shop);
    stranger = stranger.with_cookie(None);
    let bearer = format!("Bearer {TOKEN}");
    let answer = stranger.send(Method::GET, "/api/subscriptions", &[("authorization", &bearer)], "").await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[test]
fn the_alerts_of_the_documentation_are_rules_that_prometheus_takes() {
    let (_, rules) = OPERATING.split_once("```yaml\ngroups:").expect("the alerts");
    let (rules, _) = rules.split_once("```").unwrap();
    let rules = format!("groups:{rules}");
    assert!(rules.matches("- alert:").count() >= 3);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &rules).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}

#[test]
fn a_token_that_is_none_stops_the_start_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("short");
    std::fs::write(&file, "short").unwrap();
    let mut command = shop::command(folder.path());
    command.args(["--port", "0", "--metrics-token-file", file.to_str().unwrap()]);
    let (status, said) = shop::run_to_end(&mut command);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.lines().count() == 1 && said.contains("`metrics-token-file`") && said.contains("16 to 1024"), "{said}");
}
