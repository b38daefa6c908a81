use contract::{Currency, api::OrderStatus};
use testkit::{given, given::Given};

use super::*;
use crate::Orders;

fn euros(amount_minor: i64) -> Money {
    Money::new(amount_minor, Currency::EUR).unwrap()
}

fn line(product_id: &str, quantity: u32, unit_price_minor: i64) -> OrderLine {
    OrderLine { product_id: product_id.parse().unwrap(), quantity, unit_price: euros(unit_price_minor) }
}

fn lines() -> Vec<OrderLine> {
    vec![line("waterfall-mug", 2, 1_490), line("canoe", 1, 189_000)]
}

const TOTAL_MINOR: i64 = 191_980;

fn new_order() -> NewOrder {
    let recipient = Recipient { name: String::from("Ada"), address: String::from("1 Mill Lane"), note: None };
    NewOrder { owner: "guest-1".parse().unwrap(), lines: lines(), recipient: Some(recipient), scenario: None }
}

fn nothing_yet() -> Given<Orders> {
    given(Orders, Key(OrderId::new(uuid::Uuid::from_u128(1))))
}

fn pending() -> Given<Orders> {
    nothing_yet().after(Input::Create(new_order()))
}

fn happened(given: Given<Orders>, facts: &[Fact]) -> Given<Orders> {
    facts.iter().fold(given, |given, fact| given.after(Input::Happened(*fact)))
}

fn confirmed() -> Given<Orders> {
    happened(pending(), &[accepted()])
}

fn in_delivery() -> Given<Orders> {
    happened(confirmed(), &[started(1)])
}

fn reversing() -> Given<Orders> {
    happened(pending().after(Input::Cancel), &[Fact::DeliveryCancelled])
}

fn accepted() -> Fact {
    Fact::PaymentAccepted { amount: euros(TOTAL_MINOR) }
}

fn refunded() -> Fact {
    Fact::PaymentRefunded { amount: euros(TOTAL_MINOR) }
}

fn started(attempt: u32) -> Fact {
    Fact::DeliveryStarted { attempt }
}

fn aborted(attempt: u32) -> Fact {
    Fact::DeliveryAborted { attempt }
}

fn delivered(attempt: u32) -> Fact {
    Fact::DeliveryCompleted { attempt }
}

fn too_late() -> Fact {
    Fact::DeliveryCancellationRefused { reason: RefusalReason::AlreadyDelivered }
}

fn is(status: OrderStatus) -> impl FnOnce(&State) -> bool {
    move |state| state.status() == status
}

fn is_contradiction(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Contradiction { .. })
}

fn rejected() -> Event {
    OrderCancellationRejected { reason: RefusalReason::AlreadyDelivered }.into()
}

fn order_completed() -> Event {
    OrderCompleted { lines: lines(), total: euros(TOTAL_MINOR) }.into()
}

fn cancelled(reason: CancelReason) -> Event {
    OrderCancelled { reason }.into()
}

fn reversal(reason: CancelReason) -> Event {
    PaymentReversalRequested { reason }.into()
}

#[test]
fn an_order_is_created_with_the_sum_of_its_lines() {
    nothing_yet()
        .when(Input::Create(new_order()))
        .emits([OrderCreated { lines: lines(), total: euros(TOTAL_MINOR) }])
        .state(|state| state.status() == OrderStatus::Pending && state.sale().total == euros(TOTAL_MINOR));
}

#[test]
fn an_order_without_lines_or_with_a_total_beyond_counting_is_refused() {
    let with = |lines| nothing_yet().when(Input::Create(NewOrder { lines, ..new_order() }));
    with(Vec::new()).refused(|refusal| *refusal == Refusal::NoLines);
    with(vec![line("canoe", 2, i64::MAX)]).refused(|refusal| *refusal == Refusal::TotalTooLarge);
    with(vec![line("canoe", 1, i64::MAX), line("canoe", 1, 1)]).refused(|refusal| *refusal == Refusal::TotalTooLarge);
}

#[test]
fn creating_an_order_again_does_nothing_and_another_order_cannot_take_its_id() {
    pending().when(Input::Create(new_order())).nothing();
    let other = NewOrder { owner: "guest-2".parse().unwrap(), ..new_order() };
    confirmed().when(Input::Create(other)).refused(|refusal| *refusal == Refusal::IdTaken);
}

