//! An event of an order is read only as what it may be: from its emitter, of its shape, about an order.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use contract::{
    Event,
    events::{DeliveryCancelled, UnreadableEvent},
};
use serde_json::value::RawValue;

const ORDER: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const TYPE: &str = "cascade.DeliveryCancelled.v1";

fn read(source: &str, wire_type: &str, subject: Option<&str>, data: &str) -> Result<(String, Event), UnreadableEvent> {
    let data = RawValue::from_string(data.to_owned()).unwrap();
    Event::of_order(source, wire_type, subject, Some(&data)).map(|(order_id, event)| (order_id.to_string(), event))
}

#[test]
fn an_event_from_its_emitter_about_an_order_is_read() {
    assert_eq!(read("/delivery", TYPE, Some(ORDER), "{}"), Ok((ORDER.to_owned(), DeliveryCancelled {}.into())));
}

#[test]
fn a_forged_source_an_unknown_type_another_shape_and_no_order_are_told_apart() {
    assert!(matches!(read("/payment", TYPE, Some(ORDER), "{}"), Err(UnreadableEvent::ForeignSource { .. })));
    assert!(matches!(read("delivery", TYPE, Some(ORDER), "{}"), Err(UnreadableEvent::ForeignSource { .. })));
    assert!(matches!(read("/delivery", "cascade.Nonsense.v1", Some(ORDER), "{}"), Err(UnreadableEvent::UnknownType(_))));
    assert!(matches!(read("/delivery", TYPE, Some(ORDER), "[]"), Err(UnreadableEvent::BadData { .. })));
    assert!(matches!(read("/delivery", TYPE, Some("o-1"), "{}"), Err(UnreadableEvent::NoOrder(_))));
    assert!(matches!(read("/delivery", TYPE, None, "{}"), Err(UnreadableEvent::NoOrder(_))));
}
