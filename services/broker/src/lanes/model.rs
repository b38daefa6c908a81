//! A simple world around the lanes: a log, a subscriber with a temper, crashes. It checks every promise at every step.

use std::collections::{BTreeMap, BTreeSet};

use kit::{Position, Timestamp, ids::Ids};

use super::{Changes, Counts, DeadLetter, Delivery, Lane, Lanes, LetterState, OnExhausted, Row, Saved, Step, Tuning};
use crate::{
    audit::{Auditor, Books, Checkpoint},
    verdict::{Fault, Outcome, Verdict},
};

/// What an event does to the subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Temper {
    /// It is taken.
    Fine,
    /// There is no room for it, this often.
    Postponed(u32),
    /// It fails this often, by an answer of its own, then it is taken.
    FailsAlone(u32),
    /// Whatever batch it is in fails as a whole, this often.
    FailsAll(u32),
    /// The subscriber dies of it, this often.
    Kills(u32),
    /// It is refused for good.
    Poison,
    /// Whatever batch it is in is refused; so is it alone.
    PoisonsAll,
}

impl Temper {
    fn tries(self) -> u32 {
        match self {
            Self::Postponed(tries) | Self::FailsAlone(tries) | Self::FailsAll(tries) | Self::Kills(tries) => tries,
            Self::Poison | Self::PoisonsAll => u32::MAX,
            Self::Fine => 0,
        }
    }
}

/// An event of the log: its lane, and its temper; none when the subscription does not ask for it.
#[derive(Debug, Clone)]
pub(super) struct Logged {
    pub(super) lane: u8,
    pub(super) temper: Option<Temper>,
}

pub(super) fn tuning() -> Tuning {
    Tuning {
        batch_events_max: 4,
        deliveries_max: 3,
        window_events_max: 24,
        lane_events_max: 6,
        failures_max: u32::MAX,
        ..Tuning::default()
    }
}

pub(super) struct World {
    pub(super) lanes: Lanes,
    pub(super) now: Timestamp,
    pub(super) applied: BTreeSet<Position>,
    pub(super) discarded: BTreeSet<Position>,
    pub(super) deliveries: usize,
    tuning: Tuning,
    log: Vec<Logged>,
    ids: Ids,
    saved: State,
    tried: BTreeMap<Position, u32>,
    flying: Vec<Delivery>,
    /// What was a dead letter once: in a lane that goes on, later events may come before it.
    given_up: BTreeSet<Position>,
    /// The log begins behind this.
    pub(super) trimmed: Position,
    checkpoint: Checkpoint,
}

/// What outlives a crash.
#[derive(Default)]
struct State {
    floor: Position,
    counts: Counts,
    rows: BTreeMap<Lane, Row>,
    letters: BTreeMap<Position, DeadLetter>,
}

impl State {
    fn read(&self) -> Saved {
        let (rows, letters) = (self.rows.values().cloned().collect(), self.letters.values().cloned().collect());
        Saved { after: Position::START, floor: self.floor, counts: self.counts, rows, letters }
    }
}

impl World {
    pub(super) fn new(tuning: Tuning, log: Vec<Logged>, seed: u64) -> Self {
        Self {
            lanes: Lanes::new(tuning, Position::START),
            now: Timestamp::from_ms(1_000),
            applied: BTreeSet::new(),
            discarded: BTreeSet::new(),
            deliveries: 0,
            tuning,
            log,
            ids: Ids::seeded(seed),
            saved: State::default(),
            tried: BTreeMap::new(),
            flying: Vec::new(),
            given_up: BTreeSet::new(),
            trimmed: Position::START,
            checkpoint: Checkpoint::default(),
        }
    }

    /// Positions have gaps: every event stands at twice its number.
    pub(super) fn place(index: usize) -> Position {
        Position(2 * (i64::try_from(index).unwrap() + 1))
    }

    fn at(&self, position: Position) -> &Logged {
        &self.log[usize::try_from(position.0 / 2 - 1).unwrap()]
    }

    pub(super) fn matched(&self) -> impl Iterator<Item = (Position, &Logged)> {
        self.log.iter().enumerate().map(|(index, logged)| (Self::place(index), logged)).filter(|(_, logged)| logged.temper.is_some())
    }

    /// Runs until nothing moves; crashes now and then while `crashes` last. Answers how many steps it took.
    pub(super) fn run(&mut self, mut crashes: u32, steps_max: usize) -> usize {
        for step in 0..steps_max {
            self.read();
            let has_started = self.start();
            if crashes > 0 && self.ids.up_to(30) == 0 {
                crashes -= 1;
                self.crash();
                continue;
            }
            if self.ids.up_to(6) == 0 {
                self.save();
            }
            if !self.flying.is_empty() && (!has_started || self.ids.up_to(1) == 0) {
                let index = usize::try_from(self.ids.up_to(u64::try_from(self.flying.len() - 1).unwrap())).unwrap();
                let delivery = self.flying.swap_remove(index);
                self.answer(&delivery);
                self.check_live();
            } else if !has_started {
                match self.lanes.next_wake(self.now) {
                    Some(wake) => {
                        assert!(wake > self.now, "waking at once without anything to do");
                        self.now = wake;
                    }
                    None => return step,
                }
            }
        }
        steps_max
    }

