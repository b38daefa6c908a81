//! The promises of the lanes, for any log, any temper and any crash.

use kit::{Position, Timestamp};
use proptest::prelude::*;

use super::{
    DeadLetter, Lanes, LetterState, OnExhausted, Row, Saved, Step, Tuning, Urgency,
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
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(400), failure_persistence: None, ..ProptestConfig::default() })]

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
            prop_assert_eq!(world.dead().contains(&position), is_dead, "{}", position);
        }
        prop_assert_eq!(world.lanes.floor(), world.lanes.read_head());
        prop_assert_eq!(world.lanes.parked_count(), world.dead().len());
        prop_assert_eq!(world.lanes.set_aside_count(), world.dead().len());
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
        while world.run(1, STEPS_MAX) < STEPS_MAX && !world.dead().is_empty() {
            rounds += 1;
            prop_assert!(rounds < 400);
            for position in world.dead() {
                if (position.0 % 4 == 0 && rounds % 2 == 0) || rounds >= 3 {
                    prop_assert!(world.discard(position));
                    prop_assert!(!world.lanes.dead_letters_waiting().any(|waiting| waiting == position));
                } else {
                    prop_assert!(world.redrive(position));
                }
            }
        }
        world.save_all();
        for (position, _) in world.matched() {
            prop_assert!(world.applied.contains(&position) != world.discarded.contains(&position), "{}", position);
        }
        prop_assert_eq!(world.lanes.set_aside_count(), 0);
    }

    #[test]
    fn whatever_the_policy_every_event_comes_to_one_end_and_the_books_know_it(
        log in logs(tempers()), policy in policies(), crashes in 0..6u32, decisions in 0..40u64, loses: bool, seed: u64,
    ) {
        let mut world = World::new(policy, log.clone(), seed);
        for decision in 0..decisions {
            world.run(crashes.min(1), 40);
            if loses && decision % 5 == 4 {
                // Now and then more than was read.
                let ahead = i64::try_from(seed % 40).unwrap() - 20;
                let last = World::place(log.len()).0 - 2;
                world.expire(Position((world.lanes.floor().0 + ahead).clamp(world.trimmed.0, last)));
            }
            let waiting = world.dead();
            let Some(position) = waiting.iter().nth(usize::try_from(decision).unwrap() % waiting.len().max(1)).copied() else { continue };
            let was_waiting = if decision % 3 == 0 { world.discard(position) } else { world.redrive(position) };
            prop_assert!(was_waiting);
        }
        prop_assert!(world.run(crashes, STEPS_MAX) < STEPS_MAX, "it comes to an end");
        world.save_all();
        let (dead, counts) = (world.dead(), world.lanes.counts());
        let is_behind = |position: Position, lane: u8| {
            policy.on_exhausted == OnExhausted::Park && world.matched().any(|(p, one)| one.lane == lane && p < position && dead.contains(&p))
        };
        let trimmed = world.trimmed;
        for (position, logged) in world.matched().filter(|(position, _)| *position > trimmed) {
            let ends = [
                dead.contains(&position),
                world.discarded.contains(&position),
                is_behind(position, logged.lane),
                world.applied.contains(&position) && !dead.contains(&position) && !world.discarded.contains(&position),
            ];
            prop_assert_eq!(ends.iter().filter(|end| **end).count(), 1, "{} {:?}", position, ends);
        }
        let count = |is_so: &dyn Fn(Position, u8) -> bool| {
            i64::try_from(world.matched().filter(|(position, logged)| is_so(*position, logged.lane)).count()).unwrap()
        };
        prop_assert_eq!(counts.dead_lettered, count(&|position, _| dead.contains(&position)));
        prop_assert_eq!(counts.discarded, count(&|position, _| world.discarded.contains(&position)));
        prop_assert!(counts.expired <= count(&|position, _| position <= trimmed));
        prop_assert_eq!(counts.deferred, count(&is_behind));
        prop_assert_eq!(counts.total(), count(&|_, _| true));
    }
}

fn policies() -> impl Strategy<Value = Tuning> {
    let age = proptest::option::weighted(0.3, 1..20_000u64);
    let on_exhausted = prop_oneof![Just(OnExhausted::Park), Just(OnExhausted::Continue)];
    (1..6u32, age, on_exhausted, prop_oneof![Just(0), 1..500u64], 2..5usize).prop_map(
        |(failures_max, failing_ms_max, on_exhausted, batch_wait_ms, deliveries_max)| Tuning {
            failures_max,
            failing_ms_max,
            on_exhausted,
            batch_wait_ms,
            deliveries_max,
            ..tuning()
        },
    )
}

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

