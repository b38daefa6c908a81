//! What holds whatever an order is told, in whatever sequence.

use contract::{Currency, api::OrderStatus};
use proptest::prelude::*;

use super::*;

fn euros(amount_minor: i64) -> Money {
    Money::new(amount_minor, Currency::EUR).unwrap()
}

const TOTAL_MINOR: i64 = 500;

fn create() -> Input {
    let line = OrderLine { product_id: "canoe".parse().unwrap(), quantity: 1, unit_price: euros(TOTAL_MINOR) };
    let recipient = Recipient { name: String::from("Ada"), address: String::from("1 Mill Lane"), note: None };
    Input::Create(NewOrder { owner: "guest-1".parse().unwrap(), lines: vec![line], recipient: Some(recipient), scenario: None })
}

fn any_input() -> impl Strategy<Value = Input> {
    let amount = prop_oneof![9 => Just(euros(TOTAL_MINOR)), 1 => Just(euros(1))];
    let attempt = 1..=3_u32;
    prop_oneof![
        1 => Just(create()),
        2 => Just(Input::Cancel),
        1 => Just(Input::Delete),
        3 => amount.clone().prop_map(|amount| Input::Happened(Fact::PaymentAccepted { amount })),
        1 => Just(Input::Happened(Fact::PaymentDeclined)),
        3 => attempt.clone().prop_map(|attempt| Input::Happened(Fact::DeliveryStarted { attempt })),
        2 => attempt.clone().prop_map(|attempt| Input::Happened(Fact::DeliveryAborted { attempt })),
        2 => attempt.prop_map(|attempt| Input::Happened(Fact::DeliveryCompleted { attempt })),
        2 => Just(Input::Happened(Fact::DeliveryCancelled)),
        1 => Just(Input::Happened(Fact::DeliveryCancellationRefused { reason: RefusalReason::AlreadyDelivered })),
        1 => Just(Input::Happened(Fact::WorkerSearchExhausted)),
        2 => amount.prop_map(|amount| Input::Happened(Fact::PaymentRefunded { amount })),
        1 => Just(Input::Happened(Fact::PaymentNothingTaken)),
    ]
}

/// An order's life: mostly created first, then told anything.
fn any_life() -> impl Strategy<Value = Vec<Input>> {
    prop::collection::vec(any_input(), 0..40).prop_map(|mut inputs| {
        inputs.insert(0, create());
        inputs
    })
}

/// What one input did.
struct Told {
    before: Option<State>,
    input: Input,
    answer: Result<Step, Refusal>,
}

/// Tells an order all of `inputs`.
fn live(inputs: &[Input]) -> Vec<Told> {
    let mut state: Option<State> = None;
    let mut life = Vec::new();
    for input in inputs {
        let before = state.clone();
        let answer = decide(before.as_ref(), input, Timestamp::from_ms(1));
        if let Ok(Step { state: Some(now), .. }) = &answer {
            state = Some(now.clone());
        }
        life.push(Told { before, input: input.clone(), answer });
    }
    life
}

impl Told {
    fn emitted(&self) -> Vec<&Event> {
        self.answer.iter().flat_map(|step| step.events.iter().map(|emission| &emission.event)).collect()
    }

    fn status_before(&self) -> Option<OrderStatus> {
        self.before.as_ref().map(State::status)
    }

    fn status_after(&self) -> Option<OrderStatus> {
        match &self.answer {
            Ok(Step { state: Some(state), .. }) => Some(state.status()),
            Ok(Step { state: None, .. }) | Err(_) => self.status_before(),
        }
    }
}

