//! What `cascade dead-letters` takes.

use clap::{Args, Subcommand, ValueEnum};
use kit::Position;
use serde_json::{Map, Value, json};

use crate::{
    desk::OperatorFlags,
    form::Sure,
    operator::{name, position},
    selection::Selection,
};

/// Stands at the end of the help.
pub(crate) const HELP: &str = "\
Examples:
  cascade dead-letters list loyalty
  cascade dead-letters show loyalty 137
  cascade dead-letters redrive loyalty 137
  cascade dead-letters redrive loyalty --statuses 503,none --dry-run
  cascade dead-letters discard loyalty --types OrderCancelled --yes";

/// Flags of `cascade dead-letters`.
#[derive(Debug, Args)]
pub(crate) struct DeadLettersFlags {
    /// What to do.
    #[command(subcommand)]
    pub(super) action: Action,

    #[command(flatten)]
    pub(super) operator: OperatorFlags,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List those of a subscription, by their position in the log.
    List(ListFlags),
    /// Show one: its event, every attempt that is kept, and what the sink answered.
    Show {
        /// The subscription.
        #[arg(value_parser = name)]
        name: String,

        /// The position of the event.
        #[arg(value_parser = position)]
        position: Position,
    },
    /// Try some again: with their order, if that waits behind them.
    Redrive(Which),
    /// Give some up for good; what waits behind them goes on. There is no way back.
    Discard {
        #[command(flatten)]
        which: Which,

        #[command(flatten)]
        sure: Sure,
    },
}

/// Which are listed.
#[derive(Debug, Args)]
pub(super) struct ListFlags {
    /// The subscription.
    #[arg(value_parser = name)]
    pub(super) name: String,

    /// In which state.
    #[arg(long, value_name = "STATE", value_enum, default_value = "waiting")]
    pub(super) state: State,

    /// Only what comes after this position.
    #[arg(long, value_name = "POSITION", value_parser = position)]
    pub(super) after: Option<Position>,

    /// At most this many.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) limit: u32,
}

/// What becomes of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum State {
    /// Somebody has to decide.
    Waiting,
    /// It is being tried again.
    Redriving,
    /// It was given up for good.
    Discarded,
    /// Any of these.
    All,
}

impl State {
    /// As the API has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Redriving => "redriving",
            Self::Discarded => "discarded",
            Self::All => "all",
        }
    }
}

/// Which are decided on: those at positions, or all that fit everything that is said.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The subscription.
    #[arg(value_parser = name)]
    pub(super) name: String,

    /// The positions of their events.
    #[arg(value_name = "POSITION", value_parser = position, num_args = 0..=1_000)]
    pub(super) positions: Vec<Position>,

    /// Those of this lane: of an order, its id.
    #[arg(long, value_name = "LANE")]
    lane: Option<String>,

    /// Those that were last answered so, separated by commas; `none` stands for no answer.
    #[arg(long, value_name = "STATUSES", value_delimiter = ',', value_parser = status)]
    statuses: Vec<Status>,

    /// Those whose event is chosen so.
    #[command(flatten)]
    selection: Selection,

    /// Those that come after this position.
    #[arg(long, value_name = "POSITION", value_parser = position)]
    after: Option<Position>,

    /// All that wait.
    #[arg(long, conflicts_with_all = ["positions", "lane", "statuses", "types", "filters", "after"])]
    all: bool,

    /// Only say which they are.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// A last answer; none where there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(Option<u16>);

impl Which {
    /// Those that fit, as the API has it; none if nothing was said.
    pub(super) fn choice(&self) -> Option<Map<String, Value>> {
        let mut body = Map::new();
        if !self.positions.is_empty() {
            body.insert("positions".into(), json!(self.positions));
        }
        if let Some(lane) = &self.lane {
            body.insert("lane".into(), json!(lane));
        }
        if !self.statuses.is_empty() {
            body.insert("statuses".into(), self.statuses.iter().map(|status| json!(status.0)).collect());
        }
        self.selection.write(&mut body);
        if let Some(after) = self.after {
            body.insert("after".into(), json!(after));
        }
        (self.all || !body.is_empty()).then_some(body)
    }

    /// The one that is named, if nothing else is said.
    pub(super) fn only(&self) -> Option<Position> {
        let is_alone = self.lane.is_none() && self.statuses.is_empty() && self.selection.is_empty() && self.after.is_none();
        match self.positions.as_slice() {
            [position] if is_alone => Some(*position),
            _ => None,
        }
    }
}

fn status(text: &str) -> Result<Status, &'static str> {
    match text.parse() {
        _ if text == "none" => Ok(Status(None)),
        Ok(status @ 100..=999) => Ok(Status(Some(status))),
        Ok(_) | Err(_) => Err("it must be an HTTP status such as 503, or `none`"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        which: Which,
    }

    fn which(flags: &[&str]) -> Which {
        Flags::try_parse_from([&["x", "loyalty"], flags].concat()).unwrap_or_else(|error| panic!("{error}")).which
    }

    #[test]
    fn what_is_said_is_what_is_chosen() {
        let choice = |flags: &[&str]| which(flags).choice().map(Value::Object);
        assert_eq!(choice(&[]), None);
        assert_eq!(choice(&["--all"]), Some(json!({})));
        assert_eq!(
            choice(&["--statuses", "503,none", "--types", "OrderCancelled", "--lane", "a", "--after", "7"]),
            Some(json!({"statuses": [503, null], "types": ["cascade.OrderCancelled.v1"], "lane": "a", "after": "7"}))
        );
        assert_eq!(choice(&["4", "5"]), Some(json!({"positions": ["4", "5"]})));
    }

    #[test]
    fn one_that_is_named_is_alone_when_nothing_else_is_said() {
        assert_eq!(which(&["4"]).only(), Some(Position(4)));
        for flags in [&["4", "5"][..], &["4", "--lane", "a"], &["--all"]] {
            assert_eq!(which(flags).only(), None, "{flags:?}");
        }
        assert!(Flags::try_parse_from(["x", "loyalty", "4", "--all"]).is_err());
    }
}
