//! Why an event did or did not arrive, and what becomes of what was given up.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use kit::{
    BoxFuture, Envelope, Position, Recorded,
    transport::{ItemAnswer, Sink, SinkError},
};
use serde_json::{Value, json};

use super::{
    TYPE,
    api::{OPERATOR, Who},
    delivery::{Subscriber, Temper, let_time_pass, live, start, wait_until},
    environment, event, shop,
    subscribing::subscribe,
};
use crate::{Broker, dispatcher::Decision, retention::Holders, tests::Shop};

/// Takes what it is given, and never answers.
struct Silent;

impl Sink for Silent {
    fn deliver<'a>(&'a self, _: &'a [Recorded]) -> BoxFuture<'a, Result<Vec<ItemAnswer>, SinkError>> {
        Box::pin(std::future::pending())
    }
}

/// Fails on the lanes `bad` (for good) and `slow` (for now).
struct Picky;

impl Sink for Picky {
    fn deliver<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<Vec<ItemAnswer>, SinkError>> {
        let answer = |(index, one): (usize, &Recorded)| {
            let status = match one.event.lane() {
                "bad" => 422,
                "slow" => 503,
                _ => return None,
            };
            Some(ItemAnswer { index, status, retry_after_s: None, reason: "not this one".into() })
        };
        let answers = events.iter().enumerate().filter_map(answer).collect();
        Box::pin(async move { Ok(answers) })
    }
}

fn numbered(n: i64, lane: &str, owner: &str) -> Envelope {
    Envelope { sequence: Some(1), owner: Some(owner.into()), ..event("/tester", &n.to_string(), lane) }
}

/// Where the event at `position` stands with the subscription `name`, as JSON.
async fn stage(broker: &Broker, name: &str, position: i64) -> Value {
    let event = broker.engine().read_one(Position(position)).await.unwrap().unwrap();
    let arrivals = serde_json::to_value(broker.shared.subscriptions.arrivals(&event).await.unwrap()).unwrap();
    arrivals.as_array().unwrap().iter().find(|arrival| arrival["subscription"] == name).unwrap().clone()
}

fn status(broker: &Broker) -> crate::dispatcher::Status {
    broker.subscription("tester").unwrap().status
}

