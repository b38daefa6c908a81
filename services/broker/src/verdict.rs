//! What a subscriber's answer means. Pure.

use kit::transport::{ItemAnswer, SinkError};

use crate::lanes::Words;

/// The status that stands for "no answer in time".
pub const TIMEOUT_STATUS: u16 = 504;

/// What a subscriber answered to a batch.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What it said of events, or of the batch.
    pub answered: Result<Vec<ItemAnswer>, SinkError>,
    /// The first KiB of it, where there was one.
    pub beginning: Option<Words>,
}

impl From<Result<Vec<ItemAnswer>, SinkError>> for Answer {
    fn from(answered: Result<Vec<ItemAnswer>, SinkError>) -> Self {
        Self { answered, beginning: None }
    }
}

/// What a delivery came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint answered for each event, in the order of the batch.
    Answered(Vec<Outcome>),
    /// The endpoint could not take the batch as a whole (400, 413, 422): no event is at fault until it is answered alone.
    Unreadable(Fault),
    /// The endpoint is overloaded (429): nobody is at fault, everything comes again later.
    Busy(Fault),
    /// The endpoint failed on it, or gave no answer in time: perhaps because of one of the events.
    Failed(Fault),
    /// The endpoint cannot be used at all: unreachable, moved, or it does not let us in.
    EndpointAtFault(Fault),
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Acknowledged,
    /// The endpoint has no room for it just now (429): nobody is at fault.
    Later(Fault),
    /// It failed; it comes again.
    Retry(Fault),
    /// It will never be taken: the event is at fault.
    Poison(Fault),
}

/// What went wrong, in words and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The HTTP status; none where no answer came.
    pub status: Option<u16>,
    /// Why, in words.
    pub reason: Words,
    /// When the endpoint wants to be asked again, in seconds.
    pub retry_after_s: Option<u32>,
    /// The beginning of the answer, where there was one.
    pub answer: Option<Words>,
}

impl Verdict {
    /// What went wrong with the event at `index` of the batch.
    pub(crate) fn fault_of(&self, index: usize) -> Option<&Fault> {
        match self {
            Self::Answered(outcomes) => match outcomes.get(index)? {
                Outcome::Acknowledged => None,
                Outcome::Later(fault) | Outcome::Retry(fault) | Outcome::Poison(fault) => Some(fault),
            },
            Self::Unreadable(fault) | Self::Busy(fault) | Self::Failed(fault) | Self::EndpointAtFault(fault) => Some(fault),
        }
    }
}

/// Judges the answer to a batch of `count` events.
pub fn judge(answer: Answer, count: usize) -> Verdict {
    let beginning = answer.beginning;
    match answer.answered {
        Ok(items) => {
            let mut outcomes = vec![Outcome::Acknowledged; count];
            for item in items {
                // An answer about an event that was not sent concerns nobody.
                if let Some(outcome) = outcomes.get_mut(item.index) {
                    *outcome = judge_item(item, beginning.as_ref());
                }
            }
            Verdict::Answered(outcomes)
        }
        Err(error) => judge_batch(error, beginning, count),
    }
}

/// An answer about one event is about that event, whatever its status: it never speaks for the endpoint.
fn judge_item(item: ItemAnswer, beginning: Option<&Words>) -> Outcome {
    let (reason, answer) = (item.reason.into(), beginning.cloned());
    let fault = Fault { status: Some(item.status), reason, retry_after_s: item.retry_after_s, answer };
    match item.status {
        200..=299 => Outcome::Acknowledged,
        400 | 413 | 422 => Outcome::Poison(fault),
        429 => Outcome::Later(fault),
        _ => Outcome::Retry(fault),
    }
}

fn judge_batch(error: SinkError, answer: Option<Words>, count: usize) -> Verdict {
    let fault = Fault { status: error.status, reason: error.reason.into(), retry_after_s: error.retry_after_s, answer };
    match error.status {
        Some(400 | 413 | 422) if count == 1 => Verdict::Answered(vec![Outcome::Poison(fault)]),
        Some(400 | 413 | 422) => Verdict::Unreadable(fault),
        Some(429) => Verdict::Busy(fault),
        Some(408 | 409 | 425 | 500..=599) => Verdict::Failed(fault),
        // 401, 403, 404, 406, 410, 415, 3xx, no connection, and whatever else makes no sense as an answer.
        Some(_) | None => Verdict::EndpointAtFault(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(status: Option<u16>, count: usize) -> Verdict {
        judge(Err(SinkError { status, retry_after_s: Some(3), reason: "r".into() }).into(), count)
    }

    #[test]
    fn only_a_single_events_answer_is_that_events_fault() {
        for status in [400, 413, 422] {
            assert!(matches!(whole(Some(status), 2), Verdict::Unreadable(_)));
            assert!(matches!(whole(Some(status), 1), Verdict::Answered(outcomes) if matches!(*outcomes, [Outcome::Poison(_)])));
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_a_broken_endpoint_is_held() {
        for status in [408, 409, 425, 500, 502, 503, TIMEOUT_STATUS] {
            assert!(matches!(whole(Some(status), 2), Verdict::Failed(fault) if fault.retry_after_s == Some(3)));
        }
        assert!(matches!(whole(Some(429), 2), Verdict::Busy(_)));
        for status in [Some(301), Some(401), Some(403), Some(404), Some(405), Some(406), Some(410), Some(415), None] {
            assert!(matches!(whole(status, 1), Verdict::EndpointAtFault(_)), "{status:?}");
        }
    }

    #[test]
    fn events_without_an_answer_of_their_own_are_acknowledged() {
        let item = |index, status| ItemAnswer { index, status, retry_after_s: None, reason: String::new() };
        let Verdict::Answered(outcomes) = judge(Ok(vec![item(1, 503), item(2, 422), item(3, 429), item(9, 500)]).into(), 5) else {
            panic!()
        };
        assert!(matches!(
            *outcomes,
            [Outcome::Acknowledged, Outcome::Retry(_), Outcome::Poison(_), Outcome::Later(_), Outcome::Acknowledged]
        ));
    }
}
