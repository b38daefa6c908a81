//! How an answer is printed: for people, in a terminal's width and perhaps in colours; or as the shop's own JSON, for machines.

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use clap::Args;
use kit::telemetry::Color;
use terminal_size::{Width, terminal_size_of};

use crate::{operator::Answer, scenario::drawing::printable, settings, table::cut, usage::WrongUsage};

/// How wide text is where nobody says how wide it may be.
const COLUMNS: usize = 80;
/// How far what belongs to a heading stands behind it.
const INDENT: usize = 2;

/// Flags that say how an answer is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Form {
    /// Print the shop's own JSON, for machines.
    #[arg(long, global = true)]
    json: bool,

    /// When there are colours: `always`, `never`, or `auto`, on a terminal unless NO_COLOR is set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", value_parser = settings::color(), hide_possible_values = true)]
    color: Color,
}

/// Says that something is meant that cannot be undone.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Sure {
    /// Do it without asking, as scripts must.
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Form {
    /// Whether machines read it.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// How wide a line may be: a terminal has an end, a pipe has none.
    pub(crate) fn width(self) -> Option<usize> {
        let stdout = std::io::stdout();
        let width = || terminal_size_of(&stdout).map_or(COLUMNS, |(Width(columns), _)| usize::from(columns).max(40));
        stdout.is_terminal().then(width)
    }

    /// How wide text is that goes on below.
    pub(crate) fn columns(self) -> usize {
        self.width().unwrap_or(COLUMNS)
    }

    /// The style, where there are colours.
    pub(crate) fn style(self, style: Style) -> Style {
        if !self.json && self.color.is_wanted_on(&std::io::stdout()) { style } else { Style::new() }
    }

    /// The text, standing out.
    pub(crate) fn bold(self, text: &str) -> String {
        let style = self.style(Style::new().bold());
        format!("{style}{text}{style:#}")
    }

    /// The text in the colour of what is well, waits, or needs somebody.
    pub(crate) fn mood(self, mood: Mood, text: &str) -> String {
        let colour = match mood {
            Mood::Well => AnsiColor::Green,
            Mood::Waits => AnsiColor::Yellow,
            Mood::Wrong => AnsiColor::Red,
            Mood::Plain => return text.to_owned(),
        };
        let style = self.style(Style::new().fg_color(Some(colour.into())));
        format!("{style}{text}{style:#}")
    }

    /// Prints `people` to people, and to machines the answer as it came.
    pub(crate) fn show(self, answer: &Answer, people: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
        if self.json { print(&format!("{}\n", answer.text().trim_end())) } else { print(&people()?) }
    }

    /// Lines of a name and what it is, below one another; what is long goes on in the next line. Without a value there is no line.
    pub(crate) fn fields(self, fields: &[(&str, Option<String>)]) -> String {
        let widest = fields.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in fields {
            let Some(value) = value else { continue };
            let behind = INDENT + widest + 2;
            let dim = self.style(Style::new().dimmed());
            let wrapped = wrap(value, self.columns(), behind);
            text.push_str(&format!("{:INDENT$}{dim}{name:widest$}{dim:#}  {}\n", "", wrapped));
        }
        text
    }

    /// A sentence that goes on below.
    pub(crate) fn paragraph(self, text: &str) -> String {
        format!("{}\n", wrap(text, self.columns(), 0))
    }

    /// A line, cut to what a terminal has room for.
    pub(crate) fn line(self, text: &str) -> String {
        format!("{}\n", cut(text, self.width()))
    }

    /// What there is to say beside the answer: on stderr, so that stdout can be read by others.
    pub(crate) fn remark(self, text: &str) {
        // Who cannot be told anything is not told this.
        let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
    }
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// There is nothing to do.
    Well,
    /// It goes on by itself, sooner or later.
    Waits,
    /// Somebody must do something.
    Wrong,
    /// It means nothing.
    Plain,
}

impl Sure {
    /// Asks whether it is meant, unless that was said already.
    pub(crate) fn confirm(self, question: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(WrongUsage(format!("{question} There is nobody to ask: say so with --yes")).into());
        }
        let mut stderr = std::io::stderr();
        stderr.write_all(format!("{question} [y/N] ").as_bytes()).and_then(|()| stderr.flush()).context("stderr")?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).context("stdin")?;
        if is_yes(&answer) { Ok(()) } else { bail!("nothing was done") }
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Writes to stdout.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("stdout")
}

/// `1 event`, `2 events`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// The text in lines that end before `width`, the first one without, the others behind `indent` spaces. What the text has as lines stays so.
pub(crate) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let room = width.saturating_sub(indent).max(20);
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.lines() {
        let text = paragraph.trim_start_matches(' ');
        let margin = " ".repeat((paragraph.len() - text.len()).min(room / 2));
        let mut line = margin.clone();
        for word in text.split(' ') {
            if line.len() > margin.len() && line.chars().count() + 1 + word.chars().count() >= room {
                lines.push(std::mem::replace(&mut line, margin.clone()));
            }
            if line.len() > margin.len() {
                line.push(' ');
            }
            line.push_str(&printable(word));
        }
        lines.push(line);
    }
    lines.join(&format!("\n{:indent$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        for (answer, expected) in [("y\n", true), ("YES\n", true), ("\n", false), ("", false), ("n\n", false), ("yess\n", false)] {
            assert_eq!(is_yes(answer), expected, "{answer:?}");
        }
        assert!(Sure { yes: true }.confirm("Do it?").is_ok());
    }

    #[test]
    fn long_text_goes_on_below_and_steers_no_terminal() {
        let text = wrap(&format!("{}\u{1b}[2J", "some words ".repeat(10)), 40, 10);
        assert!(text.lines().all(|line| line.chars().count() < 40) && !text.contains('\u{1b}'), "{text}");
        assert!(text.lines().count() > 3 && text.lines().skip(1).all(|line| line.starts_with("          ")), "{text}");
        assert_eq!(wrap("one\n  two", 80, 3), "one\n     two");
    }
}