#[test]
fn ten_thousand_failing_lanes_are_ten_thousand_rows_and_the_others_do_not_notice() {
    let log = (0..20_000u32).map(|n| (n, if n % 2 == 0 { Temper::FailsAlone(u32::MAX) } else { Temper::Fine }));
    let tuning = Tuning::default();
    let mut lanes = Lanes::new(tuning, Position::START);
    let (mut now, mut next, mut applied) = (at(1_000), log.clone(), 0);
    for _ in 0..100_000 {
        while lanes.room() > 0 {
            let Some((n, _)) = next.next() else { break };
            lanes.offer(Position(i64::from(n) + 1), &n.to_string(), 400);
        }
        match next_step(&mut lanes, now) {
            Step::Deliver(delivery) => {
                let outcomes = delivery.events.iter().map(|position| {
                    let is_fine = (position.0 - 1) % 2 == 1;
                    applied += i32::from(is_fine);
                    if is_fine { Outcome::Acknowledged } else { Outcome::Retry(fault(Some(500), None)) }
                });
                let verdict = Verdict::Answered(outcomes.collect());
                lanes.finish(delivery.id, verdict, now, &mut |max| max);
            }
            Step::Seek { .. } => panic!("it was answered"),
            Step::Idle => now = lanes.next_wake(now).unwrap(),
        }
        if applied == 10_000 {
            break;
        }
    }
    assert_eq!(applied, 10_000);
    assert!(now < at(60_000), "{now:?}");
    while lanes.set_aside_count() < 10_000 {
        match next_step(&mut lanes, now) {
            Step::Deliver(delivery) => {
                let outcomes = delivery.events.iter().map(|_| Outcome::Retry(fault(Some(500), None))).collect();
                lanes.finish(delivery.id, Verdict::Answered(outcomes), now, &mut |max| max);
            }
            Step::Seek { .. } => panic!("it was answered"),
            Step::Idle => now = lanes.next_wake(now).unwrap(),
        }
    }
    assert_eq!(lanes.take_changes(usize::MAX).rows.len(), 10_000);
    assert_eq!(lanes.floor(), Position(20_000));
}

#[test]
fn when_too_many_lanes_fail_nothing_new_is_read_until_some_are_through() {
    let mut lanes = Lanes::new(Tuning { aside_lanes_max: 2, failures_until_aside: 1, ..tuning() }, Position::START);
    lanes.offer(Position(1), "a", 100);
    lanes.offer(Position(2), "b", 100);
    assert!(lanes.room() > 0);
    let Step::Deliver(delivery) = lanes.next_step(at(0)) else { panic!("both are due") };
    let outcomes = delivery.events.iter().map(|_| Outcome::Retry(fault(Some(500), None))).collect();
    lanes.finish(delivery.id, Verdict::Answered(outcomes), at(0), &mut |max| max);
    assert_eq!((lanes.set_aside_count(), lanes.room()), (2, 0));
    let mut now = at(0);
    while lanes.room() == 0 {
        match lanes.next_step(now) {
            Step::Deliver(delivery) => {
                let outcomes = delivery.events.iter().map(|_| Outcome::Acknowledged).collect();
                lanes.finish(delivery.id, Verdict::Answered(outcomes), now, &mut |max| max);
            }
            Step::Seek { lane, .. } => lanes.found(&lane, None),
            Step::Idle => now = lanes.next_wake(now).unwrap(),
        }
    }
    assert!(lanes.set_aside_count() < 2);
}