fn count(life: &[Told], is: impl Fn(&Event) -> bool) -> usize {
    life.iter().flat_map(Told::emitted).filter(|event| is(event)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn there_is_no_way_out_of_a_final_state_but_deletion(inputs in any_life()) {
        for told in live(&inputs) {
            let (Some(before), Some(after)) = (told.status_before(), told.status_after()) else { continue };
            if before.is_final() && after != before {
                prop_assert_eq!(after, OrderStatus::Deleted);
                prop_assert!(before != OrderStatus::Deleted && told.input == Input::Delete);
            }
        }
    }

    #[test]
    fn an_order_ends_at_most_once(inputs in any_life()) {
        let life = live(&inputs);
        let ends = count(&life, |event| matches!(event, Event::OrderCancelled(_) | Event::OrderCompleted(_)));
        prop_assert!(ends <= 1, "{} ends", ends);
        let ended = life.last().and_then(Told::status_after).is_some_and(OrderStatus::is_final);
        prop_assert_eq!(ends == 1, ended);
    }

    #[test]
    fn money_is_called_back_at_most_once_and_only_when_delivery_is_clear(inputs in any_life()) {
        let life = live(&inputs);
        prop_assert!(count(&life, |event| matches!(event, Event::PaymentReversalRequested(_))) <= 1);
        for told in &life {
            if told.emitted().iter().any(|event| matches!(event, Event::PaymentReversalRequested(_))) {
                let is_clear = matches!(&told.input, Input::Happened(Fact::DeliveryCancelled | Fact::WorkerSearchExhausted));
                prop_assert!(is_clear, "{:?}", told.input);
            }
        }
    }

    #[test]
    fn a_cancelled_order_was_clear_of_delivery_and_the_goods_never_arrive(inputs in any_life()) {
        let life = live(&inputs);
        let Some(end) = life.iter().position(|told| told.emitted().iter().any(|event| matches!(event, Event::OrderCancelled(_)))) else {
            return Ok(());
        };
        let applied = |told: &Told| told.answer.is_ok();
        let (until, after) = life.split_at(end);
        let asked = until.iter().any(|told| told.emitted().contains(&&Event::from(OrderCancellationRequested {})));
        let clear = until.iter().any(|told| {
            applied(told) && matches!(&told.input, Input::Happened(Fact::DeliveryCancelled | Fact::WorkerSearchExhausted))
        });
        let never_paid = until.iter().all(|told| !matches!(told.status_after(), Some(OrderStatus::Confirmed | OrderStatus::InDelivery)));
        prop_assert!(clear || (never_paid && life[end].input == Input::Happened(Fact::PaymentDeclined)));
        prop_assert!(!asked || clear || life[end].status_before() == Some(OrderStatus::Pending));
        let arrived = |told: &Told| applied(told) && matches!(told.input, Input::Happened(Fact::DeliveryCompleted { .. }));
        prop_assert!(!until.iter().any(arrived) && !after.iter().any(arrived));
    }

    #[test]
    fn accepted_money_ends_in_delivered_goods_or_in_a_refund(inputs in any_life()) {
        let life = live(&inputs);
        let applied = |is: fn(&Fact) -> bool| {
            life.iter().take_while(|told| !told.status_before().is_some_and(OrderStatus::is_final)).any(|told| {
                told.answer.is_ok() && matches!(&told.input, Input::Happened(fact) if is(fact))
            })
        };
        let is_paid = applied(|fact| matches!(fact, Fact::PaymentAccepted { .. }));
        let is_refunded = applied(|fact| matches!(fact, Fact::PaymentRefunded { .. }));
        if count(&life, |event| matches!(event, Event::OrderCompleted(_))) == 1 {
            prop_assert!(is_paid && !is_refunded);
        }
        if count(&life, |event| matches!(event, Event::OrderCancelled(_))) == 1 && is_paid {
            prop_assert!(is_refunded);
        }
    }

    #[test]
    fn everything_told_twice_changes_nothing(inputs in any_life()) {
        let twice: Vec<Input> = inputs.iter().flat_map(|input| [input.clone(), input.clone()]).collect();
        let life = live(&twice);
        for pair in life.chunks(2) {
            let [_, again] = pair else { continue };
            let is_still = match &again.answer {
                Ok(step) => step.state.is_none() && step.events.is_empty(),
                Err(_) => true,
            };
            prop_assert!(is_still, "{:?} moved {:?}", again.input, again.before);
        }
        let once = live(&inputs);
        prop_assert_eq!(once.last().and_then(Told::status_after), life.last().and_then(Told::status_after));
    }

    #[test]
    fn states_survive_the_way_through_the_store(inputs in any_life()) {
        for told in live(&inputs) {
            let Some(state) = told.before else { continue };
            let stored = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(serde_json::from_str::<State>(&stored).unwrap(), state);
        }
    }
}
