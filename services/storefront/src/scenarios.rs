//! The catalogue of scenarios: what each one teaches, what to look for, how it may end. The simulated parts look their script up by
//! the number, which travels as the `scenario` extension of the order's events.

use schemars::JsonSchema;
use serde::Serialize;

/// One scenario, as the pages and `GET /api/scenarios` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Scenario {
    /// Its number: in URLs and in the events. Published; never renumber.
    pub number: u32,
    /// What it is called.
    pub title: &'static str,
    /// What one understands after watching it.
    pub teaches: &'static str,
    /// What to look for while it runs.
    pub look_for: &'static [&'static str],
    /// The ends it may have.
    pub ends: &'static [End],
}

/// How a scenario's order may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ScenarioEnd")]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Delivered and paid.
    Completed,
    /// No money could be had: cancelled.
    CancelledPaymentDeclined,
    /// No worker could be found: cancelled, and the money returned.
    CancelledNoWorker,
}

impl End {
    /// The end in words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Completed => "delivered and paid",
            Self::CancelledPaymentDeclined => "cancelled, nothing charged",
            Self::CancelledNoWorker => "cancelled, money returned",
        }
    }
}

/// Every scenario, by number.
pub const CATALOGUE: &[Scenario] = &[
    Scenario {
        number: 1,
        title: "The dummy order",
        teaches: "How services that never call each other still get an order delivered: each reacts to an event and emits the next.",
        look_for: &[
            "The payment is accepted four times out of five. If it is declined, the order is cancelled and nothing else starts.",
            "Every second worker says no: the search goes round until one accepts.",
            "One delivery in ten is given up on the way: the search starts again with the next attempt.",
        ],
        // The odds may also exhaust the search, very rarely: the limits of delivery are generous.
        ends: &[End::Completed, End::CancelledPaymentDeclined, End::CancelledNoWorker],
    },
    Scenario {
        number: 2,
        title: "Card declined",
        teaches: "A refusal is a business answer, not an error: one event ends the order, and nothing has to be undone.",
        look_for: &[
            "Three events and no more: OrderCreated, PaymentDeclined, OrderCancelled.",
            "Delivery never lights up: it reacts to PaymentAccepted, which never came.",
        ],
        ends: &[End::CancelledPaymentDeclined],
    },
    Scenario {
        number: 3,
        title: "Picky workers",
        teaches: "Offers are leases. A worker may decline or never answer; either way the search goes on, and exactly one accepts.",
        look_for: &[
            "The first worker declines the job.",
            "The second lets the offer expire: a durable timer ends it, also if the process is killed meanwhile.",
            "The third accepts. Every offer has exactly one outcome.",
        ],
        ends: &[End::Completed],
    },
    Scenario {
        number: 11,
        title: "No worker at all",
        teaches: "When the goods cannot come, the money goes back, and the order says so only once it really has.",
        look_for: &[
            "The search is given up within its limit: WorkerSearchExhausted.",
            "The order then asks for the money back, and waits for PaymentRefunded.",
            "OrderCancelled is the last event: never before the refund.",
        ],
        ends: &[End::CancelledNoWorker],
    },
    Scenario {
        number: 12,
        title: "Payment timed out, but went through",
        teaches: "A timeout is not a failure. Payment asks the provider by the same key instead of charging again.",
        look_for: &[
            "A longer wait before PaymentAccepted: the first answer never came.",
            "One acceptance, one charge: the provider knows the key and does not take the money twice.",
        ],
        ends: &[End::Completed],
    },
];

/// The scenario whose number is written as `text`; one spelling for each.
pub fn find(text: &str) -> Option<&'static Scenario> {
    CATALOGUE.iter().find(|scenario| scenario.number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_found_by_its_number_and_by_no_other_spelling() {
        for scenario in CATALOGUE {
            assert_eq!(find(&scenario.number.to_string()), Some(scenario));
        }
        for bad in ["0", "01", "4", "+1", "", "1 ", "x", "99999999999999999999"] {
            assert_eq!(find(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_scenario_says_what_it_teaches_what_to_look_for_and_how_it_may_end() {
        assert!(CATALOGUE.is_sorted_by_key(|scenario| scenario.number));
        for scenario in CATALOGUE {
            assert!(!scenario.teaches.is_empty() && !scenario.look_for.is_empty() && !scenario.ends.is_empty(), "{}", scenario.number);
        }
    }
}
