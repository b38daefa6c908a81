//! What every engine must do. A second engine is right when it passes this.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use kit::{Lifecycle, Position};

use super::{AppendError, EngineError, LogEngine, Refusal, StatePut};
use crate::tests::{DEADLINE, event};

type Open = dyn Fn(&Path, &Lifecycle) -> Box<dyn LogEngine> + Send + Sync;

/// Runs everything; `open` opens the same log again for the same folder.
pub(crate) async fn suite(open: impl Fn(&Path, &Lifecycle) -> Box<dyn LogEngine> + Send + Sync + 'static) {
    appenders_beside_one_another_each_keep_their_order(&open).await;
    an_event_is_taken_once_also_after_a_restart(&open).await;
    a_refused_event_leaves_an_ordered_prefix(&open).await;
    a_reader_beside_appenders_sees_no_holes(&open).await;
    odd_payloads_come_back_as_they_were(&open).await;
    state_changes_only_from_the_version_that_was_read(&open).await;
    a_lane_is_read_alone(&open).await;
}

async fn stop(engine: Box<dyn LogEngine>, lifecycle: Lifecycle) {
    drop(engine);
    assert!(lifecycle.stop(DEADLINE).await, "the engine ends in time");
    assert_eq!(lifecycle.failure(), None);
}

async fn appenders_beside_one_another_each_keep_their_order(open: &Open) {
    let (folder, lifecycle) = (tempfile::tempdir().unwrap(), Lifecycle::new());
    let engine = open(folder.path(), &lifecycle);
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
    let bounds = engine.bounds().await.unwrap();
    assert_eq!((Some(bounds.first), Some(bounds.last)), (all.first().map(|one| one.0), all.last().map(|one| one.0)));
    stop(engine, lifecycle).await;
}

async fn an_event_is_taken_once_also_after_a_restart(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let mut first = None;
    for round in 0..3 {
        let lifecycle = Lifecycle::new();
        let engine = open(folder.path(), &lifecycle);
        let places = engine.append(vec![event("/a", "1", "x"), event("/a", "2", "x"), event("/a", "1", "x")]).await.unwrap();
        assert_eq!(places.iter().map(|place| place.is_duplicate).collect::<Vec<_>>(), [round > 0, round > 0, true]);
        let positions: Vec<_> = places.iter().map(|place| place.position).collect();
        assert_eq!(positions.first(), positions.last());
        assert_eq!(*first.get_or_insert(positions.clone()), positions);
        assert_eq!(read_all(engine.as_ref()).await.len(), 2);
        assert_eq!(engine.tail().last(), engine.bounds().await.unwrap().last);
        // The same id of another source is another event.
        if round == 2 {
            assert!(!engine.append(vec![event("/b", "1", "x")]).await.unwrap()[0].is_duplicate);
        }
        stop(engine, lifecycle).await;
    }
}

async fn a_refused_event_leaves_an_ordered_prefix(open: &Open) {
    let (folder, lifecycle) = (tempfile::tempdir().unwrap(), Lifecycle::new());
    let engine = open(folder.path(), &lifecycle);
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
    stop(engine, lifecycle).await;
}

async fn a_reader_beside_appenders_sees_no_holes(open: &Open) {
    let (folder, lifecycle) = (tempfile::tempdir().unwrap(), Lifecycle::new());
    let engine: Arc<dyn LogEngine> = open(folder.path(), &lifecycle).into();
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
    drop(engine);
    assert!(lifecycle.stop(DEADLINE).await);
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
        let lifecycle = Lifecycle::new();
        let engine = open(folder.path(), &lifecycle);
        engine.append(events()).await.unwrap();
        let back = engine.read(Position::START, 100).await.unwrap();
        let texts = |events: Vec<kit::Envelope>| events.iter().map(|event| serde_json::to_string(event).unwrap()).collect::<Vec<_>>();
        assert_eq!(texts(back.iter().map(|one| kit::Envelope::clone(&one.event)).collect()), texts(events()));
        assert_eq!(engine.append(Vec::new()).await, Ok(Vec::new()));
        stop(engine, lifecycle).await;
    }
}

async fn state_changes_only_from_the_version_that_was_read(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let put =
        |key: &str, value: Option<&str>, expected_version| StatePut { key: key.into(), value: value.map(str::to_owned), expected_version };
    let lifecycle = Lifecycle::new();
    let engine = open(folder.path(), &lifecycle);
    engine.state_put(vec![put("a/1", Some("1"), 0), put("a/2", Some("2"), 0), put("b", Some("3"), 0)]).await.unwrap();
    let conflict = engine.state_put(vec![put("a/2", Some("9"), 1), put("a/1", Some("9"), 0)]).await;
    assert_eq!(conflict, Err(EngineError::VersionConflict { key: "a/1".into() }));
    engine.state_put(vec![put("a/1", Some("4"), 1), put("a/2", None, 1)]).await.unwrap();
    stop(engine, lifecycle).await;
    let lifecycle = Lifecycle::new();
    let engine = open(folder.path(), &lifecycle);
    let list = engine.state_list("a/").await.unwrap();
    assert_eq!(list.iter().map(|one| (&*one.key, &*one.value, one.version)).collect::<Vec<_>>(), [("a/1", "4", 2)]);
    assert_eq!(engine.state_get("a/2").await, Ok(None));
    engine.state_put(vec![put("a/2", Some("5"), 0)]).await.unwrap();
    // Whoever holds the engine can still write while everything else ends.
    let hold = engine.hold();
    let (stopped, ()) = futures_util::join!(lifecycle.stop(DEADLINE), async {
        lifecycle.halted().await;
        engine.state_put(vec![put("last", Some("1"), 0)]).await.unwrap();
        drop(hold);
    });
    assert!(stopped);
}

async fn a_lane_is_read_alone(open: &Open) {
    let (folder, lifecycle) = (tempfile::tempdir().unwrap(), Lifecycle::new());
    let engine = open(folder.path(), &lifecycle);
    let events = (0..30).map(|n| event("/a", &n.to_string(), &format!("lane-{}", n % 3))).collect();
    engine.append(events).await.unwrap();
    let page = engine.read_lane("lane-1", Position::START, 4).await.unwrap();
    assert_eq!(page.iter().map(|one| one.event.id.as_str()).collect::<Vec<_>>(), ["1", "4", "7", "10"]);
    let rest = engine.read_lane("lane-1", page[3].position, 100).await.unwrap();
    assert_eq!(rest.len(), 6);
    assert!(engine.read_lane("lane-9", Position::START, 4).await.unwrap().is_empty());
    stop(engine, lifecycle).await;
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
