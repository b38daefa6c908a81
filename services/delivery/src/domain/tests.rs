//! The races that a delivery and a worker can meet, each with its one right end.

use contract::events::{
    AbortReason, DeliveryAborted, DeliveryCancellationRefused, DeliveryCancelled, DeliveryCompleted, DeliveryStarted, ExhaustedReason,
    RefusalReason, WorkerAcceptedJob, WorkerDeclinedJob, WorkerOfferExpired, WorkerOfferWithdrawn, WorkerSearchCompleted,
    WorkerSearchExhausted, WorkerSearchStarted,
};
use kit::{
    chance::{Chance, Pace},
    step::Context,
};
use testkit::{
    given,
    given::{Given, Then},
};

use super::{delivery::Input as Told, worker::Input as WorkerTold, *};
use crate::{Deliveries, Odds};

const NONE: [Event; 0] = [];
const SETTINGS: Settings = Settings { offer_ms: 5_000, search_ms: 60_000, offers_max: 3, look_again_ms: 10_000 };

fn machine() -> Deliveries {
    Deliveries::new(Chance::seeded(1), Pace::Instant, Odds::default(), SETTINGS)
}

fn order() -> OrderId {
    OrderId::new(uuid::Uuid::from_u128(7))
}

fn worker_id(number: u32) -> WorkerId {
    format!("worker-{number:02}").parse().unwrap()
}

fn told(input: Told) -> Input {
    Input::Delivery(input)
}

fn delivery() -> Given<Deliveries> {
    given(machine(), Key::Delivery(order()))
}

fn paid() -> Given<Deliveries> {
    delivery().after(told(Told::PaymentAccepted))
}

fn claimed(number: u32, search: u32) -> Input {
    told(Told::Claimed { worker_id: worker_id(number), search })
}

fn offered() -> Given<Deliveries> {
    paid().after(claimed(1, 1))
}

fn en_route() -> Given<Deliveries> {
    offered().after(told(Told::OfferAccepted { offer: 1 }))
}

fn delivered() -> Given<Deliveries> {
    en_route().after(told(Told::Completed { attempt: 1 }))
}

fn cancel() -> Input {
    told(Told::CancellationRequested)
}

fn job(search: u32) -> Job {
    Job { order_id: order(), search }
}

/// The worker is told to go, and for which search they had been claimed.
trait Releases {
    fn releases(self, number: u32, search: u32) -> Self;
}

impl Releases for Then<Deliveries> {
    fn releases(self, number: u32, search: u32) -> Self {
        let expected = (Key::Worker(worker_id(number)), Input::Worker(WorkerTold::Release { job: job(search) }));
        assert_eq!(self.step().tells, [expected]);
        self
    }
}

fn status(name: &'static str) -> impl FnOnce(&State) -> bool {
    move |state| state.status() == name
}

#[test]
fn a_paid_order_makes_delivery_look_for_a_worker() {
    let searching = delivery().when(told(Told::PaymentAccepted)).emits([WorkerSearchStarted { search: 1 }]).state(status("searching"));
    assert!(matches!(searching.step().effects[..], [Effect::FindWorker { search: 1, attempt: 1, look: Look::Begin, .. }]));
    searching.and().when(told(Told::PaymentAccepted)).nothing();
}

#[test]
fn a_claimed_worker_is_offered_the_job_until_the_offer_expires() {
    let paid = paid();
    let expires_at_ms = paid.now.plus_ms(5_000).as_ms();
    let offered = paid.when(claimed(1, 1)).emits([WorkerSearchCompleted { worker_id: worker_id(1), offer: 1, expires_at_ms }]);
    assert_eq!(offered.step().effects, [Effect::OfferJob { order_id: order(), worker_id: worker_id(1), offer: 1 }]);
    offered.and().when(claimed(1, 1)).nothing();
}

#[test]
fn a_worker_who_accepts_is_on_the_way() {
    let started = offered().when(told(Told::OfferAccepted { offer: 1 })).emits([
        Event::from(WorkerAcceptedJob { worker_id: worker_id(1), offer: 1 }),
        DeliveryStarted { worker_id: worker_id(1), attempt: 1 }.into(),
    ]);
    assert!(started.step().events[1].caused_by_previous);
    assert_eq!(started.step().tells, [(Key::Worker(worker_id(1)), Input::Worker(WorkerTold::Start { job: job(1) }))]);
}

