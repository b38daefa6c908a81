//! Whatever comes twice, late or in any order: one worker on an order, one end, every offer answered once, nobody leaked.

use std::collections::{BTreeMap, VecDeque};

use kit::step::{Context, TimerChange};
use proptest::prelude::*;

use super::{
    delivery::{Input as Told, Looking},
    worker::Input as WorkerTold,
    *,
};

const ORDERS: u32 = 3;
const WORKERS: u32 = 2;
const SETTINGS: Settings = Settings { offer_ms: 5_000, search_ms: 60_000, offers_max: 6, look_again_ms: 10_000 };

/// Something that happens to a delivery or a worker.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Paid(u32),
    Cancel(u32),
    /// An effect is performed, perhaps on old knowledge; perhaps the process dies before the outcome is applied.
    Perform {
        which: usize,
        goes: Goes,
        then: Then,
    },
    /// An outcome that was given before arrives once more.
    Repeat(usize),
    /// The next timer is due.
    Timer,
}

#[derive(Debug, Clone, Copy)]
enum Goes {
    Well,
    Badly,
    Silently,
    /// Somebody is claimed although they may be busy.
    Blindly(u32),
}

#[derive(Debug, Clone, Copy)]
enum Then {
    Done,
    Again,
}

fn happening() -> impl Strategy<Value = Happening> {
    let goes = prop_oneof![
        4 => Just(Goes::Well),
        2 => Just(Goes::Badly),
        1 => Just(Goes::Silently),
        2 => (1..=WORKERS).prop_map(Goes::Blindly),
    ];
    let then = prop_oneof![4 => Just(Then::Done), 1 => Just(Then::Again)];
    prop_oneof![
        2 => (1..=ORDERS).prop_map(Happening::Paid),
        1 => (1..=ORDERS).prop_map(Happening::Cancel),
        10 => (0..8_usize, goes, then).prop_map(|(which, goes, then)| Happening::Perform { which, goes, then }),
        3 => (0..32_usize).prop_map(Happening::Repeat),
        2 => Just(Happening::Timer),
    ]
}

fn order(number: u32) -> OrderId {
    OrderId::new(uuid::Uuid::from_u128(number.into()))
}

fn worker_id(number: u32) -> WorkerId {
    format!("worker-{number:02}").parse().unwrap()
}

