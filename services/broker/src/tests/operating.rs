//! Pausing, seeking, deciding on dead letters, and the books behind it.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use kit::{Envelope, Position};
use serde_json::{Value, json};

use super::{
    DEADLINE,
    api::{OPERATOR, Who},
    delivery::{Subscriber, Temper, dead_letters, let_time_pass, live, numbered, start, wait_until},
    environment, shop,
    subscribing::subscribe,
};
use crate::{
    Broker, audit,
    dispatcher::{Decision, State, Status},
    engine::LogEngine,
    http::audit::answer_part,
    lanes::{Counts, LetterState},
    retention::Holders,
    subscriptions::{By, Expected, wanted::Start},
    tests::Shop,
};

impl Shop {
    pub(super) async fn post(&self, who: Who<'_>, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let request = who.ask(Method::POST, path).header("content-type", "application/json");
        self.call(request.body(body.map_or(axum::body::Body::empty(), |body| body.to_string().into())).unwrap()).await
    }
}

fn status(broker: &Broker) -> Status {
    broker.subscription("tester").unwrap().status
}

fn subscriber(temper: Temper) -> Arc<Subscriber> {
    Subscriber::new(temper, 1)
}

#[test]
fn a_paused_subscription_gets_nothing_also_after_a_restart_and_what_it_asks_for_meanwhile_counts_for_all_that_waits() {
    let (folder, subscriber) = (tempfile::tempdir().unwrap(), subscriber(Temper::Fine));
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &subscriber, json!({})).await.unwrap();
        broker.publisher().publish(&[numbered("a", 1)]).await.unwrap();
        subscriber.until(1).await;
        broker.shared.subscriptions.pause("tester", true).await.unwrap();
        assert_eq!((status(&broker).state, status(&broker).next_attempt), (State::Paused, None));
        broker.publisher().publish(&[numbered("b", 1), numbered("c", 1)]).await.unwrap();
        let_time_pass(Duration::from_secs(30)).await;
        assert_eq!((subscriber.total(), status(&broker).lag_events), (1, 2));
        assert!(lifecycle.stop(DEADLINE).await);
    });
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(2)).await;
        subscribe(&broker, &subscriber, json!({})).await.unwrap();
        let_time_pass(Duration::from_secs(30)).await;
        assert_eq!((subscriber.total(), status(&broker).state), (1, State::Paused));
        let patch = json!({"filters": [{"exact": {"subject": "c"}}]});
        broker.shared.subscriptions.patch("tester", &patch, By::Shop, Expected::Anything).await.unwrap();
        broker.shared.subscriptions.pause("tester", false).await.unwrap();
        subscriber.until(2).await;
        wait_until(|| status(&broker).floor == Position(3)).await;
        assert_eq!((subscriber.lanes(), status(&broker).state), (vec!["a".into(), "c".into()], State::Active));
        assert_eq!(broker.audit("tester").await.unwrap(), Counts { delivered: 2, ..Counts::default() });
    });
}

