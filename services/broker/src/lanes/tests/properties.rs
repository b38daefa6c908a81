//! The promises of the lanes, for any log, any temper and any crash.

use kit::Position;
use proptest::prelude::*;

use crate::lanes::{
    OnExhausted, Tuning,
    model::{Logged, Temper, World, tuning},
};

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
