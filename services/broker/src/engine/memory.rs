//! The engine in memory, for tests: it keeps every promise of an engine but durability.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kit::{BoxFuture, Clock, Envelope, EventId, Position, Recorded, Timestamp};
use tokio_util::task::TaskTracker;

use super::{
    AppendError, Appended, Bounds, EngineError, Entry, Fence, Hold, Lease, LeaseRequest, LogEngine, READ_BYTES_MAX, READ_EVENTS_MAX, Scope,
    StateEntry, StatePut,
    state::Held,
    tail::{self, Tail, TailSender},
};

/// What is kept. It outlives the engines that are opened on it, as a disk does; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Kept>>);

impl MemoryDisk {
    /// From now on there is no room for events, or there is again.
    pub fn set_full(&self, is_full: bool) {
        self.kept().is_full = is_full;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Kept {
    events: BTreeMap<Position, Row>,
    /// Where the event of a source and an id stands.
    names: BTreeMap<(String, EventId), Position>,
    trimmed: Mark,
    last: Mark,
    state: BTreeMap<String, StateEntry>,
    leases: BTreeMap<String, Held>,
    is_full: bool,
}

/// A place, and what has been counted up to it.
#[derive(Debug, Default, Clone, Copy)]
struct Mark {
    position: Position,
    recorded_ms: i64,
    total: i64,
}

#[derive(Debug)]
struct Row {
    entry: Entry,
    mark: Mark,
}

/// A log in memory.
pub struct Memory {
    disk: MemoryDisk,
    clock: Arc<dyn Clock>,
    sender: TailSender,
    tail: Tail,
    users: TaskTracker,
}

impl Memory {
    /// Opens the log that `disk` holds.
    pub fn open(disk: MemoryDisk, clock: Arc<dyn Clock>) -> Self {
        let (sender, tail) = tail::tail(disk.kept().last.position);
        Self { disk, clock, sender, tail, users: TaskTracker::new() }
    }

    fn append_now(&self, events: Vec<Envelope>) -> Result<Vec<Appended>, AppendError> {
        let (entries, mut refusal) = Entry::all(events);
        let mut kept = self.disk.kept();
        if kept.is_full {
            return Err(AppendError::DiskFull);
        }
        let mut landed = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = (entry.event.source.clone(), entry.event.id.clone());
            let known = kept.names.get(&name).and_then(|position| kept.events.get(position));
            match known {
                None => landed.push(Appended { position: kept.push(name, entry, self.clock.now()), is_duplicate: false }),
                Some(row) if entry.says(&row.entry.json) => landed.push(Appended { position: row.mark.position, is_duplicate: true }),
                Some(_) => {
                    refusal = Some(entry.contradiction());
                    break;
                }
            }
        }
        self.sender.move_to(kept.last.position);
        match refusal {
            Some(refusal) => Err(AppendError::Refused { landed, refusal }),
            None => Ok(landed),
        }
    }

    fn read_now(&self, scope: Scope<'_>, after: Position, limit: usize) -> Result<Vec<Recorded>, EngineError> {
        let kept = self.disk.kept();
        let begin = kept.begin(after)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for (position, row) in kept.after(begin) {
            if found.len() >= limit.min(READ_EVENTS_MAX) {
                break;
            }
            if !scope.contains(&row.entry.event) {
                continue;
            }
            bytes += row.entry.weight;
            if bytes > READ_BYTES_MAX && !found.is_empty() {
                break;
            }
            found.push(row.recorded(*position));
        }
        Ok(found)
    }

    fn put_now(&self, fence: Option<&Fence>, puts: Vec<StatePut>) -> Result<(), EngineError> {
        let mut kept = self.disk.kept();
        if let Some(fence) = fence
            && kept.leases.get(&fence.name).is_none_or(|held| held.token != fence.token)
        {
            return Err(EngineError::LeaseLost { name: fence.name.clone() });
        }
        let version = |key: &str| kept.state.get(key).map_or(0, |entry| entry.version);
        if let Some(put) = puts.iter().find(|put| put.expected_version.is_some_and(|expected| version(&put.key) != expected)) {
            return Err(EngineError::VersionConflict { key: put.key.clone() });
        }
        for StatePut { key, value, .. } in puts {
            let version = kept.state.get(&key).map_or(0, |entry| entry.version) + 1;
            match value {
                Some(value) => drop(kept.state.insert(key.clone(), StateEntry { key, value, version })),
                None => drop(kept.state.remove(&key)),
            }
        }
        Ok(())
    }

    fn lease_now(&self, request: LeaseRequest) -> Result<Lease, EngineError> {
        let mut kept = self.disk.kept();
        let held = Held::next(kept.leases.get(&request.name), &request, self.clock.now())?;
        let lease = Lease { name: request.name.clone(), token: held.token, until: held.until };
        kept.leases.insert(request.name, held);
        Ok(lease)
    }
}

impl Kept {
    /// Behind which position a reader at `after` goes on.
    fn begin(&self, after: Position) -> Result<Position, EngineError> {
        let trimmed = self.trimmed.position;
        if after > Position::START && after < trimmed {
            Err(EngineError::Trimmed { first: trimmed.next() })
        } else {
            Ok(after.max(trimmed))
        }
    }

