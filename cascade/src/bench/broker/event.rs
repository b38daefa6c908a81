//! The events that are sent: 400 bytes of JSON each, with a mark in their data by which a subscriber knows them again.

use std::io::BufRead;

/// The size of an event, in bytes of JSON.
pub(super) const EVENT_BYTES: usize = 400;
/// How many orders are going on at once.
const ORDERS_AT_ONCE: u64 = 1_024;
/// How many events an order has.
const EVENTS_PER_ORDER: u64 = 8;
/// What stands before the mark, and nowhere else in an event.
const MARK_SIGN: u8 = b'~';
/// The digits of a mark's parts, each padded with zeros.
const NUMBER_DIGITS: usize = 12;
const DUE_DIGITS: usize = 17;
/// The length of `<number>-<order>-<due>`.
const MARK_BYTES: usize = NUMBER_DIGITS + 1 + NUMBER_DIGITS + 1 + DUE_DIGITS;

/// What an event says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Which event it is; its broker has no other one with this number.
    pub(super) number: u64,
    /// Which order it belongs to.
    pub(super) order: u64,
    /// When it was to be sent, in microseconds of [`super::now_us`]; 0 for one that was sent when there was time.
    pub(super) due_us: u64,
}

/// Which order an event belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Orders {
    /// As in a shop: eight events each, many orders going on at once, and new ones all the time.
    Passing,
    /// One of so many, in turn.
    Lasting(u64),
}

impl Orders {
    /// The order of the event `number`.
    pub(super) fn of(self, number: u64) -> u64 {
        match self {
            Self::Passing => number / (ORDERS_AT_ONCE * EVENTS_PER_ORDER) * ORDERS_AT_ONCE + number % ORDERS_AT_ONCE,
            Self::Lasting(count) => number % count.max(1),
        }
    }
}

/// An event with room for its mark: all are of one length, and only digits differ.
#[derive(Debug, Clone)]
pub(super) struct Template {
    json: Vec<u8>,
    id_end: usize,
    subject_end: usize,
    mark_at: usize,
}

