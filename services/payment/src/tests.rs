//! Payment as it runs: intake, store, timers and the simulated provider together, in time that passes at once.

use std::{path::Path, time::Duration};

use contract::OrderId;
use kit::{
    Environment, Lifecycle, Position, Recorded, Service,
    chance::{Chance, Pace},
};
use testkit::{
    publisher::RecordingPublisher,
    world::{eventually, world},
};

use super::*;
use crate::provider::{Entry, EntryKind, Odds, SimulatedProvider};

const STOP: Duration = Duration::from_secs(10);

/// A running service, its broker and provider, and what ends it.
struct Running {
    service: Service<Payments>,
    provider: Arc<SimulatedProvider>,
    publisher: Arc<RecordingPublisher>,
    environment: Environment,
    lifecycle: Lifecycle,
}

impl Running {
    fn start(folder: &Path, publisher: &Arc<RecordingPublisher>, odds: Odds) -> Self {
        let (environment, lifecycle) = (world(1), Lifecycle::new());
        let provider = SimulatedProvider::start(folder, &environment, &lifecycle, Chance::seeded(1), Pace::Demo, odds).unwrap();
        let provider = Arc::new(provider);
        let machine = Payments::new(provider.clone(), Settings::default());
        let service = Service::start(machine, folder, &environment, publisher.clone(), &lifecycle).unwrap();
        Self { service, provider, publisher: publisher.clone(), environment, lifecycle }
    }

    async fn tell(&self, order_id: OrderId, ty: &str, data: &str, scenario: Option<&str>) {
        let scenario = scenario.map(|number| format!(r#","scenario":"{number}""#)).unwrap_or_default();
        let id = self.environment.ids.event_id(self.service.handle().now());
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/order","type":"{ty}","subject":"{order_id}"{scenario},"data":{data}}}"#
        );
        let event = Recorded { position: Position(1), event: Arc::new(serde_json::from_str(&event).unwrap()) };
        assert_eq!(self.service.intake().deliver(&[event]).await.unwrap(), []);
    }

    async fn create(&self, order_id: OrderId, scenario: Option<&str>) {
        let data = r#"{"lines":[],"total":{"amount_minor":1250,"currency":"EUR"}}"#;
        self.tell(order_id, "cascade.OrderCreated.v1", data, scenario).await;
    }

    async fn reverse(&self, order_id: OrderId) {
        self.tell(order_id, "cascade.PaymentReversalRequested.v1", r#"{"reason":"customer_request"}"#, None).await;
    }

    async fn types_of(&self, order_id: OrderId, count: usize) -> Vec<String> {
        let subject = order_id.to_string();
        eventually("the order is answered", || self.publisher.types_of(&subject).len() == count).await;
        self.publisher.types_of(&subject)
    }

    fn kinds(&self) -> Vec<EntryKind> {
        self.provider.entries().unwrap().iter().map(|entry: &Entry| entry.kind).collect()
    }
}

fn order(number: u128) -> OrderId {
    OrderId::new(uuid::Uuid::from_u128(number))
}

#[tokio::test(start_paused = true)]
async fn a_payment_that_timed_out_but_went_through_is_accepted_and_taken_once() {
    let (folder, publisher) = (tempfile::tempdir().unwrap(), Arc::default());
    let running = Running::start(folder.path(), &publisher, Odds::default());
    running.create(order(1), Some("12")).await;
    assert_eq!(running.types_of(order(1), 1).await, ["cascade.PaymentAccepted.v1"]);
    assert_eq!(running.kinds(), [EntryKind::Charge]);
}

#[tokio::test(start_paused = true)]
async fn a_declined_card_takes_nothing() {
    let (folder, publisher) = (tempfile::tempdir().unwrap(), Arc::default());
    let running = Running::start(folder.path(), &publisher, Odds::default());
    running.create(order(1), Some("2")).await;
    running.types_of(order(1), 1).await;
    running.reverse(order(1)).await;
    assert_eq!(running.types_of(order(1), 2).await, ["cascade.PaymentDeclined.v1", "cascade.PaymentNothingTaken.v1"]);
    assert_eq!(running.kinds(), [EntryKind::Decline]);
}

#[tokio::test(start_paused = true)]
async fn a_reversal_returns_what_was_taken_also_while_the_provider_is_still_asked() {
    let (folder, publisher) = (tempfile::tempdir().unwrap(), Arc::default());
    let running = Running::start(folder.path(), &publisher, Odds { unavailable_percent: 100, ..Odds::default() });
    running.create(order(1), Some("3")).await;
    running.reverse(order(1)).await;
    assert_eq!(running.types_of(order(1), 2).await, ["cascade.PaymentAccepted.v1", "cascade.PaymentRefunded.v1"]);
    assert_eq!(running.kinds(), [EntryKind::Charge, EntryKind::Refund]);
}

#[tokio::test(start_paused = true)]
async fn every_payment_is_answered_and_none_is_taken_twice_across_restarts_and_a_bad_line() {
    let (folder, publisher) = (tempfile::tempdir().unwrap(), Arc::default());
    let odds = Odds { timeout_percent: 30, unavailable_percent: 30, ..Odds::default() };
    for round in 0..6 {
        let running = Running::start(folder.path(), &publisher, odds);
        if round == 0 {
            for number in 1..=50 {
                running.create(order(number), None).await;
            }
            for number in 1..=10 {
                running.reverse(order(number)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(running.lifecycle.stop(STOP).await);
    }
    let running = Running::start(folder.path(), &publisher, odds);
    let first = |number| publisher.types_of(&order(number).to_string()).first().cloned();
    eventually("every order is answered", || (1..=50).all(|number| first(number).is_some())).await;
    let returned = |number| publisher.types_of(&order(number).to_string()).last().is_some_and(|ty| !ty.contains("PaymentAccepted"));
    eventually("every reversal is answered", || (1..=10).all(returned)).await;
    for number in 1..=50 {
        let entries = running.provider.entries().unwrap();
        let count = |kind| entries.iter().filter(|entry| entry.order_id == order(number) && entry.kind == kind).count();
        let accepted = first(number).is_some_and(|ty| ty.contains("PaymentAccepted"));
        assert_eq!((count(EntryKind::Charge), count(EntryKind::Decline)), if accepted { (1, 0) } else { (0, 1) });
        assert_eq!(count(EntryKind::Refund), usize::from(accepted && number <= 10));
    }
}
