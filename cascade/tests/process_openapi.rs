//! `/openapi.json` against the shop that publishes it: with schemathesis and Redocly's linter, which we did not write, and with our own
//! list of routes and problem codes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod contracts;
mod shop;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use axum::http::{Method, StatusCode};
use contracts::{Cases, Draft, INSTALL, file, testbed};
use kit::{http::identity::OPERATOR, security::Keyring};
use serde_json::Value;
use shop::{Customer, Shop};

async fn document(shop: &Shop) -> Value {
    let answer = Customer::stranger(shop).get("/openapi.json").await;
    assert_eq!((answer.status, &answer.headers["content-type"]), (StatusCode::OK, &"application/json".parse().unwrap()));
    answer.json
}

/// Every operation of the document: its path, its method, and what is said of it.
fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, methods)| methods.as_object().unwrap().iter().map(move |(method, operation)| (path, method, operation)))
}

/// Asks the shop what its document makes possible and what it forbids, as `headers` say; fails with what schemathesis found.
fn schemathesis(shop: &Shop, folder: &Path, headers: &[&str], more: &[&str]) {
    ask(&format!("{}/openapi.json", shop.base()), folder, headers, more);
}

/// The same with every limit of every schema, from both sides, once each.
async fn coverage(shop: &Shop, folder: &Path, headers: &[&str], more: &[&str]) {
    let written = folder.join("shallow.json");
    fs::write(&written, shallow(document(shop).await).to_string()).unwrap();
    let base = shop.base();
    ask(written.to_str().unwrap(), folder, headers, &[&["--url", &base, "--phases", "coverage"], more].concat());
}

/// The document with filters that hold no filters that hold filters. Lists of 64 in lists of 64 keep schemathesis busy for minutes before
/// it asks anything; deeper ones come from the other phases, which draw them at random.
fn shallow(mut document: Value) -> Value {
    let schemas = document["components"]["schemas"].as_object_mut().unwrap();
    let itself = "#/components/schemas/Filter\"";
    let mut flat = schemas["Filter"].clone();
    flat["oneOf"].as_array_mut().unwrap().retain(|form| !form.to_string().contains(itself));
    assert_eq!(flat["oneOf"].as_array().unwrap().len(), 3, "{flat}");
    let whole = schemas["Filter"].to_string().replace(itself, "#/components/schemas/FlatFilter\"");
    schemas.insert("Filter".to_owned(), serde_json::from_str(&whole).unwrap());
    schemas.insert("FlatFilter".to_owned(), flat);
    document
}

