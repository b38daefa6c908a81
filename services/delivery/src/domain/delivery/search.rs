//! The search for a worker: looking, waiting, going on, giving up.

use contract::{
    OrderId,
    events::{ExhaustedReason, WorkerSearchExhausted, WorkerSearchStarted},
};
use kit::{Timestamp, step::Context};

use super::{
    super::{Effect, Input as Any, Look, Settings, State, Step},
    Delivery, Input, LOOK, Looking, Quest, SEARCH, Tally, searching,
};

pub(super) fn looked_around(order_id: OrderId, state: Option<&Delivery>, search: u32) -> Step {
    match searching(state, search) {
        Some((quest, Looking::Around { tries })) => Step::nothing().perform(find_worker(order_id, quest, *tries, Look::Now)),
        Some((_, Looking::Waiting { .. })) | None => Step::nothing(),
    }
}

/// Waits, and looks once more after that is known: whoever became free in between could not know that somebody waits.
pub(super) fn no_worker(
    order_id: OrderId,
    state: Option<&Delivery>,
    search: u32,
    context: &Context,
    now: Timestamp,
    settings: &Settings,
) -> Step {
    match searching(state, search) {
        Some((quest, Looking::Around { tries })) => {
            let looking = Looking::Waiting { since: now, context: context.clone() };
            Step::to(State::Delivery(Delivery::Searching { quest: quest.clone(), looking }))
                .set_timer(LOOK, now.plus_ms(settings.look_again_ms), Any::Delivery(Input::LookAgain { search }))
                .perform(find_worker(order_id, quest, *tries, Look::Now))
        }
        Some((_, Looking::Waiting { .. })) | None => Step::nothing(),
    }
}

pub(super) fn look_again(order_id: OrderId, state: Option<&Delivery>, search: u32, now: Timestamp, settings: &Settings) -> Step {
    match searching(state, search) {
        Some((quest, Looking::Waiting { .. })) => Step::nothing()
            .set_timer(LOOK, now.plus_ms(settings.look_again_ms), Any::Delivery(Input::LookAgain { search }))
            .perform(find_worker(order_id, quest, 0, Look::Now)),
        Some((_, Looking::Around { .. })) | None => Step::nothing(),
    }
}

pub(super) fn all_declined(order_id: OrderId, state: Option<&Delivery>, search: u32) -> Step {
    let Some((quest, looking)) = searching(state, search) else { return Step::nothing() };
    let tries = match looking {
        Looking::Around { tries } => *tries,
        Looking::Waiting { .. } => 0,
    };
    let quest = Quest { declined: Vec::new(), ..quest.clone() };
    let effect = find_worker(order_id, &quest, tries, Look::Now);
    Step::to(State::Delivery(Delivery::Searching { quest, looking: looking.clone() })).perform(effect)
}

pub(super) fn not_claimed(order_id: OrderId, state: Option<&Delivery>, search: u32) -> Step {
    match searching(state, search) {
        Some((quest, Looking::Around { tries })) => {
            let tries = tries.saturating_add(1);
            let (quest, looking) = (quest.clone(), Looking::Around { tries });
            let effect = find_worker(order_id, &quest, tries, Look::Now);
            Step::to(State::Delivery(Delivery::Searching { quest, looking })).perform(effect)
        }
        // Whoever took the worker gives them back one day, and then it is known who waits.
        Some((_, Looking::Waiting { .. })) | None => Step::nothing(),
    }
}

/// While an offer is out the search is not over: if the offer comes to nothing, the deadline is looked at then.
pub(super) fn deadline_reached(state: Option<&Delivery>, attempt: u32) -> Step {
    match state {
        Some(Delivery::Searching { quest, .. }) if quest.tally.attempt == attempt => {
            let exhausted = WorkerSearchExhausted { offers: quest.tally.offers, reason: ExhaustedReason::Deadline };
            Step::to(State::Delivery(Delivery::Exhausted)).emit(exhausted).cancel_timer(LOOK).cancel_timer(SEARCH)
        }
        None
        | Some(
            Delivery::Searching { .. }
            | Delivery::Offered { .. }
            | Delivery::EnRoute { .. }
            | Delivery::Delivered { .. }
            | Delivery::Cancelled
            | Delivery::Exhausted,
        ) => Step::nothing(),
    }
}

/// After `event` the search goes on under the next number, or is given up because a limit is reached.
pub(super) fn again(order_id: OrderId, quest: Quest, event: impl Into<contract::Event>, now: Timestamp, settings: &Settings) -> Step {
    let offers = quest.tally.offers;
    let is_late = now >= quest.since.plus_ms(settings.search_ms);
    let reason =
        if offers >= settings.offers_max { Some(ExhaustedReason::TooManyOffers) } else { is_late.then_some(ExhaustedReason::Deadline) };
    match reason {
        Some(reason) => Step::to(State::Delivery(Delivery::Exhausted))
            .emit(event)
            .then_emit(WorkerSearchExhausted { offers, reason })
            .cancel_timer(SEARCH),
        None => {
            let number = quest.tally.search.saturating_add(1);
            let quest = Quest { tally: Tally { search: number, ..quest.tally }, ..quest };
            begin(order_id, quest).emit(event).then_emit(WorkerSearchStarted { search: number })
        }
    }
}

pub(super) fn begin(order_id: OrderId, quest: Quest) -> Step {
    let effect = find_worker(order_id, &quest, 0, Look::Begin);
    Step::to(State::Delivery(Delivery::Searching { quest, looking: Looking::Around { tries: 0 } })).perform(effect)
}

fn find_worker(order_id: OrderId, quest: &Quest, tries: u32, look: Look) -> Effect {
    let Tally { search, attempt, .. } = quest.tally;
    Effect::FindWorker { order_id, search, attempt, tries, look, declined: quest.declined.clone() }
}

pub(super) fn deadline(quest: &Quest, settings: &Settings) -> (Timestamp, Any) {
    let input = Input::SearchDeadline { attempt: quest.tally.attempt };
    (quest.since.plus_ms(settings.search_ms), Any::Delivery(input))
}
