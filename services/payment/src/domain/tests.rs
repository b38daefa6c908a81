//! The races that a payment can meet, each with its one right end.

use std::sync::Arc;

use contract::{
    Currency,
    events::{NothingTakenReason, PaymentAccepted, PaymentDeclined, PaymentNothingTaken, PaymentRefunded},
};
use testkit::{given, given::Given};

use super::*;
use crate::{
    Payments,
    provider::{Charge, ChargeAnswer, Provider, ProviderError, Refund, RefundAnswer, StatusAnswer},
};

/// A domain calls nobody.
struct Nobody;

impl Provider for Nobody {
    fn charge(&self, _: Charge) -> kit::BoxFuture<'_, Result<ChargeAnswer, ProviderError>> {
        unreachable!()
    }

    fn status(&self, _: ProviderKey) -> kit::BoxFuture<'_, Result<StatusAnswer, ProviderError>> {
        unreachable!()
    }

    fn refund(&self, _: Refund) -> kit::BoxFuture<'_, Result<RefundAnswer, ProviderError>> {
        unreachable!()
    }
}

const REASON: DeclineReason = DeclineReason::CardDeclined;

fn order() -> OrderId {
    OrderId::new(uuid::Uuid::from_u128(7))
}

fn total() -> Money {
    Money::new(1250, Currency::EUR).unwrap()
}

fn key() -> ProviderKey {
    ProviderKey::of_charge(order(), 1)
}

fn created() -> Input {
    Input::OrderCreated { total: total() }
}

fn charged() -> Input {
    Input::ChargeSucceeded { key: key() }
}

fn refused() -> Input {
    Input::ChargeDeclined { key: key(), reason: REASON }
}

fn no_answer() -> Input {
    Input::ChargeUnknown { key: key() }
}

fn refunded() -> Input {
    Input::RefundSucceeded { key: ProviderKey::of_refund(order(), 1) }
}

fn accepted() -> Event {
    PaymentAccepted { amount: total() }.into()
}

fn returned() -> Event {
    PaymentRefunded { amount: total() }.into()
}

fn nothing_taken(reason: NothingTakenReason) -> Event {
    PaymentNothingTaken { reason }.into()
}

const NONE: [Event; 0] = [];

fn payment() -> Given<Payments> {
    given(Payments::new(Arc::new(Nobody), Settings::default()), Key(order()))
}

#[test]
fn an_order_is_charged_once_under_a_key_that_is_stored_before_the_call() {
    let charging = payment().when(created());
    assert_eq!(charging.step().effects, [Effect::Charge { order_id: order(), key: key(), amount: total() }]);
    let charging = charging.state(|payment| payment.charge().is_some_and(|charge| charge.key == key()));
    charging.and().when(created()).nothing();
}

#[test]
fn an_accepted_charge_is_told_once() {
    let captured = payment().after(created()).when(charged()).emits([accepted()]);
    captured.and().when(charged()).nothing().and().when(created()).nothing();
}

#[test]
fn a_declined_charge_is_told_once() {
    let declined = payment().after(created()).when(refused()).emits([PaymentDeclined { reason: REASON }]);
    declined.and().when(refused()).nothing();
}

#[test]
fn another_total_for_a_known_order_is_refused() {
    let other = Input::OrderCreated { total: Money::new(1, Currency::EUR).unwrap() };
    payment().after(created()).when(other).refused(|refusal| matches!(refusal, Refusal::OtherTotal { .. }));
}

#[test]
fn an_answer_about_a_charge_that_was_never_made_is_refused() {
    payment().when(charged()).refused(|refusal| *refusal == Refusal::NeverCharged);
    payment().after(Input::ReversalRequested).when(charged()).refused(|refusal| *refusal == Refusal::NeverCharged);
}

#[test]
fn a_reversal_before_the_order_leaves_a_tombstone_and_nothing_is_charged() {
    let tombstone = payment().when(Input::ReversalRequested).emits([nothing_taken(NothingTakenReason::NeverCharged)]);
    tombstone.and().when(created()).nothing().and().when(Input::ReversalRequested).nothing();
}

