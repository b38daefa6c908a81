//! Trying dead letters again, or giving them up for good: one that is named, or all that fit. Those are looked at first, and what was looked
//! at is decided on, so that nothing else goes.

use std::collections::BTreeSet;

use anyhow::bail;
use axum::http::Method;
use kit::Position;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Desk, flags::Which, show::no_such_letter};
use crate::{
    form::{Sure, count, print},
    operator::Request,
    usage::WrongUsage,
};

/// How many positions are decided on in one request, as the API has it.
const DECIDE_MAX: usize = 1_000;
/// How many positions are named to people.
const NAMED_MAX: usize = 10;

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// They are tried again.
    Redrive,
    /// They are given up for good.
    Discard,
}

impl Decision {
    fn verb(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Discard => "discard",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Redrive => "tried again",
            Self::Discard => "given up for good",
        }
    }
}

#[derive(Deserialize)]
struct Decided {
    positions: Vec<Position>,
    next: Option<Position>,
}

/// Decides on those that are meant. `sure` is there where there is no way back.
pub(super) async fn run(desk: &Desk, decision: Decision, which: &Which, sure: Option<Sure>) -> anyhow::Result<()> {
    let path = format!("/api/subscriptions/{}/dead-letters", which.name);
    let verb = decision.verb();
    if let Some(position) = which.only().filter(|_| !which.dry_run) {
        let asked = desk.shop.send(Method::POST, &format!("{path}/{position}/{verb}"), Request::default()).await;
        let answer = asked.map_err(|error| no_such_letter(error, &which.name, position))?;
        return desk.form.show(&answer, || Ok(format!("Event {position} is {}.\n", decision.done())));
    }
    let Some(choice) = which.choice() else {
        return Err(WrongUsage(format!(
            "which dead letters? Name positions, say what they must fit, or --all; see `cascade dead-letters {verb} --help`"
        ))
        .into());
    };
    let path = format!("{path}/{verb}");
    let chosen = look(desk, &path, choice).await?;
    let missing: Vec<Position> = which.positions.iter().filter(|position| !chosen.contains(position)).copied().collect();
    if !missing.is_empty() {
        desk.form.remark(&format!("These do not wait, or do not fit: {}", name(&missing)));
    }
    if which.dry_run {
        return tell(desk, &chosen, &format!("would be {}", decision.done()), which);
    }
    if chosen.is_empty() && !which.positions.is_empty() {
        bail!("none of these is a dead letter of `{}` that waits", which.name);
    }
    if let Some(sure) = sure.filter(|_| !chosen.is_empty()) {
        let what = count(chosen.len() as u64, "dead letter");
        sure.confirm(&format!("{what} of `{}` would be {}: {}. Discard?", which.name, decision.done(), name(&chosen)))?;
    }
    let mut done = Vec::new();
    for some in chosen.chunks(DECIDE_MAX) {
        let answer = desk.shop.send(Method::POST, &path, Request::json(&json!({"positions": some}))).await?;
        done.extend(answer.read::<Decided>()?.positions);
    }
    tell(desk, &done, &format!("{} {}", if done.len() == 1 { "is" } else { "are" }, decision.done()), which)
}

/// The dead letters that fit, all of them.
async fn look(desk: &Desk, path: &str, choice: Map<String, Value>) -> anyhow::Result<Vec<Position>> {
    let mut chosen = BTreeSet::new();
    let mut body = choice;
    body.insert("dry_run".into(), json!(true));
    loop {
        let answer = desk.shop.send(Method::POST, path, Request::json(&Value::Object(body.clone()))).await?;
        let Decided { positions, next } = answer.read()?;
        chosen.extend(positions);
        let Some(next) = next else { return Ok(chosen.into_iter().collect()) };
        body.insert("after".into(), json!(next));
    }
}

fn tell(desk: &Desk, positions: &[Position], what: &str, which: &Which) -> anyhow::Result<()> {
    if desk.form.is_json() {
        // As the API answers a request that one answer is enough for.
        return print(&format!("{}\n", json!({"positions": positions, "next": null, "dry_run": which.dry_run})));
    }
    print(&match positions.len() {
        0 => String::from("No dead letter fits.\n"),
        length => format!("{} {what}: {}\n", count(length as u64, "dead letter"), name(positions)),
    })
}

fn name(positions: &[Position]) -> String {
    let named = positions.iter().take(NAMED_MAX).map(Position::to_string).collect::<Vec<_>>().join(", ");
    match positions.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_positions_the_first_are_named() {
        let positions: Vec<Position> = (1..=12).map(Position).collect();
        assert_eq!(name(&positions), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
        assert_eq!(name(&positions[..2]), "1, 2");
    }
}
