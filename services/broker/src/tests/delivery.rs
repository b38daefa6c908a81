//! From publishing to a subscriber of the same process, through failures and crashes.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use kit::{
    BoxFuture, Envelope, Environment, Lifecycle, Position, Recorded,
    ids::Ids,
    transport::{ItemAnswer, Sink, SinkError},
};

use super::{DEADLINE, TYPE, environment, event, settings};
use crate::{
    Broker,
    dispatcher::{Decision, State},
    filters::Selection,
    lanes::DeadLetter,
    subscriptions::RegisterError,
};

/// How a subscriber behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Temper {
    Fine,
    /// Fails in every way there is, now and then.
    Moody,
    /// Fails on one lane, by this status.
    Hates(&'static str, u16),
    /// Fails on everything, by this status.
    HatesAll(u16),
}

/// A subscriber with an inbox: it checks that each lane's events come in sequence.
pub(super) struct Subscriber {
    pub(super) temper: Mutex<Temper>,
    ids: Ids,
    applied: Mutex<BTreeMap<String, i64>>,
    pub(super) deliveries: Mutex<usize>,
}

impl Subscriber {
    pub(super) fn new(temper: Temper, seed: u64) -> Arc<Self> {
        Arc::new(Self { temper: Mutex::new(temper), ids: Ids::seeded(seed), applied: Mutex::default(), deliveries: Mutex::default() })
    }

    fn is_unlucky(&self, percent: u64) -> bool {
        self.ids.up_to(99) < percent
    }

    fn apply(&self, event: &Envelope) {
        let mut applied = self.applied.lock().unwrap();
        let count = applied.entry(event.lane().to_owned()).or_default();
        let sequence = event.sequence.unwrap();
        assert!(sequence <= *count + 1, "{} skipped from {count} to {sequence}", event.lane());
        *count = sequence.max(*count);
    }

    pub(super) fn total(&self) -> i64 {
        self.applied.lock().unwrap().values().sum()
    }

    /// The lanes of which something was applied.
    pub(super) fn lanes(&self) -> Vec<String> {
        self.applied.lock().unwrap().keys().cloned().collect()
    }

    pub(super) async fn until(&self, total: i64) {
        let all = async {
            while self.total() < total {
                let_time_pass(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(3_600), all).await.expect("everything arrives in the end");
    }
}

impl Sink for Subscriber {
    fn deliver<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<Vec<ItemAnswer>, SinkError>> {
        Box::pin(async move {
            let lanes: BTreeSet<_> = events.iter().map(|one| one.event.lane()).collect();
            assert_eq!(lanes.len(), events.len(), "a batch has one event of each lane");
            *self.deliveries.lock().unwrap() += 1;
            let temper = *self.temper.lock().unwrap();
            let failed = |status| Err(SinkError { status, retry_after_s: None, reason: "moody".into() });
            let mut answers = Vec::new();
            let answer = |index, status| ItemAnswer { index, status, retry_after_s: None, reason: "moody".into() };
            match temper {
                Temper::Fine => events.iter().for_each(|one| self.apply(&one.event)),
                Temper::Hates(lane, status) => {
                    for (index, one) in events.iter().enumerate() {
                        if one.event.lane() == lane { answers.push(answer(index, status)) } else { self.apply(&one.event) }
                    }
                }
                Temper::HatesAll(status) => answers.extend((0..events.len()).map(|index| answer(index, status))),
                Temper::Moody => {
                    let_time_pass(Duration::from_millis(self.ids.up_to(20))).await;
                    match self.ids.up_to(29) {
                        0 => return failed(Some(503)),
                        1 => return failed(None),
                        2 => return failed(Some(429)),
                        3 => pending().await,
                        4 if events.len() > 1 => return failed(Some(400)),
                        _ => {}
                    }
                    for (index, one) in events.iter().enumerate() {
                        if self.is_unlucky(15) { answers.push(answer(index, 503)) } else { self.apply(&one.event) }
                    }
                    // Taken, and the answer is lost.
                    if self.is_unlucky(5) {
                        return failed(Some(504));
                    }
                }
            }
            Ok(answers)
        })
    }
}

/// One life of a broker; dropping its runtime is `kill -9`.
pub(super) fn live<T>(life: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(life)
}

pub(super) async fn start(folder: &Path, environment: &Environment) -> (Broker, Lifecycle) {
    let lifecycle = Lifecycle::new();
    (Broker::start(folder, settings(), environment, &lifecycle).await.unwrap(), lifecycle)
}

pub(super) fn numbered(lane: &str, sequence: i64) -> Envelope {
    Envelope { sequence: Some(sequence), ..event("/tester", &format!("{lane}-{sequence}"), lane) }
}

#[test]
fn after_any_crashes_every_acknowledged_event_arrives_in_sequence() {
    for seed in 0..12 {
        let (folder, subscriber, dice) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Moody, seed), Ids::seeded(seed + 100));
        let mut counts = BTreeMap::<String, i64>::new();
        for life in 0..8 {
            live(async {
                let (broker, lifecycle) = start(folder.path(), &environment(seed)).await;
                broker.attach("tester", [TYPE], 1, subscriber.clone()).await.unwrap();
                let publisher = broker.publisher();
                for _ in 0..dice.up_to(30) {
                    let events = (0..dice.up_to(5)).map(|_| format!("lane-{}", dice.up_to(9))).map(|lane| {
                        let count = counts.entry(lane.clone()).or_default();
                        *count += 1;
                        numbered(&lane, *count)
                    });
                    let events: Vec<_> = events.collect();
                    publisher.publish(&events).await.unwrap();
                    // As a relay does that did not hear the answer.
                    publisher.publish(&events).await.unwrap();
                    let_time_pass(Duration::from_millis(dice.up_to(50))).await;
                }
                let_time_pass(Duration::from_millis(dice.up_to(3_000))).await;
                let audited = broker.audit("tester").await.unwrap();
                assert!(audited.delivered <= subscriber.total());
                if life == 7 {
                    let total = counts.values().sum();
                    subscriber.until(total).await;
                    wait_until(|| broker.subscription("tester").unwrap().status.counts.pending == 0).await;
                    let counts = broker.audit("tester").await.unwrap();
                    assert_eq!((counts.delivered, counts.total()), (total, total));
                } else if dice.up_to(2) == 0 {
                    assert!(lifecycle.stop(DEADLINE).await);
                }
                assert_eq!(lifecycle.failure(), None);
            });
        }
        assert_eq!(*subscriber.applied.lock().unwrap(), counts, "seed {seed}");
    }
}