#[test]
fn a_seek_starts_over_and_dissolves_what_was_set_aside_and_given_up() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), subscriber(Temper::Hates("bad", 422)));
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, json!({})).await.unwrap();
        let events = [numbered("good", 1), numbered("bad", 1), numbered("bad", 2), numbered("good", 2), numbered("good", 3)];
        broker.publisher().publish(&events).await.unwrap();
        taker.until(3).await;
        wait_until(|| status(&broker).dead_letters == 1 && status(&broker).floor == Position(5)).await;
        let before = broker.audit("tester").await.unwrap();
        assert_eq!(before, Counts { delivered: 3, deferred: 1, dead_lettered: 1, ..Counts::default() });

        // Back to the event at 2: the dead letter at 2 is forgotten, since it comes again.
        *taker.temper.lock().unwrap() = Temper::Fine;
        assert_eq!(broker.shared.subscriptions.seek("tester", Start::Position(Position(2))).await, Ok(Position(1)));
        taker.until(5).await;
        wait_until(|| status(&broker).counts.pending == 0).await;
        assert_eq!(broker.audit("tester").await.unwrap(), Counts { delivered: 4, ..Counts::default() });
        assert_eq!(dead_letters(&broker).await, []);

        // Forward, past a lane that is set aside and a dead letter: it is kept, and it is discarded.
        *taker.temper.lock().unwrap() = Temper::Hates("worse", 422);
        broker.publisher().publish(&[numbered("worse", 1), numbered("worse", 2)]).await.unwrap();
        wait_until(|| status(&broker).lanes_parked == 1).await;
        assert_eq!(broker.shared.subscriptions.seek("tester", Start::Latest).await, Ok(Position(7)));
        let letters = dead_letters(&broker).await;
        assert!(matches!(letters[..], [ref one] if matches!(one.state, LetterState::Discarded { .. }) && one.position == Position(6)));
        let shown = status(&broker);
        assert_eq!((shown.lanes_set_aside, shown.dead_letters, shown.lag_events, shown.after), (0, 0, 0, Position(7)));
        assert_eq!(broker.audit("tester").await.unwrap(), Counts::default());
        assert_eq!(broker.shared.subscriptions.decide("tester", Decision::Redrive, vec![Position(6)]).await, Ok(0));
        assert!(lifecycle.stop(DEADLINE).await);
    });
    // It is still there after a restart.
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(2)).await;
        let after = subscriber(Temper::Fine);
        subscribe(&broker, &after, json!({})).await.unwrap();
        broker.publisher().publish(&[numbered("next", 1)]).await.unwrap();
        after.until(1).await;
        let_time_pass(Duration::from_secs(5)).await;
        assert_eq!(after.lanes(), ["next"]);
    });
}

#[test]
fn a_seek_that_a_crash_broke_off_is_finished_at_the_next_start() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), subscriber(Temper::Hates("bad", 422)));
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, json!({})).await.unwrap();
        broker.publisher().publish(&[numbered("bad", 1), numbered("good", 1), numbered("late", 1)]).await.unwrap();
        taker.until(2).await;
        assert!(lifecycle.stop(DEADLINE).await);
    });
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        let entry = broker.engine().state_get("floor/tester").await.unwrap().unwrap();
        let mut cursor: Value = serde_json::from_str(&entry.value).unwrap();
        cursor["seeking"] = json!({"after": 2, "at": 1_800_000_000_000_i64});
        let put = crate::engine::StatePut { key: entry.key, value: Some(cursor.to_string()), expected_version: Some(entry.version) };
        broker.engine().state_put(vec![put]).await.unwrap();
        assert!(lifecycle.stop(DEADLINE).await);
    });
    let after = subscriber(Temper::Fine);
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(2)).await;
        subscribe(&broker, &after, json!({})).await.unwrap();
        wait_until(|| status(&broker).floor == Position(3)).await;
        let shown = status(&broker);
        assert_eq!((shown.after, shown.dead_letters, shown.lanes_parked), (Position(2), 0, 0));
        assert_eq!(broker.audit("tester").await.unwrap(), Counts { delivered: 1, ..Counts::default() });
    });
}