#[test]
fn a_reversal_while_the_provider_is_asked_waits_and_an_acceptance_goes_back_at_once() {
    let owed = payment().after(created()).when(Input::ReversalRequested).emits(NONE);
    let refunding = owed.and().when(charged()).emits([accepted()]);
    assert!(matches!(refunding.step().effects[..], [Effect::Refund { amount, .. }] if amount == total()));
    let refunded = refunding.and().when(refunded()).emits([returned()]).state(|payment| payment.status() == "refunded");
    refunded.and().when(Input::ReversalRequested).nothing();
}

#[test]
fn a_reversal_while_the_provider_is_asked_is_answered_by_the_decline() {
    let declined = payment().after(created()).after(Input::ReversalRequested).when(refused());
    declined.emits([PaymentDeclined { reason: REASON }]).and().when(Input::ReversalRequested).nothing();
}

#[test]
fn a_reversal_of_a_declined_payment_takes_nothing_and_says_so_once() {
    let reversed = payment().after(created()).after(refused()).when(Input::ReversalRequested);
    reversed.emits([nothing_taken(NothingTakenReason::Declined)]).and().when(Input::ReversalRequested).nothing();
}

#[test]
fn a_captured_payment_is_refunded_in_full() {
    let refunding = payment().after(created()).after(charged()).when(Input::ReversalRequested).emits(NONE);
    let refunding = refunding.and().when(Input::ReversalRequested).nothing();
    refunding.and().when(refunded()).emits([returned()]).and().when(refunded()).nothing();
}

#[test]
fn a_provider_that_does_not_answer_is_asked_by_the_same_key_and_never_taken_for_a_failure() {
    let unknown = payment().after(created()).when(no_answer()).emits(NONE).state(|payment| payment.status() == "unknown");
    let asking = unknown.and().later_ms(500).when(Input::AskDue);
    assert_eq!(asking.step().effects, [Effect::AskCharge { order_id: order(), key: key() }]);
    asking.and().when(charged()).emits([accepted()]);
}

#[test]
fn asking_goes_on_with_growing_waits() {
    let mut payment = payment().after(created());
    let mut waits_ms = Vec::new();
    for _ in 0..9 {
        let now = payment.now;
        let unknown = payment.when(no_answer());
        let [kit::step::TimerChange::Set { due, .. }] = unknown.step().timers[..] else { panic!("no timer") };
        waits_ms.push(due.since(now).as_millis());
        payment = unknown.and().after(Input::AskDue);
    }
    assert_eq!(waits_ms, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
}

#[test]
fn a_charge_that_never_arrived_is_made_again_under_the_same_key() {
    let again = payment().after(created()).after(no_answer()).after(Input::AskDue).when(Input::ChargeNotFound { key: key() });
    assert_eq!(again.step().effects, [Effect::Charge { order_id: order(), key: key(), amount: total() }]);
    again.and().when(charged()).emits([accepted()]);
}

#[test]
fn a_reversal_while_nobody_knows_is_answered_when_the_provider_is() {
    let owed = payment().after(created()).after(no_answer()).when(Input::ReversalRequested).emits(NONE);
    owed.and().after(Input::AskDue).when(charged()).emits([accepted()]).and().when(refunded()).emits([returned()]);
}

#[test]
fn a_refund_without_an_answer_is_repeated_under_its_key() {
    let refunding = payment().after(created()).after(charged()).after(Input::ReversalRequested);
    let key = ProviderKey::of_refund(order(), 1);
    let again = refunding.after(Input::RefundUnknown { key: key.clone() }).when(Input::RefundDue);
    assert!(matches!(&again.step().effects[..], [Effect::Refund { key: repeated, .. }] if *repeated == key));
    again.and().when(refunded()).emits([returned()]);
}

#[test]
fn a_declined_charge_that_succeeded_after_all_goes_back_by_itself() {
    let refunding = payment().after(created()).after(refused()).when(charged()).emits(NONE);
    assert!(matches!(refunding.step().effects[..], [Effect::Refund { .. }]));
    let refunded = refunding.and().when(refunded()).emits(NONE).state(|payment| payment.status() == "refunded");
    refunded.and().when(Input::ReversalRequested).emits([returned()]).and().when(Input::ReversalRequested).nothing();
}

#[test]
fn an_answer_under_another_key_is_stale() {
    let other = ProviderKey::of_charge(order(), 2);
    payment().after(created()).when(Input::ChargeSucceeded { key: other }).nothing();
}
