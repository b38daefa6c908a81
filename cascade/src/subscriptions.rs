//! `cascade subscriptions`: who gets which events, how that stands, and what an operator does about it.

/// What it takes.
mod flags;

/// Who there is, and how each stands.
mod list;

/// One of them whole.
mod show;

/// What it asks for: registering it, its secret, its end.
mod change;

/// The same, field by field.
mod set;

/// Pausing, resuming, moving it, trying its filters.
mod operate;

/// Sending a part of the log again.
mod replays;

use anyhow::anyhow;
use axum::http::StatusCode;

use crate::{
    desk::Desk,
    operator::{Refused, block_on},
};
use flags::Action;
pub(crate) use flags::{HELP, SubscriptionsFlags};

/// Does what the flags say.
pub(crate) fn run(flags: &SubscriptionsFlags) -> anyhow::Result<()> {
    let desk = flags.operator.desk()?;
    block_on(async {
        match &flags.action {
            Action::List => list::run(&desk).await,
            Action::Show { name } => show::run(&desk, name).await.map_err(|error| named(error, name)),
            Action::Apply(apply) => change::apply(&desk, apply).await.map_err(|error| named(error, &apply.name)),
            Action::Set(wanted) => set::run(&desk, wanted).await.map_err(|error| named(error, &wanted.name)),
            Action::Delete(delete) => change::delete(&desk, delete).await.map_err(|error| named(error, &delete.name)),
            Action::RotateSecret { name, grace_hours } => {
                change::rotate_secret(&desk, name, *grace_hours).await.map_err(|error| named(error, name))
            }
            Action::Pause { name } => operate::pause(&desk, name).await.map_err(|error| named(error, name)),
            Action::Resume { name } => operate::resume(&desk, name).await.map_err(|error| named(error, name)),
            Action::Seek(seek) => operate::seek(&desk, seek).await.map_err(|error| named(error, &seek.name)),
            Action::Explain(explain) => operate::explain(&desk, explain).await.map_err(|error| named(error, &explain.name)),
            Action::Replay(replay) => replays::start(&desk, replay).await.map_err(|error| named(error, &replay.name)),
            Action::Replays { action } => replays::run(&desk, action).await.map_err(|error| named(error, action.name())),
        }
    })
}

/// What the shop says of a subscription that is not there or was changed, with what to do.
pub(crate) fn named(error: anyhow::Error, name: &str) -> anyhow::Error {
    match error.downcast_ref::<Refused>() {
        Some(refused) if refused.code == "not_found" && refused.to_string() == "no such subscription" => {
            anyhow!("there is no subscription `{name}`; `cascade subscriptions list` shows which there are")
        }
        Some(refused) if refused.status == StatusCode::PRECONDITION_FAILED => {
            anyhow!("the subscription `{name}` was changed, or is not there; `cascade subscriptions show {name}` tells its ETag")
        }
        Some(_) | None => error,
    }
}
