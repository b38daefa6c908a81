//! One event whole.

use anyhow::Context;
use kit::{Envelope, Position};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Desk, Found, flags::Which, line::name_of};
use crate::{
    event_line,
    form::{Form, print},
    operator::{Answer, Refused, with_query},
    scenario::drawing::printable,
    when::When,
};

/// Shows it.
pub(super) async fn run(desk: &Desk, which: &Which) -> anyhow::Result<()> {
    let answer = fetch(desk, which).await?;
    let found = read(&answer, which)?;
    if desk.form.is_json() {
        return print(&format!("{}\n", found.json.get()));
    }
    print(&draw(&found, desk.form, &desk.when()))
}

/// The position of the event that is meant.
pub(super) async fn find(desk: &Desk, which: &Which) -> anyhow::Result<Position> {
    match which.position {
        Some(position) => Ok(position),
        None => Ok(read(&fetch(desk, which).await?, which)?.position),
    }
}

/// What a person calls the event, e.g. `Event 137, OrderCreated of 01a20c37-…`.
pub(super) fn title(position: Position, event: &Envelope) -> String {
    let subject = event.subject.as_deref().map(|subject| format!(" of {}", printable(subject))).unwrap_or_default();
    format!("Event {position}, {}{subject}", name_of(event))
}

/// That there is no such event, in words that name it.
pub(super) fn not_found(error: anyhow::Error, which: &Which) -> anyhow::Error {
    let is_missing = error.downcast_ref::<Refused>().is_some_and(|refused| refused.code == "not_found");
    let named = match (which.position, &which.source, &which.id) {
        (Some(position), ..) => format!("there is no event at position {position}"),
        (None, Some(source), Some(id)) => format!("there is no event `{id}` of the source `{source}`"),
        (None, ..) => return error,
    };
    if is_missing { anyhow::anyhow!(named) } else { error }
}

async fn fetch(desk: &Desk, which: &Which) -> anyhow::Result<Answer> {
    let path = match which.position {
        Some(position) => format!("/api/events/{position}"),
        None => {
            let named = [("source", &which.source), ("id", &which.id)];
            with_query("/api/events", named.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))))
        }
    };
    desk.shop.get(&path).await.map_err(|error| not_found(error, which))
}

fn read<'a>(answer: &'a Answer, which: &Which) -> anyhow::Result<Found<'a>> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }
    let json = match which.position {
        Some(_) => answer.read::<&RawValue>()?,
        // Named by its source and id it comes as a page.
        None => answer.read::<Page<'_>>()?.items.first().copied().context("the shop found no event, and did not say so")?,
    };
    Found::read(json).context("the event cannot be read: is it this version of the shop?")
}

fn draw(found: &Found<'_>, form: Form, when: &When) -> String {
    format!("{}\n{}", form.bold(&title(found.position, &found.event)), whole(&found.event, form, when))
}

/// All of an event, in lines.
pub(crate) fn whole(event: &Envelope, form: Form, when: &When) -> String {
    let text = |text: &str| Some(printable(text));
    let facts = Some(event_line::detail_of(event)).filter(|facts| !facts.is_empty());
    let mut fields = vec![
        ("facts", facts),
        ("type", text(&event.ty)),
        ("source", text(&event.source)),
        ("id", text(event.id.as_str())),
        ("subject", event.subject.as_deref().and_then(text)),
        ("time", event.time.map(|time| when.full(time))),
        ("sequence", event.sequence.map(|sequence| sequence.to_string())),
        ("caused by", event.causationid.as_ref().and_then(|id| text(id.as_str()))),
        ("owner", event.owner.as_deref().and_then(text)),
        ("scenario", event.scenario.as_deref().and_then(text)),
        ("traceparent", event.traceparent.as_deref().and_then(text)),
    ];
    fields.extend(event.extensions.iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name.as_str(), text(&value))
    }));
    let data = event.data.as_deref().map(pretty);
    fields.push(("data", data));
    form.fields(&fields)
}

fn pretty(data: &RawValue) -> String {
    let json: Option<Value> = serde_json::from_str(data.get()).ok();
    json.and_then(|json| serde_json::to_string_pretty(&json).ok()).unwrap_or_else(|| data.get().to_owned())
}
