//! The log loses its oldest events: who holds it, and what becomes of those who do not.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kit::{
    BoxFuture, Envelope, Position, Recorded,
    transport::{ItemAnswer, Sink, SinkError},
};
use serde_json::json;

use super::{
    DEADLINE, TYPE,
    delivery::{Subscriber, Temper, dead_letters, let_time_pass, live, start, wait_until},
    environment, event, settings,
    subscribing::subscribe,
};
use crate::{
    Broker,
    dispatcher::{Reset, State, Status},
    lanes::Counts,
    retention::{Holders, Limits},
};

/// The `n`-th event that is published, in `lane`.
fn numbered(n: i64, lane: &str) -> Envelope {
    // Every event is the first of its lane for the subscriber, who would mind a gap.
    Envelope { sequence: Some(1), ..event("/tester", &n.to_string(), lane) }
}

fn status(broker: &Broker) -> Status {
    broker.subscription("tester").unwrap().status
}

async fn release(broker: &Broker, up_to: i64) -> Position {
    broker.shared.subscriptions.release(Position(up_to)).await.unwrap()
}

#[test]
fn a_required_subscription_holds_the_log_at_its_oldest_event_that_was_not_taken() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Hates("bad", 503), 1));
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, json!({"required": true})).await.unwrap();
        let events: Vec<_> = (1..=20).map(|n| numbered(n, if n == 5 || n == 9 { "bad" } else { "good" })).collect();
        broker.publisher().publish(&events).await.unwrap();
        wait_until(|| status(&broker).floor == Position(20)).await;
        assert_eq!((release(&broker, 3).await, release(&broker, 20).await), (Position(3), Position(4)), "set aside");
        *taker.temper.lock().unwrap() = Temper::Hates("bad", 422);
        wait_until(|| status(&broker).lanes_parked == 1).await;
        assert_eq!(release(&broker, 20).await, Position(4), "parked");
        broker.engine().trim(Position(4)).await.unwrap();
        assert_eq!(broker.audit("tester").await, Ok(Counts { delivered: 18, deferred: 1, dead_lettered: 1, ..Counts::default() }));
        assert_eq!(status(&broker).reset, None);
    });
    // A discarded event holds nothing, and its record goes with the log.
    let counts = Counts { delivered: 18, dead_lettered: 1, discarded: 1, ..Counts::default() };
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(2)).await;
        subscribe(&broker, &taker, json!({"required": true})).await.unwrap();
        let discarded = broker.shared.subscriptions.decide("tester", crate::dispatcher::Decision::Discard, vec![Position(5)]).await;
        assert_eq!(discarded, Ok(1));
        wait_until(|| status(&broker).lanes_parked == 1).await;
        assert_eq!(release(&broker, 20).await, Position(8));
        broker.engine().trim(Position(8)).await.unwrap();
        let letters = dead_letters(&broker).await;
        assert_eq!((broker.audit("tester").await, letters.len(), letters[0].position), (Ok(counts), 1, Position(9)));
        assert!(lifecycle.stop(DEADLINE).await);
    });
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(3)).await;
        assert_eq!(broker.audit("tester").await, Ok(counts));
    });
}

#[test]
fn another_subscription_counts_what_it_loses_says_so_and_goes_on_behind_it() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Hates("bad", 503), 1));
    let terms = json!({"required": false, "filters": [{"not": {"exact": {"subject": "other"}}}]});
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, terms.clone()).await.unwrap();
        // Lane `bad` has events at 2 and 6; every fourth one is not asked for.
        let lane = |n: i64| match n {
            2 | 6 => "bad".to_owned(),
            n if n % 4 == 0 => "other".to_owned(),
            n => format!("good-{n}"),
        };
        broker.publisher().publish(&(1..=8).map(|n| numbered(n, &lane(n))).collect::<Vec<_>>()).await.unwrap();
        wait_until(|| status(&broker).floor == Position(8)).await;
        broker.shared.subscriptions.pause("tester", true).await.unwrap();
        broker.publisher().publish(&(9..=30).map(|n| numbered(n, &lane(n))).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(release(&broker, 20).await, Position(20));
        broker.engine().trim(Position(20)).await.unwrap();
        // Of 9 to 20 nine were asked for; with 2 and 6 that is eleven.
        let shown = status(&broker);
        assert_eq!(shown.reset.map(|Reset { after, up_to, expired, .. }| (after, up_to, expired)), Some((Position(1), Position(20), 11)));
        assert_eq!((shown.counts.expired, shown.lanes_set_aside, shown.floor), (11, 0, Position(20)));
        assert_eq!(broker.audit("tester").await, Ok(Counts { delivered: 4, expired: 11, ..Counts::default() }));
        assert!(lifecycle.stop(DEADLINE).await);
    });
    *taker.temper.lock().unwrap() = Temper::Fine;
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(2)).await;
        subscribe(&broker, &taker, terms.clone()).await.unwrap();
        broker.shared.subscriptions.pause("tester", false).await.unwrap();
        wait_until(|| status(&broker).floor == Position(30)).await;
        wait_until(|| status(&broker).counts.pending == 0).await;
        assert_eq!(broker.audit("tester").await, Ok(Counts { delivered: 12, expired: 11, ..Counts::default() }));
        assert_eq!(status(&broker).reset.map(|reset| reset.expired), Some(11), "until the next time");
    });
}

