//! Files that are torn, damaged, or have no room to grow.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
};

use kit::Clock;

use super::*;

/// An event whose data can be found again in a file.
fn marked(id: usize) -> Envelope {
    let mut event = event("/a", &id.to_string(), &format!("s-{}", id % 7));
    event.data = Some(serde_json::value::to_raw_value(&format!("needle {id:04} {}", "x".repeat(100))).unwrap());
    event
}

struct Opened {
    engine: Embedded,
    lifecycle: Lifecycle,
}

impl Opened {
    fn open(folder: &Path) -> Self {
        let lifecycle = Lifecycle::new();
        Self { engine: Embedded::start(folder, &environment(1), &lifecycle).unwrap(), lifecycle }
    }

    async fn close(self) {
        drop(self.engine);
        assert!(self.lifecycle.stop(DEADLINE).await);
        assert_eq!(self.lifecycle.failure(), None);
    }

    /// Reads as far as it goes: the ids and what ended it.
    async fn read_all(&self) -> (Vec<String>, Option<EngineError>) {
        let (mut ids, mut after) = (Vec::new(), Position::START);
        loop {
            match self.engine.read(after, 10).await {
                Ok(page) if page.is_empty() => return (ids, None),
                Ok(page) => {
                    after = page.last().unwrap().position;
                    ids.extend(page.iter().map(|one| serde_json::to_string(&*one.event).unwrap()));
                }
                Err(error) => return (ids, Some(error)),
            }
        }
    }
}

fn texts(ids: impl IntoIterator<Item = usize>) -> Vec<String> {
    ids.into_iter().map(|id| serde_json::to_string(&marked(id)).unwrap()).collect()
}

#[tokio::test]
async fn a_tail_that_was_torn_off_is_left_out_and_the_log_goes_on_behind_what_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Opened::open(folder.path());
    for id in 0..12 {
        opened.engine.append(vec![marked(id)]).await.unwrap();
    }
    // As a power cut leaves it: no orderly end, and the last pages not all there.
    let torn = tempfile::tempdir().unwrap();
    let wal = fs::read(folder.path().join("broker.db-wal")).unwrap();
    let mut prefixes = Vec::new();
    for kept in (0..wal.len()).rev().step_by(1_777) {
        let torn = torn.path().join(kept.to_string());
        fs::create_dir(&torn).unwrap();
        fs::copy(folder.path().join("broker.db"), torn.join("broker.db")).unwrap();
        fs::write(torn.join("broker.db-wal"), &wal[..kept]).unwrap();
        let opened = Opened::open(&torn);
        let (found, error) = opened.read_all().await;
        assert_eq!((&found, error), (&texts(0..found.len()), None), "with {kept} bytes of {}", wal.len());
        prefixes.push(found.len());
        // Whoever was not answered sends again.
        let places = opened.engine.append((0..12).map(marked).collect()).await.unwrap();
        assert_eq!(places.iter().filter(|place| place.is_duplicate).count(), found.len());
        opened.close().await;
        let opened = Opened::open(&torn);
        assert_eq!(opened.read_all().await, (texts(0..12), None));
        opened.close().await;
    }
    assert!(prefixes.is_sorted_by(|more, less| more >= less), "{prefixes:?}");
    assert!(prefixes.contains(&11) && prefixes.contains(&5), "the cuts fall between events too: {prefixes:?}");
    opened.close().await;
}

/// A closed log of `count` events, as one file.
async fn file_of(count: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let opened = Opened::open(folder.path());
    opened.engine.append((0..count).map(marked).collect()).await.unwrap();
    opened.close().await;
    assert!(!folder.path().join("broker.db-wal").exists(), "an orderly end leaves one file");
    fs::read(folder.path().join("broker.db")).unwrap()
}

