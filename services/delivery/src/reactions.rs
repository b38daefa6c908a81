//! What each incoming event means to a delivery.

use contract::Event;
use kit::{
    Envelope,
    machine::{Reaction, Unprocessable},
};

use crate::domain::{Input, Key, delivery};

/// The events that delivery reacts to.
pub(crate) const SUBSCRIBES: &[&str] = &["cascade.PaymentAccepted.v1", "cascade.OrderCancellationRequested.v1"];

/// What `envelope` means: an input for one delivery, or nothing.
///
/// # Errors
/// An event that is not one of the shop's, that names no order, or that comes from a service that may not emit it.
pub(crate) fn react(envelope: &Envelope) -> Reaction<Key, Input> {
    let read = Event::of_order(&envelope.source, &envelope.ty, envelope.subject.as_deref(), envelope.data.as_deref());
    let (order_id, event) = read.map_err(|error| Unprocessable(error.to_string()))?;
    let input = match event {
        Event::PaymentAccepted(_) => delivery::Input::PaymentAccepted,
        Event::OrderCancellationRequested(_) => delivery::Input::CancellationRequested,
        _ => return Ok(None),
    };
    Ok(Some((Key::Delivery(order_id), Input::Delivery(input))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    const AMOUNT: &str = r#"{"amount":{"amount_minor":1250,"currency":"EUR"}}"#;

    fn envelope(ty: &str, source: &str, subject: &str, data: &str) -> Envelope {
        let text = format!(r#"{{"specversion":"1.0","id":"e-1","source":"{source}","type":"{ty}","subject":"{subject}","data":{data}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_paid_order_is_delivered_and_a_cancelled_one_called_off() {
        let paid = react(&envelope("cascade.PaymentAccepted.v1", "/payment", ORDER, AMOUNT)).unwrap().unwrap();
        assert_eq!(paid, (Key::Delivery(ORDER.parse().unwrap()), Input::Delivery(delivery::Input::PaymentAccepted)));
        let off = react(&envelope("cascade.OrderCancellationRequested.v1", "/order", ORDER, "{}")).unwrap().unwrap();
        assert_eq!(off.1, Input::Delivery(delivery::Input::CancellationRequested));
    }

    #[test]
    fn what_can_never_be_applied_is_a_dead_letter() {
        for (ty, source, subject, data) in [
            ("cascade.PaymentAccepted.v1", "/payment", "order-1", AMOUNT),
            ("cascade.PaymentAccepted.v1", "/order", ORDER, AMOUNT),
            ("cascade.PaymentAccepted.v1", "/payment", ORDER, "null"),
            ("cascade.PaymentAccepted.v9", "/payment", ORDER, AMOUNT),
        ] {
            assert!(react(&envelope(ty, source, subject, data)).is_err(), "{ty} {source} {subject} {data}");
        }
    }
}
