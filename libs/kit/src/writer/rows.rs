//! The kit's tables, and every statement on them.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::timers::{TimerMoved, TimerName};
use crate::{
    Context, EventId, Machine, Position, Timestamp,
    effects::PendingEffect,
    machine::{Column, Key, Table},
    relay::OutboxRow,
    service::Idempotency,
    store::{StoreError, WRITE_BUSY},
};

/// Stored for ever; append-only.
pub(crate) const MIGRATIONS: &[&str] = &[
    "
    -- An event that was applied: it is not applied again.
    create table inbox (
        source text not null,
        id text not null,
        applied_ms bigint not null,
        primary key (source, id)
    ) without rowid;
    -- An event that was emitted and that the broker has not acknowledged. The id gives the order of relaying.
    create table outbox (
        id integer primary key autoincrement,
        event text not null
    );
    -- An input for an entity at a later time.
    create table timers (
        kind text not null,
        entity text not null,
        name text not null,
        due_ms bigint not null,
        input text not null,
        context text not null,
        primary key (kind, entity, name)
    ) without rowid;
    -- Something to do in the world whose outcome was not applied yet.
    create table effects (
        id integer primary key autoincrement,
        effect text not null,
        context text not null
    );
    -- What a client's idempotency key made.
    create table idempotency (
        scope text not null,
        key text not null,
        fingerprint text not null,
        kind text not null,
        entity text not null,
        created_ms bigint not null,
        primary key (scope, key)
    ) without rowid;
",
    "
    -- Where an applied event stands in the log: it is forgotten once the log has lost it. Events that were applied before have no place,
    -- and are kept; one that comes again gets its place. Positions and times rise, so both indexes grow at their end.
    alter table inbox add column position bigint;
    create index inbox_position on inbox (position) where position is not null;
    create index idempotency_created on idempotency (created_ms);
",
];

/// An entity as its row holds it.
pub(super) struct EntityRow<S> {
    pub(super) state: S,
    pub(super) version: i64,
    /// The sequence of the last event that it emitted.
    pub(super) sequence: i64,
}

pub(super) fn find_entity<M: Machine>(db: &Connection, key: &M::Key) -> Result<Option<EntityRow<M::State>>, StoreError> {
    let sql = format!("select state, version, sequence from {} where id = $1", key.table());
    let row: Option<(String, i64, i64)> =
        db.prepare_cached(&sql)?.query_row([key.id()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    row.map(|(state, version, sequence)| Ok(EntityRow { state: read_state::<M>(key, &state)?, version, sequence })).transpose()
}

/// Reads an entity's state column.
pub(crate) fn read_state<M: Machine>(key: &M::Key, state: &str) -> Result<M::State, StoreError> {
    serde_json::from_str(state).map_err(|error| bad_row(key.table(), key.id(), "state", &error))
}

pub(super) fn save_entity<M: Machine>(db: &Connection, key: &M::Key, row: &EntityRow<M::State>) -> Result<(), StoreError> {
    let name = key.table();
    let table =
        M::TABLES.iter().find(|table| table.name == name).ok_or_else(|| bad_row(name, key.id(), "id", "no such table of entities"))?;
    let state = to_json(name, key.id(), "state", &row.state)?;
    let mut statement = db.prepare_cached(&upsert(table))?;
    statement.raw_bind_parameter(1, key.id())?;
    statement.raw_bind_parameter(2, row.version)?;
    statement.raw_bind_parameter(3, row.sequence)?;
    statement.raw_bind_parameter(4, state)?;
    for (index, column) in M::index(&row.state).iter().enumerate() {
        match column {
            Column::Text(text) => statement.raw_bind_parameter(5 + index, text)?,
            Column::Int(number) => statement.raw_bind_parameter(5 + index, number)?,
            Column::Null => statement.raw_bind_parameter(5 + index, rusqlite::types::Null)?,
        }
    }
    statement.raw_execute()?;
    Ok(())
}

fn upsert(table: &Table) -> String {
    let columns: Vec<&str> = ["id", "version", "sequence", "state"].iter().chain(table.index_columns).copied().collect();
    let values: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
    let updates: Vec<String> = columns.iter().skip(1).map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "insert into {} ({}) values ({}) on conflict (id) do update set {}",
        table.name,
        columns.join(", "),
        values.join(", "),
        updates.join(", ")
    )
}

/// An event that was applied.
pub(super) struct Applied {
    /// Where it stood when it came last, if that is known.
    pub(super) position: Option<Position>,
}

pub(super) fn find_inbox(db: &Connection, source: &str, id: &EventId) -> Result<Option<Applied>, StoreError> {
    let mut statement = db.prepare_cached("select position from inbox where source = $1 and id = $2")?;
    let row: Option<Option<i64>> = statement.query_row(params![source, id.as_str()], |row| row.get(0)).optional()?;
    Ok(row.map(|position| Applied { position: position.map(Position) }))
}

pub(super) fn insert_inbox(
    db: &Connection,
    source: &str,
    id: &EventId,
    position: Option<Position>,
    now: Timestamp,
) -> Result<(), StoreError> {
    // It may be there only where a fault was planted.
    let sql = "insert into inbox (source, id, applied_ms, position) values ($1, $2, $3, $4) on conflict (source, id) do nothing";
    db.prepare_cached(sql)?.execute(params![source, id.as_str(), now.as_ms(), position.map(|position| position.0)])?;
    Ok(())
}

/// An applied event has come again from another place.
pub(super) fn move_inbox(db: &Connection, source: &str, id: &EventId, position: Position) -> Result<(), StoreError> {
    let sql = "update inbox set position = $1 where source = $2 and id = $3";
    db.prepare_cached(sql)?.execute(params![position.0, source, id.as_str()])?;
    Ok(())
}

/// Forgets up to `rows_max` events that stand before `first`, in the order of their places, as far as they were applied up to `applied_by`.
/// Answers how many.
pub(super) fn forget_inbox(db: &Connection, first: Position, applied_by: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
    let rows: Vec<(String, String, i64)> = {
        let sql = "select source, id, applied_ms from inbox where position < $1 order by position limit $2";
        let mut statement = db.prepare_cached(sql)?;
        let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![first.0, limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect::<Result<_, _>>()?
    };
    let mut statement = db.prepare_cached("delete from inbox where source = $1 and id = $2")?;
    let mut forgotten = 0;
    // At the first that is too new it ends, so that those are not gone through again and again.
    for (source, id, _) in rows.iter().take_while(|(_, _, applied_ms)| *applied_ms <= applied_by.as_ms()) {
        forgotten += statement.execute([source, id])?;
    }
    Ok(forgotten)
}

/// When the first event in the log was applied that is remembered with its place.
pub(super) fn oldest_in_inbox(db: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let sql = "select applied_ms from inbox where position is not null order by position limit 1";
    Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?.map(Timestamp::from_ms))
}

/// Inserts an event that waits for the broker and gives its row's id.
pub(super) fn insert_outbox(db: &Connection, event: &str) -> Result<i64, StoreError> {
    db.prepare_cached("insert into outbox (event) values ($1)")?.execute([event])?;
    Ok(db.last_insert_rowid())
}

pub(super) fn delete_outbox(db: &Connection, ids: &[i64]) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached("delete from outbox where id = $1")?;
    for id in ids {
        statement.execute([id])?;
    }
    Ok(())
}

