//! Delivery as it runs: intake, store, timers and couriers together, in time that passes at once.

use std::{path::Path, sync::Arc, time::Duration};

use contract::OrderId;
use kit::{EventId, Position, Recorded};
use testkit::{
    publisher::RecordingPublisher,
    world::{eventually, world},
};

use super::*;

const STOP: Duration = Duration::from_secs(10);
/// So late that a test that needs the safety net fails.
const NEVER_MS: u64 = 24 * 60 * 60 * 1_000;

/// A running service, its broker, and what ends it.
struct Running {
    service: Service<Deliveries>,
    publisher: Arc<RecordingPublisher>,
    environment: Environment,
    lifecycle: Lifecycle,
}

impl Running {
    async fn start(folder: &Path, publisher: &Arc<RecordingPublisher>, workers: u32, pace: Pace) -> Self {
        let (environment, lifecycle) = (world(1), Lifecycle::new());
        let settings = Settings { look_again_ms: NEVER_MS, ..settings_at(pace) };
        let machine = Deliveries::new(Chance::seeded(1), pace, Odds::default(), settings);
        let service = start(machine, workers, folder, &environment, publisher.clone(), &lifecycle).await.unwrap();
        Self { service, publisher: publisher.clone(), environment, lifecycle }
    }

    fn event(&self, order_id: OrderId, ty: &str, source: &str, data: &str, scenario: Option<&str>) -> Recorded {
        let scenario = scenario.map(|number| format!(r#","scenario":"{number}""#)).unwrap_or_default();
        let id = self.environment.ids.event_id(self.service.handle().now());
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"{source}","type":"{ty}","subject":"{order_id}",
                "owner":"{}"{scenario},"data":{data}}}"#,
            owner(order_id)
        );
        Recorded { position: Position(1), event: Arc::new(serde_json::from_str(&event).unwrap()) }
    }

    /// All of them at once.
    async fn pay(&self, order_ids: impl IntoIterator<Item = OrderId>, scenario: Option<&str>) {
        let amount = r#"{"amount":{"amount_minor":1250,"currency":"EUR"}}"#;
        let paid = |order_id| self.event(order_id, "cascade.PaymentAccepted.v1", "/payment", amount, scenario);
        let events: Vec<Recorded> = order_ids.into_iter().map(paid).collect();
        assert_eq!(self.service.intake().deliver(&events).await.unwrap(), []);
    }

    async fn cancel(&self, order_id: OrderId) {
        let event = self.event(order_id, "cascade.OrderCancellationRequested.v1", "/order", "{}", None);
        assert_eq!(self.service.intake().deliver(&[event]).await.unwrap(), []);
    }

    fn names_of(&self, order_id: OrderId) -> Vec<String> {
        let types = self.publisher.types_of(&order_id.to_string());
        types.iter().map(|ty| ty.split('.').nth(1).unwrap().to_owned()).collect()
    }

    fn count(&self, name: &str) -> usize {
        self.publisher.events().iter().filter(|event| event.ty.contains(name)).count()
    }

    fn busy_workers(&self) -> i64 {
        self.query("select count(*) from workers where status <> 'available'")
    }

    fn waiting(&self) -> i64 {
        self.query("select count(*) from deliveries where waiting_since_ms is not null")
    }

    fn query(&self, sql: &str) -> i64 {
        self.service.handle().readers().read(|db| Ok::<i64, StoreError>(db.query_row(sql, [], |row| row.get(0))?)).unwrap()
    }
}

fn order(number: u128) -> OrderId {
    OrderId::new(uuid::Uuid::from_u128(number))
}

/// Everybody orders once.
fn owner(order_id: OrderId) -> String {
    format!("guest-{}", order_id.short())
}

