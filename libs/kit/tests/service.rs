//! The shell's promises, on a machine small enough to see through: a tally that counts and tells its neighbour.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kit::{
    BoxFuture, Environment, EventId,
    environment::Disk,
    service::{Idempotency, Meta, SubmitError},
};
use testkit::{RecordingPublisher, eventually, world};

mod tally;

use tally::{Input, Name, No, Running, Tally, event};

#[tokio::test(start_paused = true)]
async fn a_command_is_durable_when_it_is_answered_and_its_event_is_relayed() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    assert_eq!(tally.submit("a", Input::Count).await.unwrap(), 1);
    assert_eq!(tally.submit("a", Input::Count).await.unwrap(), 2);
    assert_eq!(tally.count("a"), 2);
    eventually("both events are published", || broker.events().len() == 2).await;
    let sequences: Vec<_> = broker.events().iter().map(|event| event.sequence.unwrap()).collect();
    assert_eq!(sequences, [1, 2]);
    tally.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_command_finds_what_its_first_run_did() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    let meta = |byte| Meta {
        idempotency: Some(Idempotency { scopes: vec!["me".into()], key: "k".into(), fingerprint: [byte; 32] }),
        ..Meta::default()
    };
    let first = tally.handle().submit(Name("a".into()), Input::Count, meta(1)).await.unwrap();
    let again = tally.handle().submit(Name("b".into()), Input::Count, meta(1)).await.unwrap();
    assert!(!first.is_repeated && again.is_repeated);
    assert_eq!(again.key, Name("a".into()));
    let other = tally.handle().submit(Name("b".into()), Input::Count, meta(2)).await;
    assert!(matches!(other, Err(SubmitError::IdempotencyMismatch)));
    assert_eq!((tally.count("a"), tally.count("b")), (1, 0));
    // A refusal is never recorded as a success: the same key may be used again.
    let key = |key: &str| Meta {
        idempotency: Some(Idempotency { scopes: vec!["me".into()], key: key.into(), fingerprint: [1; 32] }),
        ..Meta::default()
    };
    assert!(tally.handle().submit(Name("c".into()), Input::Refuse, key("r")).await.is_err());
    assert!(!tally.handle().submit(Name("c".into()), Input::Count, key("r")).await.unwrap().is_repeated);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_applied_once_and_its_context_travels_on() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    let intake = tally.service.intake();
    for _ in 0..3 {
        assert!(intake.deliver(&[event("e-1", "count", "a"), event("e-2", "other", "b")]).await.unwrap().is_empty());
    }
    assert_eq!(tally.count("a"), 1);
    eventually("the event is published", || !broker.events().is_empty()).await;
    let published = broker.events().remove(0);
    assert_eq!((published.owner.as_deref(), published.scenario.as_deref()), (Some("me"), Some("7")));
    assert_eq!(published.causationid, Some(EventId::new("e-1")));
}

#[tokio::test(start_paused = true)]
async fn in_a_batch_only_the_culprit_fails() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    let batch = [
        event("1", "count", "a"),
        event("2", "panic", "b"),
        event("3", "refuse", "c"),
        event("4", "nonsense", "d"),
        event("5", "count", "e"),
    ];
    let answers = tally.service.intake().deliver(&batch).await.unwrap();
    let statuses: Vec<_> = answers.iter().map(|answer| (answer.index, answer.status)).collect();
    assert_eq!(statuses, [(1, 500), (2, 422), (3, 422)]);
    assert_eq!((tally.count("a"), tally.count("b"), tally.count("e")), (1, 0, 1));
    // What was refused left no trace: it can be redriven when the code is mended.
    assert_eq!(tally.service.intake().deliver(&[event("3", "refuse", "c")]).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn entities_that_tell_one_another_change_together_or_not_at_all() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    tally.submit("a", Input::CountBothWith("b".into())).await.unwrap();
    assert_eq!((tally.count("a"), tally.count("b")), (1, 1));
    assert!(matches!(tally.submit("a", Input::PanicNeighbour("b".into())).await, Err(SubmitError::Refused(No))));
    assert_eq!((tally.count("a"), tally.count("b")), (1, 1));
    assert!(matches!(tally.submit("a", Input::Panic).await, Err(SubmitError::Failed)));
}