/// Deliveries and workers with all that the kit would keep for them.
#[derive(Default)]
struct World {
    now_ms: i64,
    states: BTreeMap<Key, State>,
    effects: VecDeque<Effect>,
    timers: BTreeMap<(Timestamp, Key, &'static str), Input>,
    outcomes: Vec<(Key, Input)>,
    events: BTreeMap<OrderId, Vec<Event>>,
    /// Which orders were told that they are to be called off.
    cancelled: Vec<OrderId>,
}

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        for number in 1..=WORKERS {
            world.give(Key::Worker(worker_id(number)), Input::Worker(WorkerTold::Employ));
        }
        world
    }

    /// One input and all that entities tell one another because of it: one transaction.
    fn give(&mut self, key: Key, input: Input) {
        let mut inputs = VecDeque::from([(key, input)]);
        while let Some((key, input)) = inputs.pop_front() {
            let step = decide(&key, self.states.get(&key), &input, Timestamp::from_ms(self.now_ms), &SETTINGS).unwrap();
            if let Some(state) = step.state {
                self.states.insert(key.clone(), state);
            }
            if let Key::Delivery(order_id) = key {
                self.events.entry(order_id).or_default().extend(step.events.into_iter().map(|emission| emission.event));
            } else {
                assert!(step.events.is_empty(), "a worker has nothing to say about an order");
            }
            self.effects.extend(step.effects);
            for timer in step.timers {
                let name = match &timer {
                    TimerChange::Set { name, .. } | TimerChange::Cancel { name } => *name,
                };
                self.timers.retain(|(_, owner, known), _| (owner, *known) != (&key, name));
                if let TimerChange::Set { due, input, .. } = timer {
                    self.timers.insert((due, key.clone(), name), input);
                }
            }
            inputs.extend(step.tells);
        }
        self.check_pairs();
    }

    /// A worker and the delivery that has them agree, after every transaction.
    fn check_pairs(&self) {
        let mut with: BTreeMap<OrderId, WorkerId> = BTreeMap::new();
        for (key, state) in &self.states {
            if let (Key::Worker(worker_id), State::Worker(worker)) = (key, state)
                && let Some(job) = worker.job()
            {
                let before = with.insert(job.order_id, worker_id.clone());
                assert_eq!(before, None, "two workers on one order");
            }
        }
        for (key, state) in &self.states {
            let Key::Delivery(order_id) = key else { continue };
            let held = match state {
                State::Delivery(Delivery::Offered { worker_id, .. } | Delivery::EnRoute { worker_id, .. }) => Some(worker_id),
                _ => None,
            };
            assert_eq!(with.get(order_id), held, "{order_id}: {state:?}");
        }
    }

    fn perform(&mut self, which: usize, goes: Goes, then: Then) {
        if self.effects.is_empty() {
            return;
        }
        let effect = self.effects.remove(which % self.effects.len()).unwrap();
        if matches!(then, Then::Again) {
            self.effects.push_back(effect.clone());
        }
        if let Some((key, input)) = self.outcome(effect, goes) {
            self.outcomes.push((key.clone(), input.clone()));
            self.give(key, input);
        }
    }

    fn outcome(&self, effect: Effect, goes: Goes) -> Option<(Key, Input)> {
        let delivery = |order_id, told| Some((Key::Delivery(order_id), Input::Delivery(told)));
        match effect {
            Effect::FindWorker { order_id, search, declined, look, .. } => match (goes, look) {
                (Goes::Silently, Look::Begin) => delivery(order_id, Told::LookedAround { search }),
                (Goes::Blindly(number), _) => claim(worker_id(number), order_id, search),
                _ => match self.free().find(|worker_id| !declined.contains(worker_id)) {
                    Some(worker_id) => claim(worker_id, order_id, search),
                    None if (1..=WORKERS).all(|number| declined.contains(&worker_id(number))) => {
                        delivery(order_id, Told::AllDeclined { search })
                    }
                    None => delivery(order_id, Told::NoWorker { search, context: Context::default() }),
                },
            },
            Effect::OfferJob { order_id, offer, .. } => match goes {
                Goes::Well => delivery(order_id, Told::OfferAccepted { offer }),
                Goes::Badly | Goes::Blindly(_) => delivery(order_id, Told::OfferDeclined { offer }),
                Goes::Silently => None,
            },
            Effect::Deliver { order_id, attempt, .. } => match goes {
                Goes::Well | Goes::Silently => delivery(order_id, Told::Completed { attempt }),
                Goes::Badly | Goes::Blindly(_) => delivery(order_id, Told::GaveUp { attempt }),
            },
            Effect::MatchWaiting { worker_id } => self.states.iter().find_map(|(key, state)| match (key, state) {
                (Key::Delivery(order_id), State::Delivery(Delivery::Searching { quest, looking: Looking::Waiting { .. } }))
                    if !quest.declined.contains(&worker_id) =>
                {
                    claim(worker_id.clone(), *order_id, quest.tally.search)
                }
                _ => None,
            }),
        }
    }

    fn free(&self) -> impl Iterator<Item = WorkerId> {
        self.states.iter().filter_map(|(key, state)| match (key, state) {
            (Key::Worker(worker_id), State::Worker(Worker::Available)) => Some(worker_id.clone()),
            _ => None,
        })
    }

    fn timer(&mut self) -> Option<()> {
        let ((due, key, _), input) = self.timers.pop_first()?;
        self.now_ms = self.now_ms.max(due.as_ms());
        self.give(key, input);
        Some(())
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Paid(number) => self.give(Key::Delivery(order(number)), Input::Delivery(Told::PaymentAccepted)),
            Happening::Cancel(number) => {
                self.cancelled.push(order(number));
                self.give(Key::Delivery(order(number)), Input::Delivery(Told::CancellationRequested));
            }
            Happening::Perform { which, goes, then } => self.perform(which, goes, then),
            Happening::Repeat(which) => {
                if let Some((key, input)) = self.outcomes.get(which).cloned() {
                    self.give(key, input);
                }
            }
            Happening::Timer => {
                self.timer();
            }
        }
    }

    /// Faults stop: everything that is pending goes well.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            if self.effects.is_empty() {
                if self.timer().is_none() {
                    return;
                }
            } else {
                self.perform(0, Goes::Well, Then::Done);
            }
        }
        panic!("the deliveries never come to rest: {:?}", self.states);
    }
}

