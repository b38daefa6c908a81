//! Lanes that fail, one or very many.

use super::*;

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
    let names = |changes: crate::lanes::Changes| changes.rows.into_iter().map(|(lane, _)| lane.as_str().to_owned()).collect::<Vec<_>>();
    let others = names(lanes.take_changes(40));
    assert_eq!(others[..2], ["another", "lane 061"], "first what counts, then the others in turn");
    assert_eq!(others.len(), 40);
    assert_eq!(names(lanes.take_changes(usize::MAX)).len(), 61);
    assert_eq!(lanes.urgency(), Urgency::Nothing);
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
fn retries_that_are_far_off_go_together_and_are_not_looked_for() {
    let mut lanes = Lanes::new(Tuning { failures_max: u32::MAX, window_events_max: 10_000, ..Tuning::default() }, Position::START);
    (1..=10_000).for_each(|n| lanes.offer(Position(n), &n.to_string(), 400));
    let (mut now, mut chance, mut events, mut deliveries) = (at(1_000), 0, 0, 0);
    while now < at(240_000) {
        match lanes.next_step(now) {
            Step::Deliver(delivery) => {
                // All of them are in the longest pause by then: half a minute each, on average.
                let counts = usize::from(now > at(200_000));
                (events, deliveries) = (events + counts * delivery.events.len(), deliveries + counts);
                let outcomes = delivery.events.iter().map(|_| Outcome::Retry(fault(Some(500), None))).collect();
                lanes.finish(delivery.id, Verdict::Answered(outcomes), now, &mut |max| {
                    chance = (chance + 7_919) % 104_729;
                    max * chance / 104_729
                });
            }
            Step::Seek { lane, .. } => panic!("where the next event of {lane:?} stands is known"),
            Step::Idle => now = lanes.next_wake(now).unwrap(),
        }
    }
    assert_eq!(lanes.set_aside_count(), 10_000);
    assert!(matches!(lanes.standing(Position(7), "7"), Standing::Retrying { attempts: 10.., .. }));
    lanes.offer(Position(10_001), "7", 400);
    assert_eq!(lanes.standing(Position(10_001), "7"), Standing::Blocked { by: Position(7) });
    assert!(events > 8_000 && deliveries < events / 2, "{events} in {deliveries} deliveries");
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
            Step::Seek { lane, .. } => panic!("where the next event of {lane:?} stands is known"),
            Step::Idle => now = lanes.next_wake(now).unwrap(),
        }
    }
    assert_eq!(acknowledged, 99_900);
    assert!(deliveries - attempts < 99_900 / 50, "the others go in full batches: {deliveries}");
    assert_eq!((lanes.set_aside_count(), lanes.parked_count(), lanes.floor()), (1, 0, Position(100_000)));
    let counts = lanes.counts();
    assert_eq!((counts.delivered, counts.deferred), (99_900, 100));
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
