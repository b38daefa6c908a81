//! A backup of a running shop is the shop of one instant: whoever starts on it finds every order, and nothing that came from nowhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail as tests do, and this world's clock is real"
)]

mod shop;

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::http::Method;
use rusqlite::Connection;
use serde_json::json;
use shop::{Customer, Shop, books, let_time_pass, run_to_end, wait_until};
use tokio::task::JoinSet;

/// How many backups are taken, one after another.
const BACKUPS: u32 = 4;
/// How many customers order meanwhile.
const BUYERS: u32 = 8;
/// The stores of a shop.
const STORES: [&str; 5] = ["broker", "delivery", "order", "payment", "provider"];

fn cascade(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

/// Makes a backup of the shop in these folders; gives what was said.
fn back_up(target: &Path, flags: &[&str], folders: &[PathBuf]) -> String {
    let mut command = cascade(&["backup", "--to", target.to_str().unwrap()]);
    let output = command.args(flags).args(folders).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Customers who order without end.
struct Rush {
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    is_over: Arc<AtomicBool>,
    buyers: JoinSet<()>,
}

impl Rush {
    fn begin(customer: &Customer) -> Self {
        let rush = Self { acknowledged: Arc::default(), is_over: Arc::default(), buyers: JoinSet::new() };
        let next = Arc::new(AtomicU32::new(0));
        let mut buyers = JoinSet::new();
        for _ in 0..BUYERS {
            let (customer, next) = (customer.clone(), next.clone());
            let (acknowledged, is_over) = (rush.acknowledged.clone(), rush.is_over.clone());
            buyers.spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let order = customer.order(&format!("key-{}", next.fetch_add(1, Ordering::SeqCst))).await.unwrap();
                    acknowledged.lock().unwrap().insert(order);
                }
            });
        }
        Self { buyers, ..rush }
    }

    fn acknowledged(&self) -> BTreeSet<String> {
        self.acknowledged.lock().unwrap().clone()
    }

    async fn end(mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        while let Some(ended) = self.buyers.join_next().await {
            ended.unwrap();
        }
    }
}

