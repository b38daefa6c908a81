//! A disk that fails: the shop stops instead of promising what it cannot keep, and goes on when the disk is well again. A disk that is
//! merely full stops nothing but the log.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod shop;

use std::{collections::BTreeSet, process::Command};

use shop::{Customer, Shop, wait_until};

/// How many orders are enough to meet the failure.
const ORDERS_MAX: usize = 1_000;
/// Which sync of a thread is the first that fails: late enough for a shop that is open and selling.
const FIRST_FAILURE: u32 = 60;
/// Which writes of a thread to the log's write-ahead file find no room: some seconds, since a full disk is tried once a second.
const FULL: &str = "300..308";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_fsync_nothing_more_is_acknowledged_and_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut strace = Command::new("/usr/bin/strace");
    // `-D`: the shop is our child, and the tracer its own.
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    strace.args(["-e", &format!("inject=fsync,fdatasync:error=EIO:when={FIRST_FAILURE}+")]);
    let mut shop = Shop::open_under(strace, folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let mut acknowledged = BTreeSet::new();
    for number in 0..ORDERS_MAX {
        match customer.try_order(&format!("key-{number}")).await {
            Some(order) => assert!(acknowledged.insert(order)),
            None => break,
        }
    }
    assert!(!acknowledged.is_empty() && acknowledged.len() < ORDERS_MAX, "{} orders were acknowledged", acknowledged.len());
    let status = shop.wait();
    assert!(!status.success(), "a shop whose disk fails ends with an error");

    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let customer = customer.at(&shop);
    for order in &acknowledged {
        customer.end_of(order).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_of_the_log_is_full_orders_are_taken_and_wait_and_all_resumes_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("broker.db-wal");
    let mut strace = Command::new("/usr/bin/strace");
    strace.args(["-D", "-f", "-qq", "-o", "/dev/null", "-P", log.to_str().unwrap(), "-e", "trace=pwrite64"]);
    strace.args(["-e", &format!("inject=pwrite64:error=ENOSPC:when={FULL}")]);
    let mut shop = Shop::open_under(strace, folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let mut orders = BTreeSet::new();
    let said = |shop: &mut Shop, words: &str| shop.service("up").said().contains(words);
    while !said(&mut shop, "the disk is full") {
        assert!(orders.len() < ORDERS_MAX, "it never gets full");
        orders.insert(customer.order(&format!("key-{}", orders.len())).await.unwrap());
    }
    orders.insert(customer.order("while-it-is-full").await.unwrap());
    assert!(!said(&mut shop, "there is room on the disk"), "it was full all the time");
    wait_until("there is room again", async || said(&mut shop, "there is room on the disk").then_some(())).await;
    for order in &orders {
        customer.end_of(order).await;
    }
    assert!(folder.path().join("broker.reserve").exists());
}
