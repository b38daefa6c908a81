//! `cascade dead-letters`: which events were given up, why, and what becomes of them.

/// What it takes.
mod flags;

/// Which there are.
mod list;

/// One of them whole.
mod show;

/// Trying them again, or giving them up for good.
mod decide;

use crate::{desk::Desk, operator::block_on, subscriptions::named};
use decide::Decision;
use flags::Action;
pub(crate) use flags::{DeadLettersFlags, HELP};

/// Does what the flags say.
pub(crate) fn run(flags: &DeadLettersFlags) -> anyhow::Result<()> {
    let desk = flags.operator.desk()?;
    block_on(async {
        match &flags.action {
            Action::List(wanted) => list::run(&desk, wanted).await.map_err(|error| named(error, &wanted.name)),
            Action::Show { name, position } => show::run(&desk, name, *position).await.map_err(|error| named(error, name)),
            Action::Redrive(which) => decide::run(&desk, Decision::Redrive, which, None).await.map_err(|error| named(error, &which.name)),
            Action::Discard { which, sure } => {
                decide::run(&desk, Decision::Discard, which, Some(*sure)).await.map_err(|error| named(error, &which.name))
            }
        }
    })
}
