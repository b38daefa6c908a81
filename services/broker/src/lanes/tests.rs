//! The promises of the lanes, and one by one what they do in which case.

use kit::{Position, Timestamp};

use super::{
    DeadLetter, Lanes, LetterState, OnExhausted, Row, Saved, Standing, Step, Tuning, Urgency,
    model::{Temper, tuning},
};
use crate::verdict::{Fault, Outcome, Verdict};

/// The promises, for any log.
mod properties;

/// Lanes that fail.
mod failing;

/// Sinks that break, hang or struggle.
mod endpoint;

/// Events that are given up.
mod letters;

/// What the log loses.
mod losing;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(ms)
}

fn fault(status: Option<u16>, retry_after_s: Option<u32>) -> Fault {
    Fault { status, reason: "said so".into(), retry_after_s, answer: None }
}

/// The next step of lanes whose events stand in the log one behind the other.
fn next_step(lanes: &mut Lanes, now: Timestamp) -> Step {
    loop {
        match lanes.next_step(now) {
            Step::Seek { lane, after, .. } => lanes.found(&lane, Some((after.next(), 100))),
            step => return step,
        }
    }
}

fn deliver(lanes: &mut Lanes, now: Timestamp) -> super::Delivery {
    match next_step(lanes, now) {
        Step::Deliver(delivery) => delivery,
        other => panic!("{other:?}"),
    }
}

fn deliver_and_acknowledge(lanes: &mut Lanes, now: Timestamp) -> Vec<Position> {
    let delivery = deliver(lanes, now);
    lanes.finish(delivery.id, Verdict::Answered(vec![Outcome::Acknowledged; delivery.events.len()]), now, &mut |max| max);
    delivery.events
}

fn answer(lanes: &mut Lanes, now: Timestamp, outcome: Outcome) -> Vec<Position> {
    let delivery = deliver(lanes, now);
    let outcomes = vec![outcome; delivery.events.len()];
    lanes.finish(delivery.id, Verdict::Answered(outcomes), now, &mut |max| max);
    delivery.events
}
