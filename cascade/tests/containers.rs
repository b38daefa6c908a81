//! `docker compose up`: each service in a container of its own, a load balancer in front, and what happens when one stops, dies, or is
//! set up wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::await_holding_lock,
    reason = "helpers of tests may fail as tests do, and this world's clock is real"
)]

mod compose;
mod shop;

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use compose::{Compose, SINGLE, docker, docker_json, load::Load, text};
use serde_json::{Value, json};
use shop::{Customer, books, name_of, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_brings_a_whole_shop_and_its_terminal_shows_the_cascade() {
    let compose = Compose::of("up").with("CASCADE_PACE", "instant");
    compose.up(&[]).await;
    let shop = compose.shop();
    let customer = Customer::visit(&shop).await;
    assert_eq!(customer.send(Method::GET, "/scenario/1", &[("accept", "text/html")], "").await.unwrap().status, StatusCode::OK);
    let run = customer.get("/scenario/1").await;
    assert_eq!(run.status, StatusCode::CREATED, "{run:?}");
    let order = run.json["order_id"].as_str().unwrap().to_owned();
    let events = customer.all_events_of(&order).await;
    let last = name_of(events.last().unwrap());
    assert_eq!(name_of(&events[0]), "OrderCreated");

    // The terminal: one line an event, in sequence, the order's short name in each, a colour for each service.
    let short = &order[order.len() - 8..];
    let lines = wait_until("the terminal shows the end", async || {
        let logs = compose.logs("broker");
        let lines: Vec<_> = logs.lines().filter(|line| line.contains(short)).map(str::to_owned).collect();
        lines.iter().any(|line| line.contains(last)).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), events.len());
    assert!(lines.iter().zip(&events).all(|(line, event)| line.contains(name_of(event)) && line.contains("\u{1b}[")), "{lines:#?}");

    // Published on this machine's loopback only; nothing else is.
    let ports = compose.inspect("balancer")["NetworkSettings"]["Ports"].clone();
    let open: Vec<_> = ports.as_object().unwrap().values().filter_map(Value::as_array).flatten().collect();
    assert_eq!(open, [&json!({"HostIp": "127.0.0.1", "HostPort": compose.port().to_string()})]);
    for service in SINGLE.into_iter().chain(["storefront"]) {
        let container = compose.inspect(service);
        let host = &container["HostConfig"];
        assert_eq!((&container["Config"]["User"], &container["Config"]["StopSignal"]), (&json!("10001:10001"), &json!("SIGTERM")));
        assert_eq!((&host["ReadonlyRootfs"], &host["CapDrop"]), (&json!(true), &json!(["ALL"])));
        assert!(host["Memory"].as_u64().unwrap() > 0 && host["PidsLimit"].as_u64().unwrap() > 0 && host["NanoCpus"].as_u64().unwrap() > 0);
        assert_eq!(host["PortBindings"].as_object().unwrap().len(), 0);
    }
    // Nobody outside gets to a service's own routes.
    let headers = [("content-type", "application/cloudevents-batch+json")];
    assert_eq!(customer.send(Method::POST, "/events", &headers, "[]").await.unwrap().status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_can_be_restarted_under_load_and_nobody_notices() {
    let compose = Compose::of("restart").with("CASCADE_PACE", "instant");
    compose.up(&[]).await;
    let load = Load::begin(compose.port()).await;
    for service in ["storefront", "order", "payment", "delivery", "broker"] {
        load.goes_on(40).await;
        compose.must(&["restart", service]);
        compose.is_back(service, 0).await;
    }
    load.goes_on(40).await;
    // The broker was restarted once: each stream has come back.
    let met = load.end(1).await;
    eprintln!("{} requests, the slowest, in ms: {:?}; {} orders", met.requests, met.slowest_ms, met.orders.len());
    assert_eq!(met.failures, BTreeMap::new(), "of {} requests", met.requests);
    audit(&compose, met.orders.into_keys()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_storefronts_share_the_work_and_one_of_them_can_go() {
    let compose = Compose::of("scale").with("CASCADE_PACE", "instant");
    compose.up(&["--scale", "storefront=3"]).await;
    let load = Load::begin(compose.port()).await;
    load.goes_on(20).await;
    let ids = compose.must(&["ps", "--quiet", "storefront"]);
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 3);
    for id in &ids {
        // Each of them has been asked: nothing but the health check asks one that the balancer does not know.
        let received = || docker_json(&["inspect", id])[0]["State"]["Pid"].as_u64().map(received_packets).unwrap();
        let before = received();
        wait_until("it is asked", async || (received() > before + 200).then_some(())).await;
    }
    assert!(docker(&["stop", ids[1]]).status.success());
    load.goes_on(40).await;
    assert!(docker(&["start", ids[1]]).status.success());
    load.goes_on(40).await;
    let met = load.end(0).await;
    eprintln!("{} requests, the slowest, in ms: {:?}", met.requests, met.slowest_ms);
    assert_eq!(met.failures, BTreeMap::new(), "of {} requests", met.requests);
}

/// How many packets have come into the network of a process.
fn received_packets(pid: u64) -> u64 {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    let line = table.lines().find(|line| line.trim_start().starts_with("eth0:")).unwrap();
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_container_can_be_killed_and_every_acknowledged_order_ends() {
    let compose = Compose::of("kill").with("CASCADE_PACE", "instant");
    compose.up(&[]).await;
    let load = Load::begin(compose.port()).await;
    for service in ["broker", "order", "payment", "delivery", "storefront", "balancer"] {
        load.goes_on(30).await;
        compose.kill(service);
        compose.is_back(service, 1).await;
    }
    load.goes_on(30).await;
    let met = load.end(1).await;
    // Whoever was talking to a process that was killed may have had no answer. What was acknowledged is there.
    eprintln!("{} requests, {} without an answer; {} orders", met.requests, met.failures.values().sum::<u32>(), met.orders.len());
    audit(&compose, met.orders.into_keys()).await;
}

/// All these orders have ended, and the provider's ledger agrees: by a backup of the shop while it runs.
async fn audit(compose: &Compose, orders: impl Iterator<Item = String>) {
    let orders: Vec<String> = orders.collect();
    let mut number = 0;
    let folder = wait_until("nothing waits any more", async || {
        number += 1;
        let folder = compose.backup(&format!("copy-{number}"));
        books::are_settled(&folder).then_some(folder)
    })
    .await;
    let store = books::open(&folder, "order");
    let mut statement = store.prepare("select id, status from orders").unwrap();
    let ends: BTreeMap<String, String> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    assert!(!orders.is_empty() && orders.iter().all(|order| ends.contains_key(order)), "an acknowledged order is lost");
    books::check(&folder, &ends);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_taken_and_wait_while_payment_is_away() {
    let compose = Compose::of("away").with("CASCADE_PACE", "instant");
    compose.up(&[]).await;
    let customer = Customer::visit(&compose.shop()).await;
    compose.must(&["stop", "payment"]);
    let order = customer.order("while-payment-is-away").await.unwrap();
    assert_eq!(customer.status(&order).await, "pending");
    // Its event is in the log, and nothing comes of it.
    let path = format!("/api/orders/{order}/events");
    let answer =
        wait_until("the order is in the log", async || Some(customer.get(&path).await).filter(|answer| answer.status.is_success()));
    let names: Vec<_> = answer.await.json["items"].as_array().unwrap().iter().map(|event| name_of(event).to_owned()).collect();
    assert_eq!(names, ["OrderCreated"]);
    compose.must(&["start", "payment"]);
    customer.all_events_of(&order).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_instance_on_the_same_data_refuses_to_start() {
    let compose = Compose::of("twice");
    compose.up(&[]).await;
    let second = compose.run(&["run", "--rm", "--no-deps", "order"]);
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second);
    let said: Vec<_> = said.lines().filter(|line| line.contains("cascade:")).collect();
    assert!(said.len() == 1 && said[0].contains("in use by another process"), "{said:?}");
    // The first one goes on.
    assert_eq!(Customer::stranger(&compose.shop()).get("/api/products").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_up_wrong_is_said_in_one_line() {
    let compose = Compose::of("wrong");
    // No secret, since nothing was started before; an unknown variable; a bad value; no volume; one that is somebody else's.
    let folder = tempfile::tempdir().unwrap();
    let foreign = format!("{}:/data", folder.path().display());
    let of_compose = |arguments: &[&str]| compose.run(&[&["run", "--rm", "--no-deps", "--no-TTY"], arguments].concat());
    let of_image = |arguments: &[&str]| docker(&[&["run", "--rm", "--read-only"], arguments].concat());
    for (ended, code, expected) in [
        (of_compose(&["payment"]), 1, "/secret/secret"),
        (of_compose(&["--env", "CASCADE_PROT=1", "payment"]), 2, "CASCADE_PROT is no setting; did you mean CASCADE_PORT?"),
        (of_compose(&["--env", "CASCADE_WORKERS=many", "delivery"]), 2, "invalid value 'many' for CASCADE_WORKERS"),
        (of_image(&["cascade", "serve", "broker"]), 1, "data folder `/data` cannot be written: Read-only file system"),
        (of_image(&["--volume", &foreign, "cascade", "serve", "broker"]), 1, "data folder `/data` cannot be written: Permission denied"),
    ] {
        let said = text(&ended);
        let lines: Vec<_> = said.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert!(lines.len() == 1 && lines[0].starts_with("cascade: ") && lines[0].contains(expected), "{said}");
    }
    // The port of the whole shop is taken.
    let taken = std::net::TcpListener::bind(("127.0.0.1", compose.port())).unwrap();
    let refused = compose.run(&["up", "--detach", "--no-build"]);
    assert!(!refused.status.success() && text(&refused).contains(&format!("127.0.0.1:{}", compose.port())), "{}", text(&refused));
    drop(taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_cannot_start_gives_up_and_its_log_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (rules, change) = (folder.path().join("Caddyfile"), folder.path().join("change.yaml"));
    std::fs::write(&rules, ":4000 {\n\treverse_proxies order:4001\n}\n").unwrap();
    let volume =
        format!("services: {{ balancer: {{ volumes: [\"{}:/etc/caddy/Caddyfile:ro\"], depends_on: !reset {{}} }} }}\n", rules.display());
    std::fs::write(&change, volume).unwrap();
    let compose = Compose::of("broken").with("CASCADE_PACE", "warp").and(change);
    let (_, _) = (compose.run(&["up", "--detach", "--no-build", "broker"]), compose.run(&["up", "--detach", "--no-build", "balancer"]));
    for (service, code, expected) in [
        ("broker", 2, "cascade: invalid value 'warp' for CASCADE_PACE"),
        ("balancer", 1, "/etc/caddy/Caddyfile:2: unrecognized directive: reverse_proxies"),
    ] {
        wait_until(&format!("{service} has given up"), async || {
            let container = compose.inspect(service);
            (container["State"]["Status"] == "exited" && container["RestartCount"] == 5).then_some(())
        })
        .await;
        assert_eq!(compose.inspect(service)["State"]["ExitCode"], code);
        let logs = compose.logs(service);
        let said: Vec<_> = logs.lines().filter(|line| line.contains(expected)).collect();
        assert_eq!((said.len(), logs.lines().count()), (6, 6), "{logs}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_domain_the_shop_is_served_over_https_and_nobody_steers_it() {
    let compose = Compose::of("https").and(std::path::Path::new(compose::ROOT).join("deploy/compose.https.yaml"));
    let (http, https) = (shop::process::free_port().to_string(), shop::process::free_port().to_string());
    // The balancer's own authority signs for `localhost`; for a real domain it asks a public one.
    let compose = compose.with("DOMAIN", "localhost").with("HTTP_PORT", &http).with("HTTPS_PORT", &https);
    compose.up(&[]).await;
    let trusted = "--ca-certificate=/data/caddy/pki/authorities/local/root.crt";
    let ask = |more: &[&str]| {
        let wget = ["exec", "--no-TTY", "balancer", "wget", "--quiet", "--server-response", "--output-document=-", trusted];
        text(&compose.run(&[&wget, more].concat()))
    };
    let page = wait_until("the certificate is there", async || {
        let page = ask(&["https://localhost/"]);
        page.contains("HTTP/1.1 200").then_some(page)
    })
    .await;
    let cookie = page.lines().find(|line| line.trim_start().starts_with("Set-Cookie: cascade_session=")).unwrap();
    assert!(cookie.contains("; Secure"), "{cookie}");
    assert!(ask(&["--max-redirect=0", "http://localhost/orders"]).contains("Location: https://localhost/orders"));
    // A run of a scenario is for the playground alone.
    let run = ask(&["--header=Accept: application/json", "https://localhost/scenario/1"]);
    assert!(run.contains("HTTP/1.1 403") || run.contains("HTTP/1.1 404"), "{run}");
}
