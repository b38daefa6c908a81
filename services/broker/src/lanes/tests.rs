//! The promises of the lanes, for any log, any temper and any crash.

use kit::{Position, Timestamp};
use proptest::prelude::*;

use super::{
    Lanes, Step, Urgency,
    model::{Logged, Temper, World, tuning},
};
use crate::verdict::{Fault, Outcome, Verdict};

const STEPS_MAX: usize = 200_000;

fn tempers() -> impl Strategy<Value = Temper> {
    prop_oneof![
        12 => Just(Temper::Fine),
        1 => (1..6u32).prop_map(Temper::Postponed),
        2 => (1..6u32).prop_map(Temper::FailsAlone),
        1 => (1..6u32).prop_map(Temper::FailsAll),
        1 => (1..4u32).prop_map(Temper::Kills),
        1 => Just(Temper::Poison),
        1 => Just(Temper::PoisonsAll),
    ]
}

fn logs(temper: impl Strategy<Value = Temper>) -> impl Strategy<Value = Vec<Logged>> {
    let logged = (0..12u8, proptest::option::weighted(0.85, temper)).prop_map(|(lane, temper)| Logged { lane, temper });
    proptest::collection::vec(logged, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_applied_in_sequence_or_waits_behind_a_dead_letter(log in logs(tempers()), crashes in 0..8u32, seed: u64) {
        let mut world = World::new(tuning(), log, seed);
        prop_assert!(world.run(crashes, STEPS_MAX) < STEPS_MAX, "it comes to an end");
        let first_poison = |lane: u8| {
            world.matched().find(|(_, logged)| logged.lane == lane && matches!(logged.temper, Some(Temper::Poison | Temper::PoisonsAll)))
        };
        for (position, logged) in world.matched() {
            let is_blocked = first_poison(logged.lane).is_some_and(|(poison, _)| position >= poison);
            prop_assert_eq!(world.applied.contains(&position), !is_blocked, "{}", position);
            let is_dead = first_poison(logged.lane).is_some_and(|(poison, _)| position == poison);
            prop_assert_eq!(world.dead.contains_key(&position), is_dead, "{}", position);
        }
        prop_assert_eq!(world.lanes.floor(), world.lanes.read_head());
        prop_assert_eq!(world.lanes.parked_count(), world.dead.len());
        prop_assert_eq!(world.lanes.set_aside_count(), world.dead.len());
    }

    #[test]
    fn lanes_that_fail_for_ever_do_not_hold_up_the_others(
        log in logs(Just(Temper::Fine)), bad in proptest::collection::btree_set(0..12u8, 0..6), kind in 0..4u8, seed: u64,
    ) {
        let log: Vec<_> = log.into_iter().map(|mut logged| {
            if bad.contains(&logged.lane) {
                logged.temper = logged.temper.map(|_| [Temper::FailsAlone, Temper::FailsAll, Temper::Kills, Temper::Postponed][usize::from(kind)](u32::MAX));
            }
            logged
        }).collect();
        let mut world = World::new(tuning(), log, seed);
        world.run(0, 4_000);
        for (position, logged) in world.matched() {
            prop_assert_eq!(world.applied.contains(&position), !bad.contains(&logged.lane), "{}", position);
        }
    }

    #[test]
    fn dead_letters_are_redriven_or_discarded_in_sequence(log in logs(tempers()), seed: u64) {
        let mut world = World::new(tuning(), log, seed);
        let mut rounds = 0;
        while world.run(1, STEPS_MAX) < STEPS_MAX && !world.dead.is_empty() {
            rounds += 1;
            prop_assert!(rounds < 400);
            world.save();
            for position in world.dead.keys().copied().collect::<Vec<_>>() {
                if position.0 % 4 == 0 && rounds % 2 == 0 {
                    world.dead.remove(&position);
                    world.discarded.insert(position);
                    prop_assert!(world.lanes.discard(position));
                } else if rounds < 3 {
                    prop_assert!(world.lanes.redrive(position, world.now));
                } else {
                    world.dead.remove(&position);
                    world.discarded.insert(position);
                    prop_assert!(world.lanes.discard(position));
                }
            }
            world.save();
            world.save();
        }
        for (position, _) in world.matched() {
            prop_assert!(world.applied.contains(&position) != world.discarded.contains(&position), "{}", position);
        }
        prop_assert_eq!(world.lanes.set_aside_count(), 0);
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(ms)
}

fn fault(status: Option<u16>, retry_after_s: Option<u32>) -> Fault {
    Fault { status, reason: "said so".into(), retry_after_s }
}

fn deliver(lanes: &mut Lanes, now: Timestamp) -> super::Delivery {
    match lanes.next_step(now) {
        Step::Deliver(delivery) => delivery,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ten_thousand_failing_lanes_are_ten_thousand_rows_and_the_others_do_not_notice() {
    let log = (0..20_000u32).map(|n| (n, if n % 2 == 0 { Temper::FailsAlone(u32::MAX) } else { Temper::Fine }));
    let tuning = super::Tuning::default();
    let mut lanes = Lanes::resume(tuning, Position::START, Vec::new());
    let (mut now, mut next, mut applied) = (at(1_000), log.clone(), 0);
    for _ in 0..100_000 {
        while lanes.room() > 0 {
            let Some((n, _)) = next.next() else { break };
            lanes.offer(Position(i64::from(n) + 1), &n.to_string(), 400);
        }
        match lanes.next_step(now) {
            Step::Deliver(delivery) => {
                let outcomes = delivery.events.iter().map(|position| {
                    let is_fine = (position.0 - 1) % 2 == 1;
                    applied += i32::from(is_fine);
                    if is_fine { Outcome::Acknowledged } else { Outcome::Retry(fault(Some(500), None)) }
                });
                let verdict = Verdict::Answered(outcomes.collect());
                lanes.finish(delivery.id, verdict, now, &mut |max| max);
            }
            Step::Seek { .. } => panic!("nothing was acknowledged"),
            Step::Idle => now = lanes.next_wake(now).unwrap(),
        }
        if applied == 10_000 {
            break;
        }
    }
    assert_eq!(applied, 10_000);
    assert!(now < at(60_000), "{now:?}");
    while lanes.set_aside_count() < 10_000 {
        match lanes.next_step(now) {
            Step::Deliver(delivery) => {
                let outcomes = delivery.events.iter().map(|_| Outcome::Retry(fault(Some(500), None))).collect();
                lanes.finish(delivery.id, Verdict::Answered(outcomes), now, &mut |max| max);
            }
            Step::Seek { .. } => panic!("nothing was acknowledged"),
            Step::Idle => now = lanes.next_wake(now).unwrap(),
        }
    }
    assert_eq!(lanes.take_changes().rows.len(), 10_000);
    assert_eq!(lanes.floor(), Position(20_000));
}

#[test]
fn a_broken_endpoint_is_probed_alone_and_gives_up_nothing() {
    let mut lanes = Lanes::resume(tuning(), Position::START, Vec::new());
    for n in 1..=8 {
        lanes.offer(Position(n), &n.to_string(), 1);
    }
    let (first, second) = (deliver(&mut lanes, at(0)), deliver(&mut lanes, at(0)));
    let broken = || Verdict::EndpointAtFault(fault(Some(404), None));
    lanes.finish(first.id, broken(), at(1_000), &mut |max| max);
    lanes.finish(second.id, broken(), at(1_000), &mut |max| max);
    assert_eq!(lanes.next_step(at(1_000)), Step::Idle);
    let mut now = at(1_000);
    for failures in 1..200 {
        assert_eq!(lanes.held_back().map(|held| held.failures), Some(failures));
        now = lanes.next_wake(now).unwrap();
        let probe = deliver(&mut lanes, now);
        assert_eq!(probe.events.len(), 1);
        assert_eq!(lanes.next_step(now), Step::Idle, "one probe at a time");
        assert_eq!(lanes.next_wake(now), None);
        lanes.finish(probe.id, broken(), now, &mut |max| max);
    }
    assert_eq!((lanes.set_aside_count(), lanes.parked_count()), (0, 0));
    // It is there again, and says so.
    lanes.nudge(now);
    let mut delivered = 0;
    while delivered < 8 {
        match lanes.next_step(now) {
            Step::Deliver(delivery) => {
                delivered += delivery.events.len();
                lanes.finish(delivery.id, Verdict::Answered(vec![Outcome::Acknowledged; delivery.events.len()]), now, &mut |max| max);
            }
            _ => now = lanes.next_wake(now).unwrap(),
        }
    }
    assert_eq!(lanes.floor(), Position(8));
}

#[test]
fn a_retry_comes_when_it_was_asked_for_and_not_before() {
    let mut lanes = Lanes::resume(tuning(), Position::START, Vec::new());
    lanes.offer(Position(1), "a", 1);
    let delivery = deliver(&mut lanes, at(0));
    let outcome = Outcome::Retry(fault(Some(503), Some(7)));
    lanes.finish(delivery.id, Verdict::Answered(vec![outcome]), at(0), &mut |_| 0);
    assert_eq!(lanes.next_wake(at(0)), Some(at(7_000)));
    assert_eq!(lanes.next_step(at(6_999)), Step::Idle);
    assert_eq!(deliver(&mut lanes, at(7_000)).events, [Position(1)]);
}

#[test]
fn an_event_is_given_up_only_while_others_are_taken() {
    let mut lanes = Lanes::resume(super::Tuning { failures_max: 5, ..tuning() }, Position::START, Vec::new());
    lanes.offer(Position(1), "a", 1);
    let mut now = at(0);
    let fail = |lanes: &mut Lanes, now: &mut Timestamp| {
        let delivery = deliver(lanes, *now);
        lanes.finish(delivery.id, Verdict::Failed(fault(Some(500), None)), *now, &mut |max| max);
        *now = lanes.next_wake(*now).unwrap_or(*now);
    };
    for _ in 0..20 {
        fail(&mut lanes, &mut now);
    }
    assert_eq!((lanes.set_aside_count(), lanes.parked_count()), (1, 0), "an outage gives up nothing");
    lanes.offer(Position(2), "b", 1);
    let delivery = deliver(&mut lanes, at(0));
    assert_eq!(delivery.events, [Position(2)], "the failing lane waits and the other does not");
    lanes.finish(delivery.id, Verdict::Answered(vec![Outcome::Acknowledged]), now, &mut |max| max);
    fail(&mut lanes, &mut now);
    assert_eq!(lanes.parked_count(), 1);
    assert_eq!(lanes.urgency(), Urgency::Now { advanced: 2 });
    let changes = lanes.take_changes();
    assert!(changes.dead_letters.iter().all(|(_, letter)| letter.as_ref().is_some_and(|letter| letter.attempts == 21)));
    assert_eq!(lanes.urgency(), Urgency::Nothing);
}

#[test]
fn events_that_hang_take_half_of_the_deliveries_at_most() {
    let mut lanes = Lanes::resume(super::Tuning { deliveries_max: 4, ..tuning() }, Position::START, Vec::new());
    for n in 1..=8 {
        lanes.offer(Position(n), &n.to_string(), 1);
    }
    // All of them fail, together and then alone: no answer in time.
    let (mut now, mut failures) = (at(0), 0);
    while failures < 8 {
        match lanes.next_step(now) {
            Step::Deliver(delivery) => {
                failures += usize::from(delivery.events.len() == 1);
                lanes.finish(delivery.id, Verdict::Failed(fault(Some(504), None)), now, &mut |max| max);
            }
            _ => now = lanes.next_wake(now).unwrap(),
        }
    }
    now = now.plus_ms(60_000);
    let hanging = [deliver(&mut lanes, now), deliver(&mut lanes, now)];
    assert!(hanging.iter().all(|delivery| delivery.events.len() == 1));
    assert_eq!(lanes.next_step(now), Step::Idle);
    for n in 101..=103 {
        lanes.offer(Position(n), &n.to_string(), 1);
        assert_eq!(deliver_and_acknowledge(&mut lanes, now), [Position(n)]);
    }
}

#[test]
fn an_event_that_breaks_the_endpoint_takes_nobody_with_it_twice() {
    let mut lanes = Lanes::resume(tuning(), Position::START, Vec::new());
    for n in 1..=4 {
        lanes.offer(Position(n), &n.to_string(), 1);
    }
    let together = deliver(&mut lanes, at(0));
    assert_eq!(together.events.len(), 4);
    lanes.finish(together.id, Verdict::EndpointAtFault(fault(None, None)), at(0), &mut |max| max);
    lanes.nudge(at(1));
    for n in 1..=4 {
        assert_eq!(deliver_and_acknowledge(&mut lanes, at(1)), [Position(n)]);
    }
    assert_eq!(lanes.floor(), Position(4));
}

#[test]
fn a_subscriber_that_comes_back_need_not_wait_for_the_next_attempt() {
    let mut lanes = Lanes::resume(super::Tuning::default(), Position::START, Vec::new());
    lanes.offer(Position(1), "a", 1);
    let mut now = at(0);
    for _ in 0..20 {
        let delivery = deliver(&mut lanes, now);
        lanes.finish(delivery.id, Verdict::Answered(vec![Outcome::Retry(fault(Some(503), None))]), now, &mut |max| max);
        now = lanes.next_wake(now).unwrap();
    }
    let delivery = deliver(&mut lanes, now);
    lanes.finish(delivery.id, Verdict::Answered(vec![Outcome::Retry(fault(Some(503), None))]), now, &mut |max| max);
    assert_eq!(lanes.next_step(now.plus_ms(59_999)), Step::Idle);
    lanes.nudge(now);
    assert_eq!(deliver_and_acknowledge(&mut lanes, now), [Position(1)]);
}

fn deliver_and_acknowledge(lanes: &mut Lanes, now: Timestamp) -> Vec<Position> {
    let delivery = deliver(lanes, now);
    lanes.finish(delivery.id, Verdict::Answered(vec![Outcome::Acknowledged; delivery.events.len()]), now, &mut |max| max);
    delivery.events
}
