//! Losing the oldest events.

use kit::{EventId, Position};

use super::{Bench, Open, read_all};
use crate::{
    engine::{EngineError, LogEngine, Scope},
    tests::event,
};

pub(super) async fn suite(open: &Open) {
    what_is_trimmed_is_gone_and_what_is_left_is_whole(open).await;
    a_reader_behind_the_beginning_is_told_so_and_never_skips(open).await;
    a_log_that_was_trimmed_to_its_end_goes_on_where_it_was(open).await;
    a_reader_beside_a_trim_sees_no_hole(open).await;
}

async fn what_is_trimmed_is_gone_and_what_is_left_is_whole(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let places = bench.append("x", 0..1_000).await;
    bench.engine.trim(Position::START).await.unwrap();
    assert_eq!(bench.engine.bounds().first, places[0]);
    bench.engine.trim(places[599]).await.unwrap();
    // Less than what is gone changes nothing.
    bench.engine.trim(places[10]).await.unwrap();
    bench.stop().await;
    for _ in 0..2 {
        let bench = Bench::open(open, folder.path());
        let bounds = bench.engine.bounds();
        assert_eq!((bounds.first, bounds.last), (places[600], places[999]));
        let left: Vec<_> = read_all(bench.engine.as_ref()).await.into_iter().map(|one| one.0).collect();
        assert_eq!(left, places[600..]);
        for scope in [Scope::Lane("x"), Scope::Subject("x")] {
            let page = bench.engine.read_scope(scope, Position::START, 1).await.unwrap();
            assert_eq!(page[0].position, places[600]);
        }
        assert!(bench.engine.find("/a", &EventId::new("599")).await.unwrap().is_none());
        assert!(bench.engine.find("/a", &EventId::new("600")).await.unwrap().is_some());
        bench.stop().await;
    }
    // Its name is free again: the log knows nothing of what it has forgotten.
    let bench = Bench::open(open, folder.path());
    let again = bench.engine.append(vec![event("/a", "0", "x")]).await.unwrap();
    assert_eq!((again[0].is_duplicate, again[0].position > places[999]), (false, true));
    bench.stop().await;
}

async fn a_reader_behind_the_beginning_is_told_so_and_never_skips(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let places = bench.append("x", 0..300).await;
    bench.engine.trim(places[199]).await.unwrap();
    let trimmed = EngineError::Trimmed { first: bench.engine.bounds().first };
    for scope in [Scope::All, Scope::Lane("x"), Scope::Subject("x"), Scope::Owner("nobody")] {
        for behind in [places[0], places[100], places[198]] {
            assert_eq!(bench.engine.read_scope(scope, behind, 10).await.err(), Some(trimmed.clone()), "{scope:?} after {behind}");
        }
        assert!(bench.engine.read_scope(scope, places[199], 10).await.is_ok(), "it has read all that is gone");
        assert!(bench.engine.read_scope(scope, Position::START, 10).await.is_ok(), "it begins where the log does");
    }
    assert_eq!(bench.engine.read(places[199], 1).await.unwrap()[0].position, places[200]);
    assert_eq!(bench.engine.read(Position::START, 1).await.unwrap()[0].position, places[200]);
    assert_eq!(bench.engine.read_one(places[0]).await.err(), Some(trimmed.clone()));
    assert_eq!(bench.engine.read_one(places[199]).await.err(), Some(trimmed));
    assert_eq!(bench.engine.read_one(places[200]).await.unwrap().unwrap().position, places[200]);
    bench.stop().await;
}

async fn a_log_that_was_trimmed_to_its_end_goes_on_where_it_was(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    bench.set_clock(7_000);
    let places = bench.append("x", 0..10).await;
    bench.engine.trim(Position(i64::MAX)).await.unwrap();
    let is_empty = async |engine: &dyn LogEngine| {
        let bounds = engine.bounds();
        assert_eq!((bounds.last, bounds.bytes), (places[9], 0));
        assert!(bounds.first > bounds.last);
        assert!(engine.read(Position::START, 10).await.unwrap().is_empty());
        assert!(engine.read(places[9], 10).await.unwrap().is_empty());
        assert_eq!(engine.tail().last(), places[9]);
    };
    is_empty(bench.engine.as_ref()).await;
    bench.stop().await;
    let bench = Bench::open(open, folder.path());
    is_empty(bench.engine.as_ref()).await;
    // Neither a position nor a time comes back.
    bench.set_clock(1_000);
    let next = bench.append("x", 10..11).await[0];
    assert!(next > places[9]);
    assert_eq!(bench.engine.time_after(places[9]).await.unwrap().unwrap().as_ms(), 7_000);
    assert_eq!(bench.engine.read(places[9], 10).await.unwrap()[0].position, next);
    bench.stop().await;
}

async fn a_reader_beside_a_trim_sees_no_hole(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let places = bench.append("x", 0..800).await;
    bench.stop().await;
    // Opened again, the events are read from where they are kept, not from memory.
    let bench = Bench::open(open, folder.path());
    let engine = bench.engine.as_ref();
    let reader = async |scope: Scope<'static>| {
        let (mut after, mut seen) = (Position::START, Vec::new());
        loop {
            match engine.read_scope(scope, after, 7).await {
                Ok(page) if page.is_empty() => return seen,
                Ok(page) => {
                    seen.extend(page.iter().map(|one| one.position));
                    after = page.last().unwrap().position;
                }
                Err(EngineError::Trimmed { first }) => {
                    assert!(after < first, "only who lost something is told so");
                    // From here it is another reader: its own beginning, without a hole.
                    check_whole(&places, &seen);
                    (after, seen) = (Position(first.0 - 1), Vec::new());
                }
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    let trims = async {
        for index in (0..700).step_by(50) {
            engine.trim(places[index]).await.unwrap();
        }
    };
    let (all, lane, ()) = futures_util::join!(reader(Scope::All), reader(Scope::Lane("x")), trims);
    for seen in [all, lane] {
        check_whole(&places, &seen);
        assert_eq!(seen.last(), places.last());
    }
    bench.stop().await;
}

/// What was seen is one piece of all places.
fn check_whole(places: &[Position], seen: &[Position]) {
    let begin = places.iter().position(|place| Some(place) == seen.first()).unwrap_or(0);
    assert_eq!(&places[begin..begin + seen.len()], seen);
}
