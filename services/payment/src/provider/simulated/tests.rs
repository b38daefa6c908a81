//! The simulated provider acts once under a key, whatever happens to its answers.

use contract::{Currency, Money, OrderId};
use kit::Context;

use super::*;
use crate::provider::read_ledger;

fn order(number: u128) -> OrderId {
    OrderId::new(uuid::Uuid::from_u128(number))
}

fn charge(order_id: OrderId, scenario: Option<&str>) -> Charge {
    let context = Context { scenario: scenario.map(str::to_owned), ..Context::default() };
    Charge { key: ProviderKey::of_charge(order_id, 1), order_id, amount: Money::new(1250, Currency::EUR).unwrap(), context }
}

fn refund(order_id: OrderId, amount_minor: i64) -> Refund {
    let amount = Money::new(amount_minor, Currency::EUR).unwrap();
    Refund { key: ProviderKey::of_refund(order_id, 1), charge_key: ProviderKey::of_charge(order_id, 1), amount }
}

fn provider(folder: &Path, lifecycle: &Lifecycle, odds: Odds) -> SimulatedProvider {
    let environment = Environment::real().unwrap();
    SimulatedProvider::start(folder, &environment, lifecycle, Chance::seeded(1), Pace::Instant, odds).unwrap()
}

const CERTAIN: Odds = Odds { accepted_percent: 100, timeout_percent: 0, unavailable_percent: 0 };

#[tokio::test]
async fn the_same_key_acts_once_and_gets_the_same_answer_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let lifecycle = Lifecycle::new();
    let first = provider(folder.path(), &lifecycle, CERTAIN);
    for _ in 0..3 {
        assert_eq!(first.charge(charge(order(1), None)).await, Ok(ChargeAnswer::Succeeded));
    }
    assert_eq!(first.entries().unwrap().len(), 1);
    assert!(lifecycle.stop(std::time::Duration::from_secs(5)).await);
    assert_eq!(first.charge(charge(order(2), None)).await, Err(ProviderError::Unavailable));

    // The dice of the restarted provider would say no; the ledger remembers that it said yes.
    let again = provider(folder.path(), &Lifecycle::new(), Odds { accepted_percent: 0, ..CERTAIN });
    assert_eq!(again.charge(charge(order(1), None)).await, Ok(ChargeAnswer::Succeeded));
    assert_eq!(read_ledger(&folder.path().join("provider.db")).unwrap(), again.entries().unwrap());
}

#[tokio::test]
async fn a_charge_that_timed_out_but_went_through_is_found_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path(), &Lifecycle::new(), CERTAIN);
    let charge = charge(order(1), Some("12"));
    assert_eq!(provider.status(charge.key.clone()).await, Ok(StatusAnswer::NotFound));
    assert_eq!(provider.charge(charge.clone()).await, Err(ProviderError::Timeout));
    assert_eq!(provider.status(charge.key.clone()).await, Ok(StatusAnswer::Succeeded));
    assert_eq!(provider.entries().unwrap().len(), 1);
}

#[tokio::test]
async fn scripts_and_odds_decide_who_is_declined() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path(), &Lifecycle::new(), Odds { accepted_percent: 0, ..CERTAIN });
    for (number, scenario, is_accepted) in [(1, None, false), (2, Some("1"), false), (3, Some("3"), true), (4, Some("11"), true)] {
        let answer = provider.charge(charge(order(number), scenario)).await.unwrap();
        assert_eq!(answer == ChargeAnswer::Succeeded, is_accepted, "{scenario:?}");
    }
    let kinds: Vec<EntryKind> = provider.entries().unwrap().iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::Decline, EntryKind::Decline, EntryKind::Charge, EntryKind::Charge]);
}

#[tokio::test]
async fn an_outage_turns_a_key_away_once_and_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path(), &Lifecycle::new(), Odds { unavailable_percent: 100, ..CERTAIN });
    let charge = charge(order(1), None);
    assert_eq!(provider.charge(charge.clone()).await, Err(ProviderError::Unavailable));
    assert_eq!(provider.status(charge.key.clone()).await, Ok(StatusAnswer::NotFound));
    assert_eq!(provider.charge(charge.clone()).await, Ok(ChargeAnswer::Succeeded));
}

#[tokio::test]
async fn no_more_goes_back_than_was_taken() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(folder.path(), &Lifecycle::new(), CERTAIN);
    assert_eq!(provider.refund(refund(order(1), 1250)).await, Err(ProviderError::Unavailable));
    provider.charge(charge(order(1), None)).await.unwrap();
    assert_eq!(provider.refund(refund(order(1), 1251)).await, Err(ProviderError::Unavailable));
    assert_eq!(provider.refund(refund(order(1), 1250)).await, Ok(RefundAnswer::Succeeded));
    assert_eq!(provider.refund(refund(order(1), 1250)).await, Ok(RefundAnswer::Succeeded));
    assert_eq!(provider.entries().unwrap().len(), 2);
}

#[tokio::test]
async fn calls_that_come_together_are_answered_each() {
    let folder = tempfile::tempdir().unwrap();
    let provider = std::sync::Arc::new(provider(folder.path(), &Lifecycle::new(), Odds::default()));
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..500 {
        let provider = provider.clone();
        calls.spawn(async move { provider.charge(charge(order(number), None)).await.unwrap() });
    }
    let accepted = calls.join_all().await.into_iter().filter(|answer| *answer == ChargeAnswer::Succeeded).count();
    assert!((350..450).contains(&accepted), "{accepted} of 500 were accepted");
    assert_eq!(provider.entries().unwrap().len(), 500);
}
