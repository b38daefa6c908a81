//! Every event in the terminal, as it happens: readable and coloured for people, a JSON object a line for machines.
//!
//! It reads the log like any other reader, on a thread of its own: a terminal that stalls never holds up the shop.

use std::{io::Write, sync::Arc, time::Duration};

use anstyle::Style;
use broker::engine::{EngineError, LogEngine};
use contract::OrderId;
use kit::{
    Envelope, Lifecycle, Position, Recorded,
    telemetry::{Color, LogFormat},
};
use tokio::{sync::oneshot, time::Instant};

use crate::{event_line, settings::Settings};

/// How many lines a second are shown; the rest of the second is summed up in one.
const LINES_PER_S_MAX: u32 = 200;
/// How long a stop waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);
/// How many events are read at once.
const READ_MAX: usize = 256;

/// Ends when the last line was shown.
pub(crate) struct Shown(oneshot::Receiver<()>);

impl Shown {
    /// Nothing is shown.
    pub(crate) fn nothing() -> Self {
        Self(oneshot::channel().1)
    }

    /// Waits for the last line, but not for a terminal that has stalled.
    pub(crate) async fn wait(self) {
        let _ = tokio::time::timeout(LAST_LINES, self.0).await;
    }
}

/// How events look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    format: LogFormat,
    color: Color,
}

impl Look {
    /// As the settings say.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self { format: settings.log_format, color: settings.color }
    }
}

/// Shows what is appended after `after`, until the lifecycle halts, on a thread that nobody else waits for.
pub(crate) fn start(engine: Arc<dyn LogEngine>, after: Position, look: Look, lifecycle: Lifecycle) -> std::io::Result<Shown> {
    let (done, shown) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name(String::from("terminal"));
    thread.spawn(move || {
        runtime.block_on(show(engine, after, look, lifecycle));
        let _ = done.send(());
    })?;
    Ok(Shown(shown))
}

async fn show(engine: Arc<dyn LogEngine>, mut after: Position, look: Look, lifecycle: Lifecycle) {
    let mut tail = engine.tail();
    let (format, is_coloured) = (look.format, look.color.is_wanted_on(&std::io::stdout()));
    let mut budget = Budget::new();
    loop {
        tail.look();
        let events = match engine.read(after, READ_MAX).await {
            Ok(events) => events,
            // A terminal that stood still for days goes on where the log begins now.
            Err(EngineError::Trimmed { first }) => {
                after = Position(first.0 - 1);
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "the log could not be read for the terminal");
                return;
            }
        };
        let mut page = String::new();
        for event in &events {
            after = event.position;
            page.extend(budget.summary(format));
            if budget.take() {
                page.push_str(&line(event, format, is_coloured));
                page.push('\n');
            }
        }
        if !page.is_empty() && std::io::stdout().lock().write_all(page.as_bytes()).is_err() {
            return;
        }
        if events.is_empty() {
            tokio::select! {
                biased;
                moved = tail.moved() => if moved.is_err() { return },
                () = lifecycle.halted() => return,
                () = budget.second_is_over() => {
                    if let Some(summary) = budget.summary(format) {
                        let _ = std::io::stdout().lock().write_all(summary.as_bytes());
                    }
                }
            }
        }
    }
}

/// How many lines may still be shown in this second.
struct Budget {
    second: Instant,
    shown: u32,
    hidden: u32,
}

impl Budget {
    fn new() -> Self {
        Self { second: Instant::now(), shown: 0, hidden: 0 }
    }

    fn take(&mut self) -> bool {
        if self.shown < LINES_PER_S_MAX {
            self.shown += 1;
            return true;
        }
        self.hidden += 1;
        false
    }

    /// Begins a new second when one is over; says what was hidden in it.
    fn summary(&mut self, format: LogFormat) -> Option<String> {
        if self.second.elapsed() < Duration::from_secs(1) {
            return None;
        }
        let hidden = self.hidden;
        *self = Self::new();
        match (hidden, format) {
            (0, _) => None,
            (_, LogFormat::Text) => Some(format!("              … and {hidden} more events in this second\n")),
            (_, LogFormat::Json) => Some(format!("{{\"events_not_shown\":{hidden}}}\n")),
        }
    }

    async fn second_is_over(&self) {
        if self.hidden > 0 {
            tokio::time::sleep_until(self.second + Duration::from_secs(1)).await;
        } else {
            std::future::pending::<()>().await;
        }
    }
}

fn line(recorded: &Recorded, format: LogFormat, is_coloured: bool) -> String {
    match format {
        LogFormat::Json => serde_json::to_string(recorded).unwrap_or_default(),
        LogFormat::Text => text(&recorded.event, is_coloured),
    }
}

fn text(event: &Envelope, is_coloured: bool) -> String {
    let time = event.time.map(kit::Timestamp::to_rfc3339).unwrap_or_default();
    let time = time.get(11..23).unwrap_or_default();
    let (service, name) = (event_line::service_of(event), event_line::name_of(event));
    let order = event
        .subject
        .as_deref()
        .map(|subject| subject.parse::<OrderId>().map_or_else(|_| subject.to_owned(), |id| id.short()))
        .unwrap_or_default();
    let detail = event_line::detail_of(event);
    let style = if is_coloured { event_line::style_of(service, name) } else { Style::new() };
    let dim = if is_coloured { Style::new().dimmed() } else { Style::new() };
    format!("{dim}{time}{dim:#}  {style}{service:<9} {name:<27}{style:#} {dim}{order}{dim:#}  {detail}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_who_what_and_of_which_order() {
        let event: Envelope = serde_json::from_str(
            r#"{"specversion":"1.0","id":"1","source":"/delivery","type":"cascade.DeliveryStarted.v1","time":"2026-01-31T12:00:00.250Z",
                "subject":"01890a5d-ac96-774b-bcce-b302099a8057","data":{"worker_id":"worker-07","attempt":2}}"#,
        )
        .unwrap();
        assert_eq!(text(&event, false), "12:00:00.250  delivery  DeliveryStarted             099a8057  worker-07, attempt 2");
        assert!(text(&event, true).contains("\u{1b}[35m"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rush_is_summed_up_once_a_second() {
        let mut budget = Budget::new();
        let shown = (0..1_000).filter(|_| budget.take()).count();
        assert_eq!(shown, 200);
        assert_eq!(budget.summary(LogFormat::Text), None);
        budget.second_is_over().await;
        assert!(budget.summary(LogFormat::Text).unwrap().contains("800 more"));
        assert!(budget.take());
    }
}
