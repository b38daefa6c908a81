//! Sending a part of the log again: beginning that, seeing how it stands, ending it.

use axum::http::Method;
use kit::Position;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Desk,
    flags::{Replay, Replays},
    list::mood,
    show::Counts,
};
use crate::{
    operator::{Answer, Request},
    scenario::drawing::printable,
    table,
    when::Time,
};

/// The columns of the list.
const HEAD: [&str; 6] = ["ID", "STATE", "FROM", "TO", "READ TO", "CREATED"];
/// How many positions of failed events are named.
const FAILED_SHOWN_MAX: usize = 20;

#[derive(Deserialize)]
struct List {
    items: Vec<Shown>,
}

#[derive(Deserialize)]
struct Shown {
    id: String,
    state: String,
    from: Position,
    to: Position,
    types: Option<Vec<String>>,
    #[serde(default)]
    filters: Vec<Value>,
    rate_per_s: u32,
    created_at: Time,
    ended_at: Option<Time>,
    read_up_to: Position,
    counts: Counts,
    failed: Vec<Position>,
}

/// Begins one.
pub(super) async fn start(desk: &Desk, replay: &Replay) -> anyhow::Result<()> {
    let mut body = Map::new();
    body.insert("from".into(), replay.from.to_json());
    body.insert("to".into(), replay.to.to_json());
    body.insert("rate_per_s".into(), json!(replay.rate));
    replay.selection.write(&mut body);
    let path = format!("/api/subscriptions/{}/replays", replay.name);
    let answer = desk.shop.send(Method::POST, &path, Request::json(&Value::Object(body))).await?;
    desk.form.show(&answer, || {
        let shown: Shown = answer.read()?;
        Ok(format!(
            "Events {} to {} are sent to `{}` again, {} a second.\nHow that stands: cascade subscriptions replays show {} {}\n",
            shown.from,
            shown.to,
            replay.name,
            shown.rate_per_s,
            replay.name,
            printable(&shown.id)
        ))
    })
}

/// Lists, shows or ends them.
pub(super) async fn run(desk: &Desk, action: &Replays) -> anyhow::Result<()> {
    let path = format!("/api/subscriptions/{}/replays", action.name());
    match action {
        Replays::List { name } => {
            let answer = desk.shop.get(&path).await?;
            desk.form.show(&answer, || {
                let List { items } = answer.read()?;
                if items.is_empty() {
                    return Ok(format!("There are no replays of `{name}`.\n"));
                }
                Ok(table::draw(&HEAD, items.iter().map(|one| row(desk, one)), desk.form.width()))
            })
        }
        Replays::Show { id, .. } => {
            let answer = desk.shop.get(&format!("{path}/{id}")).await?;
            desk.form.show(&answer, || draw(desk, &answer))
        }
        Replays::Cancel { id, .. } => {
            let answer = desk.shop.send(Method::POST, &format!("{path}/{id}/cancel"), Request::default()).await?;
            desk.form.show(&answer, || draw(desk, &answer))
        }
    }
}

fn row(desk: &Desk, one: &Shown) -> [String; 6] {
    let places = [one.from, one.to, one.read_up_to].map(|position| position.to_string());
    let [from, to, read] = places;
    [printable(&one.id), printable(&one.state), from, to, read, desk.when().distance(one.created_at.0)]
}

fn draw(desk: &Desk, answer: &Answer) -> anyhow::Result<String> {
    let one: Shown = answer.read()?;
    let (form, when) = (desk.form, &desk.when());
    let filters = one.filters.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let failed = one.failed.iter().take(FAILED_SHOWN_MAX).map(Position::to_string).collect::<Vec<_>>().join(", ");
    let more =
        if one.failed.len() > FAILED_SHOWN_MAX { format!(" and {} more", one.failed.len() - FAILED_SHOWN_MAX) } else { String::new() };
    let fields = form.fields(&[
        ("part", Some(format!("events {} to {}, read up to {}", one.from, one.to, one.read_up_to))),
        ("types", one.types.as_ref().map(|types| types.join("\n"))),
        ("filters", Some(filters).filter(|filters| !filters.is_empty())),
        ("rate", Some(format!("{} events a second", one.rate_per_s))),
        ("created", Some(when.full(one.created_at.0))),
        ("ended", one.ended_at.map(|at| when.full(at.0))),
        ("account", Some(one.counts.words())),
        ("not taken", Some(format!("{failed}{more}")).filter(|_| !one.failed.is_empty())),
    ]);
    let state = form.mood(mood(&one.state), &printable(&one.state));
    Ok(format!("{} is {state}\n{fields}", form.bold(&format!("Replay {}", printable(&one.id)))))
}
