//! What is shown of a run: a drawing for people, JSON lines for machines.
//!
//! On a terminal the last line is alive: it tells how long the order has been under way, and whether the shop is there.

use std::{
    cell::RefCell,
    io::{IsTerminal, Write},
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use contract::api::ScenarioRun;
use kit::{Envelope, telemetry::Color};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    drawing::{Drawing, printable, since_start, wrapped},
    end_in_words,
    shop::{Catalogue, Scenario},
};

/// How often the living line moves.
const TICK: Duration = Duration::from_millis(100);
/// Goes back to the beginning of the line and empties it (ECMA-48).
const EMPTY_LINE: &str = "\r\u{1b}[2K";

/// Where a run is shown. One task writes, another keeps the last line alive: they share it in one thread.
pub(crate) struct Screen(RefCell<State>);

struct State {
    format: Format,
    /// Whether the last line is alive.
    is_live: bool,
    is_living_line_shown: bool,
    drawing: Drawing,
    first_shown_at: Option<Instant>,
    away: Option<Away>,
    interruptions: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    JsonLines,
}

/// The shop is not there.
struct Away {
    since: Instant,
    reason: String,
}

/// The last line for machines: what came out.
#[derive(Serialize)]
struct Summary<'a> {
    scenario: u32,
    title: &'a str,
    order_id: Option<String>,
    /// None if the time was over before.
    end: Option<&'a str>,
    /// Whether the scenario may end so.
    is_documented_end: bool,
    events: usize,
    /// From the first event to the last.
    duration_ms: u128,
    /// How often the shop was away meanwhile.
    interruptions: u32,
    page: Option<String>,
}