/// Runs schemathesis on the document at `location`.
fn ask(location: &str, folder: &Path, headers: &[&str], more: &[&str]) {
    let python = testbed("python");
    let mut command = Command::new(python.join("bin/schemathesis"));
    command.env_clear().env("PYTHONPATH", &python).env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", folder).current_dir(folder);
    command.arg("--config-file").arg(file("schemathesis.toml")).args(["run", location, "--no-color", "--continue-on-failure"]);
    command.args(headers.iter().flat_map(|header| ["--header", header])).args(more);
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("schemathesis {INSTALL}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout);
    // What it sends can be very long.
    let said: Vec<String> = said.lines().map(|line| line.chars().take(400).collect()).collect();
    assert!(output.status.success(), "{}\n{}", said.join("\n"), String::from_utf8_lossy(&output.stderr));
    assert!(said.iter().any(|line| line.contains("Tested:")), "{}", said.join("\n"));
}

/// A shop in which there is something to be found.
async fn lively(folder: &Path) -> Shop {
    let shop = Shop::open(folder, &["--pace", "instant", "--events", "off"]);
    let customer = Customer::visit(&shop).await;
    let order = customer.run(1).await;
    customer.end_of(&order).await;
    shop
}

/// The shop must have lived through it: no panic, and it still sells.
async fn still_works(shop: &Shop) {
    assert!(!shop.said().contains("panicked"), "{}", shop.said());
    let customer = Customer::visit(shop).await;
    let order = customer.run(2).await;
    assert_eq!(customer.end_of(&order).await, "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_does_for_an_operator_what_its_document_says_whatever_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = lively(folder.path()).await;
    let token = Keyring::load(&folder.path().join("secret")).unwrap().service_token(OPERATOR);
    let only_broker = ["--include-path-regex", "^/api/(events|subscriptions|tokens)"];
    let authorization = format!("Bearer {token}");
    let header = format!("Authorization: {authorization}");
    let at_random = [&only_broker[..], &["--phases", "examples,fuzzing,stateful", "-n", "10"]].concat();
    schemathesis(&shop, folder.path(), &[&header], &at_random);
    coverage(&shop, folder.path(), &[&header], &only_broker).await;
    // An operator may also pause and change what the services of the shop asked for: that is put back first.
    for name in ["order", "payment", "delivery"] {
        let path = format!("/api/subscriptions/{name}");
        let headers = [("authorization", authorization.as_str())];
        let answer = Customer::stranger(&shop).send(Method::DELETE, &path, &headers, "").await.unwrap();
        assert!(matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_FOUND), "{answer:?}");
    }
    assert!(!shop.said().contains("panicked"), "{}", shop.said());
    shop.kill();
    shop.restart();
    still_works(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_takes_from_a_publisher_what_its_document_says_whatever_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let shop = lively(folder.path()).await;
    let operator = format!("Bearer {}", Keyring::load(&folder.path().join("secret")).unwrap().service_token(OPERATOR));
    let scopes = serde_json::json!({"publish": {"source": "/loyalty", "types": ["loyalty.*"]}, "read": {"types": ["*"], "owners": true}});
    let wanted = serde_json::json!({"name": "partner", "scopes": scopes}).to_string();
    let headers = [("authorization", operator.as_str()), ("content-type", "application/json")];
    let made = Customer::stranger(&shop).send(Method::POST, "/api/tokens", &headers, &wanted).await.unwrap();
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let authorization = format!("Authorization: Bearer {}", made.json["token"].as_str().unwrap());
    let only_events = ["--include-path", "/api/events", "--phases", "examples,fuzzing", "-n", "60"];
    schemathesis(&shop, folder.path(), &[&authorization], &only_events);
    coverage(&shop, folder.path(), &[&authorization], &["--include-path-regex", "^/api/(events|live)"]).await;
    still_works(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shop_does_for_a_guest_what_its_document_says_whatever_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let shop = lively(folder.path()).await;
    let guest = Customer::visit(&shop).await;
    let cookie = format!("Cookie: {}", guest.cookie().unwrap().to_str().unwrap());
    // A stream of events does not end while nobody is wrong.
    let without_streams = ["--exclude-path", "/api/live", "--phases", "examples,fuzzing", "-n", "10"];
    schemathesis(&shop, folder.path(), &[&cookie], &without_streams);
    // What operators alone may do is refused before it is looked at; the operator's test looks.
    coverage(&shop, folder.path(), &[&cookie], &["--exclude-path-regex", "^/api/(subscriptions|tokens)"]).await;
    still_works(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_keeps_the_rules_of_a_linter() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &[]);
    let written = folder.path().join("openapi.json");
    fs::write(&written, document(&shop).await.to_string()).unwrap();
    let mut command = Command::new(testbed("node_modules/.bin/redocly"));
    command.env("REDOCLY_TELEMETRY", "off").env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true").current_dir(folder.path());
    let command = command.args(["lint", "--extends", "recommended", "--format", "json"]).arg(&written).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("redocly {INSTALL}: {error}"));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(output.status.success() && said["problems"].as_array().unwrap().is_empty(), "{said:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_path_has_exactly_the_methods_that_are_published() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &[]);
    let (document, customer) = (document(&shop).await, Customer::stranger(&shop));
    let mut published: BTreeMap<&String, BTreeSet<String>> = BTreeMap::new();
    for (path, method, _) in operations(&document) {
        published.entry(path).or_default().insert(method.to_uppercase());
    }
    for (path, mut methods) in published {
        let some = path.replace("{order_id}", "01a20c37-5fad-7456-8fa8-a4029768eb28").replace("{path}", "app/icon.ico");
        let some = some.replace("{name}", "loyalty").replace("{position}", "1").replace("{number}", "1").replace("{id}", "1");
        let answer = customer.send(Method::TRACE, &some, &[], "").await.unwrap();
        assert_eq!((answer.status, &answer.json["code"]), (StatusCode::METHOD_NOT_ALLOWED, &"method_not_allowed".into()), "{path}");
        if methods.contains("GET") {
            methods.insert("HEAD".into());
        }
        let allowed: BTreeSet<_> = answer.headers["allow"].to_str().unwrap().split(',').map(str::to_owned).collect();
        assert_eq!(allowed, methods, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_of_every_service_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &[]);
    let document = document(&shop).await;
    let published: BTreeSet<String> = operations(&document).map(|(path, ..)| path.clone()).collect();
    let mut routes: BTreeSet<String> = sources().iter().flat_map(|text| routes_in(text)).collect();
    assert!(routes.contains("/api/orders") && routes.contains("/health") && routes.contains("/api/tokens/{name}"), "{routes:?}");
    // What no service has, and each service's own way in for events, which nobody gets to from outside.
    assert!(routes.remove("/{*path}") && routes.remove("/events"));
    routes.insert(shop::routes::ORDER_EVENTS.to_owned());
    let routes: BTreeSet<_> = routes.into_iter().map(|path| path.replace("{*", "{")).collect();
    assert_eq!(published, routes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_published_problem_codes_are_those_that_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &[]);
    let document = document(&shop).await;
    let mut published: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, _, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let schema = &response["content"]["application/problem+json"]["schema"];
            let codes = schema["allOf"][1]["properties"]["code"]["enum"].as_array();
            published.entry(status.clone()).or_default().extend(codes.into_iter().flatten().map(|code| code.as_str().unwrap().to_owned()));
        }
    }
    published.retain(|_, codes| !codes.is_empty());
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md")).unwrap();
    let table = text.split("## Problem codes").nth(1).unwrap().lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let mut explained: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (status, says) in table.filter(|(status, _)| status.parse::<u16>().is_ok()) {
        let names = says.split('`').skip(1).step_by(2).filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        explained.insert(status.to_owned(), names.map(str::to_owned).collect());
    }
    // What belongs to no operation: a method that a path does not know, and what only the broker meets on a service's own port.
    assert_eq!(explained.remove("405").unwrap().len(), 1);
    assert!(explained.get_mut("401").unwrap().remove("bad_signature"));
    assert!(explained.get_mut("409").unwrap().remove("contradiction"), "no client's command comes to it");
    assert_eq!(published, explained);
}

/// The text of every source file of the services and the kit, without the parts that are tests.
fn sources() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<PathBuf> = ["services", "libs/kit/src"].iter().map(|folder| root.join(folder)).collect();
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && !matches!(name.as_str(), "tests" | "examples" | "target") {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = fs::read_to_string(path).unwrap();
                texts.push(text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned());
            }
        }
    }
    texts
}