#[test]
fn every_event_has_an_answer_to_why_it_did_or_did_not_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let terms = json!({"start": {"position": "2"}, "filters": [{"not": {"exact": {"owner": "bob"}}}], "retry": {"backoff_ms": 60_000}});
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        let lanes = [("early", "ann"), ("good", "ann"), ("good", "bob"), ("bad", "ann"), ("bad", "ann"), ("slow", "ann"), ("slow", "ann")];
        let events: Vec<_> = (1..).zip(lanes).map(|(n, (lane, owner))| numbered(n, lane, owner)).collect();
        broker.publisher().publish(&events).await.unwrap();
        let mut wanted = json!({"revision": 1});
        wanted.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
        let wanted = crate::subscriptions::wanted::Wanted::parse(wanted).unwrap();
        broker
            .shared
            .subscriptions
            .register("tester", wanted, crate::subscriptions::By::Handle(Arc::new(Picky)), crate::subscriptions::Expected::Anything)
            .await
            .unwrap();
        broker.attach("silent", [TYPE], 1, Arc::new(Silent)).await.unwrap();
        wait_until(|| status(&broker).dead_letters == 1 && status(&broker).lanes_blocked == 1).await;

        let of = async |position| stage(&broker, "tester", position).await;
        assert_eq!(of(1).await, json!({"subscription": "tester", "subscription_state": "active", "state": "before_start", "after": "1"}));
        assert_eq!(of(2).await["state"], "delivered");
        let filtered = of(3).await;
        assert_eq!((&filtered["state"], &filtered["clause"]["field"]), (&json!("filtered"), &json!("/filters/0/not")));
        let dead = of(4).await;
        assert_eq!((&dead["state"], &dead["status"], &dead["attempts"]), (&json!("dead_lettered"), &json!(422), &json!(1)));
        assert_eq!((&of(5).await["state"], &of(5).await["by"]), (&json!("parked"), &json!("4")));
        let retrying = of(6).await;
        assert_eq!(
            (&retrying["state"], &retrying["attempts"], &retrying["last_attempt"]["status"]),
            (&json!("retrying"), &json!(1), &json!(503))
        );
        assert!(retrying["next_attempt"].as_str().unwrap() > retrying["last_attempt"]["at"].as_str().unwrap());
        assert_eq!((&of(7).await["state"], &of(7).await["by"]), (&json!("blocked"), &json!("6")));
        assert_eq!(stage(&broker, "silent", 2).await["attempt"], 1);
        assert_eq!(stage(&broker, "silent", 2).await["state"], "in_flight");
        assert_eq!(stage(&broker, "silent", 3).await["by"], "2");

        // What waits longest is the event that is retried: who waits behind a dead letter waits for somebody to decide.
        let_time_pass(Duration::from_secs(7)).await;
        let full = broker.shared.subscriptions.describe("tester").await.unwrap().status;
        let oldest = full.oldest_unacknowledged.unwrap();
        assert_eq!((full.lag_events, full.lag_s, oldest.position, oldest.lane.as_str()), (3, Some(7), Position(6), "slow"));

        broker.shared.subscriptions.pause("tester", true).await.unwrap();
        broker.publisher().publish(&[numbered(8, "new", "ann"), numbered(9, "new", "bob")]).await.unwrap();
        let paused = of(8).await;
        assert_eq!((&paused["state"], &paused["subscription_state"]), (&json!("queued"), &json!("paused")));
        assert_eq!(of(9).await["state"], "filtered");
        assert_eq!(
            broker.shared.subscriptions.describe("tester").await.unwrap().status.lag_events,
            4,
            "of two unread ones one is asked for"
        );

        broker.shared.subscriptions.decide("tester", Decision::Discard, vec![Position(4)]).await.unwrap();
        assert_eq!((&of(4).await["state"], &of(5).await["state"]), (&json!("discarded"), &json!("queued")));
        broker.shared.subscriptions.pause("tester", false).await.unwrap();
        wait_until(|| status(&broker).dead_letters == 1).await;
        assert_eq!((&of(5).await["state"], &of(8).await["state"]), (&json!("dead_lettered"), &json!("delivered")));
        assert!(lifecycle.stop(super::DEADLINE).await);
    });
    // What is known does not depend on what was in memory; what came after the event that is retried, comes again.
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(2)).await;
        wait_until(|| status(&broker).dead_letters == 1).await;
        let states = [(1, "before_start"), (2, "delivered"), (3, "filtered"), (4, "discarded"), (5, "dead_lettered"), (6, "queued")];
        for (position, state) in states {
            assert_eq!(stage(&broker, "tester", position).await["state"], state, "{position}");
        }
    });
}

#[test]
fn an_event_that_waits_in_a_lane_set_aside_names_the_one_that_blocks_it_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        broker.attach("tester", [TYPE], 1, Arc::new(Picky)).await.unwrap();
        broker.publisher().publish(&(1..=4).map(|n| numbered(n, "slow", "ann")).collect::<Vec<_>>()).await.unwrap();
        wait_until(|| status(&broker).lanes_set_aside == 1).await;
        assert_eq!(
            (&stage(&broker, "tester", 3).await["state"], &stage(&broker, "tester", 3).await["by"]),
            (&json!("blocked"), &json!("1"))
        );
        assert!(lifecycle.stop(super::DEADLINE).await);
    });
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(2)).await;
        // Nobody is attached, so nobody has looked for the lane's first event yet.
        wait_until(|| status(&broker).lanes_set_aside == 1).await;
        assert_eq!(
            (&stage(&broker, "tester", 3).await["state"], &stage(&broker, "tester", 3).await["by"]),
            (&json!("blocked"), &json!("1"))
        );
        let first = stage(&broker, "tester", 1).await;
        assert_eq!((&first["state"], &first["last_attempt"]["reason"]), (&json!("retrying"), &json!("not this one")));
    });
}