fn claim(worker_id: WorkerId, order_id: OrderId, search: u32) -> Option<(Key, Input)> {
    Some((Key::Worker(worker_id), Input::Worker(WorkerTold::Claim { job: Job { order_id, search } })))
}

/// Every offer is answered exactly once before anything else is said of the next one.
fn check_offers(events: &[Event]) {
    let mut out = None;
    for event in events {
        match event {
            Event::WorkerSearchCompleted(completed) => {
                assert_eq!(out, None, "an offer while another is out: {events:?}");
                out = Some(completed.offer);
            }
            Event::WorkerAcceptedJob(answer) => assert_eq!(out.take(), Some(answer.offer), "{events:?}"),
            Event::WorkerDeclinedJob(answer) => assert_eq!(out.take(), Some(answer.offer), "{events:?}"),
            Event::WorkerOfferExpired(answer) => assert_eq!(out.take(), Some(answer.offer), "{events:?}"),
            Event::WorkerOfferWithdrawn(answer) => assert_eq!(out.take(), Some(answer.offer), "{events:?}"),
            _ => {}
        }
    }
    assert_eq!(out, None, "an offer was never answered: {events:?}");
}

fn count(events: &[Event], is_meant: impl Fn(&Event) -> bool) -> usize {
    events.iter().filter(|event| is_meant(event)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn an_order_has_one_worker_and_one_end_and_every_offer_one_answer(happenings in prop::collection::vec(happening(), 0..80)) {
        let mut world = World::new();
        for happening in happenings {
            world.happen(happening);
        }
        world.settle();

        for (key, state) in &world.states {
            match state {
                State::Delivery(Delivery::Delivered { .. } | Delivery::Cancelled | Delivery::Exhausted) => {}
                State::Worker(worker) => prop_assert_eq!(worker, &Worker::Available, "{:?} was leaked", key),
                State::Delivery(delivery) => prop_assert!(false, "{:?} has no end: {:?}", key, delivery),
            }
        }
        for (order_id, events) in &world.events {
            check_offers(events);
            let completed = count(events, |event| matches!(event, Event::DeliveryCompleted(_)));
            let cancelled = count(events, |event| matches!(event, Event::DeliveryCancelled(_)));
            let refused = count(events, |event| matches!(event, Event::DeliveryCancellationRefused(_)));
            let exhausted = count(events, |event| matches!(event, Event::WorkerSearchExhausted(_)));
            prop_assert!(completed + cancelled <= 1 && completed + exhausted <= 1, "{:?}", events);
            prop_assert!(refused <= completed, "{:?}", events);
            let asked = usize::from(world.cancelled.contains(order_id));
            prop_assert_eq!(cancelled + refused, asked, "answered once if asked: {:?}", events);
            let started = count(events, |event| matches!(event, Event::DeliveryStarted(_)));
            let accepted = count(events, |event| matches!(event, Event::WorkerAcceptedJob(_)));
            prop_assert_eq!(started, accepted);
        }
    }
}