    fn read(&mut self) {
        while self.lanes.room() > 0 {
            let index = usize::try_from(self.lanes.read_head().0 / 2).unwrap();
            let Some(logged) = self.log.get(index) else { return };
            match logged.temper {
                Some(_) => self.lanes.offer(Self::place(index), &logged.lane.to_string(), 100),
                None => self.lanes.passed(Self::place(index)),
            }
        }
    }

    fn start(&mut self) -> bool {
        let mut has_started = false;
        loop {
            match self.lanes.next_step(self.now) {
                Step::Idle => return has_started,
                Step::Seek { lane, after, up_to } => {
                    let of_lane = |logged: &Logged| logged.lane.to_string() == lane.as_str();
                    assert!(after >= self.trimmed, "the log begins at {}", self.trimmed.next());
                    let next = self.matched().find(|(position, logged)| *position > after && *position <= up_to && of_lane(logged));
                    let next = next.map(|(position, _)| (position, 100));
                    self.lanes.found(&lane, next);
                }
                Step::Deliver(delivery) => {
                    self.deliveries += 1;
                    let lanes: Vec<_> =
                        self.flying.iter().chain([&delivery]).flat_map(|flying| &flying.events).map(|p| self.at(*p).lane).collect();
                    assert_eq!(lanes.len(), lanes.iter().collect::<BTreeSet<_>>().len(), "two events of one lane are in flight");
                    assert!(self.flying.len() < self.tuning.deliveries_max && delivery.events.len() <= self.tuning.batch_events_max);
                    self.flying.push(delivery);
                    has_started = true;
                }
            }
        }
    }

    fn answer(&mut self, delivery: &Delivery) {
        let verdict = self.judge(&delivery.events);
        self.lanes.finish(delivery.id, verdict, self.now, &mut |max| self.ids.up_to(max));
        self.given_up.extend(self.lanes.dead_letters_waiting());
    }

    /// Every event that was read has exactly one place.
    fn check_live(&self) {
        let read = self.matched().filter(|(position, _)| *position <= self.lanes.read_head()).count();
        let known = self.lanes.counts().total() + i64::try_from(self.lanes.open_count()).unwrap();
        assert_eq!(known, i64::try_from(read).unwrap(), "{:?}", self.lanes.counts());
    }

    /// The subscriber takes a batch.
    fn judge(&mut self, events: &[Position]) -> Verdict {
        let fault = |status| Fault { status, reason: "said so".into(), retry_after_s: None, answer: None };
        let tempers: Vec<_> = events.iter().map(|position| (*position, self.at(*position).temper.unwrap())).collect();
        let tempers = tempers.into_iter().map(|(position, temper)| {
            let tried = self.tried.entry(position).or_default();
            (position, if *tried < temper.tries() { temper } else { Temper::Fine })
        });
        let tempers: Vec<_> = tempers.collect();
        let is_any = |wanted: fn(Temper) -> bool| tempers.iter().any(|(_, temper)| wanted(*temper));
        let verdict = if is_any(|temper| matches!(temper, Temper::Kills(_))) {
            Verdict::EndpointAtFault(fault(None))
        } else if is_any(|temper| matches!(temper, Temper::PoisonsAll)) && events.len() > 1 {
            Verdict::Unreadable(fault(Some(400)))
        } else if is_any(|temper| matches!(temper, Temper::FailsAll(_))) {
            Verdict::Failed(fault(Some(500)))
        } else {
            let outcomes = tempers.iter().map(|(_, temper)| match temper {
                Temper::Fine => Outcome::Acknowledged,
                Temper::Postponed(_) => Outcome::Later(fault(Some(429))),
                Temper::Poison | Temper::PoisonsAll => Outcome::Poison(fault(Some(422))),
                Temper::FailsAlone(_) | Temper::FailsAll(_) | Temper::Kills(_) => Outcome::Retry(fault(Some(503))),
            });
            let outcomes: Vec<_> = outcomes.collect();
            for ((position, _), outcome) in tempers.iter().zip(&outcomes) {
                match outcome {
                    Outcome::Acknowledged => self.apply(*position),
                    Outcome::Poison(_) | Outcome::Later(_) | Outcome::Retry(_) => {}
                }
            }
            Verdict::Answered(outcomes)
        };
        for (position, _) in &tempers {
            *self.tried.entry(*position).or_default() += 1;
        }
        verdict
    }

