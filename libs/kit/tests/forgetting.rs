//! What a service forgets, and what it must not: what can be delivered again is known, and what cannot goes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use kit::{
    Environment, Position, Recorded,
    metrics::Metrics,
    service::{Idempotency, Meta},
    store::StoreError,
    transport::Sink,
};
use proptest::prelude::*;
use testkit::{RecordingPublisher, world};

mod tally;

use tally::{Input, Name, Running, Tally, event};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How old a delivery may be when it is taken: twice the tolerance of signatures, were both clocks as far off as they may.
const LATE_MAX: Duration = Duration::from_secs(10 * 60);

/// A service and the log whose events it is sent. Each event is alone in its lane, so that its tally says how often it was applied.
struct Pair {
    folder: tempfile::TempDir,
    environment: Environment,
    publisher: Arc<RecordingPublisher>,
    running: Option<Running>,
    /// The log holds the events from here to `last`.
    first: i64,
    last: i64,
    /// Events that were sent at least once.
    sent: BTreeSet<i64>,
    /// Deliveries on their way: the event, where the log began, and when they were sent.
    late: Vec<(i64, i64, tokio::time::Instant)>,
}

impl Pair {
    fn start() -> Self {
        let (folder, environment, publisher) = (tempfile::tempdir().unwrap(), world(1), Arc::new(RecordingPublisher::new()));
        let running = Some(Running::start(&Tally::default(), folder.path(), &environment, &publisher));
        Self { folder, environment, publisher, running, first: 1, last: 0, sent: BTreeSet::new(), late: Vec::new() }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    fn intake(&self) -> Arc<dyn Sink> {
        self.running().service.intake()
    }

    async fn restart(&mut self) {
        self.running.take().unwrap().stop().await;
        self.running = Some(Running::start(&Tally::default(), self.folder.path(), &self.environment, &self.publisher));
    }

    /// Publishes an event and delivers it.
    async fn publish(&mut self) -> i64 {
        self.last += 1;
        self.deliver(self.last).await;
        self.last
    }

    async fn deliver(&mut self, position: i64) {
        self.arrive(position, self.first).await;
    }

    async fn arrive(&mut self, position: i64, first: i64) {
        self.intake().hear_log_first(Position(first));
        assert!(self.intake().deliver(&[at(position)]).await.unwrap().is_empty());
        self.sent.insert(position);
    }

    /// Lets time pass, with an event and a command every minute for a while in the end: what can be forgotten is.
    async fn settle(&mut self, time: Duration) {
        self.publish().await;
        tokio::time::sleep(time).await;
        for _ in 0..40 {
            self.publish().await;
            tokio::time::sleep(MINUTE).await;
        }
        self.publish().await;
    }

    fn trim(&mut self, up_to: i64) {
        self.first = self.first.max(up_to + 1);
    }

    fn rows(&self, table: &str) -> i64 {
        let sql = format!("select count(*) from {table}");
        self.running().handle().readers().read(|db| Ok::<i64, StoreError>(db.query_row(&sql, [], |row| row.get(0))?)).unwrap()
    }

    /// The positions that the inbox knows.
    fn known(&self) -> BTreeSet<i64> {
        let read = self.running().handle().readers().read(|db| {
            let mut statement = db.prepare("select position from inbox where position is not null")?;
            let rows = statement.query_map([], |row| row.get::<_, i64>(0))?;
            Ok::<BTreeSet<i64>, StoreError>(rows.collect::<Result<_, _>>()?)
        });
        read.unwrap()
    }

    fn applied(&self, position: i64) -> u32 {
        self.running().count(&position.to_string())
    }
}

fn at(position: i64) -> Recorded {
    Recorded { position: Position(position), ..event(&position.to_string(), "count", &position.to_string()) }
}

fn meta(key: &str) -> Meta {
    Meta { idempotency: Some(Idempotency { scopes: vec!["me".into()], key: key.into(), fingerprint: [1; 32] }), ..Meta::default() }
}

async fn is_known(pair: &Pair, key: &str) -> bool {
    pair.running().handle().submit(Name("shop".into()), Input::Count, meta(key)).await.unwrap().is_repeated
}

#[tokio::test(start_paused = true)]
async fn what_the_log_has_lost_is_forgotten_and_nothing_else() {
    let mut pair = Pair::start();
    for _ in 0..10 {
        pair.publish().await;
    }
    pair.trim(6);
    pair.settle(DAY).await;
    assert_eq!(pair.known(), (7..=pair.last).collect());
    for position in 7..=pair.last {
        pair.deliver(position).await;
        assert_eq!(pair.applied(position), 1);
    }
    assert_eq!(pair.rows("inbox"), pair.last - 6);
    let metrics = Metrics::new().unwrap();
    metrics.add(Arc::new(pair.running().handle().clone()));
    let shown = metrics.show().await.unwrap();
    assert!(shown.contains("cascade_rows_forgotten_total{service=\"tally\",table=\"inbox\"} 6\n"), "{shown}");
    assert!(shown.contains(&format!("cascade_inbox_rows{{service=\"tally\"}} {}\n", pair.last - 6)), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_runs_for_ever_remembers_as_much_as_the_log() {
    let mut pair = Pair::start();
    let mut most = 0;
    for _ in 0..100 {
        for _ in 0..20 {
            pair.publish().await;
        }
        // The log keeps two days, at six hours a round.
        pair.trim(pair.last - 8 * 20);
        tokio::time::sleep(DAY / 4).await;
        most = most.max(pair.rows("inbox"));
    }
    assert!((8 * 20..=11 * 20).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_was_sent_before_the_log_lost_its_event_finds_it_known() {
    let mut pair = Pair::start();
    let old = pair.publish().await;
    tokio::time::sleep(10 * DAY).await;
    let first_then = pair.first;
    pair.trim(pair.last);
    pair.publish().await;
    tokio::time::sleep(LATE_MAX).await;
    pair.publish().await;
    pair.arrive(old, first_then).await;
    assert_eq!(pair.applied(old), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_remembered_for_a_day_whatever_the_log_does() {
    let mut pair = Pair::start();
    let old = pair.publish().await;
    pair.trim(pair.last);
    for _ in 0..22 {
        tokio::time::sleep(DAY / 24).await;
        pair.publish().await;
    }
    assert!(pair.known().contains(&old));
    // Its service was killed before it noted that the broker has it, and publishes it once more: the log takes it for a new one.
    pair.last += 1;
    let again = Recorded { position: Position(pair.last), ..at(old) };
    assert!(pair.intake().deliver(std::slice::from_ref(&again)).await.unwrap().is_empty());
    assert_eq!(pair.applied(old), 1);
    pair.settle(3 * DAY).await;
    assert!(pair.intake().deliver(&[again]).await.unwrap().is_empty());
    assert_eq!(pair.applied(old), 1, "it is remembered as long as it can come from its new place");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_say_where_the_log_begins_makes_nothing_forgotten() {
    let mut pair = Pair::start();
    for position in 1..=5 {
        assert!(pair.intake().deliver(&[at(position)]).await.unwrap().is_empty());
        assert!(!is_known(&pair, &position.to_string()).await);
        tokio::time::sleep(10 * DAY).await;
    }
    assert_eq!((pair.rows("inbox"), pair.rows("idempotency")), (5, 5));
    // Nor does one whose log has lost nothing.
    pair.last = 5;
    pair.settle(10 * DAY).await;
    assert_eq!((pair.rows("inbox"), pair.rows("idempotency")), (pair.last, 5));
}

#[tokio::test(start_paused = true)]
async fn a_key_of_a_service_that_applied_nothing_is_kept_while_the_log_has_lost_nothing() {
    let pair = Pair::start();
    assert!(!is_known(&pair, "old").await);
    for (first, is_kept) in [(1, true), (2, false)] {
        for day in 0..10 {
            pair.intake().hear_log_first(Position(first));
            is_known(&pair, &format!("{first} {day}")).await;
            tokio::time::sleep(DAY).await;
        }
        assert_eq!(is_known(&pair, "old").await, is_kept, "{first}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_begins_anew_takes_back_what_the_old_one_said() {
    let mut pair = Pair::start();
    for _ in 0..20 {
        pair.publish().await;
    }
    pair.trim(10);
    pair.settle(DAY).await;
    // The broker's store was lost.
    (pair.first, pair.last) = (1, 0);
    for n in 1..=5 {
        let news = Recorded { position: Position(n), ..event(&format!("new-{n}"), "count", &format!("new-{n}")) };
        pair.intake().hear_log_first(Position(1));
        pair.intake().deliver(&[news]).await.unwrap();
    }
    tokio::time::sleep(2 * DAY).await;
    for n in 1..=5 {
        let news = Recorded { position: Position(n), ..event(&format!("new-{n}"), "count", &format!("new-{n}")) };
        pair.intake().hear_log_first(Position(1));
        pair.intake().deliver(&[news]).await.unwrap();
        tokio::time::sleep(20 * MINUTE).await;
        assert_eq!(pair.running().count(&format!("new-{n}")), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_place_is_kept_until_it_comes_with_one() {
    let mut pair = Pair::start();
    let old = Recorded { position: Position::START, ..at(1) };
    pair.intake().deliver(&[old]).await.unwrap();
    pair.last = 1;
    pair.trim(1);
    pair.settle(10 * DAY).await;
    assert_eq!((pair.rows("inbox"), pair.known().len()), (pair.last, usize::try_from(pair.last).unwrap() - 1));
    // It came from here after all.
    pair.intake().deliver(&[at(1)]).await.unwrap();
    assert_eq!(pair.applied(1), 1);
    pair.settle(MINUTE).await;
    assert!(!pair.known().contains(&1));
    assert_eq!(pair.rows("inbox"), pair.last - 1);
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_is_known_for_a_week_and_as_long_as_any_event_from_before_it() {
    let mut pair = Pair::start();
    let (first, before) = (pair.publish().await, pair.publish().await);
    tokio::time::sleep(MINUTE).await;
    assert!(!is_known(&pair, "old").await);
    tokio::time::sleep(MINUTE).await;
    pair.trim(first);
    for _ in 0..10 {
        pair.settle(DAY).await;
    }
    assert!(is_known(&pair, "old").await, "an event that was applied before it was made can come again");
    pair.trim(before);
    pair.settle(DAY).await;
    assert!(!is_known(&pair, "old").await, "it is a new one");

    assert!(!is_known(&pair, "new").await);
    pair.trim(pair.last);
    pair.settle(5 * DAY).await;
    assert!(is_known(&pair, "new").await, "a week it is known, whatever the log does");
    pair.trim(pair.last);
    pair.settle(3 * DAY).await;
    assert!(!is_known(&pair, "new").await);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_forgets_a_few_rows_only() {
    let mut pair = Pair::start();
    let all: Vec<_> = (1..=2_000).map(at).collect();
    for some in all.chunks(500) {
        assert!(pair.intake().deliver(some).await.unwrap().is_empty());
    }
    pair.last = 2_000;
    pair.trim(2_000);
    tokio::time::sleep(2 * DAY).await;
    pair.publish().await;
    tokio::time::sleep(16 * MINUTE).await;
    assert_eq!(pair.rows("inbox"), 2_001);
    for n in 1..=3 {
        let before = pair.rows("inbox");
        pair.deliver(pair.last).await;
        assert_eq!(before - pair.rows("inbox"), 64, "{n}");
    }
}

/// What happens to the pair.
#[derive(Debug, Clone)]
enum Happening {
    Publish,
    /// The event so far into the log comes again.
    Again(usize),
    /// The event so far into the log is sent, and is on its way.
    Send(usize),
    /// What is on its way for the longest arrives, if it is not too late.
    Arrive,
    /// The log loses that many.
    Trim(i64),
    Wait(Duration),
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => Just(Happening::Publish),
        3 => any::<usize>().prop_map(Happening::Again),
        2 => any::<usize>().prop_map(Happening::Send),
        2 => Just(Happening::Arrive),
        3 => (1_i64..6).prop_map(Happening::Trim),
        3 => (0_u64..16).prop_map(|minutes| Happening::Wait(MINUTE * u32::try_from(minutes).unwrap())),
        2 => (1_u64..40).prop_map(|hours| Happening::Wait(MINUTE * 60 * u32::try_from(hours).unwrap())),
        1 => Just(Happening::Restart),
    ]
}

async fn play(happenings: Vec<Happening>) {
    let mut pair = Pair::start();
    let pick = |pair: &Pair, place: usize| {
        let held = usize::try_from(pair.last - pair.first + 1).unwrap();
        (held > 0).then(|| pair.first + i64::try_from(place % held).unwrap())
    };
    for happening in happenings {
        match happening {
            Happening::Publish => drop(pair.publish().await),
            Happening::Again(place) => {
                if let Some(position) = pick(&pair, place) {
                    pair.deliver(position).await;
                }
            }
            Happening::Send(place) => {
                if let Some(position) = pick(&pair, place) {
                    pair.late.push((position, pair.first, tokio::time::Instant::now()));
                }
            }
            Happening::Arrive => {
                if !pair.late.is_empty() {
                    let (position, first, sent_at) = pair.late.remove(0);
                    if sent_at.elapsed() <= LATE_MAX {
                        pair.arrive(position, first).await;
                    }
                }
            }
            Happening::Trim(count) => pair.trim((pair.first + count - 1).min(pair.last)),
            Happening::Wait(time) => tokio::time::sleep(time).await,
            Happening::Restart => pair.restart().await,
        }
    }
    let known = pair.known();
    for position in &pair.sent {
        assert_eq!(pair.applied(*position), 1, "event {position}");
        assert!(*position < pair.first || known.contains(position), "event {position} is in the log and not in the inbox");
    }
    // In the end nothing is remembered but what is in the log.
    pair.settle(2 * DAY).await;
    assert!(pair.known().iter().all(|position| *position >= pair.first));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_can_come_again_is_known_and_nothing_else_stays(happenings in prop::collection::vec(happening(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(happenings));
    }
}

/// A store as it was before events had places.
#[tokio::test(start_paused = true)]
async fn a_store_from_before_is_brought_up_to_date_with_what_it_knew() {
    let pair = Pair::start();
    pair.intake().deliver(&[at(1)]).await.unwrap();
    let Pair { folder, running, environment, publisher, .. } = pair;
    running.unwrap().stop().await;
    go_back(folder.path());
    let running = Running::start(&Tally::default(), folder.path(), &environment, &publisher);
    running.service.intake().deliver(&[at(1)]).await.unwrap();
    assert_eq!(running.count("1"), 1);
}

fn go_back(folder: &Path) {
    let db = rusqlite::Connection::open(folder.join("tally.db")).unwrap();
    db.execute_batch(
        "drop index inbox_position; drop index idempotency_created; alter table inbox drop column position;
         update schema_layers set version = 1 where layer = 'kit'",
    )
    .unwrap();
}
