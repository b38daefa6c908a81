//! One line for each event: its place in the cascade, when, who and what. Every service has a lane; a line leads from the event before to
//! the one that it caused, from lane to lane.
//!
//! ```text
//!  ●        +0.00 s  order    OrderCreated
//!  ╰─●      +0.57 s  payment  PaymentAccepted
//!    ╰─●    +0.58 s  delivery WorkerSearchStarted   search 1
//!      ↻    +3.67 s  delivery WorkerSearchStarted   search 2
//! ```

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use anstyle::Style;
use contract::Event;
use kit::{Envelope, EventId, Timestamp};

use crate::event_line;

/// How many columns the text may have.
pub(crate) const COLUMNS: usize = 79;
/// The services whose events an order has, in the sequence of their lanes.
const LANES: [&str; 3] = ["order", "payment", "delivery"];
const LANES_COLUMNS: usize = 2 * LANES.len() - 1;

/// What has been drawn, as far as the next line depends on it.
#[derive(Debug)]
pub(crate) struct Drawing {
    is_coloured: bool,
    first_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
    /// The event on the line above, and its lane.
    above: Option<(EventId, usize)>,
    /// What each event that was drawn is called.
    names: BTreeMap<EventId, String>,
}

impl Drawing {
    /// Nothing is drawn yet.
    pub(crate) fn new(is_coloured: bool) -> Self {
        Self { is_coloured, first_at: None, last_at: None, above: None, names: BTreeMap::new() }
    }

    /// How many events were drawn.
    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    /// The time from the first event to the last.
    pub(crate) fn duration(&self) -> Duration {
        self.first_at.zip(self.last_at).map(|(first, last)| last.since(first)).unwrap_or_default()
    }

    /// The event's line.
    pub(crate) fn line(&mut self, event: &Envelope) -> String {
        let (service, name) = (printable(event_line::service_of(event)), printable(event_line::name_of(event)));
        let lane = LANES.iter().position(|of| *of == service).unwrap_or(LANES.len() - 1);
        self.first_at = self.first_at.or(event.time);
        self.last_at = event.time.or(self.last_at);
        let lanes = self.lanes(event, lane);
        let mut detail = printable(&event_line::detail_of(event));
        // A line from another event than the one above would cross what lies between: words say it.
        if let Some(cause) = self.cause_elsewhere(event) {
            let space = if detail.is_empty() { "" } else { "  " };
            let _ = write!(detail, "{space}because of {cause}");
        }
        self.names.insert(event.id.clone(), name.clone());
        self.above = Some((event.id.clone(), lane));
        let (style, dim) = (self.style(event_line::style_of(&service, &name)), self.style(Style::new().dimmed()));
        let time = since_start(self.duration());
        format!(" {lanes}  {dim}{time:>8}{dim:#}  {style}{service:<8} {name:<22}{style:#} {detail}").trim_end().to_owned()
    }

    /// A line that is no event, under the times.
    pub(crate) fn remark(&self, when: &str, text: &str) -> String {
        let dim = self.style(Style::new().dimmed());
        format!(" {:LANES_COLUMNS$}  {dim}{when:>8}  {text}{dim:#}", "")
    }

    /// The style, where there are colours.
    pub(crate) fn style(&self, style: Style) -> Style {
        if self.is_coloured { style } else { Style::new() }
    }

    fn lanes(&self, event: &Envelope, lane: usize) -> String {
        let from = self.above.as_ref().filter(|(id, _)| event.causationid.as_ref() == Some(id)).map_or(lane, |(_, lane)| *lane);
        let dot = if is_again(event) { '↻' } else { '●' };
        let (left, right) = (2 * lane.min(from), 2 * lane.max(from));
        let drawn: String = (0..LANES_COLUMNS)
            .map(|column| match column {
                column if column == 2 * lane => dot,
                column if column == 2 * from && from < lane => '╰',
                column if column == 2 * from => '╯',
                column if left < column && column < right => '─',
                _ => ' ',
            })
            .collect();
        let style = self.style(event_line::style_of(LANES.get(lane).copied().unwrap_or_default(), event_line::name_of(event)));
        format!("{style}{drawn}{style:#}")
    }

    fn cause_elsewhere(&self, event: &Envelope) -> Option<&str> {
        let cause = event.causationid.as_ref()?;
        let is_above = self.above.as_ref().is_some_and(|(above, _)| above == cause);
        self.names.get(cause).filter(|_| !is_above).map(String::as_str)
    }
}