#[test]
fn an_order_goes_its_way_to_the_customer_with_what_was_really_ordered() {
    let on_the_way = pending()
        .when(Input::Happened(accepted()))
        .emits::<Event>([])
        .state(is(OrderStatus::Confirmed))
        .and()
        .when(Input::Happened(started(1)))
        .emits::<Event>([])
        .state(is(OrderStatus::InDelivery))
        .and();
    on_the_way.when(Input::Happened(delivered(1))).emits([order_completed()]).state(is(OrderStatus::Completed));
}

#[test]
fn an_aborted_delivery_is_tried_again() {
    let again = happened(in_delivery(), &[aborted(1)]);
    again
        .when(Input::Happened(started(2)))
        .state(is(OrderStatus::InDelivery))
        .and()
        .when(Input::Happened(delivered(2)))
        .emits([order_completed()]);
}

#[test]
fn order_is_cancelled_when_payment_is_declined() {
    pending()
        .when(Input::Happened(Fact::PaymentDeclined))
        .emits([cancelled(CancelReason::PaymentDeclined)])
        .state(is(OrderStatus::Cancelled));
}

#[test]
fn the_money_goes_back_when_no_worker_can_be_found() {
    confirmed()
        .when(Input::Happened(Fact::WorkerSearchExhausted))
        .emits([reversal(CancelReason::NoWorker)])
        .state(is(OrderStatus::Reversing))
        .and()
        .when(Input::Happened(refunded()))
        .emits([cancelled(CancelReason::NoWorker)])
        .state(is(OrderStatus::Cancelled));
}

#[test]
fn cancelling_asks_delivery_first_and_payment_only_when_delivery_is_clear() {
    for before in [pending(), confirmed(), in_delivery()] {
        let asked = before.when(Input::Cancel).emits([OrderCancellationRequested {}]).state(is(OrderStatus::Cancelling)).and();
        asked
            .when(Input::Happened(Fact::DeliveryCancelled))
            .emits([reversal(CancelReason::CustomerRequest)])
            .state(is(OrderStatus::Reversing));
    }
}

#[test]
fn every_answer_of_payment_ends_a_reversal_once() {
    for answer in [refunded(), Fact::PaymentNothingTaken, Fact::PaymentDeclined] {
        let ended = reversing()
            .when(Input::Happened(answer))
            .emits([cancelled(CancelReason::CustomerRequest)])
            .state(is(OrderStatus::Cancelled))
            .and();
        let still = ended.when(Input::Happened(answer)).nothing().and();
        still.when(Input::Happened(Fact::PaymentNothingTaken)).nothing();
    }
}

#[test]
fn a_payment_that_is_accepted_while_it_is_called_back_is_waited_for_until_it_is_back() {
    let late = reversing().when(Input::Happened(accepted())).emits::<Event>([]).state(is(OrderStatus::Reversing)).and();
    let still = late.when(Input::Happened(Fact::PaymentNothingTaken)).refused(is_contradiction).and();
    still.when(Input::Happened(refunded())).emits([cancelled(CancelReason::CustomerRequest)]);
}

#[test]
fn a_cancel_that_crosses_the_payment_has_the_same_end_in_both_orders() {
    for before in [confirmed().after(Input::Cancel), happened(pending().after(Input::Cancel), &[accepted()])] {
        happened(before, &[Fact::DeliveryCancelled]).when(Input::Happened(refunded())).emits([cancelled(CancelReason::CustomerRequest)]);
    }
}

#[test]
fn a_cancel_that_crosses_a_declined_payment_ends_cancelled_in_both_orders() {
    let declined_first = happened(pending(), &[Fact::PaymentDeclined]);
    declined_first.when(Input::Cancel).nothing().state(is(OrderStatus::Cancelled));

    let cancel_first = happened(pending().after(Input::Cancel), &[Fact::PaymentDeclined, Fact::DeliveryCancelled, Fact::PaymentDeclined]);
    cancel_first.when(Input::Happened(Fact::PaymentNothingTaken)).emits([cancelled(CancelReason::CustomerRequest)]);
}

#[test]
fn a_cancel_that_crosses_the_completed_delivery_changes_nothing_for_the_goods() {
    let crossed = in_delivery().after(Input::Cancel);
    let delivered =
        crossed.when(Input::Happened(delivered(1))).emits([rejected(), order_completed()]).state(is(OrderStatus::Completed)).and();
    delivered.when(Input::Happened(too_late())).nothing().state(is(OrderStatus::Completed));
}

