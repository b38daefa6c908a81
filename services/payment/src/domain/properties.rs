//! Whatever comes twice, late or in any order: no order is charged twice, and after a reversal no money is left.

use std::collections::{BTreeMap, VecDeque};

use contract::Currency;
use kit::step::TimerChange;
use proptest::prelude::*;

use super::*;

/// Something that happens to a payment or to its provider.
#[derive(Debug, Clone, Copy)]
enum Happening {
    OrderCreated,
    Reversal,
    /// A pending call reaches the provider and is answered; or the process dies before the answer is applied, and calls again.
    Call {
        which: usize,
        goes: Goes,
    },
    /// An answer that was given before arrives once more.
    RepeatedAnswer(usize),
    /// A timer is due.
    Timer(usize),
    /// The provider finds that a charge that it declined succeeded after all.
    SucceededAfterAll,
}

#[derive(Debug, Clone, Copy)]
enum Goes {
    Well,
    Declined,
    /// It was done; the answer is lost.
    AnswerLost,
    /// It never arrived.
    CallLost,
    /// It was done, the process died before it knew.
    Crash,
}

fn happening() -> impl Strategy<Value = Happening> {
    let goes = prop_oneof![
        3 => Just(Goes::Well),
        1 => Just(Goes::Declined),
        1 => Just(Goes::AnswerLost),
        1 => Just(Goes::CallLost),
        1 => Just(Goes::Crash),
    ];
    prop_oneof![
        2 => Just(Happening::OrderCreated),
        1 => Just(Happening::Reversal),
        6 => (0..4_usize, goes).prop_map(|(which, goes)| Happening::Call { which, goes }),
        2 => (0..16_usize).prop_map(Happening::RepeatedAnswer),
        3 => (0..2_usize).prop_map(Happening::Timer),
        1 => Just(Happening::SucceededAfterAll),
    ]
}

/// A payment with all that the kit would keep for it, and a provider.
#[derive(Default)]
struct World {
    state: Option<Payment>,
    effects: VecDeque<Effect>,
    timers: BTreeMap<&'static str, Input>,
    answers: Vec<Input>,
    events: Vec<Event>,
    /// What the provider did under each charge key: taken or not.
    charges: BTreeMap<ProviderKey, bool>,
    refunds: BTreeMap<ProviderKey, Money>,
    /// Every charge key that was ever called.
    called: Vec<ProviderKey>,
}

impl World {
    fn order() -> OrderId {
        OrderId::new(uuid::Uuid::from_u128(7))
    }

    fn total() -> Money {
        Money::new(1250, Currency::EUR).unwrap()
    }

    fn give(&mut self, input: &Input) {
        let now = Timestamp::from_ms(1_700_000_000_000);
        let Ok(step) = decide(Key(Self::order()), self.state.as_ref(), input, now, &Settings::default()) else { return };
        if let Some(state) = step.state {
            self.state = Some(state);
        }
        self.events.extend(step.events.into_iter().map(|emission| emission.event));
        self.effects.extend(step.effects);
        for timer in step.timers {
            match timer {
                TimerChange::Set { name, input, .. } => drop(self.timers.insert(name, input)),
                TimerChange::Cancel { name } => drop(self.timers.remove(name)),
            }
        }
        let stored = self.state.as_ref().and_then(Payment::charge);
        for effect in &self.effects {
            if let Effect::Charge { key, .. } = effect {
                assert_eq!(stored.map(|charge| &charge.key), Some(key), "the key is stored with the step that calls");
            }
        }
    }

    fn answer(&mut self, input: Input) {
        self.give(&input);
        self.answers.push(input);
    }

    fn call(&mut self, which: usize, goes: Goes) {
        if self.effects.is_empty() {
            return;
        }
        let effect = self.effects.remove(which % self.effects.len()).unwrap();
        if matches!(goes, Goes::Crash) {
            self.effects.push_back(effect.clone());
        }
        let is_done = !matches!(goes, Goes::CallLost);
        let is_heard = matches!(goes, Goes::Well | Goes::Declined);
        let answer = match effect {
            Effect::Charge { key, .. } => {
                self.called.push(key.clone());
                if is_done {
                    self.charges.entry(key.clone()).or_insert(!matches!(goes, Goes::Declined));
                }
                if is_heard { self.charge_answer(key) } else { Input::ChargeUnknown { key } }
            }
            Effect::AskCharge { key, .. } => {
                if is_heard {
                    self.charge_answer(key)
                } else {
                    Input::ChargeUnknown { key }
                }
            }
            Effect::Refund { key, charge_key, amount, .. } => {
                assert_eq!(self.charges.get(&charge_key), Some(&true), "only what was taken goes back");
                if is_done {
                    self.refunds.insert(key.clone(), amount);
                }
                if is_heard { Input::RefundSucceeded { key } } else { Input::RefundUnknown { key } }
            }
        };
        if !matches!(goes, Goes::Crash) {
            self.answer(answer);
        }
    }