/// Whether the cascade goes round: the second search and every later one, the second attempt and every later one.
fn is_again(event: &Envelope) -> bool {
    match Event::read(&event.ty, event.data.as_deref()) {
        Ok(Event::WorkerSearchStarted(data)) => data.search > 1,
        Ok(Event::DeliveryStarted(data)) => data.attempt > 1,
        _ => false,
    }
}

/// `+1.24 s`.
pub(crate) fn since_start(duration: Duration) -> String {
    format!("+{:.2} s", duration.as_secs_f64())
}

/// The text without what a terminal might obey: a shop somewhere else is not trusted with it.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// The text in lines of at most [`COLUMNS`], each behind `indent` spaces.
pub(crate) fn wrapped(text: &str, indent: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in printable(text).split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{:indent$}{word}", "")),
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, cause: &str, source: &str, ty: &str, ms: u32, data: &str) -> Envelope {
        let text = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/{source}","type":"cascade.{ty}.v1","causationid":"{cause}",
                "subject":"01890a5d-ac96-774b-bcce-b302099a8057","time":"2026-01-31T12:00:0{}.{:03}Z","data":{data}}}"#,
            ms / 1_000,
            ms % 1_000
        );
        serde_json::from_str(&text.replace(r#""causationid":"","#, "")).unwrap()
    }

    #[test]
    fn the_cascade_goes_from_lane_to_lane_and_shows_its_loops() {
        let mut drawing = Drawing::new(false);
        let money = r#"{"amount":{"amount_minor":1490,"currency":"EUR"}}"#;
        let events = [
            event("1", "", "order", "OrderCreated", 0, "null"),
            event("2", "1", "payment", "PaymentAccepted", 570, money),
            event("3", "2", "delivery", "WorkerSearchStarted", 576, r#"{"search":1}"#),
            event("4", "3", "delivery", "WorkerSearchCompleted", 2_532, r#"{"worker_id":"worker-01","offer":1,"expires_at_ms":9}"#),
            event("5", "4", "delivery", "WorkerDeclinedJob", 3_678, r#"{"worker_id":"worker-01","offer":1}"#),
            event("6", "5", "delivery", "WorkerSearchStarted", 3_678, r#"{"search":2}"#),
            event("7", "2", "payment", "PaymentRefunded", 4_000, money),
            event("8", "7", "order", "OrderCancelled", 4_001, r#"{"reason":"no_worker"}"#),
        ];
        let drawn: Vec<String> = events.iter().map(|event| drawing.line(event)).collect();
        assert_eq!(
            drawn,
            [
                " ●       +0.00 s  order    OrderCreated",
                " ╰─●     +0.57 s  payment  PaymentAccepted        14.90 EUR secured",
                "   ╰─●   +0.58 s  delivery WorkerSearchStarted    search 1",
                "     ●   +2.53 s  delivery WorkerSearchCompleted  worker-01, offer 1",
                "     ●   +3.68 s  delivery WorkerDeclinedJob      worker-01",
                "     ↻   +3.68 s  delivery WorkerSearchStarted    search 2",
                "   ●     +4.00 s  payment  PaymentRefunded        14.90 EUR returned  because of PaymentAccepted",
                " ●─╯     +4.00 s  order    OrderCancelled         NoWorker",
            ]
        );
        assert_eq!((drawing.count(), drawing.duration()), (8, Duration::from_millis(4_001)));
    }

    #[test]
    fn a_line_leads_across_a_lane_between() {
        let mut drawing = Drawing::new(false);
        drawing.line(&event("1", "", "order", "OrderCreated", 0, "null"));
        assert!(drawing.line(&event("2", "1", "delivery", "WorkerSearchStarted", 1, r#"{"search":1}"#)).starts_with(" ╰───●  "));
        assert!(drawing.line(&event("3", "2", "order", "OrderCompleted", 2, "null")).starts_with(" ●───╯  "));
    }

    #[test]
    fn what_a_strange_shop_sends_cannot_steer_the_terminal() {
        let mut drawing = Drawing::new(false);
        let line = drawing.line(&event("1", "", r"evil\u001b[2J", r"Order\u0007Created", 0, "null"));
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(!wrapped("one\u{1b}]0;two", 2).contains('\u{1b}'));
    }

    #[test]
    fn text_is_wrapped_within_its_columns() {
        let text = wrapped(&"some words ".repeat(30), 5);
        assert!(text.lines().count() > 3);
        assert!(text.lines().all(|line| line.len() <= COLUMNS && line.starts_with("     some") | line.starts_with("     words")), "{text}");
    }
}