pub(super) fn find_outbox(db: &Connection) -> Result<Vec<OutboxRow>, StoreError> {
    let mut statement = db.prepare("select id, event from outbox order by id")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (id, event) = row?;
        let event = serde_json::from_str(&event).map_err(|error| bad_row("outbox", id.to_string(), "event", &error))?;
        Ok(OutboxRow { id, event })
    })
    .collect()
}

pub(super) fn set_timer<M: Machine>(
    db: &Connection,
    timer: &TimerName<M>,
    due: Timestamp,
    input: &M::Input,
    context: &Context,
) -> Result<(), StoreError> {
    let sql = "insert into timers (kind, entity, name, due_ms, input, context) values ($1, $2, $3, $4, $5, $6)
        on conflict (kind, entity, name) do update set due_ms = excluded.due_ms, input = excluded.input, context = excluded.context";
    let input = to_json("timers", timer.key.id(), "input", input)?;
    let context = to_json("timers", timer.key.id(), "context", context)?;
    db.prepare_cached(sql)?.execute(params![timer.key.table(), timer.key.id(), timer.name, due.as_ms(), input, context])?;
    Ok(())
}

/// Forgets a timer, if it is there.
pub(super) fn delete_timer<M: Machine>(db: &Connection, timer: &TimerName<M>) -> Result<(), StoreError> {
    let sql = "delete from timers where kind = $1 and entity = $2 and name = $3";
    db.prepare_cached(sql)?.execute(params![timer.key.table(), timer.key.id(), timer.name])?;
    Ok(())
}

/// Deletes a timer that is due and gives what it tells its entity; none if it is gone, or was moved by an earlier input of the batch.
pub(super) fn take_due_timer<M: Machine>(
    db: &Connection,
    timer: &TimerName<M>,
    now: Timestamp,
) -> Result<Option<(M::Input, Context)>, StoreError> {
    let sql = "delete from timers where kind = $1 and entity = $2 and name = $3 and due_ms <= $4 returning input, context";
    let row: Option<(String, String)> = db
        .prepare_cached(sql)?
        .query_row(params![timer.key.table(), timer.key.id(), timer.name, now.as_ms()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let bad = |column, error: &serde_json::Error| bad_row("timers", format!("{}/{}", timer.key.id(), timer.name), column, error);
    row.map(|(input, context)| {
        let input = serde_json::from_str(&input).map_err(|error| bad("input", &error))?;
        let context = serde_json::from_str(&context).map_err(|error| bad("context", &error))?;
        Ok((input, context))
    })
    .transpose()
}

pub(super) fn find_timers<M: Machine>(db: &Connection) -> Result<Vec<TimerMoved<M>>, StoreError> {
    let mut statement = db.prepare("select kind, entity, name, due_ms from timers order by due_ms")?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, i64>(3)?)))?;
    rows.map(|row| {
        let (kind, entity, name, due_ms) = row?;
        let key = M::Key::parse(&kind, &entity)
            .ok_or_else(|| bad_row("timers", &entity, "entity", &format!("no entity of {kind} has this id")))?;
        Ok(TimerMoved { timer: TimerName { key, name }, due: Some(Timestamp::from_ms(due_ms)) })
    })
    .collect()
}

