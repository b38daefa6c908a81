//! The simulated provider's ledger: append-only, a file of its own, never in payment's transaction. It is the oracle of what was
//! really done with money.

use std::path::Path;

use contract::{Currency, Money, OrderId, events::DeclineReason};
use kit::store::StoreError;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::domain::ProviderKey;

/// The ledger's changes, oldest first. Append-only.
pub(super) const MIGRATIONS: &[&str] = &[
    // One entry for each key: what was done under it, once.
    "create table entries (
        position integer primary key,
        key text not null constraint entries_key unique,
        order_id text not null,
        kind text not null check (kind in ('charge', 'refund', 'decline')),
        amount_minor bigint not null check (amount_minor >= 0),
        currency text not null,
        reason text,
        charge_key text
    );
    create index entries_charge_key on entries (charge_key) where charge_key is not null;",
    // Calls that were turned away because the provider was down: once for each key, so that a repetition gets through.
    "create table outages (key text primary key);",
];

/// What an entry of the ledger did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Took money.
    Charge,
    /// Returned money.
    Refund,
    /// Refused to take money; nothing moved.
    Decline,
}

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The idempotency key; no two entries have the same.
    pub key: ProviderKey,
    /// Whose money.
    pub order_id: OrderId,
    /// What was done.
    pub kind: EntryKind,
    /// How much.
    pub amount: Money,
    /// Why a charge was declined.
    pub reason: Option<DeclineReason>,
    /// Which charge a refund returns.
    pub charge_key: Option<ProviderKey>,
}

/// Reads the whole ledger in the file `path`, oldest entry first, without changing it.
///
/// # Errors
/// When the file cannot be read, or a row breaks the model.
pub fn read_ledger(path: &Path) -> Result<Vec<Entry>, StoreError> {
    find_entries(&Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?)
}

const COLUMNS: &str = "key, order_id, kind, amount_minor, currency, reason, charge_key";

/// Every entry, oldest first.
pub(super) fn find_entries(connection: &Connection) -> Result<Vec<Entry>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from entries order by position"))?;
    let mut rows = statement.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(entry(row)?);
    }
    Ok(entries)
}

/// The entry of `key`.
pub(super) fn find_entry(connection: &Connection, key: &ProviderKey) -> Result<Option<Entry>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from entries where key = $1"))?;
    let mut rows = statement.query([key.as_str()])?;
    rows.next()?.map(entry).transpose()
}

/// How many minor units of the charge `key` were returned.
pub(super) fn sum_refunds(connection: &Connection, key: &ProviderKey) -> Result<i64, StoreError> {
    let mut statement = connection.prepare_cached("select coalesce(sum(amount_minor), 0) from entries where charge_key = $1")?;
    Ok(statement.query_row([key.as_str()], |row| row.get(0))?)
}

/// Appends `entry`.
pub(super) fn append(connection: &Connection, entry: &Entry) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "insert into entries (key, order_id, kind, amount_minor, currency, reason, charge_key)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )?;
    statement.execute(params![
        entry.key.as_str(),
        entry.order_id.to_string(),
        kind_text(entry.kind),
        entry.amount.amount_minor(),
        entry.amount.currency().code(),
        entry.reason.map(reason_text),
        entry.charge_key.as_ref().map(ProviderKey::as_str),
    ])?;
    Ok(())
}

/// Notes that a call under `key` is turned away; answers whether it is the first.
pub(super) fn note_outage(connection: &Connection, key: &ProviderKey) -> Result<FirstOutage, StoreError> {
    let mut find = connection.prepare_cached("select 1 from outages where key = $1")?;
    if find.query_row([key.as_str()], |_| Ok(())).optional()?.is_some() {
        return Ok(FirstOutage::WasBefore);
    }
    connection.prepare_cached("insert into outages (key) values ($1)")?.execute([key.as_str()])?;
    Ok(FirstOutage::IsNow)
}

/// Whether a key was turned away before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstOutage {
    IsNow,
    WasBefore,
}

fn entry(row: &Row<'_>) -> Result<Entry, StoreError> {
    let key: String = row.get(0)?;
    let bad = |column: &'static str, reason: String| StoreError::BadRow { table: "entries", id: key.clone(), column, reason };
    let order_id = row.get::<_, String>(1)?.parse().map_err(|error| bad("order_id", format!("{error}")))?;
    let kind: String = row.get(2)?;
    let kind = match kind.as_str() {
        "charge" => EntryKind::Charge,
        "refund" => EntryKind::Refund,
        "decline" => EntryKind::Decline,
        other => return Err(bad("kind", format!("`{other}` is no kind"))),
    };
    let currency: Currency = row.get::<_, String>(4)?.parse().map_err(|error| bad("currency", format!("{error}")))?;
    let amount = Money::new(row.get(3)?, currency).map_err(|error| bad("amount_minor", error.to_string()))?;
    let reason = match row.get::<_, Option<String>>(5)?.as_deref() {
        None => None,
        Some("card_declined") => Some(DeclineReason::CardDeclined),
        Some("insufficient_funds") => Some(DeclineReason::InsufficientFunds),
        Some(other) => return Err(bad("reason", format!("`{other}` is no reason"))),
    };
    if (kind == EntryKind::Decline) != reason.is_some() {
        return Err(bad("reason", String::from("a decline has a reason, and nothing else has one")));
    }
    let charge_key = row.get::<_, Option<String>>(6)?.map(ProviderKey::from_ledger);
    Ok(Entry { key: ProviderKey::from_ledger(key), order_id, kind, amount, reason, charge_key })
}

fn kind_text(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Charge => "charge",
        EntryKind::Refund => "refund",
        EntryKind::Decline => "decline",
    }
}

fn reason_text(reason: DeclineReason) -> &'static str {
    match reason {
        DeclineReason::CardDeclined => "card_declined",
        DeclineReason::InsufficientFunds => "insufficient_funds",
    }
}
