//! What the log loses.

use super::*;

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