#[test]
fn an_event_that_was_lost_is_said_to_be_lost_while_it_can_still_be_asked_for() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Hates("slow", 503), 1));
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, json!({"required": false})).await.unwrap();
        broker.publisher().publish(&[numbered(1, "good", "ann"), numbered(2, "slow", "ann")]).await.unwrap();
        wait_until(|| status(&broker).lanes_set_aside == 1).await;
        broker.shared.subscriptions.release(Position(2)).await.unwrap();
        assert_eq!(stage(&broker, "tester", 1).await["state"], "delivered");
        assert_eq!(stage(&broker, "tester", 2).await["state"], "expired");
    });
}

#[test]
fn an_event_that_was_taken_is_not_said_to_be_lost_with_those_around_it() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Hates("slow", 503), 1));
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, json!({"required": false})).await.unwrap();
        let events = [numbered(1, "slow", "ann"), numbered(2, "good", "ann"), numbered(3, "slow", "ann"), numbered(4, "new", "ann")];
        broker.publisher().publish(&events).await.unwrap();
        wait_until(|| status(&broker).lanes_set_aside == 1 && status(&broker).counts.delivered == 2).await;
        broker.shared.subscriptions.release(Position(3)).await.unwrap();
        for (position, expected) in [(1, "expired"), (2, "delivered"), (3, "expired"), (4, "delivered")] {
            assert_eq!(stage(&broker, "tester", position).await["state"], expected, "{position}");
        }
        assert!(lifecycle.stop(super::DEADLINE).await);
    });
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(2)).await;
        // Which of them was lost nobody knows after a restart: all of them count as gone.
        let lost = broker.engine().read_one(Position(2)).await.unwrap().unwrap();
        let gone = crate::engine::EngineError::Trimmed { first: Position(4) };
        assert_eq!(broker.shared.subscriptions.arrivals(&lost).await, Err(gone));
        assert_eq!(stage(&broker, "tester", 4).await["state"], "delivered");
    });
}

#[test]
fn an_event_that_was_given_up_for_good_is_said_to_be_while_it_can_still_be_asked_for() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Hates("bad", 422), 1));
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, json!({"required": false})).await.unwrap();
        broker.publisher().publish(&[numbered(1, "bad", "ann")]).await.unwrap();
        wait_until(|| status(&broker).dead_letters == 1).await;
        let discarded = broker.shared.subscriptions.decide("tester", crate::dispatcher::Decision::Discard, vec![Position(1)]).await;
        assert_eq!(discarded, Ok(1));
        broker.shared.subscriptions.release(Position(1)).await.unwrap();
        assert_eq!(stage(&broker, "tester", 1).await["state"], "discarded");
    });
}