impl Screen {
    /// Nothing is shown yet.
    pub(crate) fn new(is_json: bool, color: Color) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let can_move = is_terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self(RefCell::new(State {
            format: if is_json { Format::JsonLines } else { Format::Text },
            is_live: can_move && !is_json,
            is_living_line_shown: false,
            drawing: Drawing::new(color.is_wanted_on(&std::io::stdout()) && !is_json),
            first_shown_at: None,
            away: None,
            interruptions: 0,
        }))
    }

    /// The catalogue.
    pub(crate) fn list(&self, scenarios: &[Scenario], base: &str) -> anyhow::Result<()> {
        let mut state = self.0.borrow_mut();
        if state.format == Format::JsonLines {
            return state.write(&(serde_json::to_string(&Catalogue { items: scenarios.to_vec() })? + "\n"));
        }
        let (bold, dim) = (state.drawing.style(Style::new().bold()), state.drawing.style(Style::new().dimmed()));
        let mut text = String::new();
        for scenario in scenarios {
            let ends: Vec<String> = scenario.ends.iter().map(|end| end_in_words(end)).collect();
            text.push_str(&format!("{:>3}  {bold}{}{bold:#}\n", scenario.number, printable(&scenario.title)));
            text.push_str(&wrapped(&scenario.teaches, 5));
            text.push_str(&format!("{dim}{}{dim:#}\n", wrapped(&format!("Ends: {}.", ends.join("; ")), 5)));
        }
        let first = scenarios.first().map_or(1, |scenario| scenario.number);
        let url = if base == crate::cli::URL { String::new() } else { format!(" --url {base}") };
        text.push_str(&format!("Run one: cascade scenario {first}{url}\n"));
        state.write(&text)
    }

    /// What is about to be seen, and where it can be seen too.
    pub(crate) fn introduce(&self, scenario: &Scenario, page: &str) -> anyhow::Result<()> {
        let mut state = self.0.borrow_mut();
        if state.format == Format::JsonLines {
            return Ok(());
        }
        let (bold, dim) = (state.drawing.style(Style::new().bold()), state.drawing.style(Style::new().dimmed()));
        let title = format!("Scenario {}: {}", scenario.number, printable(&scenario.title));
        let teaches = wrapped(&scenario.teaches, 0);
        state.write(&format!("{bold}{title}{bold:#}\n{teaches}{dim}{page}{dim:#}\n\n"))
    }

    /// An event; `json` is the event as it came.
    pub(crate) fn show(&self, event: &Envelope, json: &str) -> anyhow::Result<()> {
        let mut state = self.0.borrow_mut();
        state.first_shown_at.get_or_insert_with(Instant::now);
        let drawn = state.drawing.line(event);
        let line = match state.format {
            Format::Text => drawn,
            // A line break within JSON is only a space.
            Format::JsonLines => json.replace(['\n', '\r'], " "),
        };
        state.write(&format!("{line}\n"))
    }

    /// The shop is away: said once, until it is back.
    pub(crate) fn away(&self, reason: &str) -> anyhow::Result<()> {
        let mut state = self.0.borrow_mut();
        if let Some(away) = &mut state.away {
            reason.clone_into(&mut away.reason);
            return Ok(());
        }
        state.away = Some(Away { since: Instant::now(), reason: reason.to_owned() });
        state.interruptions += 1;
        state.remark("the shop is away; waiting for it to come back")
    }

    /// The shop is there, or there again.
    pub(crate) fn back(&self) -> anyhow::Result<()> {
        let mut state = self.0.borrow_mut();
        match state.away.take() {
            Some(away) => state.remark(&format!("the shop is back after {:.1} s; going on", away.since.elapsed().as_secs_f64())),
            None => Ok(()),
        }
    }

    /// Why the shop is away, if it is.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.0.borrow().away.as_ref().map(|away| away.reason.clone())
    }

    /// Moves the last line; never ends.
    pub(crate) async fn keep_alive(&self) {
        if !self.0.borrow().is_live {
            std::future::pending::<()>().await;
        }
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            self.0.borrow_mut().show_living_line();
        }
    }

    /// Takes the living line away.
    pub(crate) fn leave(&self) {
        // A terminal that has gone needs no cleaning.
        let _ = self.0.borrow_mut().write("");
    }

    /// What came out; `end` is none if the time was over before.
    pub(crate) fn sum_up(&self, scenario: &Scenario, end: Option<&str>, run: Option<(&ScenarioRun, String)>) -> anyhow::Result<()> {
        let mut state = self.0.borrow_mut();
        let is_documented_end = end.is_some_and(|end| scenario.ends.iter().any(|documented| documented == end));
        let (events, duration) = (state.drawing.count(), state.drawing.duration());
        match (state.format, end) {
            (Format::Text, None) => Ok(()),
            (Format::Text, Some(end)) => {
                let colour = if end == "completed" { AnsiColor::BrightGreen } else { AnsiColor::BrightRed };
                let style = state.drawing.style(Style::new().bold().fg_color(Some(colour.into())));
                let mut words = end_in_words(end);
                if let Some(first) = words.get_mut(..1) {
                    first.make_ascii_uppercase();
                }
                state.write(&format!("\n{style}{words}{style:#}: {events} events in {:.2} s.\n", duration.as_secs_f64()))
            }
            (Format::JsonLines, end) => {
                let (order_id, page) = run.map(|(run, page)| (run.order_id.to_string(), page)).unzip();
                let summary = Summary {
                    scenario: scenario.number,
                    title: &scenario.title,
                    order_id,
                    end,
                    is_documented_end,
                    events,
                    duration_ms: duration.as_millis(),
                    interruptions: state.interruptions,
                    page,
                };
                state.write(&(serde_json::to_string(&summary)? + "\n"))
            }
        }
    }
}

impl State {
    /// Writes lines; the living one below them comes back with the next tick.
    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let before = if std::mem::take(&mut self.is_living_line_shown) { EMPTY_LINE } else { "" };
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(format!("{before}{text}").as_bytes()).and_then(|()| stdout.flush()).context("stdout")
    }

    /// For machines it goes to stderr: stdout is JSON alone.
    fn remark(&mut self, text: &str) -> anyhow::Result<()> {
        match self.format {
            Format::Text => {
                let line = self.drawing.remark(&self.elapsed(), text);
                self.write(&format!("{line}\n"))
            }
            Format::JsonLines => std::io::stderr().write_all(format!("cascade: {text}\n").as_bytes()).context("stderr"),
        }
    }

    fn elapsed(&self) -> String {
        self.first_shown_at.map(|first| since_start(first.elapsed())).unwrap_or_default()
    }

    fn show_living_line(&mut self) {
        let what = match &self.away {
            Some(away) => format!("… away for {:.1} s", away.since.elapsed().as_secs_f64()),
            None => String::from("…"),
        };
        let line = self.drawing.remark(&self.elapsed(), &what);
        let mut stdout = std::io::stdout().lock();
        // What is wrong with stdout, the next event will tell.
        let _ = stdout.write_all(format!("{EMPTY_LINE}{line}").as_bytes()).and_then(|()| stdout.flush());
        self.is_living_line_shown = true;
    }
}
