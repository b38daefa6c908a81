//! Pausing, resuming and moving a subscription, and trying its filters.

use axum::http::Method;
use kit::Position;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Desk,
    change::read_json,
    flags::{Explain, Place, Seek},
    list::Status,
};
use crate::{
    events::why::Clause,
    operator::{Answer, Request},
};

#[derive(Deserialize)]
struct Subscription {
    status: Status,
}

/// Pauses it.
pub(super) async fn pause(desk: &Desk, name: &str) -> anyhow::Result<()> {
    let answer = desk.shop.send(Method::POST, &format!("/api/subscriptions/{name}/pause"), Request::default()).await?;
    desk.form.show(&answer, || {
        Ok(format!("The subscription `{name}` is paused{}. To go on: cascade subscriptions resume {name}\n", waiting(&answer)?))
    })
}

/// Lets it go on.
pub(super) async fn resume(desk: &Desk, name: &str) -> anyhow::Result<()> {
    let answer = desk.shop.send(Method::POST, &format!("/api/subscriptions/{name}/resume"), Request::default()).await?;
    desk.form.show(&answer, || Ok(format!("The subscription `{name}` goes on{}.\n", waiting(&answer)?)))
}

fn waiting(answer: &Answer) -> anyhow::Result<String> {
    let Subscription { status } = answer.read()?;
    Ok(match status.lag_events {
        0 => String::from("; nothing waits"),
        1 => String::from("; 1 event waits"),
        events => format!("; {events} events wait"),
    })
}

/// What a seek does, or would do.
#[derive(Deserialize)]
struct Sought {
    after: Position,
    lanes_dissolved: u64,
    dead_letters_dropped: u64,
}

impl Sought {
    fn words(&self) -> String {
        format!(
            "after position {}. Dead letters dropped: {}; lanes that were set aside and are dissolved: {}.",
            self.after, self.dead_letters_dropped, self.lanes_dissolved
        )
    }
}

/// Moves it. What that would do is said first, since there is no way back.
pub(super) async fn seek(desk: &Desk, seek: &Seek) -> anyhow::Result<()> {
    let (name, path) = (&seek.name, format!("/api/subscriptions/{}/seek", seek.name));
    let look = Request::json(&json!({"to": seek.to.to_json(), "dry_run": true}));
    let look = desk.shop.send(Method::POST, &path, look).await?;
    let would: Sought = look.read()?;
    if seek.dry_run {
        return desk.form.show(&look, || Ok(desk.form.paragraph(&format!("The subscription `{name}` would start over {}", would.words()))));
    }
    let skipped = if seek.to == Place::Latest { " What waits is never sent." } else { "" };
    seek.sure.confirm(&format!("The subscription `{name}` starts over {}{skipped} Move it?", would.words()))?;
    let answer = desk.shop.send(Method::POST, &path, Request::json(&json!({"to": seek.to.to_json()}))).await?;
    desk.form.show(&answer, || {
        let done: Sought = answer.read()?;
        Ok(desk.form.paragraph(&format!("The subscription `{name}` starts over {}", done.words())))
    })
}

/// Whether an event is asked for.
#[derive(Deserialize)]
struct Explained {
    matches: bool,
    clause: Option<Clause>,
}

/// Tries its filters, or others.
pub(super) async fn explain(desk: &Desk, explain: &Explain) -> anyhow::Result<()> {
    let mut body = Map::new();
    let event = match (&explain.event, explain.position) {
        (Some(file), _) => {
            body.insert("event".into(), read_json(file)?);
            String::from("the event")
        }
        (None, position) => {
            body.insert("position".into(), json!(position));
            format!("event {}", position.unwrap_or(Position::START))
        }
    };
    explain.selection.write(&mut body);
    let path = format!("/api/subscriptions/{}/explain", explain.name);
    let answer = desk.shop.send(Method::POST, &path, Request::json(&Value::Object(body))).await?;
    let name = &explain.name;
    let (asks, not) = if explain.selection.is_empty() { ("asks", "does not ask") } else { ("would ask", "would not ask") };
    desk.form.show(&answer, || {
        let Explained { matches, clause } = answer.read()?;
        Ok(match clause {
            _ if matches => format!("`{name}` {asks} for {event}.\n"),
            Some(clause) => desk.form.paragraph(&format!("`{name}` {not} for {event}: {}.", clause.words())),
            None => format!("`{name}` {not} for {event}.\n"),
        })
    })
}