#[tokio::test]
async fn an_event_with_a_flipped_bit_is_reported_and_never_served() {
    let mut file = file_of(100).await;
    let needle = b"needle 0042";
    let at = file.windows(needle.len()).position(|window| window == needle).unwrap();
    file[at + 20] ^= 0b100;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("broker.db"), &file).unwrap();
    let opened = Opened::open(folder.path());
    let position = Position(43);
    let damaged = EngineError::Damaged { position, reason: "its checksum is wrong".into() };
    let engine = &opened.engine;
    assert_eq!(opened.read_all().await, (texts(0..40), Some(damaged.clone())), "the page that holds it is not served");
    assert_eq!(engine.read(Position(40), 2).await.unwrap().len(), 2, "what is before it is");
    assert_eq!(engine.read(position, 100).await.unwrap().len(), 57, "and what is behind it");
    assert_eq!(engine.read_one(position).await.err(), Some(damaged.clone()));
    assert_eq!(engine.find("/a", &EventId::new("42")).await.err(), Some(damaged.clone()));
    assert_eq!(engine.read_lane("s-0", Position::START, 100).await.err(), Some(damaged.clone()));
    assert_eq!(engine.read_lane("s-1", Position::START, 100).await.unwrap().len(), 15);
    assert!(damaged.to_string().contains("position 43"), "{damaged}");
    // Whether it is the same cannot be known; others can be taken.
    assert!(matches!(engine.append(vec![marked(200), marked(42)]).await, Err(AppendError::Failed(reason)) if reason.contains("43")));
    assert!(engine.find("/a", &EventId::new("200")).await.unwrap().is_none(), "of a failed append nothing is kept");
    assert!(engine.append(vec![marked(100)]).await.is_ok());
    opened.close().await;
}

#[tokio::test]
async fn an_event_that_is_missing_in_the_middle_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Opened::open(folder.path());
    opened.engine.append((0..30).map(marked).collect()).await.unwrap();
    opened.close().await;
    let store = Store::open(folder.path(), "broker", store::MIGRATIONS, Durability::Full).unwrap();
    store.connection.execute("delete from events where position in (15, 30)", []).unwrap();
    drop(store);
    let opened = Opened::open(folder.path());
    let missing = EngineError::Damaged { position: Position(15), reason: "it is missing".into() };
    assert_eq!(opened.read_all().await, (texts(0..10), Some(missing.clone())));
    assert_eq!(opened.engine.read(Position(13), 1).await.unwrap().len(), 1);
    for after in [13, 14] {
        assert_eq!(opened.engine.read(Position(after), 2).await.err(), Some(missing.clone()), "after {after}");
    }
    assert_eq!(opened.engine.read(Position(15), 100).await.unwrap().len(), 14);
    opened.close().await;
}

#[tokio::test]
async fn wherever_a_bit_flips_no_event_is_altered_or_left_out_in_silence() {
    let file = file_of(60).await;
    let (mut reported, mut harmless) = (0, 0);
    // A prime step visits every kind of page at every kind of offset.
    for at in (100..file.len()).step_by(1_201) {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("broker.db"), &flipped).unwrap();
        let lifecycle = Lifecycle::new();
        let Ok(engine) = Embedded::start(folder.path(), &environment(1), &lifecycle) else {
            reported += 1;
            continue;
        };
        let opened = Opened { engine, lifecycle };
        let (found, error) = opened.read_all().await;
        assert_eq!(found, texts(0..found.len()), "byte {at}");
        match error {
            Some(_) => reported += 1,
            None => {
                assert_eq!(found.len(), 60, "byte {at}: nothing is left out in silence");
                harmless += 1;
            }
        }
        drop(opened.engine);
        assert!(opened.lifecycle.stop(DEADLINE).await);
    }
    assert!(reported > 5 && harmless > 5, "{reported} were reported, {harmless} were harmless");
}

