//! Sending a part of the log again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, routing::post};
use http::{HeaderMap, StatusCode};
use kit::{
    BoxFuture, Envelope, Lifecycle, Position, Recorded,
    transport::{ItemAnswer, Sink, SinkError},
};
use serde_json::{Value, json};

use super::{
    DEADLINE, TYPE,
    api::{OPERATOR, Who},
    delivery::{let_time_pass, live, start, wait_until},
    environment, event, shop,
};
use crate::{
    Broker,
    retention::Holders,
    subscriptions::{
        Expected,
        replays::{Asked, ReplayError, Shown},
        wanted::Wanted,
    },
};

/// Keeps what it is given, in order; fails on the lane `bad`, for good.
#[derive(Default)]
struct Keeper {
    taken: Mutex<Vec<(String, i64)>>,
    is_failing: Mutex<bool>,
}

impl Keeper {
    fn positions(&self) -> Vec<i64> {
        self.taken.lock().unwrap().iter().map(|(_, position)| *position).collect()
    }
}

impl Sink for Keeper {
    fn deliver<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<Vec<ItemAnswer>, SinkError>> {
        Box::pin(async move {
            if *self.is_failing.lock().unwrap() {
                return Err(SinkError { status: Some(503), retry_after_s: None, reason: "failing".into() });
            }
            let is_bad = |one: &Recorded| one.event.lane() == "bad";
            let taken = events.iter().filter(|one| !is_bad(one)).map(|one| (one.event.lane().to_owned(), one.position.0));
            self.taken.lock().unwrap().extend(taken);
            let bad = events.iter().enumerate().filter(|(_, one)| is_bad(one));
            Ok(bad.map(|(index, _)| ItemAnswer { index, status: 422, retry_after_s: None, reason: "bad".into() }).collect())
        })
    }
}

fn numbered(n: i64, lane: &str) -> Envelope {
    event("/tester", &n.to_string(), lane)
}

/// A broker with ten events in two lanes, all of which were taken.
async fn replayable(folder: &std::path::Path, keeper: &Arc<Keeper>) -> (Broker, Lifecycle) {
    let (broker, lifecycle) = start(folder, &environment(1)).await;
    broker.attach("tester", [TYPE], 1, keeper.clone()).await.unwrap();
    let events: Vec<_> = (1..=10).map(|n| numbered(n, if n % 2 == 1 { "odd" } else { "even" })).collect();
    broker.publisher().publish(&events).await.unwrap();
    wait_until(|| keeper.positions().len() == 10).await;
    wait_until(|| broker.subscription("tester").unwrap().status.counts.pending == 0).await;
    keeper.taken.lock().unwrap().clear();
    (broker, lifecycle)
}

async fn begin(broker: &Broker, asked: Value) -> Result<Shown, ReplayError> {
    let Value::Object(asked) = asked else { panic!() };
    broker.shared.subscriptions.replay("tester", Asked::parse(asked).unwrap()).await
}

fn shown(broker: &Broker, id: &str) -> Value {
    serde_json::to_value(broker.shared.subscriptions.one_replay("tester", id).unwrap()).unwrap()
}

#[test]
fn a_part_of_the_log_is_sent_again_in_sequence_and_the_subscription_stays_where_it_is() {
    let (folder, keeper) = (tempfile::tempdir().unwrap(), Arc::new(Keeper::default()));
    live(async {
        let (broker, _lifecycle) = replayable(folder.path(), &keeper).await;
        let before = broker.subscription("tester").unwrap().status;
        let all = begin(&broker, json!({"from": {"position": "3"}, "to": {"position": "8"}})).await.unwrap();
        wait_until(|| shown(&broker, &all.id)["state"] == "completed").await;
        let mut taken = keeper.positions();
        let of = |rest: i64| taken.iter().copied().filter(|position| position % 2 == rest).collect::<Vec<_>>();
        assert_eq!((of(1), of(0)), (vec![3, 5, 7], vec![4, 6, 8]), "each lane in sequence");
        taken.sort_unstable();
        assert_eq!(taken, [3, 4, 5, 6, 7, 8]);
        let ended = shown(&broker, &all.id);
        assert_eq!((&ended["counts"]["delivered"], &ended["read_up_to"], &ended["from"]), (&json!(6), &json!("8"), &json!("3")));
        assert!(ended["ended_at"].is_string() && ended["failed"] == json!([]));

        keeper.taken.lock().unwrap().clear();
        let some = begin(&broker, json!({"filters": [{"exact": {"subject": "even"}}], "to": {"position": "99"}})).await.unwrap();
        wait_until(|| shown(&broker, &some.id)["state"] == "completed").await;
        assert_eq!(keeper.positions(), [2, 4, 6, 8, 10]);
        let after = broker.subscription("tester").unwrap().status;
        assert_eq!((after.counts, after.floor, after.after), (before.counts, before.floor, before.after));
        assert_eq!(broker.engine().state_list("floor/tester~").await.unwrap(), [], "nothing is left of them but their records");
        assert_eq!(broker.shared.subscriptions.replays("tester").unwrap().len(), 2);
    });
}