#[test]
fn how_often_events_failed_is_saved_in_turn_and_holds_up_nothing() {
    let mut lanes = Lanes::new(tuning(), Position::START);
    for index in 1..=100 {
        lanes.offer(Position(index), &format!("lane {index:03}"), 100);
    }
    let mut now = at(0);
    let mut fail_all = |lanes: &mut Lanes, failures: u32| {
        while lanes.lanes.values().any(|state| state.failures < failures) {
            match next_step(lanes, now) {
                Step::Deliver(delivery) => {
                    let outcomes = delivery.events.iter().map(|_| Outcome::Retry(fault(Some(500), None))).collect();
                    lanes.finish(delivery.id, Verdict::Answered(outcomes), now, &mut |max| max);
                }
                Step::Seek { .. } => panic!("it was answered"),
                Step::Idle => now = lanes.next_wake(now).unwrap(),
            }
        }
    };
    let until_aside = tuning().failures_until_aside;
    fail_all(&mut lanes, until_aside);
    assert!(lanes.take_changes(usize::MAX).is_all);
    assert_eq!(lanes.urgency(), Urgency::Nothing);
    fail_all(&mut lanes, until_aside + 1);
    lanes.offer(Position(101), "another", 100);
    let saved = lanes.take_changes(60);
    assert!(saved.is_all, "nothing that counts is left");
    assert_eq!((saved.floor, saved.rows.len()), (Position(100), 60));
    fail_all(&mut lanes, until_aside + 2);
    let names = |changes: super::Changes| changes.rows.into_iter().map(|(lane, _)| lane.as_str().to_owned()).collect::<Vec<_>>();
    let others = names(lanes.take_changes(40));
    assert_eq!(others[..2], ["another", "lane 061"], "first what counts, then the others in turn");
    assert_eq!(others.len(), 40);
    assert_eq!(names(lanes.take_changes(usize::MAX)).len(), 61);
    assert_eq!(lanes.urgency(), Urgency::Nothing);
}

#[test]
fn a_broken_endpoint_is_probed_alone_and_gives_up_nothing() {
    let mut lanes = Lanes::new(tuning(), Position::START);
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
    let mut lanes = Lanes::new(tuning(), Position::START);
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
    let mut lanes = Lanes::new(Tuning { failures_max: 5, ..tuning() }, Position::START);
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
    let changes = lanes.take_changes(usize::MAX);
    assert!(changes.letters.iter().all(|(_, letter)| letter.as_ref().is_some_and(|letter| letter.attempts == 21)));
    assert_eq!(lanes.urgency(), Urgency::Nothing);
}

