//! Five processes that start, each in its own time: early, late, twice, or with the wrong key.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail as tests do, and this world's clock is real"
)]

mod shop;

use std::{net::TcpListener, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use axum::http::StatusCode;
use shop::{Customer, Shape, Shop, let_time_pass, process::Process, run_to_end, wait_until};

/// How often a service tries to register in the time that is given to it here.
const SEVERAL_TRIES: Duration = Duration::from_secs(2);

/// The lines in which a process says that it cannot use the broker.
fn complaints(process: &Process) -> Vec<String> {
    process.said().lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_broker_first_or_last_it_is_the_same_shop() {
    for order_of_start in
        [["broker", "order", "payment", "delivery", "storefront"], ["storefront", "delivery", "payment", "order", "broker"]]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut shop = Shop::five(folder.path(), &["--pace", "instant"]);
        for service in order_of_start {
            shop.service(service).start();
            let is_ready = shop.service(service).readiness() == Some(200);
            assert!(is_ready || !["broker", "storefront"].contains(&service), "{service} waits for nobody");
        }
        let customer = Customer::visit(&shop).await;
        let order = customer.order("key").await.unwrap();
        for service in order_of_start {
            shop.service(service).wait_until_ready();
        }
        customer.all_events_of(&order).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_a_broker_says_so_once_takes_orders_and_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::five(folder.path(), &["--pace", "instant"]);
    for service in ["storefront", "order", "payment", "delivery"] {
        shop.service(service).start();
    }
    let customer = Customer::visit(&shop).await;
    let order = customer.order("early").await.unwrap();
    let_time_pass(SEVERAL_TRIES, "they try several times to register, and one of them to publish").await;
    for service in ["order", "payment", "delivery"] {
        let process = shop.service(service);
        let said = complaints(process);
        assert!(said.len() == 1 && said[0].contains("broker") && said[0].contains("refused"), "{service}: {said:?}");
        assert_eq!(process.readiness(), Some(503), "{service}");
    }
    assert_eq!(customer.status(&order).await, "pending");
    shop.service("broker").start();
    for service in ["order", "payment", "delivery"] {
        shop.service(service).wait_until_ready();
        assert_eq!(complaints(shop.service(service)).len(), 1);
    }
    customer.all_events_of(&order).await;
    // The next outage is another one.
    shop.service("broker").kill();
    customer.order("later").await.unwrap();
    wait_until("it says so again", async || (complaints(shop.service("order")).len() == 2).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_another_secret_says_so_once_and_is_never_ready() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_as(Shape::FiveProcesses, folder.path(), &["--pace", "instant"]);
    let secret = folder.path().join("another-secret");
    std::fs::write(&secret, "5a".repeat(32)).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let broker = shop.service("broker").base();
    let elsewhere = folder.path().join("elsewhere");
    let (elsewhere, secret) = (elsewhere.to_str().unwrap(), secret.to_str().unwrap());
    let arguments = ["serve", "payment", "--broker-url", &broker, "--data-dir", elsewhere, "--secret-file", secret];
    let mut stranger = Process::new(arguments.map(str::to_owned).to_vec(), 0);
    stranger.start();
    wait_until("it says what is wrong", async || (!complaints(&stranger).is_empty()).then_some(())).await;
    let_time_pass(SEVERAL_TRIES, "it tries several times").await;
    let said = complaints(&stranger);
    assert!(said.len() == 1 && said[0].contains("secret") && said[0].contains("401"), "{said:?}");
    assert_eq!(stranger.readiness(), Some(503));
    // The right one is not disturbed.
    let customer = Customer::visit(&shop).await;
    customer.all_events_of(&customer.order("key").await.unwrap()).await;
    let forged = customer.at(&shop).send(axum::http::Method::POST, "/events", &[], "[]").await.unwrap();
    assert_eq!(forged.status, StatusCode::NOT_FOUND, "a front does not lead there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_broker_is_none_says_what_is_there_instead() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::five(folder.path(), &[]);
    shop.service("storefront").start();
    let no_broker = shop.service("storefront").base();
    let arguments = ["serve", "order", "--broker-url", &no_broker, "--data-dir", folder.path().to_str().unwrap()];
    let mut lost = Process::new(arguments.map(str::to_owned).to_vec(), 0);
    lost.start();
    wait_until("it says what is wrong", async || (!complaints(&lost).is_empty()).then_some(())).await;
    let said = complaints(&lost);
    assert!(said.len() == 1 && said[0].contains(&no_broker) && said[0].contains("404"), "{said:?}");
    assert_eq!(lost.readiness(), Some(503));
}

/// `cascade serve` that is expected to end by itself.
fn serve(service: &str, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
    command.env_clear().args(["serve", service, "--data-dir"]).arg(folder);
    command
}

/// It ends with this code, and exactly one line that says `expected`.
fn assert_refused(command: &mut Command, code: i32, expected: &str) {
    let (status, said) = run_to_end(command);
    assert_eq!(status.code(), Some(code), "{said}");
    assert!(said.trim_end().lines().count() == 1 && said.starts_with("cascade: ") && said.contains(expected), "{said}");
}

#[test]
fn a_second_instance_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::five(folder.path(), &[]);
    // The first store that payment opens is its provider's.
    for (service, store) in [("broker", "broker"), ("order", "order"), ("payment", "provider"), ("delivery", "delivery")] {
        shop.service(service).start();
        assert_refused(serve(service, folder.path()).args(["--port", "0"]), 1, &format!("{store}.db` is in use by another process"));
    }
    assert_refused(shop::command(folder.path()).args(["--port", "0"]), 1, "in use by another process");
}

#[test]
fn what_is_wrong_with_a_services_settings_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert_refused(serve("order", &data).args(["--port", &port]), 1, &port);
    assert_refused(serve("order", &data).args(["--broker-url", "broker:4005"]), 2, "broker-url");
    assert_refused(serve("payment", &data).args(["--host", "0.0.0.0", "--port", "0"]), 2, "sink-url");
    assert_refused(serve("storefront", &data).args(["--order-url", "https://order"]), 2, "order-url");
    assert!(!data.exists(), "nothing was made");
    let missing = folder.path().join("missing");
    assert_refused(serve("broker", &data).args(["--port", "0"]).env("CASCADE_SECRET_FILE", &missing), 1, "missing");
    std::fs::write(&missing, "00".repeat(32)).unwrap();
    std::fs::set_permissions(&missing, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_refused(serve("broker", &data).args(["--port", "0"]).env("CASCADE_SECRET_FILE", &missing), 1, "chmod 600");
}