#[test]
fn one_subscriber_that_is_forgotten_does_not_stop_the_shop() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Fine, 1));
    live(async {
        let lifecycle = kit::Lifecycle::new();
        let retention = Limits { bytes_max: 100_000, ..Limits::default() };
        let settings = crate::Settings { retention, ..settings() };
        let broker = Broker::start(folder.path(), settings, &environment(1), &lifecycle).await.unwrap();
        subscribe(&broker, &taker, json!({"required": true})).await.unwrap();
        // Nobody listens there.
        let forgotten = json!({"sink": "http://127.0.0.1:9/", "revision": 1, "required": false});
        let forgotten = crate::subscriptions::wanted::Wanted::parse(forgotten).unwrap();
        broker
            .shared
            .subscriptions
            .register("forgotten", forgotten, crate::subscriptions::By::Shop, crate::subscriptions::Expected::Anything)
            .await
            .unwrap();
        for round in 0..60 {
            let events: Vec<_> = (0..50).map(|n| numbered(round * 50 + n, &format!("lane-{round}-{n}"))).collect();
            tokio::time::timeout(DEADLINE, async {
                while broker.publisher().publish(&events).await.is_err() {
                    let_time_pass(Duration::from_millis(100)).await;
                }
            })
            .await
            .expect("the shop goes on");
        }
        taker.until(3_000).await;
        let left = |broker: &Broker| broker.engine().bounds().last.0 - broker.engine().bounds().first.0 + 1;
        wait_until(|| broker.engine().bounds().bytes <= 110_000).await;
        wait_until(|| broker.subscription("forgotten").unwrap().status.counts.expired + left(&broker) == 3_000).await;
        let status = broker.subscription("forgotten").unwrap().status;
        assert_eq!((status.state, status.reset.is_some()), (State::Holding, true));
        assert_eq!(broker.audit("tester").await, Ok(Counts { delivered: 3_000, ..Counts::default() }));
        let audited = broker.audit("forgotten").await.unwrap();
        assert_eq!((audited.delivered, audited.expired), (0, status.counts.expired));
        assert_eq!(lifecycle.failure(), None);
    });
}

#[test]
fn a_log_that_was_trimmed_without_asking_is_read_on_from_where_it_begins_and_that_is_said() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Fine, 1));
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, json!({})).await.unwrap();
        broker.publisher().publish(&[numbered(1, "a")]).await.unwrap();
        taker.until(1).await;
        broker.shared.subscriptions.pause("tester", true).await.unwrap();
        broker.publisher().publish(&(2..=9).map(|n| numbered(n, &n.to_string())).collect::<Vec<_>>()).await.unwrap();
        broker.engine().trim(Position(6)).await.unwrap();
        broker.shared.subscriptions.pause("tester", false).await.unwrap();
        taker.until(4).await;
        wait_until(|| status(&broker).floor == Position(9)).await;
        let reset = status(&broker).reset.unwrap();
        assert_eq!((reset.after, reset.up_to, taker.lanes()), (Position(1), Position(6), ["7", "8", "9", "a"].map(String::from).into()));
        assert_eq!(broker.audit("tester").await, Ok(Counts { delivered: 4, ..Counts::default() }));
        let late = json!({"start": {"position": "2"}, "revision": 1, "sink": "http://127.0.0.1:9/"});
        let late = crate::subscriptions::wanted::Wanted::parse(late).unwrap();
        let late = broker
            .shared
            .subscriptions
            .register("late", late, crate::subscriptions::By::Shop, crate::subscriptions::Expected::Anything)
            .await
            .unwrap();
        wait_until(|| broker.subscription("late").unwrap().status.after == Position(6)).await;
        assert_eq!(late.status.reset, None, "it starts where the log begins");
    });
}

#[test]
fn a_lane_whose_events_were_trimmed_without_asking_goes_on_with_what_is_left_of_it() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Hates("bad", 503), 1));
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, json!({})).await.unwrap();
        let events: Vec<_> = ["good", "bad", "bad", "good", "bad"].iter().zip(1..).map(|(lane, n)| numbered(n, lane)).collect();
        broker.publisher().publish(&events).await.unwrap();
        wait_until(|| status(&broker).lanes_set_aside == 1).await;
        assert!(lifecycle.stop(DEADLINE).await);
    });
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(2)).await;
        broker.engine().trim(Position(4)).await.unwrap();
        *taker.temper.lock().unwrap() = Temper::Fine;
        subscribe(&broker, &taker, json!({})).await.unwrap();
        wait_until(|| taker.lanes() == ["bad", "good"] && status(&broker).lanes_set_aside == 0).await;
        assert_eq!(status(&broker).reset.map(|reset| (reset.after, reset.up_to)), Some((Position(1), Position(4))));
        broker.publisher().publish(&[numbered(6, "new")]).await.unwrap();
        wait_until(|| status(&broker).floor == Position(6)).await;
    });
}