#[test]
fn events_that_hang_take_half_of_the_deliveries_at_most() {
    let mut lanes = Lanes::new(Tuning { deliveries_max: 4, ..tuning() }, Position::START);
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
    // The sink seemed to struggle; it takes others until it has its four deliveries again.
    for n in 11.. {
        if lanes.concurrency() == 4 {
            break;
        }
        lanes.offer(Position(n), &n.to_string(), 1);
        let held = (0..2).map_while(|_| match lanes.next_step(now) {
            Step::Deliver(delivery) => Some(delivery),
            _ => None,
        });
        for delivery in held.collect::<Vec<_>>() {
            let outcomes = delivery.events.iter().map(|position| match position.0 {
                ..=8 => Outcome::Retry(fault(Some(504), None)),
                _ => Outcome::Acknowledged,
            });
            lanes.finish(delivery.id, Verdict::Answered(outcomes.collect()), now, &mut |_| 0);
        }
    }
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
    let mut lanes = Lanes::new(tuning(), Position::START);
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
    let mut lanes = Lanes::new(Tuning::default(), Position::START);
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

#[test]
fn one_lane_that_fails_for_ever_among_a_thousand_costs_the_others_nothing() {
    let mut lanes = Lanes::new(Tuning::default(), Position::START);
    let (mut now, mut acknowledged, mut deliveries, mut attempts) = (at(0), 0, 0, 0);
    let log = (1..=100_000i64).map(|n| (Position(n), n % 1_000));
    let mut log = log.peekable();
    while log.peek().is_some() || lanes.open_count() > 0 {
        while lanes.room() > 0 {
            let Some((position, lane)) = log.next() else { break };
            lanes.offer(position, &lane.to_string(), 400);
        }
        match lanes.next_step(now) {
            Step::Deliver(delivery) => {
                deliveries += 1;
                let outcomes = delivery.events.iter().map(|position| match position.0 % 1_000 {
                    7 => Outcome::Retry(fault(Some(500), None)),
                    _ => Outcome::Acknowledged,
                });
                let outcomes: Vec<_> = outcomes.collect();
                attempts += outcomes.iter().filter(|outcome| **outcome != Outcome::Acknowledged).count();
                acknowledged += outcomes.iter().filter(|outcome| **outcome == Outcome::Acknowledged).count();
                // Each delivery takes a millisecond.
                now = now.plus_ms(1);
                lanes.finish(delivery.id, Verdict::Answered(outcomes), now, &mut |max| max);
                assert!(acknowledged < 99_900 || lanes.set_aside_count() == 1);
            }
            Step::Seek { lane, after, .. } => {
                assert_eq!(lane.as_str(), "7");
                lanes.found(&lane, Some((after.next(), 400)));
            }
            Step::Idle => now = lanes.next_wake(now).unwrap(),
        }
    }
    assert_eq!(acknowledged, 99_900);
    assert!(deliveries - attempts < 99_900 / 50, "the others go in full batches: {deliveries}");
    assert_eq!((lanes.set_aside_count(), lanes.parked_count(), lanes.floor()), (1, 0, Position(100_000)));
    let counts = lanes.counts();
    assert_eq!((counts.delivered, counts.deferred), (99_900, 100));
}

fn answer(lanes: &mut Lanes, now: Timestamp, outcome: Outcome) -> Vec<Position> {
    let delivery = deliver(lanes, now);
    let outcomes = vec![outcome; delivery.events.len()];
    lanes.finish(delivery.id, Verdict::Answered(outcomes), now, &mut |max| max);
    delivery.events
}

#[test]
fn an_event_is_given_up_by_age_as_by_attempts_and_only_while_others_are_taken() {
    let mut lanes = Lanes::new(Tuning { failing_ms_max: Some(5_000), ..tuning() }, Position::START);
    lanes.offer(Position(1), "a", 1);
    let failed = || Outcome::Retry(fault(Some(500), None));
    answer(&mut lanes, at(0), failed());
    answer(&mut lanes, at(9_000), failed());
    assert_eq!(lanes.parked_count(), 0, "nothing else was taken");
    lanes.offer(Position(2), "b", 1);
    assert_eq!(answer(&mut lanes, at(9_000), Outcome::Acknowledged), [Position(2)]);
    assert_eq!(answer(&mut lanes, at(9_900), failed()), [Position(1)]);
    assert_eq!((lanes.parked_count(), lanes.counts().dead_lettered), (1, 1));
}

#[test]
fn a_lane_goes_on_past_a_dead_letter_where_that_is_wanted_and_the_letter_is_redriven_by_itself() {
    let mut lanes = Lanes::new(Tuning { on_exhausted: OnExhausted::Continue, ..tuning() }, Position::START);
    (1..=3).for_each(|n| lanes.offer(Position(n), "a", 1));
    let poison = || Outcome::Poison(fault(Some(422), None));
    assert_eq!(answer(&mut lanes, at(0), poison()), [Position(1)]);
    let letter = |lanes: &mut Lanes| lanes.take_changes(usize::MAX).letters.pop().and_then(|(_, letter)| letter);
    let first = letter(&mut lanes).unwrap();
    assert_eq!((first.position, first.attempts, lanes.parked_count(), lanes.dead_letter_count()), (Position(1), 1, 0, 1));
    assert_eq!(answer(&mut lanes, at(0), Outcome::Acknowledged), [Position(2)], "the lane goes on");
    assert!(lanes.redrive(first.clone(), at(1)));
    assert!(!lanes.redrive(first.clone(), at(1)) && !lanes.discard(first, at(1)), "it is on its way");
    // They come in any order now, and still one after the other.
    let alone = deliver(&mut lanes, at(1));
    assert_eq!((&*alone.events, alone.attempt, lanes.next_step(at(1))), (&[Position(1)][..], 2, Step::Idle));
    lanes.finish(alone.id, Verdict::Answered(vec![poison()]), at(1), &mut |_| 0);
    assert_eq!(answer(&mut lanes, at(1), Outcome::Acknowledged), [Position(3)]);
    let again = letter(&mut lanes).unwrap();
    assert_eq!((again.position, again.attempts, again.state), (Position(1), 2, LetterState::Waiting));
    assert!(lanes.redrive(again, at(2)));
    let redriving = letter(&mut lanes).unwrap();
    assert_eq!(redriving.state, LetterState::Redriving, "so that it goes on after a crash");
    assert_eq!(answer(&mut lanes, at(2), Outcome::Acknowledged), [Position(1)]);
    assert_eq!(lanes.take_changes(usize::MAX).letters, [(Position(1), None)]);
    assert_eq!((lanes.counts().delivered, lanes.counts().total(), lanes.settled_up_to()), (3, 3, Position(3)));
}

#[test]
fn events_gather_for_a_batch_until_it_is_full_or_the_wait_is_over() {
    let mut lanes = Lanes::new(Tuning { batch_wait_ms: 100, batch_events_max: 3, ..tuning() }, Position::START);
    lanes.offer(Position(1), "a", 1);
    assert_eq!((lanes.next_step(at(1_000)), lanes.next_wake(at(1_000))), (Step::Idle, Some(at(1_100))));
    lanes.offer(Position(2), "b", 1);
    assert_eq!((lanes.next_step(at(1_050)), lanes.next_wake(at(1_050))), (Step::Idle, Some(at(1_100))));
    assert_eq!(deliver(&mut lanes, at(1_100)).events, [Position(1), Position(2)]);
    (3..=5).for_each(|n| lanes.offer(Position(n), &n.to_string(), 1));
    assert_eq!(deliver(&mut lanes, at(1_101)).events, [Position(3), Position(4), Position(5)], "a full one waits for nothing");
    assert_eq!(lanes.next_wake(at(1_101)), None);
}

#[test]
fn a_sink_that_struggles_gets_fewer_deliveries_at_once_and_more_when_it_is_well() {
    let mut lanes = Lanes::new(Tuning { batch_events_max: 1, deliveries_max: 8, window_events_max: 1_000, ..tuning() }, Position::START);
    (1..=1_000).for_each(|n| lanes.offer(Position(n), &n.to_string(), 1));
    let fill = |lanes: &mut Lanes| {
        std::iter::from_fn(|| match lanes.next_step(at(0)) {
            Step::Deliver(delivery) => Some(delivery),
            _ => None,
        })
        .collect::<Vec<_>>()
    };
    let flying = fill(&mut lanes);
    assert_eq!(flying.len(), 8);
    for delivery in flying {
        lanes.finish(delivery.id, Verdict::Busy(fault(Some(429), Some(60))), at(0), &mut |max| max);
    }
    assert_eq!(fill(&mut lanes).len(), 4);
    let mut most = 0;
    let mut lanes = Lanes::new(Tuning { batch_events_max: 1, deliveries_max: 8, window_events_max: 1_000, ..tuning() }, Position::START);
    lanes.offer(Position(1), "1", 1);
    let delivery = deliver(&mut lanes, at(0));
    lanes.finish(delivery.id, Verdict::Failed(fault(Some(504), None)), at(0), &mut |_| 60_000);
    assert_eq!(lanes.concurrency(), 4);
    (2..=200).for_each(|n| lanes.offer(Position(n), &n.to_string(), 1));
    while lanes.open_count() > 1 {
        let flying = fill(&mut lanes);
        most = flying.len().max(most);
        for delivery in flying {
            lanes.finish(delivery.id, Verdict::Answered(vec![Outcome::Acknowledged]), at(0), &mut |_| 0);
        }
    }
    assert_eq!(most, 8);
}

#[test]
fn of_many_attempts_the_first_and_the_last_nine_are_kept_and_how_many_they_were() {
    let mut lanes = Lanes::new(Tuning { failures_max: 30, ..tuning() }, Position::START);
    lanes.offer(Position(1), "a", 1);
    let mut now = at(0);
    for n in 1..=40 {
        if n == 25 {
            lanes.offer(Position(2), "b", 1);
            let delivery = deliver(&mut lanes, at(0));
            lanes.finish(delivery.id, Verdict::Answered(vec![Outcome::Acknowledged]), now, &mut |_| 0);
        }
        let said = fault(Some(500), None);
        let failed = Fault { reason: format!("attempt {n}").as_str().into(), answer: Some(format!("body {n}").as_str().into()), ..said };
        let Step::Deliver(delivery) = next_step(&mut lanes, now) else { break };
        assert_eq!(delivery.attempt, n);
        lanes.finish(delivery.id, Verdict::Failed(failed), now, &mut |max| max);
        now = lanes.next_wake(now).unwrap_or(now);
    }
    let letter = lanes.take_changes(usize::MAX).letters.pop().and_then(|(_, letter)| letter).unwrap();
    let kept: Vec<_> = letter.history.attempts.iter().map(|attempt| attempt.reason.as_str()).collect();
    let expected: Vec<_> = [1].into_iter().chain(22..=30).map(|n| format!("attempt {n}")).collect();
    assert_eq!((letter.attempts, kept), (30, expected.iter().map(String::as_str).collect()));
    assert_eq!((letter.history.answer.unwrap().as_str(), letter.history.since), ("body 30", Some(at(0))));
}

#[test]
fn of_an_event_among_many_that_fail_the_first_attempt_and_the_last_are_kept() {
    let mut lanes = Lanes::new(Tuning { failures_until_aside: 1, failures_max: 30, ..Tuning::default() }, Position::START);
    (1..=1_101).for_each(|n| lanes.offer(Position(n), &n.to_string(), 1));
    let (mut now, mut tries) = (at(0), 0);
    while lanes.dead_letter_count() == 0 {
        match next_step(&mut lanes, now) {
            Step::Deliver(delivery) => {
                let outcomes = delivery.events.iter().map(|position| match position.0 {
                    1 if tries == 20 => Outcome::Poison(fault(Some(422), None)),
                    position => {
                        tries += u32::from(position == 1);
                        Outcome::Retry(fault(Some(500), None))
                    }
                });
                lanes.finish(delivery.id, Verdict::Answered(outcomes.collect()), now, &mut |max| max);
            }
            Step::Seek { .. } => panic!("it was answered"),
            Step::Idle => now = lanes.next_wake(now).unwrap(),
        }
    }
    let letter = lanes.take_changes(usize::MAX).letters.pop().and_then(|(_, letter)| letter).unwrap();
    let kept: Vec<_> = letter.history.attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!((letter.attempts, kept), (21, vec![Some(500), Some(422)]));
}

#[test]
fn rows_and_dead_letters_that_were_stored_before_attempts_were_kept_stay_readable() {
    let row = r#"{"lane":"a","first":1,"failures":3,"next_at":1800000000000,"is_parked":false}"#;
    let row: Row = serde_json::from_str(row).unwrap();
    assert_eq!((row.lane.as_str(), row.history.tries), ("a", 0));
    let letter = r#"{"position":1,"lane":"a","status":422,"reason":"no","attempts":7,"given_up_at":1800000000000}"#;
    let letter: DeadLetter = serde_json::from_str(letter).unwrap();
    assert_eq!((letter.attempts, letter.state), (7, LetterState::Waiting));
}

#[test]
fn what_was_taken_before_a_crash_is_not_counted_as_lost() {
    // Before the crash lane `a` was set aside, and its events at 2 and 3 were taken; the one at 1 held the floor.
    let row = r#"{"lane":"a","first":4,"failures":0,"next_at":0,"is_parked":false}"#;
    let saved = Saved { rows: vec![serde_json::from_str(row).unwrap()], ..Saved::default() };
    let mut lanes = Lanes::resume(tuning(), saved);
    lanes.expire_open(Position(4));
    for (position, lane) in [(1, "x"), (2, "a"), (3, "a"), (4, "a")] {
        lanes.expire_unread(Position(position), lane);
    }
    assert!(lanes.take_changes(usize::MAX).is_all);
    let [(lane, after)] = &lanes.expiring_lanes(Position(4))[..] else { panic!() };
    let loss = lanes.expire_letters(Position(4));
    assert_eq!((lane.as_str(), *after), ("a", Position(3)));
    lanes.expire_aside(&loss, lane, Position(4));
    lanes.expire_lane(&loss, lane);
    assert_eq!((lanes.counts().delivered, lanes.counts().expired, lanes.counts().total()), (2, 2, 4));
    assert_eq!((lanes.settled_up_to(), lanes.set_aside_count()), (Position(4), 0));
}

#[test]
fn a_lost_event_that_is_in_flight_keeps_its_lane_until_it_lands() {
    let mut lanes = Lanes::new(tuning(), Position::START);
    (1..=2).for_each(|n| lanes.offer(Position(n), "a", 1));
    let delivery = deliver(&mut lanes, at(0));
    assert!(lanes.expiring_lanes(Position(1)).is_empty());
    lanes.expire_open(Position(1));
    assert_eq!((lanes.next_step(at(0)), lanes.counts().expired), (Step::Idle, 1));
    lanes.finish(delivery.id, Verdict::Answered(vec![Outcome::Poison(fault(Some(422), None))]), at(0), &mut |max| max);
    assert_eq!((lanes.dead_letter_count(), answer(&mut lanes, at(0), Outcome::Acknowledged)), (0, vec![Position(2)]));
    assert_eq!((lanes.counts().delivered, lanes.counts().expired, lanes.floor()), (1, 1, Position(2)));
}

#[test]
fn the_records_of_discarded_events_go_one_by_one_when_the_saved_books_have_them() {
    let mut lanes = Lanes::new(tuning(), Position::START);
    [(1, "x"), (2, "a"), (3, "b")].into_iter().for_each(|(n, lane)| lanes.offer(Position(n), lane, 1));
    let delivery = deliver(&mut lanes, at(0));
    let said = [Outcome::Later(fault(Some(429), None)), Outcome::Poison(fault(Some(422), None)), Outcome::Poison(fault(Some(422), None))];
    lanes.finish(delivery.id, Verdict::Answered(said.into()), at(0), &mut |max| max);
    for (_, letter) in lanes.take_changes(usize::MAX).letters {
        assert!(lanes.discard(letter.unwrap(), at(0)));
    }
    // The event at 1 holds the floor.
    assert_eq!((lanes.take_changes(usize::MAX).counts.discarded, lanes.counts().discarded), (0, 2));
    lanes.expire_open(Position(3));
    assert!(lanes.take_changes(usize::MAX).is_all);
    let expiring = lanes.expiring_lanes(Position(3));
    let loss = lanes.expire_letters(Position(3));
    expiring.iter().for_each(|(lane, _)| lanes.expire_lane(&loss, lane));
    let (mut forgotten, mut kept) = (0, 2);
    while kept > 0 {
        let changes = lanes.take_changes(1);
        forgotten += changes.forgotten;
        kept -= i64::try_from(changes.letters.len()).unwrap();
        assert_eq!((changes.counts.discarded, changes.counts.expired), (forgotten + kept, 1));
    }
}

#[test]
fn a_redriven_event_is_counted_once_when_a_crash_took_its_lane_back_to_before_it() {
    let letter = r#"{"position":2,"lane":"a","status":422,"reason":"no","attempts":1,"given_up_at":0}"#;
    let letter: DeadLetter = serde_json::from_str(letter).unwrap();
    for failures in [1, 9] {
        let tuning = Tuning { on_exhausted: OnExhausted::Continue, backoff_ms: 10, ..tuning() };
        let mut lanes = Lanes::resume(tuning, Saved { letters: vec![letter.clone()], ..Saved::default() });
        (1..=3).for_each(|n| lanes.offer(Position(n), "a", 1));
        let mut now = at(0);
        for _ in 0..failures {
            assert_eq!(answer(&mut lanes, now, Outcome::Retry(fault(Some(500), None))), [Position(1)]);
            now = lanes.next_wake(now).unwrap();
        }
        assert_eq!(lanes.set_aside_count(), usize::from(failures > 1));
        assert!(lanes.redrive(letter.clone(), at(0)));
        assert_eq!(answer(&mut lanes, at(0), Outcome::Acknowledged), [Position(2)]);
        let changes = lanes.take_changes(usize::MAX);
        let rows = changes.rows.into_iter().filter_map(|(_, row)| row).collect();
        let saved = Saved { floor: changes.floor, counts: changes.counts, rows, ..Saved::default() };
        let mut auditor = crate::audit::Auditor::new(crate::audit::Books { saved, ..Default::default() });
        (1..=3).for_each(|n| auditor.see(Position(n), "a"));
        auditor.finish().unwrap();
        // The lane comes to it once more.
        let mut taken: Vec<Position> = Vec::new();
        while taken.len() < 3 {
            match next_step(&mut lanes, now) {
                Step::Seek { .. } => panic!("it was answered"),
                Step::Deliver(delivery) => {
                    taken.extend(&delivery.events);
                    lanes.finish(delivery.id, Verdict::Answered(vec![Outcome::Acknowledged]), now, &mut |max| max);
                }
                Step::Idle => now = lanes.next_wake(now).unwrap(),
            }
        }
        assert_eq!(taken, [Position(1), Position(2), Position(3)]);
        let counts = lanes.counts();
        assert_eq!((counts.delivered, counts.total(), lanes.open_count()), (3, 3, 0));
    }
}