#[tokio::test(start_paused = true)]
async fn a_timer_survives_a_restart_and_is_given_once() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    tally.submit("a", Input::CountLater { after_ms: 5_000 }).await.unwrap();
    tally.stop().await;
    tokio::time::advance(Duration::from_secs(10)).await;
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    eventually("the timer is given", || tally.count("a") == 1).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(tally.count("a"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_sets_itself_again_goes_on() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    tally.submit("a", Input::CountAgainAfter { after_ms: 1_000 }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    assert_eq!(tally.count("a"), 11);
}

#[tokio::test(start_paused = true)]
async fn an_effect_without_an_outcome_is_performed_again_after_a_restart() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    let machine = Tally::default();
    machine.effects_hang.store(true, Ordering::SeqCst);
    let tally = Running::start(&machine, folder.path(), &environment, &broker);
    tally.submit("a", Input::CountByEffect { after_ms: 0 }).await.unwrap();
    eventually("the effect is under way", || machine.effects_performed.load(Ordering::SeqCst) == 1).await;
    tally.stop().await;
    machine.effects_hang.store(false, Ordering::SeqCst);
    let tally = Running::start(&machine, folder.path(), &environment, &broker);
    eventually("its outcome is applied", || tally.count("a") == 2).await;
    tally.stop().await;
    let tally = Running::start(&machine, folder.path(), &environment, &broker);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((machine.effects_performed.load(Ordering::SeqCst), tally.count("a")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_outcome_is_a_durable_timer() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    let machine = Tally::default();
    let tally = Running::start(&machine, folder.path(), &environment, &broker);
    tally.submit("a", Input::CountByEffect { after_ms: 3_000 }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    tally.stop().await;
    let tally = Running::start(&machine, folder.path(), &environment, &broker);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(tally.count("a"), 1);
    eventually("the outcome is applied", || tally.count("a") == 2).await;
    assert_eq!(machine.effects_performed.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_the_broker_across_restarts_and_keep_their_sequence() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    broker.set_away(true);
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    for _ in 0..3 {
        tally.submit("a", Input::Count).await.unwrap();
    }
    tally.stop().await;
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    tally.submit("a", Input::Count).await.unwrap();
    broker.set_away(false);
    eventually("all are published", || broker.events().len() == 4).await;
    let sequences: Vec<_> = broker.events().iter().map(|event| event.sequence.unwrap()).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
    // Acknowledged rows are deleted: the next start publishes nothing again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    tally.stop().await;
    let _tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(broker.events().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_broker_refuses_holds_up_its_own_order_only() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    broker.refuse("bad");
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    for name in ["good", "bad", "fine", "bad", "good"] {
        tally.submit(name, Input::Count).await.unwrap();
    }
    eventually("the others are published", || broker.events().len() == 3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(broker.types_of("bad").is_empty());
    assert_eq!(broker.types_of("good").len(), 2);
}

/// A disk that keeps every commit waiting until it is let go.
#[derive(Default)]
struct SlowDisk {
    goes: AtomicBool,
    commits: Mutex<u32>,
}

impl Disk for SlowDisk {
    fn before_commit(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while !self.goes.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }
    fn after_commit(&self) -> BoxFuture<'_, ()> {
        *self.commits.lock().unwrap() += 1;
        Box::pin(std::future::ready(()))
    }
    fn is_durable(&self) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_before_the_commit_and_what_gathers_meanwhile_shares_the_next_one() {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()));
    let disk = Arc::new(SlowDisk::default());
    let environment = Environment { disk: disk.clone(), ..world(1) };
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    let all = futures_util::future::join_all((0..50).map(|n| tally.submit(if n % 2 == 0 { "a" } else { "b" }, Input::Count)));
    let mut all = std::pin::pin!(all);
    assert!(tokio::time::timeout(Duration::from_secs(1), all.as_mut()).await.is_err());
    assert!(broker.events().is_empty());
    disk.goes.store(true, Ordering::SeqCst);
    assert!(all.await.iter().all(Result::is_ok));
    assert_eq!((tally.count("a"), tally.count("b")), (25, 25));
    assert!(*disk.commits.lock().unwrap() <= 3, "50 commands share a few commits");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_service_takes_no_commands() {
    let (folder, broker, environment) = (tempfile::tempdir().unwrap(), Arc::new(RecordingPublisher::new()), world(1));
    let tally = Running::start(&Tally::default(), folder.path(), &environment, &broker);
    let handle = tally.handle().clone();
    tally.stop().await;
    let answer = handle.submit(Name("a".into()), Input::Count, Meta::default()).await;
    assert!(matches!(answer, Err(SubmitError::Unavailable)));
}