/// Inserts an effect and gives its row's id.
pub(super) fn insert_effect<M: Machine>(db: &Connection, effect: &M::Effect, context: &Context) -> Result<i64, StoreError> {
    let effect = to_json("effects", "new", "effect", effect)?;
    let context = to_json("effects", "new", "context", context)?;
    db.prepare_cached("insert into effects (effect, context) values ($1, $2)")?.execute([effect, context])?;
    Ok(db.last_insert_rowid())
}

/// Deletes an effect; whether it was still there.
pub(super) fn delete_effect(db: &Connection, id: i64) -> Result<bool, StoreError> {
    Ok(db.prepare_cached("delete from effects where id = $1")?.execute([id])? > 0)
}

pub(super) fn find_effects<M: Machine>(db: &Connection) -> Result<Vec<PendingEffect<M>>, StoreError> {
    let mut statement = db.prepare("select id, effect, context from effects order by id")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)))?;
    rows.map(|row| {
        let (id, effect, context) = row?;
        let effect = serde_json::from_str(&effect).map_err(|error| bad_row("effects", id.to_string(), "effect", &error))?;
        let context = serde_json::from_str(&context).map_err(|error| bad_row("effects", id.to_string(), "context", &error))?;
        Ok(PendingEffect { id, effect, context, rests: false })
    })
    .collect()
}

/// What an idempotency key made before.
pub(super) struct Known<K> {
    pub(super) key: K,
    pub(super) is_same_request: bool,
}

pub(super) fn find_idempotency<M: Machine>(db: &Connection, idempotency: &Idempotency) -> Result<Option<Known<M::Key>>, StoreError> {
    let mut statement = db.prepare_cached("select fingerprint, kind, entity from idempotency where scope = $1 and key = $2")?;
    for scope in &idempotency.scopes {
        let row: Option<(String, String, String)> =
            statement.query_row([scope, &idempotency.key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
        if let Some((fingerprint, kind, entity)) = row {
            let no_such_entity = || bad_row("idempotency", &idempotency.key, "entity", "no entity has this id");
            let key = M::Key::parse(&kind, &entity).ok_or_else(no_such_entity)?;
            return Ok(Some(Known { key, is_same_request: fingerprint == hex(&idempotency.fingerprint) }));
        }
    }
    Ok(None)
}

pub(super) fn insert_idempotency<M: Machine>(
    db: &Connection,
    idempotency: &Idempotency,
    key: &M::Key,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "insert into idempotency (scope, key, fingerprint, kind, entity, created_ms) values ($1, $2, $3, $4, $5, $6)";
    let (mut statement, fingerprint) = (db.prepare_cached(sql)?, hex(&idempotency.fingerprint));
    for scope in &idempotency.scopes {
        statement.execute(params![scope, idempotency.key, fingerprint, key.table(), key.id(), now.as_ms()])?;
    }
    Ok(())
}

/// Forgets up to `rows_max` keys that made something before `before`, the oldest first. Answers how many.
pub(super) fn forget_idempotency(db: &Connection, before: Timestamp, rows_max: usize) -> Result<usize, StoreError> {
    let rows: Vec<(String, String)> = {
        let mut statement = db.prepare_cached("select scope, key from idempotency where created_ms < $1 order by created_ms limit $2")?;
        let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let rows = statement.query_map([before.as_ms(), limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<Result<_, _>>()?
    };
    let mut statement = db.prepare_cached("delete from idempotency where scope = $1 and key = $2")?;
    rows.iter().try_fold(0, |forgotten, (scope, key)| Ok(forgotten + statement.execute([scope, key])?))
}

/// Empties the write-ahead file, so that overwritten rows cannot be read there; false if a reader was in the way.
pub(super) fn truncate_write_ahead_file(db: &Connection) -> Result<bool, StoreError> {
    db.busy_timeout(Duration::ZERO)?;
    let is_busy = db.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get::<_, i64>(0));
    db.busy_timeout(WRITE_BUSY)?;
    Ok(is_busy? == 0)
}

fn to_json(table: &'static str, id: impl Into<String>, column: &'static str, value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| bad_row(table, id, column, &error))
}

fn bad_row(table: &'static str, id: impl Into<String>, column: &'static str, reason: &(impl ToString + ?Sized)) -> StoreError {
    StoreError::BadRow { table, id: id.into(), column, reason: reason.to_string() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
