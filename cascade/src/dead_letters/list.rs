//! Which events of a subscription were given up.

use kit::Position;
use serde::Deserialize;

use super::{
    Desk,
    flags::{ListFlags, State},
};
use crate::{events::why::with_status, operator::with_query, scenario::drawing::printable, table, when::Time};

/// The columns of the list.
const HEAD: [&str; 6] = ["POSITION", "GIVEN UP", "TRIES", "TYPE", "LANE", "WHY"];
/// How much of a lane is shown: enough to tell them apart.
const LANE_CHARS: usize = 8;

#[derive(Deserialize)]
struct Page {
    items: Vec<Item>,
    next: Option<Position>,
}

#[derive(Deserialize)]
struct Item {
    position: Position,
    lane: String,
    state: String,
    status: Option<u16>,
    reason: String,
    attempts: u32,
    given_up_at: Time,
    event: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "type")]
    ty: String,
}

/// Lists them.
pub(super) async fn run(desk: &Desk, wanted: &ListFlags) -> anyhow::Result<()> {
    let mut query = vec![("state", wanted.state.as_str().to_owned()), ("limit", wanted.limit.to_string())];
    query.extend(wanted.after.map(|after| ("after", after.to_string())));
    let path = format!("/api/subscriptions/{}/dead-letters", wanted.name);
    let answer = desk.shop.get(&with_query(&path, query)).await?;
    desk.form.show(&answer, || {
        let Page { items, next } = answer.read()?;
        if items.is_empty() {
            let state = if wanted.state == State::All { String::new() } else { format!(" that is {}", wanted.state.as_str()) };
            return Ok(format!("`{}` has no dead letter{state}.\n", wanted.name));
        }
        let mut text = table::draw(&HEAD, items.iter().map(|item| row(desk, item, wanted.state)), desk.form.width());
        if let Some(next) = next {
            text.push_str(&format!("\nThere are more: --after {next}\n"));
        }
        Ok(text)
    })
}

fn row(desk: &Desk, item: &Item, listed: State) -> [String; 6] {
    let ty = item.event.as_ref().map_or("(lost by the log)", |event| &event.ty);
    let own = ty.strip_prefix("cascade.").and_then(|rest| rest.split('.').next());
    // What all are asked for to be needs no words.
    let state = if listed == State::All { format!("{}: ", item.state) } else { String::new() };
    [
        item.position.to_string(),
        desk.when().distance(item.given_up_at.0),
        item.attempts.to_string(),
        printable(own.unwrap_or(ty)),
        lane(&item.lane),
        printable(&format!("{state}{}", with_status(item.status, &item.reason))),
    ]
}

/// The end of a lane: ids of orders begin alike.
fn lane(lane: &str) -> String {
    let skipped = lane.chars().count().saturating_sub(LANE_CHARS);
    printable(&lane.chars().skip(skipped).collect::<String>())
}
