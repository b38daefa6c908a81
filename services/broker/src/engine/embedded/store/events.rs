//! Events: writing them, reading them back as they were written, finding a place among them.

use std::sync::Arc;

use kit::{Envelope, EventId, Position, Recorded, Timestamp, store::StoreError};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Rows, params};

use super::{Mark, mark};
use crate::engine::{EngineError, Entry, Scope, entry::disk_bytes, weigh};

/// Why events could not be read.
#[derive(Debug)]
pub(in super::super) enum ReadError {
    /// What is stored at this position is not what was written.
    Damaged(Position, String),
    Store(StoreError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<ReadError> for EngineError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(position, reason) => Self::Damaged { position, reason },
            ReadError::Store(error) => Self::Failed(error.to_string()),
        }
    }
}

/// Which events to read: those after one position and up to another, so many and about so many bytes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Window {
    pub(in super::super) after: Position,
    pub(in super::super) last: Position,
    pub(in super::super) limit: usize,
    pub(in super::super) bytes_max: usize,
}

/// Writes an event behind `last`, unless (`source`, `id`) is there. Answers its place, if it was written.
pub(in super::super) fn insert(db: &Connection, last: Mark, row: &Entry, now: Timestamp) -> Result<Option<Mark>, StoreError> {
    let (event, lane) = (&row.event, row.event.lane());
    let place = Mark {
        position: last.position.next(),
        recorded_ms: now.as_ms().max(last.recorded_ms),
        total: last.total.saturating_add(row.disk_bytes),
    };
    let other_subject = match event.subject.as_deref() {
        Some(subject) if subject == lane => None,
        Some(subject) => Some(subject),
        None => Some(""),
    };
    let mut statement = db.prepare_cached(
        "insert into events (position, recorded_ms, total, checksum, source, id, lane, other_subject, owner, event)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (source, id) do nothing",
    )?;
    let rows = statement.execute(params![
        place.position.0,
        place.recorded_ms,
        place.total,
        checksum(place, row.checksum),
        event.source,
        event.id.as_str(),
        lane,
        other_subject,
        event.owner,
        row.json
    ])?;
    Ok((rows == 1).then_some(place))
}

