//! The wire form of every version of every event, as logs hold it for ever.
//!
//! A snapshot that changes means that a version changed its shape: make a new version beside the old one instead. A new event needs
//! a sample here, and a snapshot of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeSet;

use contract::{
    Event,
    events::{self, CATALOGUE, UnreadableEvent},
};
use serde_json::{Value, json, value::to_raw_value};

/// All words of a field that is one of several: does not compile while one is missing.
macro_rules! every {
    ($words:ident: $($word:ident),+) => {{
        let all = [$(events::$words::$word),+];
        for word in all {
            match word {
                $(events::$words::$word => {}),+
            }
        }
        all
    }};
}

/// One event of each kind that the catalogue names; more than one where a field may be one of several words.
fn samples() -> Vec<Event> {
    let worker = || "w-07".parse().unwrap();
    let euros = |amount_minor| contract::Money::new(amount_minor, contract::Currency::EUR).unwrap();
    let lines = || {
        let line =
            |product: &str, quantity, price| events::OrderLine { product_id: product.parse().unwrap(), quantity, unit_price: euros(price) };
        vec![line("coffee-250g", 2, 895), line("mug", 1, 1250)]
    };
    let mut samples: Vec<Event> = vec![
        events::OrderCreated { lines: lines(), total: euros(3040) }.into(),
        events::PaymentAccepted { amount: euros(3040) }.into(),
        events::WorkerSearchStarted { search: 1 }.into(),
        events::WorkerSearchCompleted { worker_id: worker(), offer: 1, expires_at_ms: 1_769_860_805_000 }.into(),
        events::WorkerAcceptedJob { worker_id: worker(), offer: 1 }.into(),
        events::WorkerDeclinedJob { worker_id: worker(), offer: 1 }.into(),
        events::WorkerOfferExpired { worker_id: worker(), offer: 1 }.into(),
        events::WorkerOfferWithdrawn { worker_id: worker(), offer: 1 }.into(),
        events::DeliveryStarted { worker_id: worker(), attempt: 1 }.into(),
        events::DeliveryCompleted { worker_id: worker(), attempt: 2 }.into(),
        events::DeliveryCancelled {}.into(),
        events::OrderCancellationRequested {}.into(),
        events::PaymentRefunded { amount: euros(3040) }.into(),
        events::OrderCompleted { lines: lines(), total: euros(3040) }.into(),
        events::OrderDeleted {}.into(),
    ];
    for reason in every!(DeclineReason: CardDeclined, InsufficientFunds) {
        samples.push(events::PaymentDeclined { reason }.into());
    }
    for reason in every!(ExhaustedReason: Deadline, TooManyOffers) {
        samples.push(events::WorkerSearchExhausted { offers: 10, reason }.into());
    }
    for reason in every!(AbortReason: GaveUp) {
        samples.push(events::DeliveryAborted { worker_id: worker(), attempt: 1, reason }.into());
    }
    for reason in every!(RefusalReason: AlreadyDelivered) {
        samples.push(events::DeliveryCancellationRefused { reason }.into());
        samples.push(events::OrderCancellationRejected { reason }.into());
    }
    for reason in every!(NothingTakenReason: Declined, NeverCharged) {
        samples.push(events::PaymentNothingTaken { reason }.into());
    }
    for reason in every!(CancelReason: CustomerRequest, PaymentDeclined, NoWorker) {
        samples.push(events::PaymentReversalRequested { reason }.into());
        samples.push(events::OrderCancelled { reason }.into());
    }
    samples
}

fn data_of(event: &Event) -> Value {
    serde_json::from_str(event.data().unwrap().get()).unwrap()
}

#[test]
fn every_event_of_the_catalogue_has_a_sample_and_every_sample_is_in_the_catalogue() {
    let catalogued: BTreeSet<_> = CATALOGUE.iter().copied().collect();
    let sampled: BTreeSet<_> = samples().iter().map(|event| (event.wire_type(), event.source())).collect();
    assert_eq!(catalogued, sampled);
    assert_eq!(catalogued.len(), CATALOGUE.len(), "a wire type stands in the catalogue twice");
}

#[test]
fn a_wire_type_is_the_name_and_the_version_of_the_event() {
    for event in samples() {
        let (name, version) = event.wire_type().strip_prefix("cascade.").unwrap().rsplit_once(".v").unwrap();
        assert!(event.name() == name || event.name() == format!("{name}V{version}"), "{}", event.wire_type());
        assert!(version.parse::<u32>().unwrap() >= 1, "{}", event.wire_type());
    }
}

#[test]
fn no_version_of_an_event_changes_its_wire_form() {
    for (wire_type, source) in CATALOGUE {
        let of_type = samples().into_iter().filter(|event| event.wire_type() == *wire_type);
        let data: Vec<Value> = of_type.map(|event| data_of(&event)).collect();
        insta::assert_json_snapshot!(*wire_type, json!({ "type": wire_type, "source": source, "data": data }));
    }
}

#[test]
fn no_snapshot_is_left_of_an_event_that_is_gone() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let kept: BTreeSet<String> = files.filter(|name| name.ends_with(".snap")).collect();
    let expected: BTreeSet<String> = CATALOGUE.iter().map(|(wire_type, _)| format!("schemas__{wire_type}.snap")).collect();
    assert_eq!(kept, expected, "a published version is never taken back");
}

#[test]
fn every_event_is_read_back_as_it_was_written() {
    for event in samples() {
        assert_eq!(Event::read(event.wire_type(), Some(&event.data().unwrap())), Ok(event.clone()));
        let stored = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&stored).unwrap(), event);
    }
}

#[test]
fn a_field_that_a_newer_emitter_adds_is_accepted_and_dropped() {
    for event in samples() {
        let mut data = data_of(&event);
        data.as_object_mut().unwrap().insert("added_later".into(), json!({ "deep": [1, 2] }));
        for line in data.get_mut("lines").and_then(Value::as_array_mut).into_iter().flatten() {
            line.as_object_mut().unwrap().insert("added_later".into(), json!(true));
        }
        assert_eq!(Event::read(event.wire_type(), Some(&to_raw_value(&data).unwrap())), Ok(event));
    }
}

#[test]
fn data_without_one_of_its_fields_or_of_another_kind_is_unreadable() {
    for event in samples() {
        let whole = data_of(&event);
        let fields: Vec<String> = whole.as_object().unwrap().keys().cloned().collect();
        let without = fields.iter().map(|field| {
            let mut data = whole.clone();
            data.as_object_mut().unwrap().remove(field);
            data
        });
        let of_another_kind = fields.iter().map(|field| {
            let mut data = whole.clone();
            data.as_object_mut().unwrap().insert(field.clone(), json!({ "of": "another kind" }));
            data
        });
        for data in without.chain(of_another_kind).chain([json!("text"), json!(1), Value::Null]) {
            let read = Event::read(event.wire_type(), Some(&to_raw_value(&data).unwrap()));
            assert!(matches!(read, Err(UnreadableEvent::BadData { .. })), "{} from {data}", event.wire_type());
        }
        assert!(matches!(Event::read(event.wire_type(), None), Err(UnreadableEvent::BadData { .. })));
    }
}

#[test]
fn a_type_that_is_not_in_the_catalogue_is_told_from_bad_data() {
    for wire_type in ["", "OrderCreated", "cascade.OrderCreated", "cascade.OrderCreated.v2", "cascade.ordercreated.v1"] {
        let read = Event::read(wire_type, None);
        assert_eq!(read, Err(UnreadableEvent::UnknownType(wire_type.to_owned())));
    }
}