#[test]
fn a_worker_who_declines_is_left_out_of_the_next_search() {
    let again = offered()
        .when(told(Told::OfferDeclined { offer: 1 }))
        .releases(1, 1)
        .emits([Event::from(WorkerDeclinedJob { worker_id: worker_id(1), offer: 1 }), WorkerSearchStarted { search: 2 }.into()]);
    assert!(matches!(&again.step().effects[..], [Effect::FindWorker { declined, .. }] if *declined == [worker_id(1)]));
    let forgotten = again.and().when(told(Told::AllDeclined { search: 2 })).emits(NONE);
    assert!(matches!(&forgotten.step().effects[..], [Effect::FindWorker { declined, .. }] if declined.is_empty()));
}

#[test]
fn an_accept_that_meets_the_expiry_loses_when_it_comes_second() {
    let expired = offered()
        .when(told(Told::OfferExpired { offer: 1 }))
        .releases(1, 1)
        .emits([Event::from(WorkerOfferExpired { worker_id: worker_id(1), offer: 1 }), WorkerSearchStarted { search: 2 }.into()]);
    let late = expired.and().when(told(Told::OfferAccepted { offer: 1 })).nothing();
    late.and().after(claimed(2, 2)).when(told(Told::OfferAccepted { offer: 1 })).nothing();
}

#[test]
fn an_expiry_that_meets_the_accept_loses_when_it_comes_second() {
    en_route().when(told(Told::OfferExpired { offer: 1 })).nothing().and().when(told(Told::OfferDeclined { offer: 1 })).nothing();
}

#[test]
fn a_second_worker_for_the_same_search_is_sent_away() {
    offered().when(claimed(2, 1)).emits(NONE).releases(2, 1);
    en_route().when(claimed(2, 1)).emits(NONE).releases(2, 1);
}

#[test]
fn a_worker_claimed_for_an_earlier_search_is_sent_away() {
    offered().after(told(Told::OfferDeclined { offer: 1 })).when(claimed(2, 1)).emits(NONE).releases(2, 1);
}

#[test]
fn a_delivery_is_completed_once() {
    let done = en_route().when(told(Told::Completed { attempt: 1 })).releases(1, 1);
    let done = done.emits([DeliveryCompleted { worker_id: worker_id(1), attempt: 1 }]);
    done.and().when(told(Told::Completed { attempt: 1 })).nothing().and().when(told(Told::GaveUp { attempt: 1 })).nothing();
}

#[test]
fn a_worker_who_gives_up_is_followed_by_the_next_attempt_and_heard_no_more() {
    let again = en_route().when(told(Told::GaveUp { attempt: 1 })).releases(1, 1).emits([
        Event::from(DeliveryAborted { worker_id: worker_id(1), attempt: 1, reason: AbortReason::GaveUp }),
        WorkerSearchStarted { search: 2 }.into(),
    ]);
    let stale = again.and().when(told(Told::Completed { attempt: 1 })).nothing();
    let second = stale.and().after(claimed(2, 2)).when(told(Told::OfferAccepted { offer: 2 })).emits([
        Event::from(WorkerAcceptedJob { worker_id: worker_id(2), offer: 2 }),
        DeliveryStarted { worker_id: worker_id(2), attempt: 2 }.into(),
    ]);
    second.and().when(told(Told::Completed { attempt: 1 })).nothing();
}

#[test]
fn a_cancellation_before_the_payment_leaves_a_tombstone_and_nothing_is_started() {
    let tombstone = delivery().when(cancel()).emits([DeliveryCancelled {}]);
    tombstone.and().when(told(Told::PaymentAccepted)).nothing().and().when(cancel()).nothing();
}

#[test]
fn a_cancellation_during_the_search_sends_a_worker_who_was_being_claimed_away() {
    let cancelled = paid().when(cancel()).emits([DeliveryCancelled {}]);
    cancelled.and().when(claimed(1, 1)).emits(NONE).releases(1, 1).and().when(told(Told::NotClaimed { search: 1 })).nothing();
}

#[test]
fn a_cancellation_withdraws_the_offer_that_is_out_and_a_late_accept_changes_nothing() {
    let cancelled = offered()
        .when(cancel())
        .releases(1, 1)
        .emits([Event::from(WorkerOfferWithdrawn { worker_id: worker_id(1), offer: 1 }), DeliveryCancelled {}.into()]);
    let late = cancelled.and().when(told(Told::OfferAccepted { offer: 1 })).nothing();
    late.and().when(told(Told::OfferExpired { offer: 1 })).nothing();
}

#[test]
fn a_cancellation_on_the_way_calls_the_worker_back_and_a_late_completion_changes_nothing() {
    let cancelled = en_route().when(cancel()).releases(1, 1).emits([DeliveryCancelled {}]);
    cancelled.and().when(told(Told::Completed { attempt: 1 })).nothing().and().when(cancel()).nothing();
}

#[test]
fn a_cancellation_that_comes_after_the_delivery_is_refused_once() {
    let refused = delivered().when(cancel()).emits([DeliveryCancellationRefused { reason: RefusalReason::AlreadyDelivered }]);
    refused.state(status("delivered")).and().when(cancel()).nothing();
}