/// Where the event stands that `source` calls `id`, and its text.
pub(in super::super) fn find(db: &Connection, source: &str, id: &EventId) -> Result<Option<(Position, String)>, ReadError> {
    let mut statement = db.prepare_cached(
        "select position, recorded_ms, total, checksum, event
         from events
         where source = $1 and id = $2",
    )?;
    let mut rows = statement.query(params![source, id.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (place, json) = checked(row)?;
    Ok(Some((place.position, json.to_owned())))
}

/// The last event; none when there is none.
pub(in super::super) fn last(db: &Connection) -> Result<Option<Mark>, StoreError> {
    let mut statement = db.prepare_cached("select position, recorded_ms, total from events order by position desc limit 1")?;
    Ok(statement.query_row([], mark).optional()?)
}

/// The first event after `after`; none when there is none.
pub(in super::super) fn first_after(db: &Connection, after: Position) -> Result<Option<Mark>, StoreError> {
    let mut statement = db.prepare_cached(
        "select position, recorded_ms, total
         from events
         where position > $1
         order by position
         limit 1",
    )?;
    Ok(statement.query_row([after.0], mark).optional()?)
}

/// The last event from `first` to `last` that is `before` something; the position before `first` when none is. It is searched like an
/// index, so what `before` looks at must never fall.
pub(in super::super) fn search(
    db: &Connection,
    (first, last): (Position, Position),
    before: impl Fn(&Mark) -> bool,
) -> Result<Position, StoreError> {
    let (mut yes, mut no) = (first.0 - 1, last.0 + 1);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        match first_after(db, Position(middle - 1))? {
            // Where positions are left out, the next event speaks for them.
            Some(found) if found.position <= last && before(&found) => yes = found.position.0.max(middle),
            Some(_) | None => no = middle,
        }
    }
    Ok(Position(yes))
}

/// All events of a window, without a hole.
pub(in super::super) fn read(db: &Connection, window: Window) -> Result<Vec<Recorded>, ReadError> {
    let mut statement = db.prepare_cached(
        "select position, recorded_ms, total, checksum, event
         from events
         where position > $1 and position <= $2
         order by position
         limit $3",
    )?;
    let rows = statement.query(params![window.after.0, window.last.0, to_limit(window.limit)])?;
    let page = collect(rows, window)?;
    // The writer leaves no position out: one that is missing was lost.
    let mut expected = window.after.next();
    for event in &page.events {
        if event.position != expected {
            return Err(ReadError::Damaged(expected, String::from("it is missing")));
        }
        expected = expected.next();
    }
    if !page.is_cut && page.events.len() < window.limit && expected <= window.last {
        return Err(ReadError::Damaged(expected, String::from("it is missing")));
    }
    Ok(page.events)
}

/// The events of a window that belong to `scope`.
pub(in super::super) fn read_scope(db: &Connection, scope: Scope<'_>, window: Window) -> Result<Vec<Recorded>, ReadError> {
    let name = match scope {
        Scope::All => return read(db, window),
        Scope::Lane(name) | Scope::Subject(name) | Scope::Owner(name) => name,
    };
    let mut statement = scope_statement(db, scope)?;
    let rows = statement.query(params![name, window.after.0, window.last.0, to_limit(window.limit)])?;
    let events = collect(rows, window)?.events;
    // The checksum is over the event, not over the entry of the index that led there.
    match events.iter().find(|one| !scope.contains(&one.event)) {
        Some(stray) => Err(ReadError::Damaged(stray.position, String::from("an index leads to it that should not"))),
        None => Ok(events),
    }
}

fn scope_statement<'a>(db: &'a Connection, scope: Scope<'_>) -> Result<rusqlite::CachedStatement<'a>, StoreError> {
    let sql = match scope {
        Scope::Owner(_) => {
            "select position, recorded_ms, total, checksum, event
             from events
             where owner = $1 and position > $2 and position <= $3
             order by position
             limit $4"
        }
        Scope::Subject(_) => {
            "select position, recorded_ms, total, checksum, event
             from events
             where lane = $1 and position > $2 and position <= $3 and other_subject is null
             union all
             select position, recorded_ms, total, checksum, event
             from events
             where other_subject = $1 and position > $2 and position <= $3
             order by position
             limit $4"
        }
        Scope::Lane(_) | Scope::All => {
            "select position, recorded_ms, total, checksum, event
             from events
             where lane = $1 and position > $2 and position <= $3
             order by position
             limit $4"
        }
    };
    Ok(db.prepare_cached(sql)?)
}

/// Forgets the events behind `trimmed`, up to `up_to` and at most `limit` of them. Answers what is trimmed now.
pub(in super::super) fn trim(db: &Connection, trimmed: Mark, up_to: Position, limit: u16) -> Result<Mark, StoreError> {
    let up_to = Position(up_to.0.min(trimmed.position.0.saturating_add(i64::from(limit))));
    let mut statement = db.prepare_cached(
        "select position, recorded_ms, total
         from events
         where position > $1 and position <= $2
         order by position desc
         limit 1",
    )?;
    let newest = statement.query_row(params![trimmed.position.0, up_to.0], mark).optional()?;
    db.prepare_cached("delete from events where position > $1 and position <= $2")?.execute(params![trimmed.position.0, up_to.0])?;
    let now = Mark { position: up_to, ..newest.unwrap_or(trimmed) };
    super::set_trimmed(db, now)?;
    Ok(now)
}

/// Gives the events that a version without checksums wrote what they lack. Once: from then on, one without is damaged.
pub(in super::super) fn seal_old(db: &Connection) -> Result<(), StoreError> {
    let unsealed: i64 = db.query_row("select unsealed from trimmed", [], |row| row.get(0))?;
    if unsealed == 0 {
        return Ok(());
    }
    db.execute_batch("begin immediate")?;
    let mut last = Mark::default();
    while last.position.0 < unsealed {
        let Some(mut place) = first_after(db, last.position)? else { break };
        let json: String =
            db.prepare_cached("select event from events where position = $1")?.query_row([place.position.0], |row| row.get(0))?;
        let event = parse(&json).map_err(|reason| StoreError::BadRow {
            table: "events",
            id: place.position.to_string(),
            column: "event",
            reason,
        })?;
        place.total = last.total.saturating_add(disk_bytes(&event, json.len()));
        db.prepare_cached("update events set total = $1, checksum = $2 where position = $3")?.execute(params![
            place.total,
            checksum(place, crc32fast::hash(json.as_bytes())),
            place.position.0
        ])?;
        last = place;
    }
    db.execute("update trimmed set unsealed = 0", [])?;
    super::commit(db)
}

struct Page {
    events: Vec<Recorded>,
    /// Whether it ended because of its size.
    is_cut: bool,
}

fn collect(mut rows: Rows<'_>, window: Window) -> Result<Page, ReadError> {
    let (mut events, mut bytes, mut last) = (Vec::new(), 0, window.after);
    while let Some(row) = rows.next().map_err(|error| unreadable(error, last))? {
        let (place, json) = checked(row)?;
        let event = parse(json).map_err(|reason| ReadError::Damaged(place.position, reason))?;
        bytes += weigh(&event);
        if bytes > window.bytes_max && !events.is_empty() {
            return Ok(Page { events, is_cut: true });
        }
        last = place.position;
        events.push(Recorded { position: place.position, event: Arc::new(event) });
    }
    Ok(Page { events, is_cut: false })
}

/// A page of the file that makes no sense is damage too: behind the last event that could be read.
fn unreadable(error: rusqlite::Error, last: Position) -> ReadError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ReadError::Damaged(last.next(), error.to_string()),
        _ => error.into(),
    }
}

/// The place and the text of a row whose checksum is right.
fn checked<'a>(row: &'a Row<'_>) -> Result<(Mark, &'a str), ReadError> {
    let place = mark(row)?;
    let damaged = |reason: &str| ReadError::Damaged(place.position, reason.to_owned());
    let stored: i64 = row.get(3).map_err(|_| damaged("its checksum is no number"))?;
    let json = row.get_ref(4)?.as_str().map_err(|_| damaged("it is no text"))?;
    if stored != checksum(place, crc32fast::hash(json.as_bytes())) {
        return Err(damaged("its checksum is wrong"));
    }
    Ok((place, json))
}

/// Over all that a reader relies on: the event, whose own CRC-32 is `event`, and its place. Stored: never change it.
fn checksum(place: Mark, event: u32) -> i64 {
    let mut hasher = crc32fast::Hasher::new_with_initial(event);
    hasher.update(&place.position.0.to_le_bytes());
    hasher.update(&place.recorded_ms.to_le_bytes());
    hasher.update(&place.total.to_le_bytes());
    i64::from(hasher.finalize())
}

/// Reads an event as it is stored.
pub(in super::super) fn parse(json: &str) -> Result<Envelope, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

fn to_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
