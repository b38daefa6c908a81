//! One dead letter whole.

use anyhow::anyhow;
use kit::{Envelope, Position};
use serde::Deserialize;

use super::Desk;
use crate::{
    events::{show::whole, why::with_status},
    operator::Refused,
    when::Time,
};

#[derive(Deserialize)]
struct Letter {
    position: Position,
    lane: String,
    state: String,
    discarded_at: Option<Time>,
    status: Option<u16>,
    reason: String,
    attempts: u32,
    first_attempt_at: Option<Time>,
    given_up_at: Time,
    event: Option<Envelope>,
    last_attempts: Vec<Tried>,
    answer: Option<String>,
}

#[derive(Deserialize)]
struct Tried {
    at: Time,
    status: Option<u16>,
    reason: String,
}

/// Shows it.
pub(super) async fn run(desk: &Desk, name: &str, position: Position) -> anyhow::Result<()> {
    let asked = desk.shop.get(&format!("/api/subscriptions/{name}/dead-letters/{position}")).await;
    let answer = asked.map_err(|error| no_such_letter(error, name, position))?;
    desk.form.show(&answer, || Ok(draw(desk, name, &answer.read()?)))
}

/// That there is no such dead letter, in words that name it.
pub(super) fn no_such_letter(error: anyhow::Error, name: &str, position: Position) -> anyhow::Error {
    match error.downcast_ref::<Refused>() {
        Some(refused) if refused.code == "not_found" && refused.to_string() == "no such dead letter" => {
            anyhow!("event {position} is no dead letter of `{name}`; to see where it stands: cascade events deliveries {position}")
        }
        Some(_) | None => error,
    }
}

fn draw(desk: &Desk, name: &str, letter: &Letter) -> String {
    let (form, when, position) = (desk.form, &desk.when(), letter.position);
    let attempt = |tried: &Tried| format!("{}  {}", when.moment(tried.at.0), with_status(tried.status, &tried.reason));
    let attempts = match &letter.last_attempts {
        kept if kept.is_empty() => None,
        kept => Some(kept.iter().map(attempt).collect::<Vec<_>>().join("\n")),
    };
    let fields = form.fields(&[
        ("state", Some(letter.state.clone())),
        ("discarded", letter.discarded_at.map(|at| when.full(at.0))),
        ("why", Some(with_status(letter.status, &letter.reason))),
        ("given up", Some(when.full(letter.given_up_at.0))),
        ("attempts", Some(letter.attempts.to_string())),
        ("first", letter.first_attempt_at.map(|at| when.full(at.0))),
        ("of these", attempts),
        ("answer", letter.answer.clone().filter(|answer| !answer.is_empty())),
        ("lane", Some(letter.lane.clone())),
    ]);
    let decide = if letter.state == "waiting" {
        format!(
            "\nTry it again:         cascade dead-letters redrive {name} {position}\nGive it up for good:  cascade dead-letters discard {name} {position}\n"
        )
    } else {
        String::new()
    };
    let event = match &letter.event {
        Some(event) => format!("\n{}", whole(event, form, when)),
        None => String::from("\nThe log has lost the event.\n"),
    };
    format!("{}\n{fields}{event}{decide}", form.bold(&format!("Event {position}, a dead letter of {name}")))
}
