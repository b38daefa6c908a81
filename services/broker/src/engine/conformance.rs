//! What every engine must do. A second engine is right when it passes this.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use kit::{Clock, Environment, EventId, Lifecycle, Position, Timestamp};

use super::{AppendError, LogEngine, Refusal, Scope};
use crate::tests::{DEADLINE, environment, event};

/// A place found by time or by size.
mod places;

/// Compare-and-set, and leases.
mod state;

/// Losing the oldest events.
mod trimming;

type Open = dyn Fn(&Path, &Environment, &Lifecycle) -> Box<dyn LogEngine> + Send + Sync;

/// Runs everything; `open` opens the same log again for the same folder.
pub(crate) async fn suite(open: impl Fn(&Path, &Environment, &Lifecycle) -> Box<dyn LogEngine> + Send + Sync + 'static) {
    appenders_beside_one_another_each_keep_their_order(&open).await;
    an_event_is_taken_once_also_after_a_restart(&open).await;
    a_refused_event_leaves_an_ordered_prefix(&open).await;
    a_reader_beside_appenders_sees_no_holes(&open).await;
    odd_payloads_come_back_as_they_were(&open).await;
    large_payloads_come_back_as_they_were_and_in_pages(&open).await;
    one_event_is_found_by_its_place_and_by_its_name(&open).await;
    lanes_subjects_and_owners_are_read_alone(&open).await;
    places::suite(&open).await;
    trimming::suite(&open).await;
    state::suite(&open).await;
}

/// An engine under test, and the world that it lives in.
struct Bench {
    engine: Box<dyn LogEngine>,
    clock: Arc<ManualClock>,
    lifecycle: Lifecycle,
}

/// A clock that goes only when, and to where, it is told.
struct ManualClock(AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::SeqCst))
    }
}

impl Bench {
    /// Opens the log in `folder`, at 1,000 ms.
    fn open(open: &Open, folder: &Path) -> Self {
        let (clock, lifecycle) = (Arc::new(ManualClock(AtomicI64::new(1_000))), Lifecycle::new());
        let environment = Environment { clock: clock.clone(), ..environment(1) };
        Self { engine: open(folder, &environment, &lifecycle), clock, lifecycle }
    }

    fn set_clock(&self, ms: i64) {
        self.clock.0.store(ms, Ordering::SeqCst);
    }

    /// Appends one event of `lane` for each of `ids`; all of them are new.
    async fn append(&self, lane: &str, ids: std::ops::Range<usize>) -> Vec<Position> {
        let events = ids.map(|id| event("/a", &id.to_string(), lane)).collect();
        self.engine.append(events).await.unwrap().into_iter().map(|place| place.position).collect()
    }

    async fn stop(self) {
        drop(self.engine);
        assert!(self.lifecycle.stop(DEADLINE).await, "the engine ends in time");
        assert_eq!(self.lifecycle.failure(), None);
    }
}

async fn appenders_beside_one_another_each_keep_their_order(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let engine = &bench.engine;
    let appender = async |name: usize| {
        for n in 0..50 {
            let events = (0..4).map(|m| event(&format!("/{name}"), &format!("{n}-{m}"), &format!("lane-{m}"))).collect();
            let places = engine.append(events).await.unwrap();
            assert!(places.is_sorted_by_key(|place| place.position));
        }
    };
    futures_util::join!(appender(1), appender(2), appender(3), appender(4));
    let all = read_all(engine.as_ref()).await;
    assert_eq!(all.len(), 800);
    for name in 1..=4 {
        let source = format!("/{name}");
        let ids: Vec<_> = all.iter().filter(|one| one.1.starts_with(&format!("{source} "))).map(|one| one.1.clone()).collect();
        let expected: Vec<_> = (0..50).flat_map(|n| (0..4).map(move |m| (n, m))).map(|(n, m)| format!("{source} {n}-{m}")).collect();
        assert_eq!(ids, expected);
    }
    let bounds = engine.bounds();
    assert_eq!((Some(bounds.first), Some(bounds.last)), (all.first().map(|one| one.0), all.last().map(|one| one.0)));
    bench.stop().await;
}