#[tokio::test]
async fn a_log_that_claims_to_begin_behind_events_that_it_has_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Opened::open(folder.path());
    opened.engine.append((0..10).map(marked).collect()).await.unwrap();
    opened.close().await;
    let store = Store::open(folder.path(), "broker", store::MIGRATIONS, Durability::Full).unwrap();
    store.connection.execute("update trimmed set position = 4", []).unwrap();
    drop(store);
    let error = Embedded::start(folder.path(), &environment(1), &Lifecycle::new()).unwrap_err();
    assert_eq!(error.to_string(), "table trimmed, row `4`, column position: event 1 is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_write_ahead_file_stays_short_while_commits_never_pause() {
    let folder = tempfile::tempdir().unwrap();
    let lifecycle = Lifecycle::new();
    let environment = Environment { writers: Writers::OwnThreads, ..environment(1) };
    let engine = Embedded::start(folder.path(), &environment, &lifecycle).unwrap();
    let large = serde_json::value::to_raw_value(&"x".repeat(250_000)).unwrap();
    let append = async |name: usize| {
        let mut largest = 0;
        for id in 0..400 {
            let event = Envelope { data: Some(large.clone()), ..event(&format!("/{name}"), &id.to_string(), "x") };
            engine.append(vec![event]).await.unwrap();
            largest = largest.max(fs::metadata(folder.path().join("broker.db-wal")).unwrap().len());
        }
        largest
    };
    // While one is written the other waits already: there is no pause in which the file would be copied to its end.
    let (one, other) = futures_util::join!(append(1), append(2));
    assert!(one.max(other) < 180 << 20, "{one} and {other} bytes, of two hundred million that were written");
    drop(engine);
    assert!(lifecycle.stop(DEADLINE).await);
}

/// A clock that goes only when, and to where, it is told.
struct ManualClock(AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn on_a_full_disk_no_event_is_taken_all_else_goes_on_and_it_resumes_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "broker", store::MIGRATIONS, Durability::Full).unwrap();
    // SQLite answers as it does when the disk has no room.
    store.connection.query_row("pragma max_page_count = 60", [], |_| Ok(())).unwrap();
    let clock = Arc::new(ManualClock(AtomicI64::new(0)));
    let lifecycle = Lifecycle::new();
    let environment = Environment { clock: clock.clone(), ..environment(1) };
    let engine = Embedded::start_on(store, folder.path(), &environment, &lifecycle).unwrap();
    let reserve = folder.path().join("broker.reserve");
    let put = |value: usize| {
        let (key, value, expected_version) = (String::from("a"), Some(value.to_string()), Some(i64::try_from(value).unwrap()));
        vec![StatePut { key, value, expected_version }]
    };
    engine.state_put(put(0)).await.unwrap();
    // More than fits into what is left of a page.
    let many = |from: usize| engine.append((from..from + 20).map(marked).collect());
    let mut taken = 0;
    let full = loop {
        match many(taken).await {
            Ok(_) => taken += 20,
            Err(error) => break error,
        }
        assert!(taken < 10_000, "it never gets full");
    };
    assert_eq!(full, AppendError::DiskFull);
    assert!(!reserve.exists(), "the room that was kept back is given up");
    // Appends and state that wait together: the one is refused, the other is done.
    let (append, state) = futures_util::join!(many(taken), engine.state_put(put(1)));
    assert_eq!((append, state), (Err(AppendError::DiskFull), Ok(())));
    assert_eq!(engine.state_get("a").await.unwrap().unwrap().value, "1");
    assert_eq!(engine.read(Position::START, 10_000).await.unwrap().len(), taken, "no event came by half");
    assert_eq!(engine.bounds().last, Position(i64::try_from(taken).unwrap()));
    // The time comes to look again, and there is still no room.
    clock.0.store(1_000, Ordering::SeqCst);
    assert_eq!(many(taken).await, Err(AppendError::DiskFull));
    engine.trim(Position(i64::try_from(taken / 2).unwrap())).await.unwrap();
    assert_eq!(many(taken).await, Err(AppendError::DiskFull), "it looks only now and then");
    clock.0.store(2_000, Ordering::SeqCst);
    assert!(many(taken).await.is_ok());
    assert!(reserve.exists());
    assert_eq!(lifecycle.failure(), None);
    drop(engine);
    assert!(lifecycle.stop(DEADLINE).await);
}