#[tokio::test(start_paused = true)]
async fn picky_workers_decline_then_do_not_answer_then_accept() {
    let (folder, publisher) = (tempfile::tempdir().unwrap(), Arc::default());
    let running = Running::start(folder.path(), &publisher, 20, Pace::Demo).await;
    running.pay([order(1)], Some("3")).await;
    eventually("the delivery is completed", || running.count("DeliveryCompleted") == 1).await;
    assert_eq!(
        running.names_of(order(1)),
        [
            "WorkerSearchStarted",
            "WorkerSearchCompleted",
            "WorkerDeclinedJob",
            "WorkerSearchStarted",
            "WorkerSearchCompleted",
            "WorkerOfferExpired",
            "WorkerSearchStarted",
            "WorkerSearchCompleted",
            "WorkerAcceptedJob",
            "DeliveryStarted",
            "DeliveryCompleted"
        ]
    );
    let events = publisher.events();
    let workers: std::collections::BTreeSet<String> = events
        .iter()
        .filter(|event| event.ty.contains("WorkerSearchCompleted"))
        .map(|event| serde_json::from_str::<serde_json::Value>(event.data.as_ref().unwrap().get()).unwrap()["worker_id"].to_string())
        .collect();
    assert_eq!(workers.len(), 3, "who declined or did not answer is left out");
    let by_id = |id: &EventId| events.iter().find(|event| event.id == *id).map(|event| event.ty.as_str());
    let started = events.iter().find(|event| event.ty.contains("DeliveryStarted")).unwrap();
    assert_eq!(by_id(started.causationid.as_ref().unwrap()), Some("cascade.WorkerAcceptedJob.v1"));
    eventually("all workers are free", || running.busy_workers() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_ever_free_the_search_is_given_up_in_sight() {
    let (folder, publisher) = (tempfile::tempdir().unwrap(), Arc::default());
    let running = Running::start(folder.path(), &publisher, 20, Pace::Demo).await;
    let begin = running.service.handle().now();
    running.pay([order(1)], Some("11")).await;
    eventually("the search is given up", || running.count("WorkerSearchExhausted") == 1).await;
    assert!(running.service.handle().now().since(begin) < Duration::from_secs(10));
    assert_eq!(running.names_of(order(1)), ["WorkerSearchStarted", "WorkerSearchExhausted"]);
    running.cancel(order(1)).await;
    eventually("the cancellation is answered", || running.count("DeliveryCancelled") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn many_orders_share_few_workers_and_no_event_goes_to_another_owner() {
    let (folder, publisher) = (tempfile::tempdir().unwrap(), Arc::default());
    let running = Running::start(folder.path(), &publisher, 3, Pace::Instant).await;
    running.pay((1..=70).map(order), None).await;
    for number in 61..=70 {
        running.cancel(order(number)).await;
    }
    eventually("every order has its end", || {
        running.count("DeliveryCompleted") + running.count("DeliveryCancelled.") + running.count("WorkerSearchExhausted") == 70
    })
    .await;
    for event in publisher.events() {
        let order_id: OrderId = event.subject.as_deref().unwrap().parse().unwrap();
        assert_eq!(event.owner, Some(owner(order_id)), "{}", event.ty);
    }
    assert!(running.count("WorkerDeclinedJob") > 0 && running.count("DeliveryAborted") > 0);
    eventually("all workers are free", || running.busy_workers() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_get_the_next_worker_without_asking_again() {
    let (folder, publisher) = (tempfile::tempdir().unwrap(), Arc::default());
    let running = Running::start(folder.path(), &publisher, 1, Pace::Demo).await;
    running.pay((1..=5).map(order), None).await;
    eventually("somebody waits", || running.waiting() > 0).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!((running.count("DeliveryCompleted"), running.waiting(), running.busy_workers()), (5, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn deliveries_under_way_go_on_after_a_restart() {
    let (folder, publisher) = (tempfile::tempdir().unwrap(), Arc::default());
    for round in 0..8 {
        let running = Running::start(folder.path(), &publisher, 3, Pace::Demo).await;
        if round == 0 {
            running.pay((1..=12).map(order), None).await;
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(running.lifecycle.stop(STOP).await);
    }
    let running = Running::start(folder.path(), &publisher, 3, Pace::Demo).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    eventually("every order is delivered", || running.count("DeliveryCompleted") == 12).await;
    for number in 1..=12 {
        let names = running.names_of(order(number));
        let count = |name: &str| names.iter().filter(|known| *known == name).count();
        assert_eq!(count("DeliveryStarted"), count("DeliveryAborted") + 1, "{names:?}");
        let answered = count("WorkerAcceptedJob") + count("WorkerDeclinedJob") + count("WorkerOfferExpired");
        assert_eq!(count("WorkerSearchCompleted"), answered, "{names:?}");
    }
    assert_eq!(running.busy_workers(), 0);
}
