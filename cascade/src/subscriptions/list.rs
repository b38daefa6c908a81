//! Who there is, and how each stands.

use serde::Deserialize;

use super::Desk;
use crate::{
    events::why::with_status,
    form::Mood,
    scenario::drawing::printable,
    table,
    when::{Time, span},
};

/// The columns of the list.
const HEAD: [&str; 8] = ["NAME", "STATE", "LAG", "OLDEST", "BLOCKED", "PARKED", "DEAD", "LAST ERROR"];

#[derive(Deserialize)]
struct List {
    items: Vec<Subscription>,
}

#[derive(Deserialize)]
struct Subscription {
    name: String,
    status: Status,
}

/// How a subscription stands, as far as people need it.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) state: String,
    pub(super) lag_events: i64,
    pub(super) lag_s: Option<u64>,
    pub(super) lanes_blocked: u64,
    pub(super) lanes_parked: u64,
    pub(super) dead_letters: u64,
    pub(super) last_error: Option<Tried>,
}

/// What went wrong last.
#[derive(Debug, Deserialize)]
pub(super) struct Tried {
    pub(super) status: Option<u16>,
    pub(super) reason: String,
    pub(super) at: Time,
}

/// Lists them.
pub(super) async fn run(desk: &Desk) -> anyhow::Result<()> {
    let answer = desk.shop.get("/api/subscriptions").await?;
    desk.form.show(&answer, || {
        let List { items } = answer.read()?;
        if items.is_empty() {
            return Ok(String::from("There are no subscriptions.\n"));
        }
        let states: Vec<(String, Mood)> = items.iter().map(|one| (one.status.state.clone(), mood(&one.status.state))).collect();
        let mut text = table::draw(&HEAD, items.iter().map(|one| row(desk, one)), desk.form.width());
        if items.iter().any(|one| one.status.dead_letters > 0) {
            text.push_str("\nDead letters wait for somebody: cascade dead-letters list NAME\n");
        }
        Ok(coloured(desk, &text, &states))
    })
}

fn row(desk: &Desk, one: &Subscription) -> [String; 8] {
    let status = &one.status;
    let error = status.last_error.as_ref().map_or_else(
        || String::from("-"),
        |error| format!("{}: {}", desk.when().distance(error.at.0), printable(&with_status(error.status, &error.reason))),
    );
    let oldest = status.lag_s.map_or_else(|| String::from("-"), span);
    let counts = [status.lanes_blocked, status.lanes_parked, status.dead_letters].map(|count| count.to_string());
    let [blocked, parked, dead] = counts;
    [printable(&one.name), printable(&status.state), status.lag_events.to_string(), oldest, blocked, parked, dead, error]
}

/// What a state means to an operator.
pub(super) fn mood(state: &str) -> Mood {
    match state {
        "active" | "completed" => Mood::Well,
        "paused" | "unattached" => Mood::Waits,
        "holding" => Mood::Wrong,
        _ => Mood::Plain,
    }
}

/// Colours have no width, so they come after the columns: the state of each row, below the head.
fn coloured(desk: &Desk, text: &str, states: &[(String, Mood)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (line, (state, mood)) in lines.iter_mut().skip(1).zip(states) {
        *line = line.replacen(&format!("  {state}"), &format!("  {}", desk.form.mood(*mood, state)), 1);
    }
    if let Some(head) = lines.first_mut() {
        *head = desk.form.bold(head);
    }
    lines.join("\n") + "\n"
}