#[test]
fn what_is_not_taken_again_is_counted_named_and_holds_nothing_up() {
    let (folder, keeper) = (tempfile::tempdir().unwrap(), Arc::new(Keeper::default()));
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        broker.attach("tester", [TYPE], 1, keeper.clone()).await.unwrap();
        let events: Vec<_> = (1..=6).map(|n| numbered(n, if n % 3 == 0 { "bad" } else { "good" })).collect();
        broker.publisher().publish(&events).await.unwrap();
        wait_until(|| keeper.positions().len() == 4).await;
        let replay = begin(&broker, json!({})).await.unwrap();
        wait_until(|| shown(&broker, &replay.id)["state"] == "completed").await;
        let ended = shown(&broker, &replay.id);
        assert_eq!(
            (&ended["counts"]["delivered"], &ended["counts"]["dead_lettered"], &ended["failed"]),
            (&json!(4), &json!(2), &json!(["3", "6"]))
        );
        // The subscription's own dead letter is another thing.
        assert_eq!(broker.subscription("tester").unwrap().status.dead_letters, 1);
    });
}

#[test]
fn a_replay_keeps_its_pace_waits_while_the_subscription_is_paused_and_goes_on_after_a_restart() {
    let (folder, keeper) = (tempfile::tempdir().unwrap(), Arc::new(Keeper::default()));
    let id = live(async {
        let (broker, lifecycle) = replayable(folder.path(), &keeper).await;
        let begun = tokio::time::Instant::now();
        let replay = begin(&broker, json!({"rate_per_s": 1})).await.unwrap();
        wait_until(|| keeper.positions().len() == 4).await;
        assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
        broker.shared.subscriptions.pause("tester", true).await.unwrap();
        let_time_pass(Duration::from_secs(30)).await;
        assert_eq!((keeper.positions().len(), &shown(&broker, &replay.id)["state"]), (4, &json!("paused")));
        assert!(lifecycle.stop(DEADLINE).await);
        replay.id
    });
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(2)).await;
        broker.attach("tester", [TYPE], 1, keeper.clone()).await.unwrap();
        let_time_pass(Duration::from_secs(30)).await;
        assert_eq!(keeper.positions().len(), 4, "it is still paused");
        broker.shared.subscriptions.pause("tester", false).await.unwrap();
        wait_until(|| shown(&broker, &id)["state"] == "completed").await;
        assert_eq!((keeper.positions(), &shown(&broker, &id)["counts"]["delivered"]), ((1..=10).collect(), &json!(10)));
        assert!(lifecycle.stop(DEADLINE).await);
    });
    // What it came to is known for later.
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(3)).await;
        assert_eq!((&shown(&broker, &id)["state"], &shown(&broker, &id)["counts"]["delivered"]), (&json!("completed"), &json!(10)));
    });
}

#[test]
fn replays_are_few_at_once_are_cancelled_and_go_with_their_subscription() {
    let (folder, keeper) = (tempfile::tempdir().unwrap(), Arc::new(Keeper::default()));
    live(async {
        let (broker, _lifecycle) = replayable(folder.path(), &keeper).await;
        *keeper.is_failing.lock().unwrap() = true;
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(begin(&broker, json!({})).await.unwrap().id);
        }
        assert_eq!(begin(&broker, json!({})).await.unwrap_err(), ReplayError::TooMany);
        for _ in 0..2 {
            let cancelled = broker.shared.subscriptions.cancel_replay("tester", &ids[0]).await.unwrap();
            assert_eq!(serde_json::to_value(cancelled).unwrap()["state"], "cancelled");
        }
        assert_eq!(broker.shared.subscriptions.cancel_replay("tester", "nobody").await.unwrap_err(), ReplayError::Unknown("nobody".into()));
        // Those that ended make room in the end.
        for _ in 0..40 {
            let id = begin(&broker, json!({})).await.unwrap().id;
            broker.shared.subscriptions.cancel_replay("tester", &id).await.unwrap();
        }
        assert_eq!(broker.shared.subscriptions.replays("tester").unwrap().len(), 32);
        let running = broker.shared.subscriptions.replays("tester").unwrap();
        assert!(ids[1..].iter().all(|id| running.iter().any(|replay| replay.id == *id)), "what runs is not forgotten");
        assert_eq!(begin(&broker, json!({"from": {"position": "11"}})).await.unwrap_err(), ReplayError::Empty);
        broker.shared.subscriptions.remove("tester", Expected::Anything).await.unwrap();
        for prefix in ["replay/", "floor/", "lane/", "dead/"] {
            assert_eq!(broker.engine().state_list(prefix).await.unwrap(), [], "{prefix}");
        }
    });
}