async fn an_event_is_taken_once_also_after_a_restart(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let mut first = None;
    for round in 0..3 {
        let bench = Bench::open(open, folder.path());
        let engine = &bench.engine;
        let places = engine.append(vec![event("/a", "1", "x"), event("/a", "2", "x"), event("/a", "1", "x")]).await.unwrap();
        assert_eq!(places.iter().map(|place| place.is_duplicate).collect::<Vec<_>>(), [round > 0, round > 0, true]);
        let positions: Vec<_> = places.iter().map(|place| place.position).collect();
        assert_eq!(positions.first(), positions.last());
        assert_eq!(*first.get_or_insert(positions.clone()), positions);
        assert_eq!(read_all(engine.as_ref()).await.len(), 2);
        assert_eq!(engine.tail().last(), engine.bounds().last);
        // The same id of another source is another event.
        if round == 2 {
            assert!(!engine.append(vec![event("/b", "1", "x")]).await.unwrap()[0].is_duplicate);
        }
        bench.stop().await;
    }
}

async fn a_refused_event_leaves_an_ordered_prefix(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let engine = &bench.engine;
    engine.append(vec![event("/a", "1", "x")]).await.unwrap();
    let mut other = event("/a", "1", "x");
    other.ty = "other".into();
    let refused = engine.append(vec![event("/a", "2", "x"), other, event("/a", "3", "x")]).await;
    let Err(AppendError::Refused { landed, refusal }) = refused else { panic!("{refused:?}") };
    assert_eq!((landed.len(), refusal), (1, Refusal::OtherContent { source_name: "/a".into(), id: "1".into() }));
    let mut huge = event("/a", "4", "x");
    huge.data = Some(serde_json::value::to_raw_value(&"x".repeat(300_000)).unwrap());
    let refused = engine.append(vec![event("/a", "5", "x"), huge]).await;
    assert!(matches!(refused, Err(AppendError::Refused { landed, refusal: Refusal::TooLarge { .. } }) if landed.len() == 1));
    let nameless = engine.append(vec![event("", "6", "x")]).await;
    assert!(matches!(nameless, Err(AppendError::Refused { refusal: Refusal::Invalid(_), .. })));
    let ids: Vec<_> = read_all(engine.as_ref()).await.into_iter().map(|one| one.1).collect();
    assert_eq!(ids, ["/a 1", "/a 2", "/a 5"]);
    bench.stop().await;
}

async fn a_reader_beside_appenders_sees_no_holes(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let engine = &bench.engine;
    let appender = async |name: usize| {
        for n in 0..100 {
            engine.append(vec![event(&format!("/{name}"), &n.to_string(), "x")]).await.unwrap();
        }
    };
    let reader = async {
        let (mut seen, mut after, mut tail) = (Vec::new(), Position::START, engine.tail());
        while seen.len() < 300 {
            let page = engine.read(after, 7).await.unwrap();
            if page.is_empty() && tail.look() <= after {
                tail.moved().await.unwrap();
            }
            for one in page {
                assert!(one.position > after);
                after = one.position;
                seen.push(format!("{} {}", one.event.source, one.event.id));
            }
        }
        seen
    };
    let (seen, ..) = futures_util::join!(reader, appender(1), appender(2), appender(3));
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 300);
    assert_eq!(seen, read_all(engine.as_ref()).await.into_iter().map(|one| one.1).collect::<Vec<_>>());
    bench.stop().await;
}

async fn odd_payloads_come_back_as_they_were(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let oddities = [
        r#"{"specversion":"1.0","id":"1","source":"/a","type":"t"}"#,
        r#"{"specversion":"1.0","id":"ids'; drop table events","source":"/ä/😀","type":"t","subject":"\"%_'"}"#,
        r#"{"specversion":"1.0","id":"3","source":"/a","type":"t","x":true,"y":-1,"datacontenttype":"application/json","data":null}"#,
        r#"{"specversion":"1.0","id":"4","source":"/a","type":"t","datacontenttype":"application/json","data":[1e400,"\u0000",{"a":1,"a":2}]}"#,
        r#"{"specversion":"1.0","id":"5","source":"/a","type":"t","sequence":"9223372036854775807"}"#,
    ];
    let events = || oddities.iter().map(|json| serde_json::from_str::<kit::Envelope>(json).unwrap()).collect::<Vec<_>>();
    for _ in 0..2 {
        let bench = Bench::open(open, folder.path());
        let engine = &bench.engine;
        engine.append(events()).await.unwrap();
        let back = engine.read(Position::START, 100).await.unwrap();
        let texts = |events: Vec<kit::Envelope>| events.iter().map(|event| serde_json::to_string(event).unwrap()).collect::<Vec<_>>();
        assert_eq!(texts(back.iter().map(|one| kit::Envelope::clone(&one.event)).collect()), texts(events()));
        assert_eq!(engine.append(Vec::new()).await, Ok(Vec::new()));
        bench.stop().await;
    }
}