#[test]
fn a_cancel_that_crosses_the_end_of_the_search_reverses_once() {
    let crossed = happened(confirmed().after(Input::Cancel), &[Fact::WorkerSearchExhausted]);
    let clear = crossed.when(Input::Happened(Fact::DeliveryCancelled)).emits([reversal(CancelReason::CustomerRequest)]).and();
    clear.when(Input::Happened(refunded())).emits([cancelled(CancelReason::CustomerRequest)]);

    let search_first = happened(confirmed(), &[Fact::WorkerSearchExhausted]);
    search_first.when(Input::Cancel).nothing().state(is(OrderStatus::Reversing));
}

#[test]
fn a_refused_cancellation_leads_back_to_where_the_order_is_by_now() {
    let asked = happened(confirmed().after(Input::Cancel), &[started(1), aborted(1), started(2)]);
    let back = asked.when(Input::Happened(too_late())).emits([rejected()]).state(is(OrderStatus::InDelivery)).and();
    let again = back.when(Input::Happened(too_late())).nothing().and();
    again.when(Input::Happened(delivered(2))).emits([order_completed()]);

    happened(pending().after(Input::Cancel), &[too_late()]).when(Input::Happened(accepted())).state(is(OrderStatus::Confirmed));
}

#[test]
fn a_refused_cancellation_can_be_asked_for_again() {
    let back = happened(in_delivery().after(Input::Cancel), &[too_late()]);
    back.when(Input::Cancel).emits([OrderCancellationRequested {}]).state(is(OrderStatus::Cancelling));
}

#[test]
fn cancelling_again_does_nothing() {
    for order in [pending().after(Input::Cancel), reversing(), happened(pending(), &[Fact::PaymentDeclined])] {
        order.when(Input::Cancel).nothing();
    }
}

#[test]
fn a_delivered_order_cannot_be_cancelled() {
    happened(in_delivery(), &[delivered(1)]).when(Input::Cancel).refused(|refusal| *refusal == Refusal::AlreadyDelivered);
}

#[test]
fn only_an_order_that_has_ended_is_deleted() {
    for alive in [pending(), confirmed(), in_delivery(), in_delivery().after(Input::Cancel), reversing()] {
        alive.when(Input::Delete).refused(|refusal| matches!(refusal, Refusal::NotEnded { .. }));
    }
    for ended in [happened(in_delivery(), &[delivered(1)]), happened(pending(), &[Fact::PaymentDeclined])] {
        let deleted = ended.when(Input::Delete).emits([OrderDeleted {}]).state(is(OrderStatus::Deleted));
        assert!(deleted.step().erases);
        deleted.and().when(Input::Delete).nothing().and().when(Input::Cancel).refused(|refusal| *refusal == Refusal::Deleted);
    }
}

#[test]
fn a_deleted_order_keeps_the_ledger_and_no_personal_data() {
    let deleted = happened(in_delivery(), &[delivered(1)]).after(Input::Delete);
    deleted.when(Input::Happened(delivered(1))).nothing().state(|state| {
        let json = serde_json::to_string(state).unwrap();
        state.sale().lines == lines() && state.recipient().is_none() && !json.contains("Ada") && !json.contains("Mill Lane")
    });
}

#[test]
fn what_an_earlier_attempt_says_late_is_stale() {
    let second = happened(in_delivery(), &[aborted(1), started(2)]);
    let second = second.when(Input::Happened(aborted(1))).nothing().and();
    let second = second.when(Input::Happened(started(1))).nothing().and();
    let third = happened(second, &[aborted(2)]).when(Input::Happened(started(2))).nothing().and();
    third.when(Input::Happened(started(3))).state(is(OrderStatus::InDelivery));
}

#[test]
fn a_fact_about_no_order_is_refused() {
    nothing_yet().when(Input::Happened(accepted())).refused(|refusal| *refusal == Refusal::NotFound);
    nothing_yet().when(Input::Cancel).refused(|refusal| *refusal == Refusal::NotFound);
}

