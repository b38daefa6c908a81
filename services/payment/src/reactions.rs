//! What each incoming event means to a payment.

use contract::Event;
use kit::{
    Envelope,
    machine::{Reaction, Unprocessable},
};

use crate::domain::{Input, Key};

/// The events that payment reacts to.
pub(crate) const SUBSCRIBES: &[&str] = &["cascade.OrderCreated.v1", "cascade.PaymentReversalRequested.v1"];

/// What `envelope` means: an input for one payment, or nothing.
///
/// # Errors
/// An event that is not one of the shop's, that names no order, or that comes from a service that may not emit it.
pub(crate) fn react(envelope: &Envelope) -> Reaction<Key, Input> {
    let read = Event::of_order(&envelope.source, &envelope.ty, envelope.subject.as_deref(), envelope.data.as_deref());
    let (order_id, event) = read.map_err(|error| Unprocessable(error.to_string()))?;
    let input = match event {
        Event::OrderCreated(created) => Input::OrderCreated { total: created.total },
        Event::PaymentReversalRequested(_) => Input::ReversalRequested,
        _ => return Ok(None),
    };
    Ok(Some((Key(order_id), input)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::machine::Key as _;

    fn envelope(ty: &str, source: &str, subject: &str, data: &str) -> Envelope {
        let text = format!(r#"{{"specversion":"1.0","id":"e-1","source":"{source}","type":"{ty}","subject":"{subject}","data":{data}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    const ORDER: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    const CREATED: &str = r#"{"lines":[],"total":{"amount_minor":1250,"currency":"EUR"}}"#;

    #[test]
    fn an_order_is_charged_its_total() {
        let (key, input) = react(&envelope("cascade.OrderCreated.v1", "/order", ORDER, CREATED)).unwrap().unwrap();
        assert_eq!(key.id(), ORDER);
        assert!(matches!(input, Input::OrderCreated { total } if total.amount_minor() == 1250));
    }

    #[test]
    fn what_can_never_be_applied_is_a_dead_letter() {
        for (ty, source, subject, data) in [
            ("cascade.OrderCreated.v1", "/order", "order-1", CREATED),
            ("cascade.OrderCreated.v1", "/delivery", ORDER, CREATED),
            ("cascade.OrderCreated.v1", "/order", ORDER, "{}"),
            ("cascade.OrderCreated.v9", "/order", ORDER, CREATED),
        ] {
            assert!(react(&envelope(ty, source, subject, data)).is_err(), "{ty} {source} {subject} {data}");
        }
    }

    #[test]
    fn events_of_no_interest_are_let_pass() {
        let event = envelope("cascade.OrderCancelled.v1", "/order", ORDER, r#"{"reason":"customer_request"}"#);
        assert!(react(&event).unwrap().is_none());
    }
}
