//! A disk that fails: the shop stops instead of promising what it cannot keep, and goes on when the disk is well again.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod shop;

use std::{collections::BTreeSet, process::Command};

use shop::{Customer, Shop};

/// How many orders are enough to meet the failure.
const ORDERS_MAX: usize = 1_000;
/// Which sync of a thread is the first that fails: late enough for a shop that is open and selling.
const FIRST_FAILURE: u32 = 60;

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
