//! The job: offered to the worker who was claimed, taken or not, done or given up.

use contract::{
    OrderId, WorkerId,
    events::{AbortReason, DeliveryAborted, DeliveryCompleted, DeliveryStarted, WorkerAcceptedJob, WorkerSearchCompleted},
};
use kit::Timestamp;

use super::{
    super::{Effect, Input as Any, Job, Key, Settings, State, Step, worker},
    Cancellation, Delivery, Input, LOOK, Looking, OFFER, Quest, SEARCH, Tally, en_route, holds, offered, release, search, searching,
};

pub(super) fn claimed(
    order_id: OrderId,
    state: Option<&Delivery>,
    worker_id: &WorkerId,
    search: u32,
    now: Timestamp,
    settings: &Settings,
) -> Step {
    let Some((quest, looking)) = searching(state, search) else {
        return if holds(state, worker_id, search) { Step::nothing() } else { release(Step::nothing(), order_id, worker_id, search) };
    };
    let offer = quest.tally.offers.saturating_add(1);
    let (worker_id, expires_at) = (worker_id.clone(), now.plus_ms(settings.offer_ms));
    let quest = Quest { tally: Tally { offers: offer, ..quest.tally }, ..quest.clone() };
    let step = Step::to(State::Delivery(Delivery::Offered { quest, worker_id: worker_id.clone(), expires_at }))
        .emit(WorkerSearchCompleted { worker_id: worker_id.clone(), offer, expires_at_ms: expires_at.as_ms() })
        .set_timer(OFFER, expires_at, Any::Delivery(Input::OfferExpired { offer }))
        .perform(Effect::OfferJob { order_id, worker_id, offer });
    match looking {
        Looking::Around { .. } => step,
        Looking::Waiting { .. } => step.cancel_timer(LOOK),
    }
}

pub(super) fn offer_accepted(order_id: OrderId, state: Option<&Delivery>, offer: u32) -> Step {
    let Some((quest, worker_id)) = offered(state, offer) else { return Step::nothing() };
    let (tally, worker_id) = (quest.tally, worker_id.clone());
    let (attempt, job) = (tally.attempt, Job { order_id, search: tally.search });
    Step::to(State::Delivery(Delivery::EnRoute { tally, worker_id: worker_id.clone() }))
        .emit(WorkerAcceptedJob { worker_id: worker_id.clone(), offer })
        .then_emit(DeliveryStarted { worker_id: worker_id.clone(), attempt })
        .cancel_timer(OFFER)
        .cancel_timer(SEARCH)
        .tell(Key::Worker(worker_id.clone()), Any::Worker(worker::Input::Start { job }))
        .perform(Effect::Deliver { order_id, worker_id, attempt })
}

/// The offer came to nothing: the worker goes, another one is sought. None where the offer is not out any more.
pub(super) fn offer_failed<E: Into<contract::Event>>(
    order_id: OrderId,
    state: Option<&Delivery>,
    offer: u32,
    event: impl FnOnce(WorkerId) -> E,
    now: Timestamp,
    settings: &Settings,
) -> Option<Step> {
    let (quest, worker_id) = offered(state, offer)?;
    let mut declined = quest.declined.clone();
    if !declined.contains(worker_id) {
        declined.push(worker_id.clone());
    }
    let (search, quest) = (quest.tally.search, Quest { declined, ..quest.clone() });
    let step = search::again(order_id, quest, event(worker_id.clone()), now, settings);
    Some(release(step, order_id, worker_id, search))
}

pub(super) fn completed(order_id: OrderId, state: Option<&Delivery>, attempt: u32) -> Step {
    let Some((tally, worker_id)) = en_route(state, attempt) else { return Step::nothing() };
    let delivered = Delivery::Delivered { worker_id: worker_id.clone(), attempt, cancellation: Cancellation::NotAsked };
    let step = Step::to(State::Delivery(delivered)).emit(DeliveryCompleted { worker_id: worker_id.clone(), attempt });
    release(step, order_id, worker_id, tally.search)
}

pub(super) fn gave_up(order_id: OrderId, state: Option<&Delivery>, attempt: u32, now: Timestamp, settings: &Settings) -> Step {
    let Some((tally, worker_id)) = en_route(state, attempt) else { return Step::nothing() };
    let next = Tally { attempt: attempt.saturating_add(1), ..tally };
    let quest = Quest { tally: next, since: now, declined: vec![worker_id.clone()] };
    let deadline = search::deadline(&quest, settings);
    let aborted = DeliveryAborted { worker_id: worker_id.clone(), attempt, reason: AbortReason::GaveUp };
    let step = search::again(order_id, quest, aborted, now, settings);
    // A search that is over before it began needs no deadline.
    let step = if matches!(step.state, Some(State::Delivery(Delivery::Searching { .. }))) {
        step.set_timer(SEARCH, deadline.0, deadline.1)
    } else {
        step
    };
    release(step, order_id, worker_id, tally.search)
}
