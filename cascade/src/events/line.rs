//! One event on a line: position, time, type, subject, and what a person wants to know of it.

use anstyle::Style;
use contract::OrderId;
use kit::Envelope;

use super::Found;
use crate::{event_line, form::Form, scenario::drawing::printable, table::cut, when::When};

/// How wide a type is, where it is no longer.
const NAME_COLUMNS: usize = 23;

/// Draws events one after the other, with a line for each new day.
pub(super) struct Lines {
    form: Form,
    day: String,
}

impl Lines {
    /// Nothing is drawn yet.
    pub(super) fn new(form: Form) -> Self {
        Self { form, day: String::new() }
    }

    /// The event's line, and before it the day, if that is another one.
    pub(super) fn draw(&mut self, found: &Found<'_>, when: &When) -> String {
        if self.form.is_json() {
            // A line break within JSON is only a space.
            return found.json.get().replace(['\n', '\r'], " ") + "\n";
        }
        let (event, dim) = (&found.event, self.form.style(Style::new().dimmed()));
        let mut text = String::new();
        if let Some(day) = event.time.map(|time| when.day(time)).filter(|day| *day != self.day) {
            text = format!("{dim}{day}{dim:#}\n");
            self.day = day;
        }
        let time = event.time.map(|time| when.time_of_day(time)).unwrap_or_default();
        let (name, subject) = (name_of(event), subject_of(event));
        let style = self.form.style(event_line::style_of(&printable(event_line::service_of(event)), &name));
        let place = format!("{:>6}  {time:8}", found.position);
        // Colours have no width: what is left for the facts is reckoned without them.
        let before = format!("{place}  {name:NAME_COLUMNS$}  {subject:8}  ").chars().count();
        let facts = cut(&facts_of(event), self.form.width().map(|width| width.saturating_sub(before).max(10)));
        let line = format!("{dim}{place}{dim:#}  {style}{name:NAME_COLUMNS$}{style:#}  {subject:8}  {facts}");
        text.push_str(line.trim_end());
        text.push('\n');
        text
    }
}

/// The type without what all of the shop's own have.
pub(crate) fn name_of(event: &Envelope) -> String {
    let own = event.ty.strip_prefix("cascade.").map(|_| event_line::name_of(event));
    printable(own.unwrap_or(&event.ty))
}

/// The subject; of an order the end of its id, which tells orders apart.
fn subject_of(event: &Envelope) -> String {
    let subject = event.subject.as_deref().unwrap_or("-");
    subject.parse::<OrderId>().map_or_else(|_| printable(subject), |id| id.short())
}

/// What is known of an event of the shop; of others the data as it is.
fn facts_of(event: &Envelope) -> String {
    match (event_line::detail_of(event), &event.data) {
        (facts, _) if !facts.is_empty() => printable(&facts),
        (_, Some(data)) if !event.ty.starts_with("cascade.") => printable(&data.get().split_whitespace().collect::<Vec<_>>().join(" ")),
        (_, Some(_) | None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use kit::Timestamp;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        form: Form,
    }

    fn drawn(flags: &[&str], events: &[&str]) -> String {
        let form = Flags::parse_from([&["x"], flags].concat()).form;
        let when = When::utc(Timestamp::from_rfc3339("2026-02-01T00:00:02Z").unwrap());
        let mut lines = Lines::new(form);
        let raw: Vec<Box<RawValue>> = events.iter().map(|json| RawValue::from_string((*json).to_owned()).unwrap()).collect();
        raw.iter().map(|json| lines.draw(&Found::read(json).unwrap(), &when)).collect()
    }

    const OF_THE_SHOP: &str = r#"{"specversion":"1.0","id":"1","source":"/delivery","type":"cascade.DeliveryStarted.v1","position":"7",
        "time":"2026-01-31T23:59:59.900Z","subject":"01890a5d-ac96-774b-bcce-b302099a8057","data":{"worker_id":"worker-07","attempt":2}}"#;
    const OF_ANOTHER: &str = r#"{"specversion":"1.0","id":"2","source":"/l","type":"loyalty.Points.v1","position":"8",
        "time":"2026-02-01T00:00:00Z","subject":"m\u001b[2J","data":{"points": 12}}"#;

    #[test]
    fn events_are_lines_below_their_day() {
        assert_eq!(
            drawn(&[], &[OF_THE_SHOP, OF_ANOTHER]),
            "Sat 2026-01-31 UTC\n\
             \u{20}    7  23:59:59  DeliveryStarted          099a8057  worker-07, attempt 2\n\
             Sun 2026-02-01 UTC\n\
             \u{20}    8  00:00:00  loyalty.Points.v1        m\u{fffd}[2J     {\"points\": 12}\n"
        );
    }

    #[test]
    fn machines_get_each_event_as_it_came_on_one_line() {
        let text = drawn(&["--json"], &[OF_THE_SHOP, OF_ANOTHER]);
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains(r#""position":"7""#) && text.contains(r#""points": 12"#), "{text}");
    }

    #[test]
    fn colours_are_there_when_they_are_wanted() {
        assert!(drawn(&["--color", "always"], &[OF_THE_SHOP]).contains("\u{1b}[35m"));
    }
}