    fn charge_answer(&self, key: ProviderKey) -> Input {
        match self.charges.get(&key) {
            Some(true) => Input::ChargeSucceeded { key },
            Some(false) => Input::ChargeDeclined { key, reason: DeclineReason::CardDeclined },
            None => Input::ChargeNotFound { key },
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::OrderCreated => self.give(&Input::OrderCreated { total: Self::total() }),
            Happening::Reversal => self.give(&Input::ReversalRequested),
            Happening::Call { which, goes } => self.call(which, goes),
            Happening::RepeatedAnswer(which) => {
                if let Some(answer) = self.answers.get(which).cloned() {
                    self.give(&answer);
                }
            }
            Happening::Timer(which) => {
                if let Some(name) = self.timers.keys().nth(which).copied() {
                    let input = self.timers.remove(name).unwrap();
                    self.give(&input);
                }
            }
            Happening::SucceededAfterAll => {
                let turned = self.charges.iter_mut().find(|(_, is_taken)| !**is_taken).map(|(key, is_taken)| {
                    *is_taken = true;
                    key.clone()
                });
                if let Some(key) = turned {
                    self.answer(Input::ChargeSucceeded { key });
                }
            }
        }
    }

    /// Faults stop: everything that is pending goes well.
    fn settle(&mut self) {
        for _ in 0..100 {
            if !self.effects.is_empty() {
                self.call(0, Goes::Well);
            } else if let Some((_, input)) = self.timers.pop_first() {
                self.give(&input);
            } else {
                return;
            }
        }
        panic!("the payment never comes to rest");
    }

    fn count(&self, is_meant: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| is_meant(event)).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn money_is_taken_once_and_all_of_it_goes_back_after_a_reversal(happenings in prop::collection::vec(happening(), 0..40)) {
        let mut world = World::default();
        let is_reversed = happenings.iter().any(|happening| matches!(happening, Happening::Reversal));
        for happening in happenings {
            world.happen(happening);
        }
        world.settle();

        prop_assert!(world.charges.len() <= 1, "one key, so one capture at most: {:?}", world.charges);
        prop_assert!(world.called.iter().all(|key| *key == ProviderKey::of_charge(World::order(), 1)));
        let taken: i64 = world.charges.values().filter(|is_taken| **is_taken).map(|_| 1250).sum();
        let returned: i64 = world.refunds.values().map(Money::amount_minor).sum();

        let accepted = world.count(|event| matches!(event, Event::PaymentAccepted(_)));
        let declined = world.count(|event| matches!(event, Event::PaymentDeclined(_)));
        let refunded = world.count(|event| matches!(event, Event::PaymentRefunded(_)));
        let nothing_taken = world.count(|event| matches!(event, Event::PaymentNothingTaken(_)));
        prop_assert!(accepted + declined <= 1, "{:?}", world.events);
        prop_assert!(refunded + nothing_taken <= 1, "{:?}", world.events);
        let state = world.state.as_ref();
        if is_reversed {
            prop_assert_eq!(taken - returned, 0, "{:?}", state);
            prop_assert!(declined + refunded + nothing_taken >= 1, "the order is answered: {:?}", world.events);
            if accepted == 1 {
                prop_assert_eq!(refunded, 1, "{:?}", world.events);
            }
        } else if let Some(payment) = state {
            prop_assert_eq!((refunded, nothing_taken), (0, 0));
            prop_assert_eq!(accepted + declined, 1, "{:?}", world.events);
            prop_assert_eq!(taken - returned, if accepted == 1 { 1250 } else { 0 });
            let is_final = matches!(payment, Payment::Captured { .. } | Payment::Declined { .. } | Payment::Refunded { .. });
            prop_assert!(is_final, "{:?}", payment);
        }
    }
}
