//! All SQL of the log: the schema, transactions, and what was trimmed.

use kit::{Position, Timestamp, store::StoreError};
use rusqlite::{Connection, ErrorCode, params};

/// Events.
pub(super) mod events;

/// State and leases.
pub(super) mod state;

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
    // A log that can be trimmed, measured, searched by time, read by owner, and trusted. `recorded_ms` never falls, so that both it and
    // `total` (the bytes of all events so far) can be searched like an index; `checksum` is over what is stored; `other_subject` is
    // there where the subject is not the lane. `event` comes last, since a long one goes to pages of its own. The table is written
    // anew because each of its rows is. `trimmed` is the last event that is gone; events up to `unsealed` have no checksum yet, which
    // `seal_old` mends.
    "alter table events rename to old_events;
     create table events (
       position integer primary key,
       recorded_ms bigint not null,
       total bigint not null,
       checksum bigint not null,
       source text not null,
       id text not null,
       lane text not null,
       other_subject text,
       owner text,
       event text not null,
       constraint events_once unique (source, id)
     );
     insert into events (position, recorded_ms, total, checksum, source, id, lane, other_subject, owner, event)
     select position, max(recorded_ms) over (order by position), 0, 0, source, id, lane,
       case subject when lane then null else coalesce(subject, '') end, owner, event
     from (
       select position, recorded_ms, source, id, event, json_extract(event, '$.subject') as subject,
         json_extract(event, '$.owner') as owner,
         case json_type(event, '$.partitionkey') when 'text' then json_extract(event, '$.partitionkey') else lane end as lane
       from old_events
     )
     order by position;
     drop table old_events;
     create index events_by_lane on events (lane, position);
     create index events_by_other_subject on events (other_subject, position) where other_subject is not null;
     create index events_by_owner on events (owner, position) where owner is not null;
     create table trimmed (
       position bigint not null,
       recorded_ms bigint not null,
       total bigint not null,
       unsealed bigint not null
     );
     insert into trimmed (position, recorded_ms, total, unsealed)
     select coalesce(min(position) - 1, 0), 0, 0, coalesce(max(position), 0) from events;
     create table leases (
       name text primary key,
       holder text not null,
       token bigint not null,
       until_ms bigint not null
     );",
];

/// A place in the log, with what has been counted up to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) position: Position,
    /// When the event there was appended.
    pub(super) recorded_ms: i64,
    /// The bytes of all events up to it, since the first one.
    pub(super) total: i64,
}

impl Mark {
    /// When the event there was appended.
    pub(super) fn recorded_at(&self) -> Timestamp {
        Timestamp::from_ms(self.recorded_ms)
    }
}

pub(super) fn commit(db: &Connection) -> Result<(), StoreError> {
    db.prepare_cached("commit")?.execute([])?;
    Ok(())
}

/// Takes back what was not committed. An error here changes nothing: without a commit nothing is kept.
pub(super) fn roll_back(db: &Connection) {
    let _ = db.execute_batch("rollback");
}

/// Whether there was no room for a write. Nothing is broken: the same may succeed later.
pub(super) fn is_disk_full(error: &StoreError) -> bool {
    matches!(error, StoreError::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
}

/// Deletes need not be written twice: unlike a service's store, the log holds no personal data that must vanish from the file at once.
pub(super) fn forget_fast(db: &Connection) -> Result<(), StoreError> {
    Ok(db.execute_batch("pragma secure_delete = fast")?)
}

/// How many pages of the file are free to be used again.
pub(super) fn free_pages(db: &Connection) -> Result<i64, StoreError> {
    Ok(db.prepare_cached("pragma freelist_count")?.query_row([], |row| row.get(0))?)
}

/// The last event that is gone.
pub(super) fn trimmed(db: &Connection) -> Result<Mark, StoreError> {
    let mut statement = db.prepare_cached("select position, recorded_ms, total from trimmed")?;
    Ok(statement.query_row([], mark)?)
}

/// Checks that nothing is left of what is gone: a reader that begins where the log is said to begin would leave it out.
pub(super) fn check_trimmed(db: &Connection, trimmed: Mark) -> Result<(), StoreError> {
    let left = events::first_after(db, Position::START)?.filter(|left| left.position <= trimmed.position);
    match left {
        Some(left) => {
            let reason = format!("event {} is there", left.position);
            Err(StoreError::BadRow { table: "trimmed", id: trimmed.position.to_string(), column: "position", reason })
        }
        None => Ok(()),
    }
}

/// Says that everything up to `mark` is gone.
pub(super) fn set_trimmed(db: &Connection, mark: Mark) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached("update trimmed set position = $1, recorded_ms = $2, total = $3")?;
    statement.execute(params![mark.position.0, mark.recorded_ms, mark.total])?;
    Ok(())
}

fn mark(row: &rusqlite::Row<'_>) -> rusqlite::Result<Mark> {
    Ok(Mark { position: Position(row.get(0)?), recorded_ms: row.get(1)?, total: row.get(2)? })
}