    /// As an inbox does: the first time counts.
    fn apply(&mut self, position: Position) {
        let lane = self.at(position).lane;
        let before: Vec<_> =
            self.matched().filter(|(earlier, logged)| logged.lane == lane && *earlier < position).map(|(p, _)| p).collect();
        for earlier in before {
            let is_done = self.applied.contains(&earlier) || self.discarded.contains(&earlier);
            let is_lost = earlier <= self.trimmed;
            let may_wait = self.tuning.on_exhausted == OnExhausted::Continue && self.given_up.contains(&earlier);
            assert!(is_done || is_lost || may_wait, "{position} came before {earlier}");
        }
        self.applied.insert(position);
    }

    /// Saves some of what changed, and audits what is saved now.
    pub(super) fn save(&mut self) -> bool {
        let lanes_max = usize::try_from(1 + self.ids.up_to(4)).unwrap();
        let Changes { rows, letters, floor, counts, forgotten, is_all } = self.lanes.take_changes(lanes_max);
        for (lane, row) in rows {
            match row {
                Some(row) => drop(self.saved.rows.insert(lane, row)),
                None => drop(self.saved.rows.remove(&lane)),
            }
        }
        for (position, letter) in letters {
            match letter {
                Some(letter) => drop(self.saved.letters.insert(position, letter)),
                None => drop(self.saved.letters.remove(&position)),
            }
        }
        assert!(floor >= self.saved.floor);
        (self.saved.floor, self.saved.counts) = (floor, counts);
        self.checkpoint.discarded += forgotten;
        self.audit();
        is_all
    }

    pub(super) fn save_all(&mut self) {
        while !self.save() {}
    }

    /// Whatever is saved, the log must bear it out.
    fn audit(&self) {
        let mut auditor = Auditor::new(Books { saved: self.saved.read(), checkpoint: self.checkpoint });
        self.matched()
            .filter(|(position, _)| *position > self.trimmed)
            .for_each(|(position, logged)| auditor.see(position, &logged.lane.to_string()));
        auditor.finish().unwrap();
    }

    /// The log loses the events up to `up_to`, whatever crashes before the books are ready for it.
    pub(super) fn expire(&mut self, up_to: Position) {
        while !self.release(up_to) {
            self.crash();
        }
        assert!(self.lanes.settled_up_to() >= up_to);
        (self.checkpoint.position, self.checkpoint.matched) = (self.saved.floor, self.saved.counts.total());
        self.trimmed = up_to.max(self.trimmed);
        self.audit();
        self.check_live();
    }

    /// Makes the books ready for the loss of the events up to `up_to`. Answers whether it came to the end.
    fn release(&mut self, up_to: Position) -> bool {
        if !self.save_perhaps() {
            return false;
        }
        // From here on the log need not have what was counted.
        (self.checkpoint.position, self.checkpoint.matched) = (self.saved.floor, self.saved.counts.total());
        let matched: Vec<_> = self.matched().map(|(position, logged)| (position, logged.lane.to_string())).collect();
        self.lanes.expire_open(up_to);
        for (position, lane) in matched.iter().filter(|(position, _)| *position <= up_to) {
            self.lanes.expire_unread(*position, lane);
        }
        self.lanes.passed(up_to);
        if !self.save_perhaps() {
            return false;
        }
        let lanes = self.lanes.expiring_lanes(up_to);
        let loss = self.lanes.expire_letters(up_to);
        for (lane, after) in &lanes {
            let events = matched.iter().filter(|(position, of)| of == lane.as_str() && position > after && *position <= up_to);
            events.for_each(|(position, _)| self.lanes.expire_aside(&loss, lane, *position));
        }
        lanes.iter().for_each(|(lane, _)| self.lanes.expire_lane(&loss, lane));
        self.save_perhaps()
    }

    /// Saves piece by piece; now and then it is to crash before the last one. Answers whether everything is saved.
    fn save_perhaps(&mut self) -> bool {
        while !self.save() {
            if self.ids.up_to(3) == 0 {
                return false;
            }
        }
        true
    }

    pub(super) fn crash(&mut self) {
        // What was on its way may have arrived, and its answer is lost.
        for delivery in std::mem::take(&mut self.flying) {
            if self.ids.up_to(1) == 0 {
                self.judge(&delivery.events);
            }
        }
        self.lanes = Lanes::resume(self.tuning, self.saved.read());
        self.check_live();
    }

    /// The dead letters that wait for somebody to decide.
    pub(super) fn dead(&self) -> BTreeSet<Position> {
        self.lanes.dead_letters_waiting().collect()
    }

    pub(super) fn redrive(&mut self, position: Position) -> bool {
        self.save_all();
        let letter = self.saved.letters.get(&position).cloned().unwrap();
        assert_eq!((letter.position, letter.state), (position, LetterState::Waiting));
        let was_waiting = self.lanes.redrive(letter, self.now);
        self.save_all();
        was_waiting
    }

    pub(super) fn discard(&mut self, position: Position) -> bool {
        self.save_all();
        self.discarded.insert(position);
        let letter = self.saved.letters.get(&position).cloned().unwrap();
        let was_waiting = self.lanes.discard(letter, self.now);
        self.save_all();
        was_waiting
    }
}