#[test]
fn what_is_given_up_where_the_lane_goes_on_is_redriven_by_itself_also_across_a_crash() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), subscriber(Temper::Hates("bad", 422)));
    let terms = json!({"on_exhausted": "continue"});
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, terms.clone()).await.unwrap();
        broker.publisher().publish(&(1..=3).map(|n| numbered("bad", n)).collect::<Vec<_>>()).await.unwrap();
        wait_until(|| status(&broker).dead_letters == 3).await;
        assert_eq!(status(&broker).lanes_parked, 0);
        // They fail again, by themselves, until one is discarded.
        let all = vec![Position(1), Position(2), Position(3)];
        assert_eq!(broker.shared.subscriptions.decide("tester", Decision::Redrive, all).await, Ok(3));
        wait_until(|| status(&broker).dead_letters == 3).await;
        let letters = dead_letters(&broker).await;
        assert_eq!(letters.iter().map(|letter| letter.attempts).collect::<Vec<_>>(), [2, 2, 2]);
        assert_eq!(broker.shared.subscriptions.decide("tester", Decision::Discard, vec![Position(3)]).await, Ok(1));
        *taker.temper.lock().unwrap() = Temper::Hates("bad", 503);
        assert_eq!(broker.shared.subscriptions.decide("tester", Decision::Redrive, vec![Position(1), Position(2)]).await, Ok(2));
    });
    *taker.temper.lock().unwrap() = Temper::Fine;
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(2)).await;
        subscribe(&broker, &taker, terms.clone()).await.unwrap();
        taker.until(2).await;
        wait_until(|| status(&broker).counts.pending == 0).await;
        let expected = Counts { delivered: 2, discarded: 1, ..Counts::default() };
        assert_eq!(broker.audit("tester").await, Ok(expected));
        assert!(lifecycle.stop(DEADLINE).await);
    });
    // The same from outside, of a log that rests.
    live(async {
        let lifecycle = kit::Lifecycle::new();
        let engine: Box<dyn LogEngine> =
            Box::new(crate::engine::embedded::Embedded::start(folder.path(), &environment(3), &lifecycle).unwrap());
        assert_eq!(audit::names(engine.as_ref()).await, Ok(vec!["tester".into()]));
        assert_eq!(audit::check(engine.as_ref(), "tester").await, Ok(Counts { delivered: 2, discarded: 1, ..Counts::default() }));
        assert_eq!(audit::check(engine.as_ref(), "nobody").await, Err(audit::AuditError::Unknown("nobody".into())));
    });
}

#[test]
fn books_that_were_kept_before_there_were_counts_are_counted_from_the_log() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), subscriber(Temper::Hates("bad", 422)));
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, json!({"types": [super::TYPE]})).await.unwrap();
        let others = Envelope { ty: "cascade.NotWanted.v1".into(), ..numbered("other", 9) };
        broker.publisher().publish(&[numbered("bad", 1), numbered("good", 1), others, numbered("bad", 2)]).await.unwrap();
        wait_until(|| status(&broker).dead_letters == 1 && status(&broker).floor == Position(4)).await;
        assert!(lifecycle.stop(DEADLINE).await);
    });
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        let entry = broker.engine().state_get("floor/tester").await.unwrap().unwrap();
        let put = crate::engine::StatePut { key: entry.key, value: Some("4".into()), expected_version: Some(entry.version) };
        broker.engine().state_put(vec![put]).await.unwrap();
        assert!(lifecycle.stop(DEADLINE).await);
    });
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        let expected = Counts { delivered: 1, deferred: 1, dead_lettered: 1, ..Counts::default() };
        assert_eq!(broker.audit("tester").await, Ok(expected));
        let counts = status(&broker).counts;
        assert_eq!((counts.matched, counts.delivered, counts.dead_lettered, counts.pending), (3, 1, 1, 1));
    });
}

