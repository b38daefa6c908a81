//! `cascade events`: what is in the log, why an event did or did not arrive, and publishing.

/// What it takes.
mod flags;

/// Pages of the log.
mod list;

/// Events as they happen.
mod follow;

/// One event on a line.
mod line;

/// One event whole.
pub(crate) mod show;

/// Where an event stands with every subscription.
mod deliveries;

/// The same in a sentence.
pub(crate) mod why;

/// Publishing what a file holds.
mod publish;

use kit::{Envelope, Position};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{desk::Desk, operator::block_on};
use flags::Action;
pub(crate) use flags::{EventsFlags, HELP};

/// Does what the flags say.
pub(crate) fn run(flags: &EventsFlags) -> anyhow::Result<()> {
    if let Action::Publish { file } = &flags.action {
        return publish::run(flags, file);
    }
    let desk = flags.operator.desk()?;
    block_on(async {
        match &flags.action {
            Action::List(wanted) if wanted.follow => follow::run(&desk, wanted).await,
            Action::List(wanted) => list::run(&desk, wanted).await,
            Action::Show(which) => show::run(&desk, which).await,
            Action::Deliveries(which) => deliveries::run(&desk, which).await,
            Action::Publish { .. } => Ok(()),
        }
    })
}

/// An event as it came, and its place.
struct Found<'a> {
    position: Position,
    event: Envelope,
    json: &'a RawValue,
}

impl<'a> Found<'a> {
    fn read(json: &'a RawValue) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Place {
            position: Position,
        }
        let Place { position } = serde_json::from_str(json.get())?;
        Ok(Self { position, event: serde_json::from_str(json.get())?, json })
    }
}