impl Template {
    /// Events of type `ty`. Ids look like those of the shop's services: UUIDv7, rising.
    pub(super) fn new(ty: &str) -> Self {
        let mut json = Vec::with_capacity(EVENT_BYTES);
        let mut end_of = |text: &str| {
            json.extend_from_slice(text.as_bytes());
            json.len()
        };
        let id_end = end_of(r#"{"specversion":"1.0","id":"019a0000-0000-7000-8000-000000000000"#);
        end_of(&format!(r#"","source":"/order","type":"{ty}","#));
        let subject_end = end_of(r#""subject":"019a0000-0000-7001-8000-000000000000"#);
        end_of(r#"","time":"2026-01-31T12:00:00.000Z","datacontenttype":"application/json","data":{"mark":""#);
        let mark_at = end_of(&char::from(MARK_SIGN).to_string());
        end_of(&"-".repeat(MARK_BYTES));
        end_of(r#"","filler":""#);
        let filler = EVENT_BYTES.saturating_sub(end_of("") + 3);
        end_of(&"x".repeat(filler));
        end_of("\"}}");
        Self { json, id_end, subject_end, mark_at }
    }

    /// Writes the event of `mark` behind what is in `out`.
    pub(super) fn write(&self, mark: Mark, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&self.json);
        let Some(event) = out.get_mut(begin..) else { return };
        let mut put = |end: usize, digits: usize, value: u64| put_digits(event.get_mut(end.saturating_sub(digits)..end), value);
        put(self.id_end, NUMBER_DIGITS, mark.number);
        put(self.subject_end, NUMBER_DIGITS, mark.order);
        let number_end = self.mark_at + NUMBER_DIGITS;
        let order_end = number_end + 1 + NUMBER_DIGITS;
        put(number_end, NUMBER_DIGITS, mark.number);
        put(order_end, NUMBER_DIGITS, mark.order);
        put(order_end + 1 + DUE_DIGITS, DUE_DIGITS, mark.due_us);
    }

    /// Writes events as one JSON array.
    pub(super) fn write_batch(&self, marks: impl Iterator<Item = Mark>, out: &mut Vec<u8>) {
        let mut sign = b'[';
        for mark in marks {
            out.push(sign);
            self.write(mark, out);
            sign = b',';
        }
        out.push(b']');
    }
}

fn put_digits(place: Option<&mut [u8]>, mut value: u64) {
    for digit in place.into_iter().flatten().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// An event as it was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivered {
    /// Its mark.
    pub(super) mark: Mark,
    /// Its place in the log; 0 if it does not say.
    pub(super) position: u64,
}

/// Finds all events in a delivery. Only what is needed is looked at: the reader shares the processors with the broker.
pub(super) fn read_delivery(body: &[u8]) -> Vec<Delivered> {
    let (mut found, mut rest) = (Vec::new(), body);
    loop {
        let before = rest;
        let Ok(skipped) = rest.skip_until(MARK_SIGN) else { return found };
        let Some(mark) = read_mark(rest) else { return found };
        let head = before.get(..skipped).unwrap_or_default();
        found.push(Delivered { mark, position: find_last(head, b"\"position\":\"").map_or(0, read_number) });
    }
}

/// The id of the event `number`, as it was sent.
pub(super) fn id_of(number: u64) -> String {
    format!("019a0000-0000-7000-8000-{number:012}")
}

fn read_mark(text: &[u8]) -> Option<Mark> {
    let mut parts = text.get(..MARK_BYTES)?.split(|byte| *byte == b'-');
    let mut next = || Some(read_number(parts.next()?));
    Some(Mark { number: next()?, order: next()?, due_us: next()? })
}

/// The number that `text` begins with.
fn read_number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
}

/// What stands behind the last `part`.
fn find_last<'a>(text: &'a [u8], part: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(part.len()).rposition(|window| window == part)?;
    text.get(at + part.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(mark: Mark) -> Vec<u8> {
        let mut out = Vec::new();
        Template::new("cascade.OrderCreated.v1").write(mark, &mut out);
        out
    }

    #[test]
    fn an_event_is_a_cloud_event_of_four_hundred_bytes_and_is_known_again() {
        let mark = Mark { number: 123_456_789, order: 42, due_us: 1_700_000_000_123_456 };
        let json = written(mark);
        assert_eq!(json.len(), EVENT_BYTES);
        let event: kit::Envelope = serde_json::from_slice(&json).unwrap();
        event.check().unwrap();
        assert_eq!(event.id.as_str(), id_of(123_456_789));
        assert_eq!(event.subject.as_deref(), Some("019a0000-0000-7001-8000-000000000042"));
        assert_eq!(read_delivery(&json), [Delivered { mark, position: 0 }]);
    }

    #[test]
    fn every_event_of_a_delivery_is_found_with_its_own_place() {
        let marks = [1, 2, 3].map(|number| Mark { number, order: 7, due_us: 0 });
        let mut batch = Vec::new();
        Template::new("cascade.OrderCreated.v1").write_batch(marks.into_iter(), &mut batch);
        let events: Vec<kit::Envelope> = serde_json::from_slice(&batch).unwrap();
        let recorded =
            events.into_iter().zip(90..).map(|(event, position)| kit::Recorded { position: kit::Position(position), event: event.into() });
        let body = serde_json::to_vec(&recorded.collect::<Vec<_>>()).unwrap();
        let found = read_delivery(&body);
        assert_eq!(found.iter().map(|one| one.mark).collect::<Vec<_>>(), marks);
        assert_eq!(found.iter().map(|one| one.position).collect::<Vec<_>>(), [90, 91, 92]);
        assert_eq!(read_delivery(b"[]"), []);
        assert_eq!(read_delivery(b"~123"), []);
    }

    #[test]
    fn an_order_has_eight_events_while_others_go_on() {
        let orders: Vec<u64> = (0..16_384).map(|number| Orders::Passing.of(number)).collect();
        assert!(orders.windows(1_024).all(|window| window.iter().collect::<std::collections::BTreeSet<_>>().len() == 1_024));
        assert_eq!(orders.iter().filter(|order| **order == 1_500).count(), 8);
        assert_eq!((Orders::Lasting(5).of(12), Orders::Lasting(5).of(15)), (2, 0));
    }
}
