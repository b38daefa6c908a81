//! State and leases.

use kit::{Timestamp, store::StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::engine::{StateEntry, state::Held};

pub(in super::super) fn get(db: &Connection, key: &str) -> Result<Option<StateEntry>, StoreError> {
    let mut statement = db.prepare_cached(
        "select key, version, value
         from state
         where key = $1",
    )?;
    Ok(statement.query_row([key], entry).optional()?)
}

pub(in super::super) fn list(db: &Connection, prefix: &str) -> Result<Vec<StateEntry>, StoreError> {
    let mut statement = db.prepare_cached(
        "select key, version, value
         from state
         where key >= $1 and key < $2
         order by key",
    )?;
    let end = format!("{prefix}\u{10ffff}");
    let entries = statement.query_map([prefix, &end], entry)?.collect::<Result<_, _>>()?;
    Ok(entries)
}

/// The version of `key` now; zero when it is not there.
pub(in super::super) fn version(db: &Connection, key: &str) -> Result<i64, StoreError> {
    let mut statement = db.prepare_cached("select version from state where key = $1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Writes `key` and counts its version up, or deletes it.
pub(in super::super) fn write(db: &Connection, key: &str, value: Option<&str>) -> Result<(), StoreError> {
    match value {
        Some(value) => {
            let mut statement = db.prepare_cached(
                "insert into state (key, version, value)
                 values ($1, 1, $2)
                 on conflict (key) do update
                 set version = state.version + 1, value = excluded.value",
            )?;
            statement.execute(params![key, value])?;
        }
        None => {
            db.prepare_cached("delete from state where key = $1")?.execute([key])?;
        }
    }
    Ok(())
}

pub(in super::super) fn lease(db: &Connection, name: &str) -> Result<Option<Held>, StoreError> {
    let mut statement = db.prepare_cached("select holder, token, until_ms from leases where name = $1")?;
    let held =
        statement.query_row([name], |row| Ok(Held { holder: row.get(0)?, token: row.get(1)?, until: Timestamp::from_ms(row.get(2)?) }));
    Ok(held.optional()?)
}

pub(in super::super) fn set_lease(db: &Connection, name: &str, held: &Held) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(
        "insert into leases (name, holder, token, until_ms)
         values ($1, $2, $3, $4)
         on conflict (name) do update
         set holder = excluded.holder, token = excluded.token, until_ms = excluded.until_ms",
    )?;
    statement.execute(params![name, held.holder, held.token, held.until.as_ms()])?;
    Ok(())
}

fn entry(row: &Row<'_>) -> rusqlite::Result<StateEntry> {
    Ok(StateEntry { key: row.get(0)?, version: row.get(1)?, value: row.get(2)? })
}
