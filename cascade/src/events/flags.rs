//! What `cascade events` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use kit::Position;

use crate::{desk::OperatorFlags, operator::position, selection::event_type};

/// Stands at the end of the help.
pub(crate) const HELP: &str = "\
Examples:
  cascade events list --last 20                 what happened last
  cascade events list --subject 01a20c37-…      one order, from its beginning
  cascade events list --follow --types OrderCancelled
  cascade events deliveries 137                 why did this event not arrive?
  cascade events publish events.jsonl --token-file loyalty.token";

/// Flags of `cascade events`.
#[derive(Debug, Args)]
pub(crate) struct EventsFlags {
    /// What to do.
    #[command(subcommand)]
    pub(super) action: Action,

    #[command(flatten)]
    pub(super) operator: OperatorFlags,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// List events, oldest first, one a line: position, time, type, subject, what is to be known.
    List(ListFlags),
    /// Show one event whole.
    Show(Which),
    /// Say for each subscription whether an event arrived, and why not.
    Deliveries(Which),
    /// Publish the events that a file holds; it takes a token with the scope `publish`.
    Publish {
        /// JSON: an event, a list of them, or one a line; `-` is stdin.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Which events are listed.
#[derive(Debug, Args)]
pub(super) struct ListFlags {
    /// Only what comes after this position [default: from the beginning of the log; with --follow, from now on].
    #[arg(long, value_name = "POSITION", value_parser = position)]
    pub(super) after: Option<Position>,

    /// Look only at this many of the newest events.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "after")]
    pub(super) last: Option<u32>,

    /// Only events of these types, separated by commas, as `OrderCreated` or whole.
    #[arg(long, value_name = "TYPES", value_delimiter = ',', value_parser = event_type)]
    pub(super) types: Vec<String>,

    /// Only events of this subject: of an order, its id.
    #[arg(long, value_name = "SUBJECT")]
    pub(super) subject: Option<String>,

    /// At most this many [default: 100; with --follow, no end].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) limit: Option<u32>,

    /// Go on with events as they happen, until Ctrl-C.
    #[arg(long, short)]
    pub(super) follow: bool,
}

/// Which event is meant.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Its position in the log.
    #[arg(value_parser = position, required_unless_present = "id", conflicts_with = "id")]
    pub(super) position: Option<Position>,

    /// Its source, such as /order; with --id instead of the position.
    #[arg(long, value_name = "SOURCE", requires = "id")]
    pub(super) source: Option<String>,

    /// Its id within the source.
    #[arg(long, value_name = "ID", requires = "source")]
    pub(super) id: Option<String>,
}