#[test]
fn one_lane_that_fails_does_not_hold_up_the_others_and_catches_up_in_sequence() {
    let (folder, subscriber) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Hates("bad", 500), 1));
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        broker.attach("tester", [TYPE], 1, subscriber.clone()).await.unwrap();
        let events: Vec<_> = (1..=500).flat_map(|n| [numbered("bad", n), numbered("good", n)]).collect();
        let begun = tokio::time::Instant::now();
        broker.publisher().publish(&events).await.unwrap();
        subscriber.until(500).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let_time_pass(Duration::from_secs(120)).await;
        let status = broker.subscription("tester").unwrap().status;
        assert_eq!((status.state, status.lanes_set_aside, status.lag_events, status.dead_letters), (State::Active, 1, 500, 0));
        assert_eq!(status.last_error.and_then(|error| error.status), Some(500));
        assert!(lifecycle.stop(DEADLINE).await);
    });
    *subscriber.temper.lock().unwrap() = Temper::Fine;
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(2)).await;
        assert_eq!(broker.subscription("tester").unwrap().status.state, State::Unattached);
        broker.attach("tester", [TYPE], 1, subscriber.clone()).await.unwrap();
        subscriber.until(1_000).await;
        broker.publisher().publish(&[numbered("bad", 501)]).await.unwrap();
        subscriber.until(1_001).await;
        let_time_pass(Duration::from_secs(5)).await;
        assert_eq!(broker.subscription("tester").unwrap().status.lanes_set_aside, 0);
    });
}

#[test]
fn what_was_saved_at_a_stop_is_not_delivered_again() {
    let (folder, subscriber) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Fine, 1));
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        broker.attach("tester", [TYPE], 1, subscriber.clone()).await.unwrap();
        let others = Envelope { ty: "cascade.NotWanted.v1".into(), ..numbered("lane", 9) };
        broker.publisher().publish(&[numbered("lane", 1), numbered("lane", 2), others]).await.unwrap();
        subscriber.until(2).await;
        assert!(lifecycle.stop(DEADLINE).await);
    });
    let deliveries = *subscriber.deliveries.lock().unwrap();
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(2)).await;
        broker.attach("tester", [TYPE], 1, subscriber.clone()).await.unwrap();
        let_time_pass(Duration::from_secs(10)).await;
        assert_eq!(*subscriber.deliveries.lock().unwrap(), deliveries);
        let status = broker.subscription("tester").unwrap().status;
        assert_eq!((status.lag_events, status.state), (0, State::Active));
    });
}