async fn until<T>(mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let all = async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            let_time_pass(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(super::DEADLINE, all).await.expect("in time")
}

/// A shop with six dead letters, of the lanes `bad` and `worse` by turns.
async fn shop_with_letters() -> (Shop, Arc<Subscriber>) {
    let (shop, taker) = (shop().await, Subscriber::new(Temper::HatesAll(422), 1));
    subscribe(&shop.broker, &taker, json!({"on_exhausted": "continue"})).await.unwrap();
    let events = (1..=6).map(|n| numbered(n, if n % 2 == 0 { "worse" } else { "bad" }, if n > 4 { "bob" } else { "ann" }));
    shop.broker.publisher().publish(&events.collect::<Vec<_>>()).await.unwrap();
    until(async || (status(&shop.broker).dead_letters == 6).then_some(())).await;
    (shop, taker)
}

const LETTERS: &str = "/api/subscriptions/tester/dead-letters";

#[tokio::test]
async fn dead_letters_are_listed_by_page_and_shown_with_their_event_and_attempts() {
    let (shop, _taker) = shop_with_letters().await;
    let (code, page) = shop.get(OPERATOR, &format!("{LETTERS}?limit=4")).await;
    let positions =
        |page: &Value| page["items"].as_array().unwrap().iter().map(|one| one["position"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!((code, positions(&page), &page["next"]), (StatusCode::OK, ["1", "2", "3", "4"].map(String::from).into(), &json!("4")));
    let first = &page["items"][0];
    assert_eq!(
        (&first["lane"], &first["state"], &first["status"], &first["attempts"]),
        (&json!("bad"), &json!("waiting"), &json!(422), &json!(1))
    );
    assert_eq!(first["event"], json!({"source": "/tester", "id": "1", "type": TYPE, "subject": "bad"}));
    let (_, rest) = shop.get(OPERATOR, &format!("{LETTERS}?limit=4&after=4")).await;
    assert_eq!((positions(&rest), &rest["next"]), (["5", "6"].map(String::from).into(), &Value::Null));
    let (code, one) = shop.get(OPERATOR, &format!("{LETTERS}/2")).await;
    assert_eq!((code, &one["event"]["id"], &one["event"]["position"]), (StatusCode::OK, &json!("2"), &json!("2")));
    assert_eq!((one["last_attempts"].as_array().unwrap().len(), &one["last_attempts"][0]["status"]), (1, &json!(422)));
    assert!(one["first_attempt_at"].is_string() && one["given_up_at"].is_string());
    for (path, expected) in [
        (format!("{LETTERS}/7"), 404),
        (format!("{LETTERS}/x"), 404),
        ("/api/subscriptions/nobody/dead-letters/1".into(), 404),
        ("/api/subscriptions/nobody/dead-letters".into(), 404),
        (format!("{LETTERS}?limit=0"), 400),
        (format!("{LETTERS}?state=lost"), 400),
        (format!("{LETTERS}?colour=red"), 400),
    ] {
        assert_eq!(shop.get(OPERATOR, &path).await.0.as_u16(), expected, "{path}");
    }
    for path in [LETTERS.to_owned(), format!("{LETTERS}/1"), "/api/events/1/deliveries".into()] {
        assert_eq!(shop.get(Who::Service("tester"), &path).await.0, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(shop.get(Who::Guest("ann"), &path).await.0, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(shop.get(Who::Nobody, &path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(shop.get(OPERATOR, "/api/events/99/deliveries").await.0, StatusCode::NOT_FOUND);
    let (code, deliveries) = shop.get(OPERATOR, "/api/events/1/deliveries").await;
    assert_eq!(
        (code, &deliveries["event"]["id"], &deliveries["items"][0]["state"]),
        (StatusCode::OK, &json!("1"), &json!("dead_lettered"))
    );
}

#[tokio::test]
async fn some_dead_letters_are_chosen_by_filter_looked_at_first_and_then_decided_on() {
    let (shop, taker) = shop_with_letters().await;
    let (redrive, discard) = (format!("{LETTERS}/redrive"), format!("{LETTERS}/discard"));
    let dry = async |choice: Value| {
        let mut body = choice.clone();
        body["dry_run"] = json!(true);
        let (code, answer) = shop.post(OPERATOR, &discard, Some(&body)).await;
        assert_eq!((code, &answer["dry_run"]), (StatusCode::OK, &json!(true)), "{choice} {answer}");
        answer["positions"].clone()
    };
    assert_eq!(dry(json!({})).await, json!(["1", "2", "3", "4", "5", "6"]));
    assert_eq!(dry(json!({"lane": "worse"})).await, json!(["2", "4", "6"]));
    assert_eq!(dry(json!({"filters": [{"exact": {"owner": "bob"}}]})).await, json!(["5", "6"]));
    assert_eq!(dry(json!({"types": ["other"]})).await, json!([]));
    assert_eq!(dry(json!({"statuses": [422, null], "positions": ["2", "3", "99"]})).await, json!(["2", "3"]));
    assert_eq!(dry(json!({"statuses": [503]})).await, json!([]));
    assert_eq!(dry(json!({"after": "4"})).await, json!(["5", "6"]));
    assert_eq!(status(&shop.broker).dead_letters, 6, "it was only looked at");

    let (code, body) = shop.post(OPERATOR, &discard, Some(&json!({"filters": [{"exact": {"owner": "bob"}}]}))).await;
    assert_eq!((code, body), (StatusCode::OK, json!({"positions": ["5", "6"], "next": null, "dry_run": false})));
    let (_, page) = shop.get(OPERATOR, &format!("{LETTERS}?state=discarded")).await;
    assert!(page["items"].as_array().unwrap().len() == 2 && page["items"][0]["discarded_at"].is_string());
    *taker.temper.lock().unwrap() = Temper::Fine;
    let (code, body) = shop.post(OPERATOR, &redrive, Some(&json!({"lane": "bad"}))).await;
    assert_eq!((code, &body["positions"]), (StatusCode::OK, &json!(["1", "3"])));
    until(async || (status(&shop.broker).counts.delivered == 2).then_some(())).await;
    let (code, body) = shop.post(OPERATOR, &format!("{LETTERS}/2/redrive"), None).await;
    assert_eq!((code, &body["positions"]), (StatusCode::OK, &json!(["2"])));
    assert_eq!(shop.post(OPERATOR, &format!("{LETTERS}/4/discard"), None).await.0, StatusCode::OK);
    until(async || (status(&shop.broker).counts.pending == 0).then_some(())).await;
    let counts = status(&shop.broker).counts;
    assert_eq!((counts.matched, counts.delivered, counts.discarded, counts.dead_lettered), (6, 3, 3, 0));
    for position in [2, 4, 99] {
        assert_eq!(shop.post(OPERATOR, &format!("{LETTERS}/{position}/redrive"), None).await.0, StatusCode::NOT_FOUND, "{position}");
    }
    for (body, field) in [
        (json!({"positions": []}), Some("positions")),
        (json!({"positions": ["x"]}), Some("positions")),
        (json!({"statuses": []}), Some("statuses")),
        (json!({"types": []}), Some("types")),
        (json!({"filters": [{"like": {}}]}), Some("/filters/0")),
        (json!({"everything": true}), Some("everything")),
        (json!([]), None),
    ] {
        let (code, answer) = shop.post(OPERATOR, &redrive, Some(&body)).await;
        assert_eq!((code.as_u16(), answer["field"].as_str()), (422, field), "{body}");
    }
    for who in [Who::Service("tester"), Who::Guest("ann")] {
        assert_eq!(shop.post(who, &redrive, Some(&json!({}))).await.0, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn a_filter_is_tried_on_an_event_without_being_asked_for() {
    let (shop, _taker) = shop_with_letters().await;
    let explain = async |body: Value| shop.post(OPERATOR, "/api/subscriptions/tester/explain", Some(&body)).await;
    let (code, body) = explain(json!({"position": "1"})).await;
    assert_eq!((code, &body["matches"], &body["clause"], &body["event"]["id"]), (StatusCode::OK, &json!(true), &Value::Null, &json!("1")));
    let (_, body) =
        explain(json!({"position": "1", "filters": [{"any": [{"prefix": {"subject": "w"}}, {"exact": {"owner": "bob"}}]}]})).await;
    let clause = json!({
        "field": "/filters/0/any",
        "says": r#"{"any":[{"prefix":{"subject":"w"}},{"exact":{"owner":"bob"}}]}"#,
        "reason": "none of its 2 filters holds",
    });
    assert_eq!((&body["matches"], &body["clause"]), (&json!(false), &clause));
    let made_up = json!({"specversion": "1.0", "id": "x", "source": "/a", "type": "other", "subject": "s"});
    let (_, body) = explain(json!({"event": made_up, "types": [TYPE]})).await;
    assert_eq!((&body["clause"]["field"], &body["event"]["id"]), (&json!("/types"), &json!("x")));
    let (_, body) = explain(json!({"event": made_up, "types": null})).await;
    assert_eq!(body["matches"], json!(true));
    for (body, expected) in [
        (json!({}), 422),
        (json!({"position": "1", "event": made_up}), 422),
        (json!({"position": "one"}), 422),
        (json!({"event": {"id": "x"}}), 422),
        (json!({"event": {"specversion": "1.0", "id": "", "source": "/a", "type": "t"}}), 422),
        (json!({"position": "1", "filters": [{}]}), 422),
        (json!({"position": "1", "types": []}), 422),
        (json!({"position": "99"}), 404),
    ] {
        assert_eq!(explain(body.clone()).await.0.as_u16(), expected, "{body}");
    }
    assert_eq!(shop.post(OPERATOR, "/api/subscriptions/nobody/explain", Some(&json!({"position": "1"}))).await.0, StatusCode::NOT_FOUND);
    assert_eq!(shop.post(Who::Service("tester"), "/api/subscriptions/tester/explain", Some(&json!({}))).await.0, StatusCode::FORBIDDEN);
}
