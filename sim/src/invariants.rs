//! What must hold in the end, checked against the stores, the log, and the payment provider's own ledger.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use contract::{Event, api::OrderStatus};
use kit::{Position, Recorded, trace::Observation};
use payment::provider::EntryKind;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::{archive::Logged, customers::Acknowledged, losses::Saved, partner::PARTNER};

/// What says of a dead letter that somebody gave it up for good.
const DISCARDED: &str = "%\"discarded\":%";

/// The stores of a run, read from outside.
#[derive(Clone)]
pub(crate) struct Stores {
    folder: PathBuf,
}

/// What the provider's ledger says of one order, in minor units.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Money {
    captures: i64,
    captured: i64,
    refunded: i64,
}

impl Stores {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }

    /// Whether every order has reached an end.
    pub(crate) fn are_all_ended(&self) -> bool {
        self.count("order", "orders where status not in ('completed', 'cancelled', 'deleted')") == Some(0)
    }

    /// Whether no event waits for the broker.
    pub(crate) fn are_all_relayed(&self) -> bool {
        ["order", "payment", "delivery"].iter().all(|service| self.count(service, "outbox") == Some(0))
    }

    /// Whether no event is given up, but for those that somebody gave up for good.
    pub(crate) fn has_no_dead_letters(&self) -> bool {
        self.count("broker", &format!("state where key like 'dead/%' and value not like '{DISCARDED}'")) == Some(0)
    }

    /// Whether every service of the shop has told the broker what it asks for.
    pub(crate) fn are_all_registered(&self) -> bool {
        self.count("broker", "state where key in ('subscription/order', 'subscription/payment', 'subscription/delivery')") == Some(3)
    }

    /// Whether every replay has ended.
    pub(crate) fn are_replays_ended(&self) -> bool {
        self.count("broker", "state where key like 'replay/%' and json_extract(value, '$.ended') is null") == Some(0)
    }

    /// Up to where some subscription has let go of the log.
    pub(crate) fn released(&self) -> rusqlite::Result<Position> {
        let sql = "select coalesce(max(cast(json_extract(value, '$.released') as integer)), 0) from state where key like 'floor/%'";
        self.open("broker")?.query_row(sql, [], |row| row.get(0).map(Position))
    }

    /// The outsider's replays, as the broker has kept them.
    pub(crate) fn replays(&self) -> anyhow::Result<Vec<Value>> {
        let rows = self.rows("broker", &format!("select key, value from state where key like 'replay/{PARTNER}/%'"))?;
        rows.iter().map(|(_, text)| serde_json::from_str(text).context("a replay")).collect()
    }

    /// The outsider's books as the broker has saved them; none when it has none yet.
    pub(crate) fn partner_books(&self) -> anyhow::Result<Option<Saved>> {
        let rows = self.rows("broker", &format!("select key, value from state where key = '{}'", Saved::key()))?;
        rows.first().map(|(_, text)| Saved::parse(text).context("the partner's books")).transpose()
    }

    /// Those of `events` that `service` has not applied.
    pub(crate) fn unapplied<'a>(&self, service: &str, events: impl Iterator<Item = &'a Logged>) -> rusqlite::Result<Vec<&'a Logged>> {
        let db = self.open(service)?;
        let mut inbox = db.prepare("select 1 from inbox where source = $1 and id = $2")?;
        let mut unapplied = Vec::new();
        for event in events {
            if !inbox.exists(event.name())? {
                unapplied.push(event);
            }
        }
        Ok(unapplied)
    }

    /// For people: what is not finished.
    pub(crate) fn describe_unfinished(&self) -> String {
        let orders = self.rows("order", "select id, status from orders where status not in ('completed', 'cancelled', 'deleted')");
        let waiting: Vec<String> = ["order", "payment", "delivery"]
            .iter()
            .map(|service| {
                format!(
                    "{service}: {:?} in the outbox, {:?} timers, {:?} effects",
                    self.count(service, "outbox"),
                    self.count(service, "timers"),
                    self.count(service, "effects")
                )
            })
            .collect();
        format!("{:?}; {}", orders.unwrap_or_default(), waiting.join("; "))
    }

    /// What the log holds, in order.
    pub(crate) fn log(&self) -> anyhow::Result<Vec<Recorded>> {
        let rows = self
            .open("broker")?
            .prepare("select position, event from events order by position")?
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?
            .collect::<Result<Vec<_>, _>>()?;
        let parse = |json: &str| serde_json::from_str(json).map(Arc::new).context("an event of the log");
        rows.into_iter().map(|(position, json)| Ok(Recorded { position: Position(position), event: parse(&json)? })).collect()
    }

    /// Checks everything against `log`, which is all that the log ever held; gives what does not hold.
    pub(crate) fn check(&self, acknowledged: &[Acknowledged], log: &[Logged], observations: &[Observation]) -> anyhow::Result<Vec<String>> {
        let mut violations = Vec::new();
        self.check_orders(acknowledged, &mut violations)?;
        self.check_sequences(log, &mut violations)?;
        check_cascades(log, &mut violations);
        check_applications(log, observations, &mut violations);
        let dead = format!("select key, value from state where key like 'dead/%' and value not like '{DISCARDED}'");
        let dead: Vec<_> = self.rows("broker", &dead).unwrap_or_default();
        violations.extend(dead.iter().map(|row| format!("a dead letter: {row:?}")));
        Ok(violations)
    }

    /// Invariants 1, 2, 3, 8: acknowledged orders are there, have ended, and the money is where it belongs.
    fn check_orders(&self, acknowledged: &[Acknowledged], violations: &mut Vec<String>) -> anyhow::Result<()> {
        let states: BTreeMap<String, String> = self.rows("order", "select id, status from orders")?.into_iter().collect();
        let ledger = self.ledger()?;
        for Acknowledged { order } in acknowledged {
            let (id, total) = (order.order_id.to_string(), order.total.amount_minor());
            let money = ledger.get(&id).copied().unwrap_or_default();
            match states.get(&id) {
                None => violations.push(format!("order {id} was acknowledged and is gone")),
                Some(status) if status == OrderStatus::Completed.as_str() => {
                    if (money.captured, money.refunded) != (total, 0) {
                        violations.push(format!("order {id} of {total} is completed and the ledger says {money:?}"));
                    }
                }
                Some(status) if status == OrderStatus::Cancelled.as_str() => {
                    if money.captured != money.refunded {
                        violations.push(format!("order {id} is cancelled and the ledger says {money:?}"));
                    }
                }
                Some(status) => violations.push(format!("order {id} has not ended: {status}")),
            }
        }
        for (id, money) in &ledger {
            if money.captures > 1 || money.refunded > money.captured {
                violations.push(format!("order {id}: the ledger says {money:?}"));
            }
            if !states.contains_key(id) {
                violations.push(format!("the ledger knows order {id} and the order service does not"));
            }
        }
        Ok(())
    }

    /// Invariant 6: in the log each (source, order) counts 1, 2, 3, … as far as the emitting entity says.
    fn check_sequences(&self, log: &[Logged], violations: &mut Vec<String>) -> anyhow::Result<()> {
        let mut counted: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for Logged { event, .. } in log.iter().filter(|one| !one.is_again) {
            let last = counted.entry((&event.source, event.lane())).or_default();
            *last += 1;
            if event.sequence != Some(*last) {
                violations.push(format!(
                    "{} of order {} has sequence {:?} where {last} comes next",
                    event.ty,
                    event.lane(),
                    event.sequence
                ));
            }
        }
        for (service, table) in [("order", "orders"), ("payment", "payments"), ("delivery", "deliveries")] {
            for (id, sequence) in self.rows(service, &format!("select id, cast(sequence as text) from {table}"))? {
                let logged = counted.get(&(format!("/{service}").as_str(), id.as_str())).copied().unwrap_or(0);
                if sequence != logged.to_string() {
                    violations.push(format!("{service} emitted {sequence} events of order {id} and the log has {logged}"));
                }
            }
        }
        Ok(())
    }

    fn ledger(&self) -> anyhow::Result<BTreeMap<String, Money>> {
        let mut ledger: BTreeMap<String, Money> = BTreeMap::new();
        for entry in payment::provider::read_ledger(&self.folder.join("provider").join("provider.db"))? {
            let money = ledger.entry(entry.order_id.to_string()).or_default();
            match entry.kind {
                EntryKind::Charge => {
                    money.captures += 1;
                    money.captured += entry.amount.amount_minor();
                }
                EntryKind::Refund => money.refunded += entry.amount.amount_minor(),
                EntryKind::Decline => {}
            }
        }
        Ok(ledger)
    }

    fn open(&self, service: &str) -> rusqlite::Result<Connection> {
        Connection::open_with_flags(self.folder.join(service).join(format!("{service}.db")), OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn count(&self, service: &str, from: &str) -> Option<i64> {
        self.open(service).ok()?.query_row(&format!("select count(*) from {from}"), [], |row| row.get(0)).ok()
    }

    fn rows(&self, service: &str, sql: &str) -> rusqlite::Result<Vec<(String, String)>> {
        self.open(service)?.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }
}

/// Invariants 4 and 5: what may happen to one order, by the log.
fn check_cascades(log: &[Logged], violations: &mut Vec<String>) {
    #[derive(Default)]
    struct Seen {
        is_paid: bool,
        under_way: Option<String>,
        completed_deliveries: u32,
        offers_open: i32,
        ends: Vec<&'static str>,
    }
    let mut orders: BTreeMap<&str, Seen> = BTreeMap::new();
    for Logged { event: envelope, .. } in log.iter().filter(|one| !one.is_again) {
        let id = envelope.lane();
        let seen = orders.entry(id).or_default();
        let event = match Event::read(&envelope.ty, envelope.data.as_deref()) {
            Ok(event) => event,
            Err(error) => {
                violations.push(format!("order {id}: {error}"));
                continue;
            }
        };
        match &event {
            Event::PaymentAccepted(_) => seen.is_paid = true,
            Event::WorkerSearchCompleted(_) => seen.offers_open += 1,
            Event::WorkerAcceptedJob(_) | Event::WorkerDeclinedJob(_) | Event::WorkerOfferExpired(_) | Event::WorkerOfferWithdrawn(_) => {
                seen.offers_open -= 1
            }
            Event::DeliveryStarted(started) => {
                if !seen.is_paid {
                    violations.push(format!("order {id} is under way and not paid"));
                }
                if let Some(worker) = seen.under_way.replace(started.worker_id.to_string()) {
                    violations.push(format!("order {id} has two workers: {worker} and {}", started.worker_id));
                }
            }
            Event::DeliveryAborted(_) | Event::DeliveryCancelled(_) => seen.under_way = None,
            Event::DeliveryCompleted(_) => {
                seen.under_way = None;
                seen.completed_deliveries += 1;
            }
            Event::OrderCancelled(_) | Event::OrderCompleted(_) => seen.ends.push(event.name()),
            _ => {}
        }
        if !(0..=1).contains(&seen.offers_open) {
            violations.push(format!("order {id} has {} open offers after {}", seen.offers_open, event.name()));
        }
    }
    for (id, seen) in orders {
        if seen.ends.len() != 1 || seen.completed_deliveries > 1 || seen.offers_open != 0 || seen.under_way.is_some() {
            violations.push(format!(
                "order {id} ended as {:?} with {} deliveries, {} open offers",
                seen.ends, seen.completed_deliveries, seen.offers_open
            ));
        }
        if seen.ends == ["OrderCancelled"] && seen.completed_deliveries > 0 {
            violations.push(format!("order {id} is cancelled and delivered"));
        }
        if seen.ends == ["OrderCompleted"] && seen.completed_deliveries == 0 {
            violations.push(format!("order {id} is completed and was not delivered"));
        }
    }
}

/// Each service applies an event once, and the events of one order in the order of the log.
fn check_applications(log: &[Logged], observations: &[Observation], violations: &mut Vec<String>) {
    let positions: BTreeMap<_, _> = log.iter().filter(|one| !one.is_again).map(|one| (one.name(), one.position)).collect();
    let mut applied = BTreeSet::new();
    let mut last: BTreeMap<(&str, &str), Position> = BTreeMap::new();
    for observation in observations {
        let Observation::Applied { service, source, id, lane } = observation else { continue };
        if !applied.insert((service, source, id)) {
            violations.push(format!("{service} applied event {id} of {source} twice"));
            continue;
        }
        let Some(position) = positions.get(&(source.as_str(), id.as_str())) else {
            violations.push(format!("{service} applied event {id} of {source}, which the log does not have"));
            continue;
        };
        if let Some(before) = last.insert((service, lane), *position)
            && before > *position
        {
            violations.push(format!("{service} applied events of order {lane} out of sequence"));
        }
    }
}
