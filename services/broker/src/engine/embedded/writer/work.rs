//! What the writer is asked to do, and does within a transaction.

use kit::{Position, Recorded, Timestamp, store::StoreError};
use rusqlite::Connection;

use super::super::store::{Mark, events, state};
use crate::engine::{AppendError, Appended, EngineError, Entry, Fence, Lease, LeaseRequest, StatePut, state::Held};

/// How many events one transaction trims, unless many are appended: more would keep appends waiting.
const TRIM_EVENTS: u16 = 128;

/// What the writer is asked to do.
pub(in super::super) enum Work {
    Append(Vec<Entry>),
    Put {
        fence: Option<Fence>,
        puts: Vec<StatePut>,
    },
    Lease(LeaseRequest),
    /// Trims some of the events up to a position.
    Trim(Position),
}

/// What came of it.
pub(in super::super) enum Done {
    Appended(Result<Vec<Appended>, AppendError>),
    Put(Result<(), EngineError>),
    Leased(Result<Lease, EngineError>),
    /// Everything up to here is gone.
    Trimmed(Position),
}

impl Work {
    /// How many rows it writes, about.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Append(events) => events.len(),
            Self::Put { puts, .. } => puts.len(),
            Self::Lease(_) => 1,
            // Beside appends, not instead of them.
            Self::Trim(_) => 1,
        }
    }
}

/// What a transaction has done so far, to be told after its commit.
pub(super) struct Written {
    pub(super) trimmed: Mark,
    pub(super) last: Mark,
    /// New events, with their weights in bytes.
    pub(super) news: Vec<(Recorded, usize)>,
    now: Timestamp,
    /// How many events may be trimmed at once.
    trim_max: u16,
}

impl Written {
    /// A transaction that begins at `now`, after one that appended `appended_before` events: it may trim twice as many, so that a log
    /// never grows faster than it can shrink.
    pub(super) fn new(trimmed: Mark, last: Mark, now: Timestamp, appended_before: usize) -> Self {
        let trim_max = u16::try_from(2 * appended_before).unwrap_or(u16::MAX).max(TRIM_EVENTS);
        Self { trimmed, last, news: Vec::new(), now, trim_max }
    }
}

/// Does one thing. What is refused has written nothing that must be taken back.
pub(super) fn perform(db: &Connection, work: &Work, written: &mut Written) -> Result<Done, StoreError> {
    Ok(match work {
        Work::Append(events) => Done::Appended(append(db, events, written)?),
        Work::Put { fence, puts } => Done::Put(put_all(db, fence.as_ref(), puts)?),
        Work::Lease(request) => Done::Leased(lease(db, request, written.now)?),
        Work::Trim(up_to) => Done::Trimmed(trim(db, *up_to, written)?),
    })
}

fn append(db: &Connection, rows: &[Entry], written: &mut Written) -> Result<Result<Vec<Appended>, AppendError>, StoreError> {
    let mut landed = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(place) = events::insert(db, written.last, row, written.now)? {
            written.last = place;
            written.news.push((Recorded { position: place.position, event: row.event.clone() }, row.weight));
            landed.push(Appended { position: place.position, is_duplicate: false });
            continue;
        }
        match events::find(db, &row.event.source, &row.event.id) {
            Ok(Some((position, json))) if row.says(&json) => landed.push(Appended { position, is_duplicate: true }),
            Ok(_) => return Ok(Err(AppendError::Refused { landed, refusal: row.contradiction() })),
            // Whether it says the same cannot be known: all of this append is taken back.
            Err(events::ReadError::Damaged(position, reason)) => {
                return Err(StoreError::BadRow { table: "events", id: position.to_string(), column: "event", reason });
            }
            Err(events::ReadError::Store(error)) => return Err(error),
        }
    }
    Ok(Ok(landed))
}

/// All of `puts`, or none when a version is not what its writer believes, or the lease is somebody else's.
fn put_all(db: &Connection, fence: Option<&Fence>, puts: &[StatePut]) -> Result<Result<(), EngineError>, StoreError> {
    if let Some(fence) = fence
        && state::lease(db, &fence.name)?.is_none_or(|held| held.token != fence.token)
    {
        return Ok(Err(EngineError::LeaseLost { name: fence.name.clone() }));
    }
    for put in puts {
        if let Some(expected) = put.expected_version
            && state::version(db, &put.key)? != expected
        {
            return Ok(Err(EngineError::VersionConflict { key: put.key.clone() }));
        }
    }
    for put in puts {
        state::write(db, &put.key, put.value.as_deref())?;
    }
    Ok(Ok(()))
}

fn lease(db: &Connection, request: &LeaseRequest, now: Timestamp) -> Result<Result<Lease, EngineError>, StoreError> {
    let before = state::lease(db, &request.name)?;
    let held = match Held::next(before.as_ref(), request, now) {
        Ok(held) => held,
        Err(refused) => return Ok(Err(refused)),
    };
    state::set_lease(db, &request.name, &held)?;
    Ok(Ok(Lease { name: request.name.clone(), token: held.token, until: held.until }))
}

fn trim(db: &Connection, up_to: Position, written: &mut Written) -> Result<Position, StoreError> {
    let up_to = up_to.min(written.last.position);
    if up_to > written.trimmed.position {
        written.trimmed = events::trim(db, written.trimmed, up_to, written.trim_max)?;
    }
    Ok(written.trimmed.position)
}