#[tokio::test]
async fn operators_pause_resume_and_seek_over_http() {
    let shop = shop().await;
    let registration = json!({"sink": "http://127.0.0.1:9/events", "revision": 1});
    shop.put(OPERATOR, "/api/subscriptions/tester", &registration).await;
    let (path, to) = ("/api/subscriptions/tester", json!({"to": "latest"}));
    for (action, body) in [("pause", None), ("resume", None), ("seek", Some(&to))] {
        assert_eq!(shop.post(Who::Service("tester"), &format!("{path}/{action}"), body).await.0, StatusCode::FORBIDDEN, "{action}");
        assert_eq!(shop.post(Who::Nobody, &format!("{path}/{action}"), body).await.0, StatusCode::UNAUTHORIZED, "{action}");
        assert_eq!(shop.post(OPERATOR, &format!("/api/subscriptions/nobody/{action}"), body).await.0, StatusCode::NOT_FOUND, "{action}");
    }
    let (code, body) = shop.post(OPERATOR, &format!("{path}/pause"), None).await;
    assert_eq!((code, &body["status"]["state"]), (StatusCode::OK, &json!("paused")));
    shop.broker.publisher().publish(&[numbered("a", 1), numbered("a", 2)]).await.unwrap();
    let (code, body) = shop.post(OPERATOR, &format!("{path}/seek"), Some(&json!({"to": "latest", "dry_run": true}))).await;
    assert_eq!((code, body), (StatusCode::OK, json!({"after": "2", "lanes_dissolved": 0, "dead_letters_dropped": 0, "dry_run": true})));
    assert_eq!(shop.get(OPERATOR, path).await.1["status"]["after"], "0");
    for (to, after) in [(json!("latest"), "2"), (json!({"position": "2"}), "1"), (json!({"time": "2001-01-01T00:00:00Z"}), "0")] {
        let (code, body) = shop.post(OPERATOR, &format!("{path}/seek"), Some(&json!({"to": to}))).await;
        assert_eq!((code, &body["after"], &body["dry_run"]), (StatusCode::OK, &json!(after), &json!(false)));
        let shown = shop.get(OPERATOR, path).await.1;
        assert_eq!((&shown["status"]["after"], &shown["status"]["state"]), (&json!(after), &json!("paused")));
    }
    for (body, field) in
        [(json!({}), "to"), (json!({"to": "now"}), "to"), (json!({"to": {"position": "-1"}}), "to"), (json!({"to": "latest", "x": 1}), "x")]
    {
        let (code, body) = shop.post(OPERATOR, &format!("{path}/seek"), Some(&body)).await;
        assert_eq!((code.as_u16(), &body["code"], &body["field"]), (422, &json!("invalid_seek"), &json!(field)));
    }
    let (code, body) = shop.post(OPERATOR, &format!("{path}/resume"), None).await;
    assert_eq!(code, StatusCode::OK);
    assert!(matches!(body["status"]["state"].as_str(), Some("active" | "holding")), "{body}");
}

