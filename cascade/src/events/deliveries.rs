//! Where an event stands with every subscription, and what it waits for.

use std::collections::BTreeMap;

use kit::Position;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Desk, Found,
    flags::Which,
    show,
    why::{Arrival, Behind, Stage, Standing},
};
use crate::{
    form::{print, wrap},
    operator::Answer,
    scenario::drawing::printable,
};

/// How many events are looked at that others wait for, and how many subscriptions that hold.
const LOOKS_MAX: usize = 16;

#[derive(Deserialize)]
struct Deliveries<'a> {
    #[serde(borrow)]
    event: &'a RawValue,
    items: Vec<Arrival>,
}

/// Says why it did or did not arrive.
pub(super) async fn run(desk: &Desk, which: &Which) -> anyhow::Result<()> {
    let position = show::find(desk, which).await?;
    let answer = ask(desk, position).await.map_err(|error| show::not_found(error, which))?;
    if desk.form.is_json() {
        return desk.form.show(&answer, || Ok(String::new()));
    }
    let told: Deliveries<'_> = answer.read()?;
    let found = Found::read(told.event)?;
    let behind = look_behind(desk, &told.items).await;
    let when = desk.when();
    let published = found.event.time.map(|time| format!("\n{}", when.full(time))).unwrap_or_default();
    let mut text = format!("{}{published}\n\n", desk.form.bold(&show::title(position, &found.event)));
    if told.items.is_empty() {
        text.push_str("There is no subscription.\n");
    }
    let widest = told.items.iter().map(|arrival| arrival.subscription.chars().count()).max().unwrap_or(0);
    for arrival in &told.items {
        let none = Behind::default();
        let sentence = arrival.sentence(position, behind.get(&arrival.subscription).unwrap_or(&none), &when);
        let name = format!("{:widest$}", printable(&arrival.subscription));
        let state = desk.form.mood(arrival.stage.mood(), &format!("{:12}", arrival.stage.name()));
        let indent = widest + 16;
        text.push_str(&format!("{name}  {state}  {}\n", wrap(&sentence, desk.form.columns(), indent)));
    }
    print(&text)
}

async fn ask(desk: &Desk, position: Position) -> anyhow::Result<Answer> {
    desk.shop.get(&format!("/api/events/{position}/deliveries")).await
}

/// What is to be known of the events that this one waits for, and of subscriptions that deliver nothing. What cannot be found out is left
/// out: the answer to the question is there already.
async fn look_behind(desk: &Desk, arrivals: &[Arrival]) -> BTreeMap<String, Behind> {
    let mut behind: BTreeMap<String, Behind> = BTreeMap::new();
    let mut others: BTreeMap<Position, Vec<&str>> = BTreeMap::new();
    for arrival in arrivals {
        if let Some(by) = arrival.stage.by() {
            others.entry(by).or_default().push(&arrival.subscription);
        }
    }
    for (by, subscriptions) in others.into_iter().take(LOOKS_MAX) {
        let Ok(answer) = ask(desk, by).await else { continue };
        let Ok(told) = answer.read::<Deliveries<'_>>() else { continue };
        let stages: Vec<(String, Stage)> = told.items.into_iter().map(|one| (one.subscription, one.stage)).collect();
        for (subscription, stage) in stages.into_iter().filter(|(name, _)| subscriptions.contains(&name.as_str())) {
            behind.entry(subscription).or_default().by = Some(stage);
        }
    }
    #[derive(Deserialize)]
    struct Subscription {
        status: Standing,
    }
    for arrival in arrivals.iter().filter(|arrival| arrival.is_held()).take(LOOKS_MAX) {
        let Ok(answer) = desk.shop.get(&format!("/api/subscriptions/{}", arrival.subscription)).await else { continue };
        let Ok(Subscription { status }) = answer.read() else { continue };
        behind.entry(arrival.subscription.clone()).or_default().standing = Some(status);
    }
    behind
}