/// Hears where the log begins, and notes that with each place that it is sent; it takes nothing at first.
#[derive(Default)]
struct Hearing {
    log_first: Mutex<Option<Position>>,
    sent: Mutex<Vec<(Position, Option<Position>)>>,
    is_taking: Mutex<bool>,
}

impl Sink for Hearing {
    fn hear_log_first(&self, first: Position) {
        *self.log_first.lock().unwrap() = Some(first);
    }

    fn deliver<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<Vec<ItemAnswer>, SinkError>> {
        let heard = *self.log_first.lock().unwrap();
        self.sent.lock().unwrap().extend(events.iter().map(|event| (event.position, heard)));
        let failed = SinkError { status: Some(503), retry_after_s: None, reason: "later".into() };
        let answer = if *self.is_taking.lock().unwrap() { Ok(Vec::new()) } else { Err(failed) };
        Box::pin(std::future::ready(answer))
    }
}

#[test]
fn each_delivery_says_where_the_log_begins_and_what_is_before_that_is_sent_no_more() {
    let (folder, hearing) = (tempfile::tempdir().unwrap(), Arc::new(Hearing::default()));
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        broker.attach("tester", [TYPE], 1, hearing.clone()).await.unwrap();
        broker.publisher().publish(&(1..=6).map(|n| numbered(n, &n.to_string())).collect::<Vec<_>>()).await.unwrap();
        wait_until(|| hearing.sent.lock().unwrap().len() >= 6).await;
        assert!(hearing.sent.lock().unwrap().drain(..).all(|(_, heard)| heard == Some(Position(1))));
        // They wait in memory to be sent again.
        broker.engine().trim(Position(4)).await.unwrap();
        *hearing.is_taking.lock().unwrap() = true;
        wait_until(|| status(&broker).floor == Position(6)).await;
        let mut sent = hearing.sent.lock().unwrap().clone();
        sent.sort_unstable();
        assert_eq!(sent, [5, 6].map(|position| (Position(position), Some(Position(5)))));
    });
}

#[test]
fn a_loss_that_a_crash_broke_off_is_told_in_full_when_it_goes_on() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Fine, 1));
    let told = |broker: &Broker| status(broker).reset.map(|Reset { after, up_to, expired, .. }| (after.0, up_to.0, expired));
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, json!({"required": false})).await.unwrap();
        broker.shared.subscriptions.pause("tester", true).await.unwrap();
        broker.publisher().publish(&(1..=30).map(|n| numbered(n, &n.to_string())).collect::<Vec<_>>()).await.unwrap();
        assert_eq!((release(&broker, 20).await, told(&broker)), (Position(20), Some((0, 20, 20))));
        // It ends before the log is trimmed.
        assert!(lifecycle.stop(DEADLINE).await);
    });
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(2)).await;
        assert_eq!((release(&broker, 20).await, told(&broker)), (Position(20), Some((0, 20, 20))), "nothing more is lost");
        assert_eq!((release(&broker, 25).await, told(&broker)), (Position(25), Some((0, 25, 25))));
        broker.engine().trim(Position(25)).await.unwrap();
        assert_eq!((release(&broker, 27).await, told(&broker)), (Position(27), Some((25, 27, 2))), "another one");
        assert_eq!(broker.audit("tester").await, Ok(Counts { expired: 27, ..Counts::default() }));
    });
}

#[test]
fn whoever_begins_while_the_log_is_about_to_lose_events_begins_behind_them() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Fine, 1));
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        broker.publisher().publish(&(1..=9).map(|n| numbered(n, &n.to_string())).collect::<Vec<_>>()).await.unwrap();
        assert_eq!(release(&broker, 6).await, Position(6));
        subscribe(&broker, &taker, json!({"required": true})).await.unwrap();
        broker.engine().trim(Position(6)).await.unwrap();
        wait_until(|| status(&broker).floor == Position(9)).await;
        assert_eq!(
            (status(&broker).after, status(&broker).reset, taker.lanes()),
            (Position(6), None, ["7", "8", "9"].map(String::from).into())
        );
    });
}

#[test]
fn a_subscription_whose_oldest_event_was_trimmed_without_asking_can_still_be_looked_at() {
    let (folder, taker) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Hates("bad", 503), 1));
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        subscribe(&broker, &taker, json!({})).await.unwrap();
        broker.publisher().publish(&[numbered(1, "good"), numbered(2, "bad"), numbered(3, "good")]).await.unwrap();
        wait_until(|| status(&broker).lanes_set_aside == 1).await;
        broker.shared.subscriptions.pause("tester", true).await.unwrap();
        broker.engine().trim(Position(2)).await.unwrap();
        let described = broker.shared.subscriptions.describe("tester").await.unwrap();
        assert_eq!((described.status.lanes_set_aside, described.status.oldest_unacknowledged), (1, None));
    });
}