/// Starts a shop on the backup: it has these orders, and all that it has end once, with the money where it belongs.
async fn assert_goes_on(backup: &Path, customer: &Customer, orders: &BTreeSet<String>) {
    let under_way = books::statuses(backup).values().filter(|status| !["completed", "cancelled"].contains(&status.as_str())).count();
    assert!(under_way > 0, "the backup was to be taken in the middle of something");
    let shop = Shop::open(backup, &["--pace", "instant"]);
    wait_until("all orders of the backup end", async || books::are_settled(backup).then_some(())).await;
    let ends = books::statuses(backup);
    assert!(orders.iter().all(|order| ends.contains_key(order)), "an order that was acknowledged before is missing");
    books::check(backup, &ends);
    let in_log = books::ends_in_log(backup);
    assert!(ends.keys().all(|order| in_log.get(order) == Some(&1)) && in_log.len() == ends.len(), "every order ends once");
    assert!(ends.values().any(|end| end == "completed") && ends.values().any(|end| end == "cancelled"));
    // The secret came along: a customer is known.
    let customer = customer.at(&shop);
    customer.status(orders.first().unwrap()).await;
    customer.all_events_of(&customer.order("after-the-restore").await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_that_is_busy_can_be_backed_up_and_goes_on_from_each_backup() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut shop = Shop::open(&data, &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let rush = Rush::begin(&customer);
    let mut backups = Vec::new();
    for number in 0..BACKUPS {
        let_time_pass(Duration::from_millis(250), "orders are under way at the backup").await;
        let acknowledged = rush.acknowledged();
        let target = folder.path().join(format!("backup-{number}"));
        let said = back_up(&target, &[], std::slice::from_ref(&data));
        assert!(said.contains("writers waited") && said.contains("provider.db") && said.contains("secret"), "{said}");
        backups.push((target, acknowledged));
    }
    rush.end().await;
    wait_until("the shop itself ends its orders", async || books::are_settled(&data).then_some(())).await;
    books::check(&data, &books::statuses(&data));
    shop.kill();
    for (target, acknowledged) in &backups {
        assert_is_kept_from_others(target);
        assert_goes_on(target, &customer, acknowledged).await;
    }
}

fn assert_is_kept_from_others(backup: &Path) {
    let mut names: Vec<_> = STORES.map(|store| format!("{store}.db")).into();
    names.push("secret".to_owned());
    for name in &names {
        assert_eq!(backup.join(name).metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(backup.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_dir(backup).unwrap().count(), names.len(), "nothing else is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_with_folders_of_their_own_are_backed_up_as_one_shop() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("keys");
    assert!(cascade(&["secret", secret.to_str().unwrap()]).stdout(Stdio::null()).status().unwrap().success());
    let secret_flags = ["--secret-file", secret.to_str().unwrap()];
    let mut shop = Shop::five_apart(folder.path(), &[&["--pace", "instant"][..], &secret_flags].concat());
    shop.restart();
    for service in ["order", "payment", "delivery"] {
        shop.service(service).wait_until_ready();
    }
    let customer = Customer::visit(&shop).await;
    let rush = Rush::begin(&customer);
    let_time_pass(Duration::from_millis(400), "orders are under way at the backup").await;
    let acknowledged = rush.acknowledged();
    let target = folder.path().join("backup");
    let folders = ["broker", "order", "payment", "delivery"].map(|service| folder.path().join(service));
    back_up(&target, &secret_flags, &folders);
    rush.end().await;
    shop.kill();
    assert_is_kept_from_others(&target);
    assert_goes_on(&target, &customer, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_erased_is_in_no_backup_and_what_was_not_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let shop = Shop::open(&data, &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    for (key, name) in [("1", "Ottilie"), ("2", "Leopold")] {
        let recipient = json!({"name": name, "address": "7 Heron Weir, Brookside", "note": "n".repeat(400)});
        let body = json!({"lines": [{"product_id": "canoe", "quantity": 1}], "recipient": recipient}).to_string();
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let created = customer.send(Method::POST, "/api/orders", &headers, body).await.unwrap();
        let order = created.json["order_id"].as_str().unwrap();
        customer.end_of(order).await;
        if name == "Ottilie" {
            assert!(customer.delete(order).await.status.is_success());
        }
    }
    let target = folder.path().join("backup");
    back_up(&target, &[], std::slice::from_ref(&data));
    assert_eq!(books::files_with(&target, "Ottilie"), Vec::<String>::new());
    assert_eq!(books::files_with(&target, "Leopold"), ["order.db"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_wait_for_whoever_holds_their_stores_and_nothing_fails() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let lockers = STORES.map(|store| Connection::open(folder.path().join(format!("{store}.db"))).unwrap());
    lockers.iter().for_each(|locker| locker.execute_batch("begin immediate").unwrap());
    let ordering = {
        let customer = customer.clone();
        tokio::spawn(async move { customer.order("key").await })
    };
    let_time_pass(Duration::from_secs(6), "longer than SQLite waits for a lock if nobody tells it otherwise").await;
    assert!(!ordering.is_finished());
    lockers.iter().for_each(|locker| locker.execute_batch("rollback").unwrap());
    let order = ordering.await.unwrap().unwrap();
    customer.all_events_of(&order).await;
    let said = shop.said();
    assert!(said.contains("another program holds the store's lock; waiting") && !said.contains("ERROR"), "{said}");
}

#[test]
fn what_is_wrong_with_a_backup_is_said_in_one_line_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let shop = Shop::open(&data, &[]);
    let half = folder.path().join("half");
    std::fs::create_dir(&half).unwrap();
    std::fs::copy(data.join("order.db"), half.join("order.db")).unwrap();
    let (full, broken) = (folder.path().join("full"), folder.path().join("broken"));
    for path in [&full, &broken] {
        back_up(path, &[], std::slice::from_ref(&data));
    }
    std::fs::write(broken.join("payment.db"), "no store ".repeat(1_000)).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let to = path(&folder.path().join("backup"));
    for (arguments, code, expected) in [
        (vec!["--to".to_owned(), path(&full), path(&data)], 1, "full` is not empty"),
        (vec!["--to".to_owned(), to.clone(), path(&half)], 1, "broker.db, delivery.db, payment.db, provider.db not found"),
        (vec!["--to".to_owned(), to.clone(), path(&data), path(&half)], 1, "stores of two shops"),
        (vec!["--to".to_owned(), to.clone(), path(&broken)], 1, "payment.db` cannot be copied: file is not a database"),
        (vec!["--to".to_owned(), to.clone()], 1, "`cascade-data` cannot be read"),
        (vec!["--to".to_owned(), to.clone(), path(&data), "--secret-file".to_owned(), path(&half.join("none"))], 1, "none`: No such file"),
        (vec![path(&data)], 2, "--to <FOLDER>"),
    ] {
        let mut command = cascade(&["backup"]);
        let (status, said) = run_to_end(command.args(&arguments).current_dir(folder.path()));
        assert_eq!(status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.lines().count() == 1 && said.starts_with("cascade: ") && said.contains(expected), "{arguments:?}: {said}");
    }
    let left: BTreeSet<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["broken", "data", "full", "half"].map(Into::into).into());
    drop(shop);
}