#[test]
fn a_replay_counts_nothing_that_the_log_loses_behind_its_end() {
    let (folder, keeper) = (tempfile::tempdir().unwrap(), Arc::new(Keeper::default()));
    live(async {
        let (broker, _lifecycle) = replayable(folder.path(), &keeper).await;
        *keeper.is_failing.lock().unwrap() = true;
        let replay = begin(&broker, json!({"to": {"position": "4"}})).await.unwrap();
        assert_eq!(broker.shared.subscriptions.release(Position(8)).await, Ok(Position(8)));
        broker.engine().trim(Position(8)).await.unwrap();
        wait_until(|| shown(&broker, &replay.id)["state"] == "completed").await;
        let counts = shown(&broker, &replay.id)["counts"].clone();
        assert_eq!((&counts["expired"], &counts["matched"]), (&json!(4), &json!(4)));
    });
}

#[test]
fn a_replay_does_not_hold_the_log_and_counts_what_it_loses() {
    let (folder, keeper) = (tempfile::tempdir().unwrap(), Arc::new(Keeper::default()));
    live(async {
        let (broker, _lifecycle) = replayable(folder.path(), &keeper).await;
        *keeper.is_failing.lock().unwrap() = true;
        let replay = begin(&broker, json!({})).await.unwrap();
        let_time_pass(Duration::from_secs(5)).await;
        assert_eq!(broker.shared.subscriptions.release(Position(6)).await, Ok(Position(6)));
        broker.engine().trim(Position(6)).await.unwrap();
        *keeper.is_failing.lock().unwrap() = false;
        wait_until(|| shown(&broker, &replay.id)["state"] == "completed").await;
        let counts = shown(&broker, &replay.id)["counts"].clone();
        assert_eq!((&counts["expired"], &counts["delivered"], &counts["matched"]), (&json!(6), &json!(4), &json!(10)));
    });
}

#[tokio::test]
async fn a_replayed_delivery_says_so_and_operators_look_after_replays_over_http() {
    let (shop, seen) = (shop().await, Arc::new(Mutex::new(Vec::new())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = seen.clone();
    let subscriber = Router::new().route(
        "/events",
        post(async move |headers: HeaderMap| {
            let replay = headers.get("cascade-replay").map(|value| value.to_str().unwrap().to_owned());
            log.lock().unwrap().push(replay);
            StatusCode::NO_CONTENT
        }),
    );
    let lifecycle = Lifecycle::new();
    lifecycle.spawn("subscriber", kit::http::server::serve(listener, subscriber, lifecycle.clone()));
    let wanted = Wanted { sink: Some(format!("http://{address}/events")), revision: 1, ..Wanted::default() };
    shop.broker.shared.subscriptions.register("tester", wanted, crate::subscriptions::By::Shop, Expected::Anything).await.unwrap();
    shop.broker.publisher().publish(&[numbered(1, "a")]).await.unwrap();
    let path = "/api/subscriptions/tester/replays";
    let (code, created) = shop.post(OPERATOR, path, Some(&json!({"types": [TYPE], "rate_per_s": 5}))).await;
    assert_eq!(
        (code, &created["to"], &created["rate_per_s"], &created["types"]),
        (StatusCode::CREATED, &json!("1"), &json!(5), &json!([TYPE]))
    );
    let id = created["id"].as_str().unwrap().to_owned();
    let one = format!("{path}/{id}");
    let completed = async {
        while shop.get(OPERATOR, &one).await.1["state"] != "completed" {
            let_time_pass(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, completed).await.expect("in time");
    assert!(seen.lock().unwrap().contains(&None) && seen.lock().unwrap().contains(&Some(id.clone())), "{seen:?}");
    let (code, list) = shop.get(OPERATOR, path).await;
    assert_eq!((code, &list["items"][0]["id"]), (StatusCode::OK, &json!(id)));
    let (code, cancelled) = shop.post(OPERATOR, &format!("{one}/cancel"), None).await;
    assert_eq!((code, &cancelled["state"]), (StatusCode::OK, &json!("completed")), "what has ended stays as it is");
    for (body, field) in [
        (json!({"from": {"position": "2"}}), Some("from")),
        (json!({"from": "then"}), Some("from")),
        (json!({"to": "earliest"}), Some("to")),
        (json!({"to": {"position": "-2"}}), Some("to")),
        (json!({"rate_per_s": 0}), Some("rate_per_s")),
        (json!({"rate_per_s": 10_001}), Some("rate_per_s")),
        (json!({"types": []}), Some("types")),
        (json!({"filters": [7]}), Some("/filters/0")),
        (json!({"speed": 1}), Some("speed")),
        (json!([]), None),
    ] {
        let (code, answer) = shop.post(OPERATOR, path, Some(&body)).await;
        assert_eq!((code.as_u16(), answer["field"].as_str()), (422, field), "{body}");
    }
    for path in [format!("{path}/nobody"), "/api/subscriptions/nobody/replays".into()] {
        assert_eq!(shop.get(OPERATOR, &path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(shop.get(Who::Service("tester"), path).await.0, StatusCode::FORBIDDEN);
    assert_eq!(shop.post(Who::Nobody, path, Some(&json!({}))).await.0, StatusCode::UNAUTHORIZED);
}
