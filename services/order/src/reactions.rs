//! Which input each incoming event means.

use contract::Event;
use kit::{
    Envelope,
    machine::{Reaction, Unprocessable},
};

use crate::domain::{Fact, Input, Key};

/// The event types that an order reacts to.
pub(crate) const SUBSCRIBES: &[&str] = &[
    "cascade.PaymentAccepted.v1",
    "cascade.PaymentDeclined.v1",
    "cascade.PaymentRefunded.v1",
    "cascade.PaymentNothingTaken.v1",
    "cascade.DeliveryStarted.v1",
    "cascade.DeliveryAborted.v1",
    "cascade.DeliveryCompleted.v1",
    "cascade.DeliveryCancelled.v1",
    "cascade.DeliveryCancellationRefused.v1",
    "cascade.WorkerSearchExhausted.v1",
];

/// What `envelope` means to an order; nothing where it is an event of the shop that orders do not react to.
///
/// # Errors
/// [`Unprocessable`] for an event that cannot be read, comes from a service that does not emit it, or names no order.
pub(crate) fn react(envelope: &Envelope) -> Reaction<Key, Input> {
    let read = Event::of_order(&envelope.source, &envelope.ty, envelope.subject.as_deref(), envelope.data.as_deref());
    let (order_id, event) = read.map_err(|error| Unprocessable(error.to_string()))?;
    Ok(fact(&event).map(|fact| (Key(order_id), Input::Happened(fact))))
}

fn fact(event: &Event) -> Option<Fact> {
    match event {
        Event::PaymentAccepted(accepted) => Some(Fact::PaymentAccepted { amount: accepted.amount }),
        Event::PaymentDeclined(_) => Some(Fact::PaymentDeclined),
        Event::PaymentRefunded(refunded) => Some(Fact::PaymentRefunded { amount: refunded.amount }),
        Event::PaymentNothingTaken(_) => Some(Fact::PaymentNothingTaken),
        Event::DeliveryStarted(started) => Some(Fact::DeliveryStarted { attempt: started.attempt }),
        Event::DeliveryAborted(aborted) => Some(Fact::DeliveryAborted { attempt: aborted.attempt }),
        Event::DeliveryCompleted(completed) => Some(Fact::DeliveryCompleted { attempt: completed.attempt }),
        Event::DeliveryCancelled(_) => Some(Fact::DeliveryCancelled),
        Event::DeliveryCancellationRefused(refused) => Some(Fact::DeliveryCancellationRefused { reason: refused.reason }),
        Event::WorkerSearchExhausted(_) => Some(Fact::WorkerSearchExhausted),
        Event::WorkerSearchStarted(_)
        | Event::WorkerSearchCompleted(_)
        | Event::WorkerAcceptedJob(_)
        | Event::WorkerDeclinedJob(_)
        | Event::WorkerOfferExpired(_)
        | Event::WorkerOfferWithdrawn(_)
        | Event::OrderCreated(_)
        | Event::OrderCancellationRequested(_)
        | Event::OrderCancellationRejected(_)
        | Event::PaymentReversalRequested(_)
        | Event::OrderCancelled(_)
        | Event::OrderCompleted(_)
        | Event::OrderDeleted(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ORDER_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn envelope(source: &str, ty: &str, subject: &str, data: &serde_json::Value) -> Envelope {
        let event = json!({"specversion": "1.0", "id": "e-1", "source": source, "type": ty, "subject": subject, "data": data});
        serde_json::from_value(event).unwrap()
    }

    /// Data that every event we subscribe to can be read from: unknown fields are accepted.
    fn any_data(ty: &str) -> serde_json::Value {
        let reason = match ty {
            "cascade.PaymentDeclined.v1" => "card_declined",
            "cascade.PaymentNothingTaken.v1" => "never_charged",
            "cascade.DeliveryAborted.v1" => "gave_up",
            "cascade.DeliveryCancellationRefused.v1" => "already_delivered",
            _ => "deadline",
        };
        json!({"reason": reason, "amount": {"amount_minor": 1, "currency": "EUR"}, "worker_id": "w-1", "attempt": 1, "offers": 1})
    }

    #[test]
    fn every_subscribed_event_is_in_the_catalogue_and_means_something() {
        for ty in SUBSCRIBES {
            let (_, source) = contract::events::CATALOGUE.iter().find(|(wire_type, _)| wire_type == ty).unwrap();
            let (key, input) = react(&envelope(source, ty, ORDER_ID, &any_data(ty))).unwrap().unwrap();
            assert_eq!(key.0.to_string(), ORDER_ID);
            let Input::Happened(fact) = input else { panic!("{ty} is no fact") };
            assert_eq!(format!("cascade.{}.v1", fact.name()), *ty);
        }
    }

    #[test]
    fn an_event_of_the_shop_that_is_not_for_orders_means_nothing() {
        let search = envelope("/delivery", "cascade.WorkerSearchStarted.v1", ORDER_ID, &json!({"search": 1}));
        assert_eq!(react(&search), Ok(None));
    }

    #[test]
    fn an_event_that_cannot_be_applied_is_unprocessable() {
        let accepted = "cascade.PaymentAccepted.v1";
        for (source, ty, subject, data) in [
            ("/payment", "cascade.PaymentForgotten.v1", ORDER_ID, any_data(accepted)),
            ("/delivery", accepted, ORDER_ID, any_data(accepted)),
            ("/payment", accepted, "order-1", any_data(accepted)),
            ("/payment", accepted, ORDER_ID, json!({"amount": {"amount_minor": -1, "currency": "EUR"}})),
            ("/payment", accepted, ORDER_ID, json!(null)),
        ] {
            assert!(react(&envelope(source, ty, subject, &data)).is_err(), "{source} {ty} {subject}");
        }
        let mut nobody = envelope("/payment", accepted, ORDER_ID, &any_data(accepted));
        nobody.subject = None;
        assert!(react(&nobody).is_err());
    }
}
