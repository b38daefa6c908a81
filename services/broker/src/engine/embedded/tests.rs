//! The embedded engine: what every engine must do, and what befalls a file.

use std::sync::atomic::{AtomicBool, Ordering};

use kit::environment::{Disk, Writers};
use tokio::sync::Notify;

use super::super::{conformance, entry::disk_bytes};
use super::*;
use crate::tests::{DEADLINE, environment, event};

/// Files that are torn, damaged, or have no room to grow.
mod disk;

#[tokio::test]
async fn the_embedded_engine_does_what_every_engine_must() {
    conformance::suite(|folder, environment, lifecycle| {
        Box::new(Embedded::start(folder, environment, lifecycle).expect("the log opens")) as Box<dyn LogEngine>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_engine_does_the_same_with_its_writer_on_a_thread_of_its_own() {
    conformance::suite(|folder, environment, lifecycle| {
        let environment = Environment { writers: Writers::OwnThreads, ..environment.clone() };
        Box::new(Embedded::start(folder, &environment, lifecycle).expect("the log opens")) as Box<dyn LogEngine>
    })
    .await;
}

#[tokio::test]
async fn a_log_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let lifecycle = Lifecycle::new();
    let _first = Embedded::start(folder.path(), &environment(1), &lifecycle).unwrap();
    assert!(matches!(Embedded::start(folder.path(), &environment(1), &lifecycle), Err(StoreError::InUse { .. })));
}

#[tokio::test]
async fn a_log_of_the_first_version_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut events: Vec<_> = (1..=5).map(|id| event("/a", &id.to_string(), "x")).collect();
    events[1].owner = Some("ann".into());
    events[2].subject = None;
    events[3].extensions.insert("partitionkey".into(), "p".into());
    {
        let store = Store::open(folder.path(), "broker", &store::MIGRATIONS[..1], Durability::Full).unwrap();
        for (position, event) in (7..).zip(&events) {
            let lane = event.subject.as_deref().unwrap_or(event.id.as_str());
            // The clock stepped back after the third one.
            let recorded_ms = if position < 10 { 5_000 } else { 2_000 };
            store
                .connection
                .execute(
                    "insert into events (position, source, id, lane, recorded_ms, event) values ($1, $2, $3, $4, $5, $6)",
                    rusqlite::params![position, event.source, event.id.as_str(), lane, recorded_ms, serde_json::to_string(event).unwrap()],
                )
                .unwrap();
        }
    }
    for _ in 0..2 {
        let lifecycle = Lifecycle::new();
        let engine = Embedded::start(folder.path(), &environment(1), &lifecycle).unwrap();
        let places = async |scope| -> Vec<i64> {
            engine.read_scope(scope, Position::START, 10).await.unwrap().iter().map(|one| one.position.0).collect()
        };
        assert_eq!(places(Scope::All).await, [7, 8, 9, 10, 11]);
        assert_eq!(places(Scope::Lane("x")).await, [7, 8, 11]);
        assert_eq!(places(Scope::Lane("3")).await, [9]);
        assert_eq!(places(Scope::Lane("p")).await, [10]);
        assert_eq!(places(Scope::Subject("x")).await, [7, 8, 10, 11]);
        assert_eq!(places(Scope::Owner("ann")).await, [8]);
        assert_eq!(engine.time_after(Position(10)).await, Ok(Some(Timestamp::from_ms(5_000))));
        let bytes = events.iter().map(|event| disk_bytes(event, serde_json::to_string(event).unwrap().len())).sum::<i64>();
        let bytes = u64::try_from(bytes).unwrap();
        assert_eq!(engine.bounds(), Bounds { first: Position(7), last: Position(11), bytes });
        let again = engine.append(events.clone()).await.unwrap();
        assert!(again.iter().all(|place| place.is_duplicate));
        drop(engine);
        assert!(lifecycle.stop(DEADLINE).await);
    }
}

/// A disk that says when a commit has been made, and then keeps it from being told.
#[derive(Default)]
struct SlowToTell {
    is_slow: AtomicBool,
    committed: Notify,
    go_on: Notify,
}

impl Disk for SlowToTell {
    fn before_commit(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn after_commit(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.is_slow.load(Ordering::SeqCst) {
                self.committed.notify_one();
                self.go_on.notified().await;
            }
        })
    }
}

#[tokio::test]
async fn between_a_commit_and_its_news_a_reader_sees_no_hole_and_nothing_early() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, lifecycle) = (Arc::new(SlowToTell::default()), Lifecycle::new());
    let environment = Environment { disk: disk.clone(), ..environment(1) };
    Embedded::start(folder.path(), &environment, &lifecycle)
        .unwrap()
        .append((0..100).map(|id| event("/a", &id.to_string(), "x")).collect())
        .await
        .unwrap();
    assert!(lifecycle.stop(DEADLINE).await);
    // Opened again, it reads from the file.
    let lifecycle = Lifecycle::new();
    let engine = Embedded::start(folder.path(), &environment, &lifecycle).unwrap();
    disk.is_slow.store(true, Ordering::SeqCst);
    let trimmed = engine.trim(Position(60));
    let look = async {
        disk.committed.notified().await;
        for scope in [Scope::All, Scope::Lane("x"), Scope::Subject("x")] {
            let behind = engine.read_scope(scope, Position(10), 100).await;
            assert_eq!(behind.err(), Some(EngineError::Trimmed { first: Position(61) }), "{scope:?}");
            let from_start = engine.read_scope(scope, Position::START, 100).await.unwrap();
            assert_eq!((from_start.len(), from_start[0].position), (40, Position(61)), "{scope:?}");
        }
        for gone in [1, 2, 60] {
            assert_eq!(engine.read_one(Position(gone)).await.err(), Some(EngineError::Trimmed { first: Position(61) }), "{gone}");
        }
        disk.go_on.notify_one();
    };
    let (trimmed, ()) = futures_util::join!(trimmed, look);
    assert_eq!(trimmed, Ok(()));
    let appended = engine.append(vec![event("/a", "new", "x")]);
    let look = async {
        disk.committed.notified().await;
        assert_eq!(engine.read(Position(90), 100).await.unwrap().len(), 10);
        assert!(engine.read_one(Position(101)).await.unwrap().is_none());
        assert!(engine.find("/a", &EventId::new("new")).await.unwrap().is_none());
        assert_eq!(engine.time_after(Position(100)).await, Ok(None));
        disk.go_on.notify_one();
    };
    let (appended, ()) = futures_util::join!(appended, look);
    assert_eq!(appended.unwrap()[0].position, Position(101));
    assert!(engine.find("/a", &EventId::new("new")).await.unwrap().is_some());
    drop(engine);
    assert!(lifecycle.stop(DEADLINE).await);
}