#[test]
fn money_over_another_amount_is_refused() {
    let is_wrong = |refusal: &Refusal| matches!(refusal, Refusal::WrongAmount { .. });
    let accepted = |amount_minor| Input::Happened(Fact::PaymentAccepted { amount: euros(amount_minor) });
    pending().when(accepted(TOTAL_MINOR - 1)).refused(is_wrong);
    confirmed().when(accepted(TOTAL_MINOR + 1)).refused(is_wrong);
    reversing().when(accepted(0)).refused(is_wrong);
    let dollars = Money::new(TOTAL_MINOR, "USD".parse().unwrap()).unwrap();
    pending().when(Input::Happened(Fact::PaymentAccepted { amount: dollars })).refused(is_wrong);
    reversing().when(Input::Happened(Fact::PaymentRefunded { amount: euros(1) })).refused(is_wrong);
}

#[test]
fn facts_that_cannot_be_are_refused() {
    let completed = || happened(in_delivery(), &[delivered(1)]);
    let declined = || happened(pending(), &[Fact::PaymentDeclined]);
    for (order, fact) in [
        (pending(), started(1)),
        (pending(), delivered(1)),
        (pending(), refunded()),
        (pending(), Fact::WorkerSearchExhausted),
        (pending(), Fact::DeliveryCancelled),
        (confirmed(), Fact::PaymentDeclined),
        (confirmed(), delivered(1)),
        (confirmed(), Fact::PaymentNothingTaken),
        (in_delivery(), started(2)),
        (in_delivery(), aborted(2)),
        (in_delivery(), delivered(2)),
        (in_delivery(), Fact::WorkerSearchExhausted),
        // The money must not go back before delivery is clear.
        (in_delivery().after(Input::Cancel), refunded()),
        (pending().after(Input::Cancel), Fact::PaymentNothingTaken),
        (happened(pending().after(Input::Cancel), &[Fact::PaymentDeclined]), accepted()),
        (happened(pending().after(Input::Cancel), &[Fact::PaymentDeclined]), too_late()),
        // Goods that arrive after delivery said that it is clear.
        (happened(in_delivery().after(Input::Cancel), &[Fact::DeliveryCancelled]), delivered(1)),
        (happened(in_delivery().after(Input::Cancel), &[Fact::DeliveryCancelled]), Fact::PaymentNothingTaken),
        (happened(in_delivery().after(Input::Cancel), &[Fact::DeliveryCancelled, refunded()]), delivered(1)),
        (completed(), Fact::DeliveryCancelled),
        (completed(), refunded()),
        (completed().after(Input::Delete), Fact::PaymentDeclined),
        (declined(), accepted()),
        (declined(), started(1)),
    ] {
        order.when(Input::Happened(fact)).refused(is_contradiction);
    }
}

#[test]
fn stored_orders_stay_readable() {
    let stored = r#"{"kept":{"sale":{"owner":"guest-1","lines":[{"product_id":"canoe","quantity":1,"unit_price":{"amount_minor":5,"currency":"EUR"}}],"total":{"amount_minor":5,"currency":"EUR"},"created_at":7},"recipient":{"name":"Ada","address":"1 Mill Lane"},"stage":{"name":"cancelling","from":{"name":"in_delivery","attempt":2}}}}"#;
    let state: State = serde_json::from_str(stored).unwrap();
    assert_eq!(serde_json::to_string(&state).unwrap(), stored);
    for stage in [
        r#"{"name":"pending"}"#,
        r#"{"name":"confirmed","attempts_ended":0}"#,
        r#"{"name":"in_delivery","attempt":1}"#,
        r#"{"name":"cancelling","from":{"name":"payment_declined"}}"#,
        r#"{"name":"cancelling","from":{"name":"search_exhausted","attempts_ended":3}}"#,
        r#"{"name":"reversing","reason":"no_worker","funds":"secured"}"#,
        r#"{"name":"completed"}"#,
        r#"{"name":"cancelled","reason":"payment_declined"}"#,
    ] {
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Stage>(stage).unwrap()).unwrap(), stage);
    }
    let deleted = r#"{"deleted":{"sale":{"owner":"guest-1","lines":[],"total":{"amount_minor":5,"currency":"EUR"},"created_at":7},"end":{"name":"cancelled","reason":"no_worker"}}}"#;
    assert_eq!(serde_json::to_string(&serde_json::from_str::<State>(deleted).unwrap()).unwrap(), deleted);
}
