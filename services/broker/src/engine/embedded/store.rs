//! All SQL of the log: events and state.

use std::sync::Arc;

use kit::{Envelope, Position, Recorded, Timestamp, store::StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::engine::{Bounds, StateEntry, weigh};

/// Stored; append-only.
pub(super) const MIGRATIONS: &[&str] = &[
    // Positions are given by the writer: rising, never used again. `recorded_ms` is there so that a place can be found by time.
    "create table events (
       position integer primary key,
       source text not null,
       id text not null,
       lane text not null,
       recorded_ms bigint not null,
       event text not null,
       constraint events_once unique (source, id)
     );
     create index events_by_lane on events (lane, position);
     create table state (
       key text primary key,
       version bigint not null,
       value text not null
     );",
];

pub(super) fn commit(db: &Connection) -> Result<(), StoreError> {
    Ok(db.execute_batch("commit")?)
}

/// Takes back what was not committed. An error here changes nothing: without a commit nothing is kept.
pub(super) fn roll_back(db: &Connection) {
    let _ = db.execute_batch("rollback");
}

/// Writes an event, unless (`source`, `id`) is there; answers whether it was written.
pub(super) fn insert(db: &Connection, position: Position, event: &Envelope, json: &str, now: Timestamp) -> Result<bool, StoreError> {
    let mut statement = db.prepare_cached(
        "insert into events (position, source, id, lane, recorded_ms, event)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (source, id) do nothing",
    )?;
    let rows = statement.execute(params![position.0, event.source, event.id.as_str(), event.lane(), now.as_ms(), json])?;
    Ok(rows == 1)
}

/// Where the event (`source`, `id`) stands, and its text.
pub(super) fn find(db: &Connection, event: &Envelope) -> Result<Option<(Position, String)>, StoreError> {
    let mut statement = db.prepare_cached(
        "select position, event
         from events
         where source = $1 and id = $2",
    )?;
    let found = statement.query_row(params![event.source, event.id.as_str()], |row| Ok((Position(row.get(0)?), row.get(1)?))).optional()?;
    Ok(found)
}

pub(super) fn bounds(db: &Connection) -> Result<Bounds, StoreError> {
    let mut statement =
        db.prepare_cached("select (select coalesce(min(position), 0) from events), (select coalesce(max(position), 0) from events)")?;
    Ok(statement.query_row([], |row| Ok(Bounds { first: Position(row.get(0)?), last: Position(row.get(1)?) }))?)
}

pub(super) fn read(db: &Connection, after: Position, last: Position, limit: usize, bytes_max: usize) -> Result<Vec<Recorded>, StoreError> {
    let mut statement = db.prepare_cached(
        "select position, event
         from events
         where position > $1 and position <= $2
         order by position
         limit $3",
    )?;
    collect(statement.query(params![after.0, last.0, to_limit(limit)])?, bytes_max)
}

pub(super) fn read_lane(
    db: &Connection,
    lane: &str,
    after: Position,
    last: Position,
    limit: usize,
    bytes_max: usize,
) -> Result<Vec<Recorded>, StoreError> {
    let mut statement = db.prepare_cached(
        "select position, event
         from events
         where lane = $1 and position > $2 and position <= $3
         order by position
         limit $4",
    )?;
    collect(statement.query(params![lane, after.0, last.0, to_limit(limit)])?, bytes_max)
}

pub(super) fn state_get(db: &Connection, key: &str) -> Result<Option<StateEntry>, StoreError> {
    let mut statement = db.prepare_cached(
        "select key, version, value
         from state
         where key = $1",
    )?;
    Ok(statement.query_row([key], state_entry).optional()?)
}

pub(super) fn state_list(db: &Connection, prefix: &str) -> Result<Vec<StateEntry>, StoreError> {
    let mut statement = db.prepare_cached(
        "select key, version, value
         from state
         where key >= $1 and key < $2
         order by key",
    )?;
    let end = format!("{prefix}\u{10ffff}");
    let entries = statement.query_map([prefix, &end], state_entry)?.collect::<Result<_, _>>()?;
    Ok(entries)
}

/// The version of `key` now; zero when it is not there.
pub(super) fn state_version(db: &Connection, key: &str) -> Result<i64, StoreError> {
    let mut statement = db.prepare_cached("select version from state where key = $1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?.unwrap_or(0))
}

pub(super) fn state_write(db: &Connection, key: &str, version: i64, value: Option<&str>) -> Result<(), StoreError> {
    match value {
        Some(value) => {
            let mut statement = db.prepare_cached(
                "insert into state (key, version, value)
                 values ($1, $2, $3)
                 on conflict (key) do update
                 set version = excluded.version, value = excluded.value",
            )?;
            statement.execute(params![key, version, value])?;
        }
        None => {
            db.prepare_cached("delete from state where key = $1")?.execute([key])?;
        }
    }
    Ok(())
}

fn collect(mut rows: rusqlite::Rows<'_>, bytes_max: usize) -> Result<Vec<Recorded>, StoreError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let position = Position(row.get(0)?);
        let event: Envelope = serde_json::from_str(row.get_ref(1)?.as_str().unwrap_or_default()).map_err(|error| StoreError::BadRow {
            table: "events",
            id: position.to_string(),
            column: "event",
            reason: error.to_string(),
        })?;
        bytes += weigh(&event);
        if bytes > bytes_max && !found.is_empty() {
            break;
        }
        found.push(Recorded { position, event: Arc::new(event) });
    }
    Ok(found)
}

fn state_entry(row: &Row<'_>) -> rusqlite::Result<StateEntry> {
    Ok(StateEntry { key: row.get(0)?, version: row.get(1)?, value: row.get(2)? })
}

fn to_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
