//! Chooses what goes next, so that lanes which fail take no place from those which do not.

use kit::{
    Position, Timestamp,
    planted::{Bug, is_planted},
};

use super::{
    Delivery, DeliveryId, Lane, Lanes, Step,
    state::{Class, Due, Flight, Listed},
};

impl Lanes {
    /// What is to be done at the time `now`; to be asked until it says [`Step::Idle`].
    pub fn next_step(&mut self, now: Timestamp) -> Step {
        self.next_step_of(now, usize::MAX)
    }

    /// The same, when at most `events_max` events may go.
    pub fn next_step_of(&mut self, now: Timestamp, events_max: usize) -> Step {
        if let Some(held_back) = &self.held_back {
            if held_back.probe.is_some() || now < held_back.next_at {
                return Step::Idle;
            }
            return self.probe();
        }
        let limit = self.concurrency.limit();
        if self.flights.len() >= limit {
            return Step::Idle;
        }
        let flying = |class| self.flights.values().filter(|flight| flight.class == class).count();
        let (proven, alone) = (flying(Class::Proven), flying(Class::Alone));
        // Half of the deliveries at most are for events that failed; one at least is for those that did not.
        let may = |class| match class {
            Class::Proven => proven < (limit / 2).max(1),
            Class::Alone => proven + alone < limit.saturating_sub(1).max(1),
            Class::Fresh => true,
        };
        let classes = [Class::Proven, Class::Alone, Class::Fresh].map(|class| may(class).then_some(class));
        for class in classes.into_iter().flatten() {
            match self.collect(class, now, events_max.min(self.tuning.batch_events_max)) {
                Step::Idle => {}
                step => return step,
            }
        }
        Step::Idle
    }

    /// When to ask again, if nothing else happens before.
    pub fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        if let Some(held_back) = &self.held_back {
            let is_anything_waiting = [Class::Fresh, Class::Alone, Class::Proven].iter().any(|class| !self.waiting.of(*class).is_empty());
            return (held_back.probe.is_none() && is_anything_waiting).then(|| held_back.next_at.max(now.plus_ms(1)));
        }
        // What is due and did not go waits for a delivery to end; what comes later may be hidden behind it, and waits no longer for that.
        let later = |class| self.waiting.of(class).first().map(|due| due.at).filter(|at| *at > now);
        let gathered = self.gathering_since.map(|since| since.plus_ms(self.tuning.batch_wait_ms)).filter(|at| *at > now);
        [Class::Fresh, Class::Alone, Class::Proven].into_iter().filter_map(later).chain(gathered).min()
    }

    /// One event, of whichever lane waits longest; due or not, so that a held endpoint is probed in time.
    fn probe(&mut self) -> Step {
        let candidates = [Class::Fresh, Class::Alone, Class::Proven];
        let first = candidates.into_iter().filter_map(|class| self.waiting.of(class).first().map(|due| (due, class))).min();
        let Some((due, class)) = first.map(|(due, class)| (due.clone(), class)) else { return Step::Idle };
        let Some((position, _)) = self.next_of(&due.lane) else { return self.seek(&due) };
        let step = self.send(class, vec![(position, due.lane)]);
        if let (Some(held_back), Step::Deliver(delivery)) = (&mut self.held_back, &step) {
            held_back.probe = Some(delivery.id);
        }
        step
    }

    fn collect(&mut self, class: Class, now: Timestamp, events_max: usize) -> Step {
        let (mut picked, mut bytes, mut is_full) = (Vec::new(), 0, false);
        for due in self.waiting.of(class).iter().take_while(|due| due.at <= now) {
            let Some((position, weight)) = self.next_of(&due.lane) else { return self.seek(due) };
            bytes += weight;
            let is_alone = self.lanes.get(&due.lane).is_some_and(|state| state.is_alone);
            is_full = is_alone || bytes > self.tuning.batch_bytes_max;
            if !picked.is_empty() && is_full {
                break;
            }
            picked.push((position, due.lane.clone()));
            is_full |= picked.len() >= events_max;
            if is_full {
                break;
            }
        }
        if picked.is_empty() || (class == Class::Fresh && !is_full && !self.is_gathered(now)) {
            return Step::Idle;
        }
        self.send(class, picked)
    }

    /// Whether a batch that is not full has waited long enough for others.
    fn is_gathered(&mut self, now: Timestamp) -> bool {
        let wait_ms = self.tuning.batch_wait_ms;
        wait_ms == 0 || now >= self.gathering_since.get_or_insert(now).plus_ms(wait_ms)
    }

    fn next_of(&self, lane: &Lane) -> Option<(Position, usize)> {
        self.lanes.get(lane)?.next()
    }

    fn seek(&self, due: &Due) -> Step {
        let first = self.lanes.get(&due.lane).and_then(|state| state.aside.as_ref()).map_or(due.position, |aside| aside.first);
        Step::Seek { lane: due.lane.clone(), after: Position(first.0 - 1), up_to: self.read_head }
    }

    fn send(&mut self, class: Class, events: Vec<(Position, Lane)>) -> Step {
        self.delivery_last += 1;
        let id = DeliveryId(self.delivery_last);
        if class == Class::Fresh {
            self.gathering_since = None;
        }
        let mut tries = 0;
        for (_, lane) in &events {
            if let Some(state) = self.lanes.get_mut(lane) {
                state.send_next();
                tries = state.tries().max(tries);
            }
            self.list_family(lane);
        }
        let positions = events.iter().map(|(position, _)| *position).collect();
        self.flights.insert(id, Flight { class, events });
        Step::Deliver(Delivery { id, events: positions, attempt: tries.saturating_add(1) })
    }

    /// Lists `lane` where it belongs now: among those that wait, unless it has nothing to send or has something in flight.
    pub(super) fn list(&mut self, lane: &Lane) {
        self.unlist(lane);
        let in_flight = self.family_in_flight(lane);
        let Some(state) = self.lanes.get_mut(lane) else { return };
        let is_blocked = if is_planted(Bug::LaneNotBlocked) { in_flight > 1 } else { in_flight > 0 };
        let position = match (&state.aside, state.next()) {
            (Some(aside), _) if aside.is_parked => None,
            (_, Some((position, _))) => Some(position),
            // Its next event is to be found first.
            (Some(aside), None) if state.in_flight == 0 => Some(aside.first),
            (Some(_) | None, None) => None,
        };
        if let (false, Some(position)) = (is_blocked, position) {
            let listed = Listed { class: state.class(), at: state.next_at, position };
            state.listed = Some(listed);
            self.waiting.of_mut(listed.class).insert(listed.due(lane));
        }
    }

    /// Lists `lane`, and what is redriven apart from it: they wait for one another.
    pub(super) fn list_family(&mut self, lane: &Lane) {
        if !lane.is_apart() && self.letters_redriving.is_empty() {
            return self.list(lane);
        }
        let family: Vec<_> = self.lanes.range(lane.family()).map(|(lane, _)| lane.clone()).collect();
        family.iter().for_each(|lane| self.list(lane));
    }

    fn family_in_flight(&self, lane: &Lane) -> u8 {
        if !lane.is_apart() && self.letters_redriving.is_empty() {
            return self.lanes.get(lane).map_or(0, |state| state.in_flight);
        }
        self.lanes.range(lane.family()).map(|(_, state)| state.in_flight).sum()
    }

    pub(super) fn unlist(&mut self, lane: &Lane) {
        if let Some(listed) = self.lanes.get_mut(lane).and_then(|state| state.listed.take()) {
            self.waiting.of_mut(listed.class).remove(&listed.due(lane));
        }
    }
}