    /// The events after `after`, in order.
    fn after(&self, after: Position) -> impl Iterator<Item = (&Position, &Row)> {
        self.events.range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded))
    }

    fn push(&mut self, name: (String, EventId), entry: Entry, now: Timestamp) -> Position {
        let mark = Mark {
            position: self.last.position.next(),
            recorded_ms: now.as_ms().max(self.last.recorded_ms),
            total: self.last.total + entry.disk_bytes,
        };
        self.last = mark;
        self.names.insert(name, mark.position);
        self.events.insert(mark.position, Row { entry, mark });
        mark.position
    }

    fn trim(&mut self, up_to: Position) {
        while let Some(oldest) = self.events.first_entry().filter(|oldest| *oldest.key() <= up_to) {
            let Row { entry, mark } = oldest.remove();
            self.names.remove(&(entry.event.source.clone(), entry.event.id.clone()));
            self.trimmed = mark;
        }
    }

    /// The last event that is `before` something; what is trimmed when none is.
    fn search(&self, before: impl Fn(&Mark) -> bool) -> Position {
        let found = self.events.values().map(|row| row.mark).take_while(before).last();
        found.unwrap_or(self.trimmed).position
    }

    fn bounds(&self) -> Bounds {
        let bytes = u64::try_from(self.last.total - self.trimmed.total).unwrap_or(0);
        Bounds { first: self.trimmed.position.next(), last: self.last.position, bytes }
    }
}

impl Row {
    fn recorded(&self, position: Position) -> Recorded {
        Recorded { position, event: self.entry.event.clone() }
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl LogEngine for Memory {
    fn append(&self, events: Vec<Envelope>) -> BoxFuture<'_, Result<Vec<Appended>, AppendError>> {
        Box::pin(async move { self.append_now(events) })
    }

    fn read_scope<'a>(&'a self, scope: Scope<'a>, after: Position, limit: usize) -> BoxFuture<'a, Result<Vec<Recorded>, EngineError>> {
        ready(self.read_now(scope, after, limit))
    }

    fn read_one(&self, position: Position) -> BoxFuture<'_, Result<Option<Recorded>, EngineError>> {
        let kept = self.disk.kept();
        let first = kept.bounds().first;
        let is_trimmed = position > Position::START && position < first;
        ready(if is_trimmed {
            Err(EngineError::Trimmed { first })
        } else {
            Ok(kept.events.get(&position).map(|row| row.recorded(position)))
        })
    }

    fn find<'a>(&'a self, source: &'a str, id: &'a EventId) -> BoxFuture<'a, Result<Option<Recorded>, EngineError>> {
        let kept = self.disk.kept();
        let position = kept.names.get(&(source.to_owned(), id.clone())).copied();
        ready(Ok(position.and_then(|position| Some(kept.events.get(&position)?.recorded(position)))))
    }

    fn find_time(&self, at: Timestamp) -> BoxFuture<'_, Result<Position, EngineError>> {
        ready(Ok(self.disk.kept().search(|mark| mark.recorded_ms < at.as_ms())))
    }

    fn find_size(&self, bytes: u64) -> BoxFuture<'_, Result<Position, EngineError>> {
        let kept = self.disk.kept();
        let enough = kept.last.total.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        let is_small = kept.trimmed.total >= enough;
        ready(Ok(if is_small { kept.trimmed.position } else { kept.search(|mark| mark.total < enough).next() }))
    }

    fn time_after(&self, after: Position) -> BoxFuture<'_, Result<Option<Timestamp>, EngineError>> {
        ready(Ok(self.disk.kept().after(after).next().map(|(_, row)| Timestamp::from_ms(row.mark.recorded_ms))))
    }

    fn bounds(&self) -> Bounds {
        self.disk.kept().bounds()
    }

    fn tail(&self) -> Tail {
        self.tail.clone()
    }

    fn trim(&self, up_to: Position) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move {
            self.disk.kept().trim(up_to);
            Ok(())
        })
    }

    fn state_get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StateEntry>, EngineError>> {
        ready(Ok(self.disk.kept().state.get(key).cloned()))
    }

    fn state_list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<StateEntry>, EngineError>> {
        let kept = self.disk.kept();
        let found = kept.state.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        ready(Ok(found.map(|(_, entry)| entry.clone()).collect()))
    }

    fn state_put_fenced(&self, fence: Option<Fence>, puts: Vec<StatePut>) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async move { self.put_now(fence.as_ref(), puts) })
    }

    fn lease(&self, request: LeaseRequest) -> BoxFuture<'_, Result<Lease, EngineError>> {
        Box::pin(async move { self.lease_now(request) })
    }

    fn hold(&self) -> Hold {
        Hold::new(self.users.token())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::conformance, *};
    use crate::tests::{environment, event};

    #[tokio::test]
    async fn the_engine_in_memory_does_what_every_engine_must() {
        // A folder stands for a disk, so that opening it again finds what was there.
        let disks = Mutex::new(BTreeMap::<_, MemoryDisk>::new());
        conformance::suite(move |folder, environment, _| {
            let disk = disks.lock().unwrap().entry(folder.to_owned()).or_default().clone();
            Box::new(Memory::open(disk, environment.clock.clone())) as Box<dyn LogEngine>
        })
        .await;
    }

    #[tokio::test]
    async fn while_there_is_no_room_no_event_is_taken_and_all_else_goes_on() {
        let disk = MemoryDisk::default();
        let engine = Memory::open(disk.clone(), environment(1).clock);
        engine.append(vec![event("/a", "1", "x")]).await.unwrap();
        disk.set_full(true);
        assert_eq!(engine.append(vec![event("/a", "2", "x")]).await, Err(AppendError::DiskFull));
        engine.state_put(vec![StatePut { key: "a".into(), value: Some("1".into()), expected_version: Some(0) }]).await.unwrap();
        assert_eq!(engine.read(Position::START, 10).await.unwrap().len(), 1);
        disk.set_full(false);
        assert!(engine.append(vec![event("/a", "2", "x")]).await.is_ok());
    }
}