#[test]
fn a_search_that_was_given_up_can_be_called_off() {
    let exhausted = paid().when(told(Told::SearchDeadline { attempt: 1 }));
    let exhausted = exhausted.emits([WorkerSearchExhausted { offers: 0, reason: ExhaustedReason::Deadline }]);
    exhausted.and().when(claimed(1, 1)).releases(1, 1).and().when(cancel()).emits([DeliveryCancelled {}]);
}

#[test]
fn a_deadline_waits_for_the_offer_that_is_out() {
    let offered = offered().later_ms(60_000).when(told(Told::SearchDeadline { attempt: 1 })).nothing();
    offered.and().when(told(Told::OfferDeclined { offer: 1 })).releases(1, 1).emits([
        Event::from(WorkerDeclinedJob { worker_id: worker_id(1), offer: 1 }),
        WorkerSearchExhausted { offers: 1, reason: ExhaustedReason::Deadline }.into(),
    ]);
    en_route().after(told(Told::GaveUp { attempt: 1 })).when(told(Told::SearchDeadline { attempt: 1 })).nothing();
}

#[test]
fn a_search_ends_after_too_many_offers() {
    let second = offered().after(told(Told::OfferDeclined { offer: 1 })).after(claimed(2, 2)).after(told(Told::OfferDeclined { offer: 2 }));
    second.after(claimed(3, 3)).when(told(Told::OfferExpired { offer: 3 })).releases(3, 3).emits([
        Event::from(WorkerOfferExpired { worker_id: worker_id(3), offer: 3 }),
        WorkerSearchExhausted { offers: 3, reason: ExhaustedReason::TooManyOffers }.into(),
    ]);
}

#[test]
fn a_delivery_without_a_worker_waits_and_looks_once_more_after_that_is_known() {
    let no_worker = told(Told::NoWorker { search: 1, context: Context::default() });
    let waiting = paid().when(no_worker.clone()).emits(NONE);
    assert!(matches!(waiting.step().effects[..], [Effect::FindWorker { look: Look::Now, .. }]));
    assert_eq!(waiting.step().timers.len(), 1);
    let waiting = waiting.and().when(no_worker).nothing().and().when(told(Told::NotClaimed { search: 1 })).nothing();
    let again = waiting.and().when(told(Told::LookAgain { search: 1 }));
    assert_eq!((again.step().effects.len(), again.step().timers.len()), (1, 1));
    again.and().when(claimed(1, 1)).state(status("offered"));
}

#[test]
fn a_worker_who_was_lost_to_another_order_is_followed_by_the_next_one() {
    let again = paid().when(told(Told::NotClaimed { search: 1 }));
    assert!(matches!(again.step().effects[..], [Effect::FindWorker { tries: 1, look: Look::Now, .. }]));
}

#[test]
fn of_two_claims_the_first_gets_the_worker() {
    let other = Job { order_id: OrderId::new(uuid::Uuid::from_u128(8)), search: 4 };
    let free = given(machine(), Key::Worker(worker_id(1))).after(Input::Worker(WorkerTold::Employ));
    let first = free.when(Input::Worker(WorkerTold::Claim { job: job(1) })).state(status("offered"));
    assert_eq!(first.step().tells, [(Key::Delivery(order()), claimed(1, 1))]);
    let repeated = first.and().when(Input::Worker(WorkerTold::Claim { job: job(1) })).nothing();
    let second = repeated.and().when(Input::Worker(WorkerTold::Claim { job: other }));
    assert_eq!(second.step().tells, [(Key::Delivery(other.order_id), told(Told::NotClaimed { search: 4 }))]);
    let started = second.and().after(Input::Worker(WorkerTold::Start { job: job(1) }));
    let not_theirs = started.when(Input::Worker(WorkerTold::Release { job: other })).nothing();
    let released = not_theirs.and().when(Input::Worker(WorkerTold::Release { job: job(1) })).state(status("available"));
    assert_eq!(released.step().effects, [Effect::MatchWaiting { worker_id: worker_id(1) }]);
}

#[test]
fn a_worker_is_employed_once() {
    let employed = given(machine(), Key::Worker(worker_id(1))).when(Input::Worker(WorkerTold::Employ)).state(status("available"));
    employed.and().when(Input::Worker(WorkerTold::Employ)).nothing();
}

#[test]
fn an_input_for_another_kind_of_entity_is_refused() {
    delivery().when(Input::Worker(WorkerTold::Employ)).refused(|Refusal::WrongEntity(_)| true);
    given(machine(), Key::Worker(worker_id(1))).when(cancel()).refused(|Refusal::WrongEntity(_)| true);
}