#[tokio::test]
async fn an_operator_sees_the_books_beside_what_the_log_says_and_books_that_are_wrong_are_told() {
    let shop = shop().await;
    let taker = subscriber(Temper::Hates("bad", 422));
    subscribe(&shop.broker, &taker, json!({})).await.unwrap();
    shop.broker.publisher().publish(&[numbered("bad", 1), numbered("good", 1), numbered("bad", 2)]).await.unwrap();
    wait_until(|| status(&shop.broker).dead_letters == 1 && status(&shop.broker).floor == Position(3)).await;
    let path = "/api/subscriptions/tester/audit";
    let check = |what, books, log| json!({"what": what, "books": books, "log": log});
    let (code, body) = shop.get(OPERATOR, path).await;
    let expected = json!({
        "subscription": "tester",
        "agrees": true,
        "up_to": "3",
        "next": null,
        "books": {"matched": 3, "delivered": 1, "dead_lettered": 1, "discarded": 0, "expired": 0, "pending": 1},
        "checks": [
            check("matched", 3, 3), check("pending", 1, 1), check("dead_lettered", 1, 1), check("discarded", 0, 0),
            check("delivered_or_expired", 1, 1),
        ],
    });
    assert_eq!((code, body), (StatusCode::OK, expected));

    // A row of the books that says something else: the event at 3 would not wait any more.
    let engine = shop.broker.engine();
    let entry = engine.state_get("lane/tester/bad").await.unwrap().unwrap();
    let mut row: Value = serde_json::from_str(&entry.value).unwrap();
    row["first"] = json!(4);
    let put = crate::engine::StatePut { key: entry.key, value: Some(row.to_string()), expected_version: Some(entry.version) };
    engine.state_put(vec![put]).await.unwrap();
    let (code, body) = shop.get(OPERATOR, path).await;
    assert_eq!((code, &body["agrees"]), (StatusCode::OK, &json!(false)));
    assert_eq!((&body["checks"][1], &body["checks"][4]), (&check("pending", 1, 0), &check("delivered_or_expired", 1, 2)));

    assert_eq!(shop.get(OPERATOR, "/api/subscriptions/nobody/audit").await.0, StatusCode::NOT_FOUND);
    assert_eq!(shop.get(Who::Nobody, path).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.get(Who::Guest("ann"), path).await.0, StatusCode::FORBIDDEN);
    assert_eq!(shop.get(Who::Service("tester"), path).await.0, StatusCode::FORBIDDEN);
    let _another = shop.broker.shared.auditing.lock().await;
    let (code, body) = shop.get(OPERATOR, path).await;
    assert_eq!((code, &body["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("busy")));
}

/// Events enough for three pages, all of them taken; and an audit that was left after the first page.
async fn left_after_a_page(shop: &Shop) -> Value {
    let taker = subscriber(Temper::Fine);
    subscribe(&shop.broker, &taker, json!({})).await.unwrap();
    for some in 0..5 {
        let events: Vec<_> = (0..500).map(|n| numbered(&format!("{some}-{n}"), 1)).collect();
        shop.broker.publisher().publish(&events).await.unwrap();
    }
    wait_until(|| status(&shop.broker).floor == Position(2_500)).await;
    let mut last = shop.broker.shared.auditing.lock().await;
    // As if the time was up at once.
    let answer = answer_part(&shop.broker.shared, &mut last, ("tester", None), || true).await.unwrap();
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn an_audit_that_takes_long_is_gone_on_with_where_it_was_left() {
    let shop = shop().await;
    let part = left_after_a_page(&shop).await;
    assert_eq!((&part["agrees"], &part["up_to"], &part["next"]), (&Value::Null, &json!("2500"), &json!("1000")));
    assert_eq!((&part["checks"], &part["books"]["delivered"]), (&json!([]), &json!(2_500)));
    let path = |after: i64| format!("/api/subscriptions/tester/audit?after={after}");
    // What happens meanwhile is for another audit.
    shop.broker.publisher().publish(&[numbered("new", 1)]).await.unwrap();
    wait_until(|| status(&shop.broker).floor == Position(2_501)).await;
    for (path, code) in
        [(path(999), 409), ("/api/subscriptions/other/audit?after=1000".to_owned(), 404), (path(-1), 400), (path(2_000), 409)]
    {
        let (status, body) = shop.get(OPERATOR, &path).await;
        assert_eq!(status.as_u16(), code, "{path} {body}");
    }
    let (code, body) = shop.get(OPERATOR, "/api/subscriptions/tester/audit?after=x").await;
    assert_eq!((code, &body["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_query")));
    let (code, whole) = shop.get(OPERATOR, &path(1_000)).await;
    assert_eq!((code, &whole["agrees"], &whole["up_to"], &whole["next"]), (StatusCode::OK, &json!(true), &json!("2500"), &Value::Null));
    assert_eq!(whole["checks"][0], json!({"what": "matched", "books": 2_500, "log": 2_500}));
    let (code, body) = shop.get(OPERATOR, &path(1_000)).await;
    assert_eq!((code, &body["code"], &body["field"]), (StatusCode::CONFLICT, &json!("other_audit"), &json!("after")));
}

#[tokio::test]
async fn an_audit_whose_rest_was_trimmed_is_begun_anew() {
    let shop = shop().await;
    left_after_a_page(&shop).await;
    shop.broker.shared.subscriptions.release(Position(2_000)).await.unwrap();
    shop.broker.engine().trim(Position(2_000)).await.unwrap();
    let (code, body) = shop.get(OPERATOR, "/api/subscriptions/tester/audit?after=1000").await;
    assert_eq!((code, &body["code"]), (StatusCode::GONE, &json!("trimmed")));
    let (code, body) = shop.get(OPERATOR, "/api/subscriptions/tester/audit").await;
    assert_eq!((code, &body["agrees"], &body["next"]), (StatusCode::OK, &json!(true), &Value::Null));
}