/// The paths of `.route("…", …)`.
fn routes_in(source: &str) -> Vec<String> {
    let calls = source.split(".route(").skip(1);
    calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_fits_its_schema_and_so_does_what_a_customer_sees() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let (document, customer) = (document(&shop).await, Customer::visit(&shop).await);
    let mut cases = Cases::of(&document, Draft::Of2020);
    for (path, method, operation) in operations(&document) {
        let contents = operation["responses"].as_object().unwrap().values().chain([&operation["requestBody"]]);
        for content in contents.flat_map(|one| one["content"].as_object().into_iter().flatten().map(|(_, content)| content)) {
            for example in content["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]) {
                cases.add(&content["schema"], example, format!("{method} {path}: {example}"));
            }
        }
    }
    let order = customer.run(1).await;
    customer.end_of(&order).await;
    for (path, url) in [
        ("/api/orders", "/api/orders".to_owned()),
        ("/api/orders/{order_id}", format!("/api/orders/{order}")),
        ("/api/orders/{order_id}/events", format!("/api/orders/{order}/events")),
        ("/api/products", "/api/products".to_owned()),
        ("/api/scenarios", "/api/scenarios".to_owned()),
        ("/ready", "/ready".to_owned()),
    ] {
        let answer = customer.get(&url).await;
        let schema = &document["paths"][path]["get"]["responses"][answer.status.as_str()]["content"]["application/json"]["schema"];
        cases.add(schema, &answer.json, url);
    }
    cases.fit();
}
