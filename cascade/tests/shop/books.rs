//! The shop's stores, read from outside as an auditor would.

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, OpenFlags};

/// What a request that is refused must leave as it was.
#[derive(Debug, PartialEq, Eq)]
pub struct Books {
    /// Every order and how often it changed.
    pub orders: Vec<(String, i64)>,
    pub events: i64,
    pub payments: i64,
    pub deliveries: i64,
    pub subscriptions: i64,
}

impl Books {
    pub fn read(folder: &Path) -> Self {
        let orders = open(folder, "order");
        let mut statement = orders.prepare("select id, version from orders order by id").unwrap();
        Self {
            orders: statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect(),
            events: count(folder, "broker", "select count(*) from events"),
            payments: count(folder, "payment", "select count(*) from payments"),
            deliveries: count(folder, "delivery", "select count(*) from deliveries"),
            subscriptions: count(folder, "broker", "select count(*) from state where key like 'subscription/%'"),
        }
    }
}

/// The store `name`, for reading.
pub fn open(folder: &Path, name: &str) -> Connection {
    Connection::open_with_flags(folder.join(format!("{name}.db")), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

pub fn count(folder: &Path, name: &str, sql: &str) -> i64 {
    open(folder, name).query_row(sql, [], |row| row.get(0)).unwrap()
}

/// How often the payment provider took and returned money for an order.
pub fn charges_and_refunds(folder: &Path, order_id: &str) -> (usize, usize) {
    use payment::provider::EntryKind;
    let ledger = payment::provider::read_ledger(&folder.join("provider.db")).unwrap();
    let of = |kind: EntryKind| ledger.iter().filter(|entry| entry.kind == kind && entry.order_id.to_string() == order_id).count();
    (of(EntryKind::Charge), of(EntryKind::Refund))
}

/// Whether nothing waits any more: no event for the broker, no order for its end.
pub fn are_settled(folder: &Path) -> bool {
    count(folder, "order", "select count(*) from orders where status not in ('completed', 'cancelled')") == 0
        && ["order", "payment", "delivery"].iter().all(|service| count(folder, service, "select count(*) from outbox") == 0)
}

/// How each order ended, or where it stands.
pub fn statuses(folder: &Path) -> BTreeMap<String, String> {
    let orders = open(folder, "order");
    let mut statement = orders.prepare("select id, status from orders").unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// How many events of the log say that the order has ended.
pub fn ends_in_log(folder: &Path) -> BTreeMap<String, i64> {
    let log = open(folder, "broker");
    let ends = "select lane, count(*) from events
        where json_extract(event, '$.type') in ('cascade.OrderCompleted.v1', 'cascade.OrderCancelled.v1')
        group by lane";
    let mut statement = log.prepare(ends).unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// The payment provider's ledger agrees with the orders' `ends`, and the log is whole.
pub fn check(folder: &Path, ends: &BTreeMap<String, String>) {
    let mut money: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for entry in payment::provider::read_ledger(&folder.join("provider.db")).unwrap() {
        let (captures, refunds) = money.entry(entry.order_id.to_string()).or_default();
        match entry.kind {
            payment::provider::EntryKind::Charge => *captures += 1,
            payment::provider::EntryKind::Refund => *refunds += 1,
            payment::provider::EntryKind::Decline => {}
        }
    }
    for (order, end) in ends {
        let (captures, refunds) = money.get(order).copied().unwrap_or_default();
        match end.as_str() {
            "completed" => assert_eq!((captures, refunds), (1, 0), "order {order} is completed"),
            "cancelled" => assert_eq!(captures, refunds, "order {order} is cancelled"),
            other => panic!("order {order} is {other}"),
        }
        assert!(captures <= 1, "order {order} was charged {captures} times");
    }
    let gaps = "select count(*) from (
        select json_extract(event, '$.sequence') as sequence,
            row_number() over (partition by json_extract(event, '$.source'), json_extract(event, '$.subject') order by position) as place
        from events) where sequence <> cast(place as text)";
    assert_eq!(count(folder, "broker", gaps), 0, "every (source, order) counts 1, 2, 3, … in the log");
    for (service, table) in [("order", "orders"), ("payment", "payments"), ("delivery", "deliveries")] {
        let emitted = count(folder, service, &format!("select coalesce(sum(sequence), 0) from {table}"));
        let logged = count(folder, "broker", &format!("select count(*) from events where json_extract(event, '$.source') = '/{service}'"));
        assert_eq!(emitted, logged, "the log has what {service} emitted, once each");
    }
}

/// The names of the files in `folder` in which `text` can be read.
pub fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        // A file that has gone meanwhile holds nothing.
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}