#[test]
fn a_poisonous_event_becomes_a_dead_letter_and_its_lane_waits_behind_it_also_after_a_crash() {
    let (folder, subscriber) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Hates("bad", 422), 1));
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        broker.attach("tester", [TYPE], 1, subscriber.clone()).await.unwrap();
        let events: Vec<_> = (1..=20).flat_map(|n| [numbered("bad", n), numbered("good", n)]).collect();
        broker.publisher().publish(&events).await.unwrap();
        subscriber.until(20).await;
        let_time_pass(Duration::from_secs(3)).await;
    });
    *subscriber.temper.lock().unwrap() = Temper::Fine;
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        broker.attach("tester", [TYPE], 1, subscriber.clone()).await.unwrap();
        let_time_pass(Duration::from_secs(200)).await;
        assert_eq!(subscriber.total(), 20, "it waits for somebody to decide");
        let letters = dead_letters(&broker).await;
        assert_eq!(letters.iter().map(|one| (one.lane.as_str(), one.status, one.attempts)).collect::<Vec<_>>(), [("bad", Some(422), 1)]);
        let redrive = async |position| broker.shared.subscriptions.decide("tester", Decision::Redrive, vec![position]).await;
        assert_eq!(redrive(letters[0].position.next()).await, Ok(0));
        assert_eq!(redrive(letters[0].position).await, Ok(1));
        subscriber.until(40).await;
        let_time_pass(Duration::from_secs(5)).await;
        assert_eq!(dead_letters(&broker).await, []);
        assert_eq!(broker.subscription("tester").unwrap().status.lanes_set_aside, 0);
    });
}

#[test]
fn a_registration_survives_and_its_revision_only_rises() {
    let folder = tempfile::tempdir().unwrap();
    let (subscriber, more) = (Subscriber::new(Temper::Fine, 1), "cascade.More.v1");
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        broker.publisher().publish(&[numbered("lane", 1)]).await.unwrap();
        broker.attach("tester", [TYPE], 2, subscriber.clone()).await.unwrap();
        subscriber.until(1).await;
        assert_eq!(broker.attach("tester", [TYPE], 2, subscriber.clone()).await.unwrap().wanted.revision, 2);
        let lower = broker.attach("tester", [more], 1, subscriber.clone()).await.unwrap();
        assert_eq!((lower.wanted.revision, lower.wanted.selection), (2, Selection::of_types([TYPE])));
        let taken = broker.attach("tester", [more], 2, subscriber.clone()).await;
        assert!(matches!(taken, Err(RegisterError::RevisionTaken { revision: 2, .. })));
        broker.attach("tester", [TYPE, more], 3, subscriber.clone()).await.unwrap();
        for (name, types, revision) in
            [("Bad", vec![TYPE], 1), ("", vec![TYPE], 1), ("a/b", vec![TYPE], 1), ("ok", vec![], 1), ("ok", vec![TYPE], 0)]
        {
            assert!(matches!(broker.attach(name, types, revision, subscriber.clone()).await, Err(RegisterError::Invalid { .. })), "{name}");
        }
        assert!(lifecycle.stop(DEADLINE).await);
    });
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        broker.publisher().publish(&[numbered("lane", 2), Envelope { ty: more.into(), ..numbered("lane", 3) }]).await.unwrap();
        broker.attach("tester", [TYPE, more], 3, subscriber.clone()).await.unwrap();
        subscriber.until(3).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publishers_and_a_subscriber_work_beside_one_another_on_real_threads() {
    const PUBLISHERS: i64 = 50;
    const ROUNDS: i64 = 40;
    let (folder, subscriber, lifecycle) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Fine, 1), Lifecycle::new());
    let environment = Environment { writers: kit::environment::Writers::OwnThreads, ..environment(1) };
    let broker = Broker::start(folder.path(), settings(), &environment, &lifecycle).await.unwrap();
    broker.attach("tester", [TYPE], 1, subscriber.clone()).await.unwrap();
    for publisher in 0..PUBLISHERS {
        let way = broker.publisher();
        lifecycle.spawn("publisher", async move {
            for sequence in 1..=ROUNDS {
                way.publish(&[numbered(&format!("lane-{publisher}"), sequence)]).await.unwrap();
            }
        });
    }
    tokio::time::timeout(DEADLINE, subscriber.until(PUBLISHERS * ROUNDS)).await.unwrap();
    assert_eq!(broker.engine().tail().last(), kit::Position(PUBLISHERS * ROUNDS));
    assert!(lifecycle.stop(DEADLINE).await);
    assert_eq!(lifecycle.failure(), None);
}

/// All dead letters of the subscription `tester`, also those that were discarded.
pub(super) async fn dead_letters(broker: &Broker) -> Vec<DeadLetter> {
    let (letters, _) = broker.shared.subscriptions.letters("tester", (Position::START, 1_000), |_| true).await.unwrap();
    letters.into_iter().map(|letter| letter.letter).collect()
}

/// Waits until `is_so`, in simulated time.
pub(super) async fn wait_until(is_so: impl Fn() -> bool) {
    let all = async {
        while !is_so() {
            let_time_pass(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3_600), all).await.expect("it becomes so");
}

/// Simulated time, or the pace of a sink.
pub(super) async fn let_time_pass(duration: std::time::Duration) {
    tokio::time::sleep(duration).await;
}
