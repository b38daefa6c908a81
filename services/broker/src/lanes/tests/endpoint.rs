//! Sinks that break, hang or struggle.

use super::*;

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
