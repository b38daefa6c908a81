//! Events that are given up, and what is told of them.

use super::*;

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