async fn large_payloads_come_back_as_they_were_and_in_pages(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let bench = Bench::open(open, folder.path());
        let large = |id: usize| {
            let mut event = event("/a", &id.to_string(), "x");
            event.data = Some(serde_json::value::to_raw_value(&id.to_string().repeat(250_000 / id.to_string().len())).unwrap());
            event
        };
        bench.engine.append((0..40).map(large).collect()).await.unwrap();
        let (mut after, mut pages, mut seen) = (Position::START, 0, 0);
        loop {
            let page = bench.engine.read(after, 1_000).await.unwrap();
            let Some(last) = page.last() else { break };
            for one in &page {
                assert_eq!(one.event.data.as_ref().unwrap().get(), large(seen).data.unwrap().get());
                seen += 1;
            }
            (after, pages) = (last.position, pages + 1);
        }
        assert_eq!(seen, 40);
        assert!(pages > 1, "ten megabytes are not one page");
        bench.stop().await;
    }
}

async fn one_event_is_found_by_its_place_and_by_its_name(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let places = bench.append("x", 0..5).await;
    for (id, place) in places.iter().enumerate() {
        let id = EventId::new(id.to_string());
        let by_place = bench.engine.read_one(*place).await.unwrap().unwrap();
        let by_name = bench.engine.find("/a", &id).await.unwrap().unwrap();
        assert_eq!((by_place.position, by_name.position, &by_place.event.id, &by_name.event.id), (*place, *place, &id, &id));
    }
    assert!(bench.engine.find("/b", &EventId::new("1")).await.unwrap().is_none());
    assert!(bench.engine.find("/a", &EventId::new("9")).await.unwrap().is_none());
    for nowhere in [Position::START, Position(-3), places[4].next(), Position(i64::MAX), Position(i64::MIN)] {
        assert!(bench.engine.read_one(nowhere).await.unwrap().is_none(), "{nowhere}");
    }
    bench.stop().await;
}

async fn lanes_subjects_and_owners_are_read_alone(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let events = (0..60).map(|n| {
        let mut event = event("/a", &n.to_string(), &format!("s-{}", n % 3));
        event.owner = (n % 4 != 0).then(|| format!("o-{}", n % 4));
        // The lane of every sixth one is not its subject, but the name of another's.
        if n % 6 == 1 {
            event.extensions.insert("partitionkey".into(), "s-2".into());
        }
        if n % 20 == 19 {
            event.subject = None;
        }
        event
    });
    let events: Vec<_> = events.collect();
    bench.engine.append(events.clone()).await.unwrap();
    for scope in [
        Scope::All,
        Scope::Lane("s-1"),
        Scope::Lane("s-2"),
        Scope::Lane("19"),
        Scope::Subject("s-1"),
        Scope::Subject("s-2"),
        Scope::Subject("19"),
        Scope::Owner("o-1"),
        Scope::Owner("nobody"),
    ] {
        let expected: Vec<_> = events.iter().filter(|event| scope.contains(event)).map(|event| event.id.clone()).collect();
        for limit in [1, 4, 1_000] {
            let (mut after, mut ids) = (Position::START, Vec::new());
            loop {
                let page = bench.engine.read_scope(scope, after, limit).await.unwrap();
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = last.position;
                ids.extend(page.iter().map(|one| one.event.id.clone()));
            }
            assert_eq!(ids, expected, "{scope:?} by {limit}");
        }
        assert!(bench.engine.read_scope(scope, Position::START, 0).await.unwrap().is_empty());
    }
    bench.stop().await;
}

async fn read_all(engine: &dyn LogEngine) -> Vec<(Position, String)> {
    let (mut all, mut after) = (Vec::new(), Position::START);
    loop {
        let page = engine.read(after, 64).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = last.position;
        all.extend(page.iter().map(|one| (one.position, format!("{} {}", one.event.source, one.event.id))));
    }
}
