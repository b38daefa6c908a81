//! Publishing what a file holds: one event, a list, or one a line. What lands is an ordered beginning; the first event that is refused ends
//! it, and is named.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, anyhow, bail};
use axum::http::Method;
use kit::{Position, envelope::BATCH_JSON};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::EventsFlags;
use crate::{
    form::Form,
    operator::{Refused, Request, Shop, block_on},
    scenario::drawing::printable,
    usage::WrongUsage,
};

/// The largest file, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The most events that the shop takes in one request, and about how many bytes of them.
const BATCH_EVENTS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Publishes it.
pub(super) fn run(flags: &EventsFlags, file: &Path) -> anyhow::Result<()> {
    if flags.operator.access.token_file.is_none() {
        // The secret says that an operator asks, and an operator publishes nothing: each event says whose it is.
        let said = "publishing takes --token-file, with a token that may publish: `cascade tokens create NAME --publish-as … --publish …`";
        return Err(WrongUsage(String::from(said)).into());
    }
    let text = read(file)?;
    let events = take_apart(&text).with_context(|| name_of(file))?;
    if events.is_empty() {
        bail!("{} holds no event", name_of(file));
    }
    let desk = flags.operator.desk()?;
    block_on(publish(&desk.shop, desk.form, &events))
}

/// An event of the file, and the line on which it begins.
#[derive(Debug, Clone, Copy)]
struct Placed<'a> {
    json: &'a RawValue,
    line: usize,
}

async fn publish(shop: &Shop, form: Form, events: &[Placed<'_>]) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Published {
        results: Vec<Landed>,
    }
    #[derive(Deserialize)]
    struct Landed {
        position: Position,
        duplicate: bool,
    }
    let (mut landed, mut duplicates) = (0, 0);
    for batch in batches(events) {
        let texts: Vec<&str> = batch.iter().map(|event| event.json.get()).collect();
        let request = Request { body: Some((BATCH_JSON, format!("[{}]", texts.join(",")))), condition: None };
        let answer = match shop.send(Method::POST, "/api/events", request).await {
            Ok(answer) => answer,
            Err(error) => return Err(refused(error, events, batch, landed)),
        };
        let Published { results } = answer.read()?;
        let mut text = String::new();
        for (event, result) in batch.iter().zip(&results) {
            let again = if result.duplicate { "  (was there already)" } else { "" };
            text.push_str(&form.line(&format!("{:>8}  {}{again}", result.position, called(event.json))));
        }
        form.show(&answer, || Ok(text))?;
        landed += results.len();
        duplicates += results.iter().filter(|result| result.duplicate).count();
    }
    if !form.is_json() {
        let again = if duplicates == 0 { String::new() } else { format!(", {duplicates} of them before") };
        form.remark(&format!("{landed} of {} events are in the log{again}.", events.len()));
    }
    Ok(())
}

/// Which event was refused and why, and what landed before it.
fn refused(error: anyhow::Error, events: &[Placed<'_>], batch: &[Placed<'_>], before: usize) -> anyhow::Error {
    let tell = |landed: usize| match landed {
        0 => String::from("nothing of the file is in the log"),
        landed => format!("the first {landed} of {} events are in the log", events.len()),
    };
    let Some(refused) = error.downcast_ref::<Refused>() else {
        // Without an answer nobody knows; to publish again changes nothing that is there.
        return match before {
            0 => error,
            _ => error.context(format!("{}, and perhaps more; to publish the file again does no harm", tell(before))),
        };
    };
    let Some(landed) = refused.landed else { return anyhow!("{refused}; {}", tell(before)) };
    // `/2/time` in a batch: the attribute alone, since the event is named.
    let attribute = refused.field.as_deref().and_then(|field| field.splitn(3, '/').nth(2)).filter(|attribute| !attribute.is_empty());
    let attribute = attribute.map(|attribute| format!(" (`{attribute}`)")).unwrap_or_default();
    let (number, which) = match batch.get(landed) {
        Some(event) => (before + landed + 1, format!(", {}, on line {}", called(event.json), event.line)),
        None => (before + landed + 1, String::new()),
    };
    anyhow!("event {number}{which} was refused: {refused}{attribute}; {}", tell(before + landed))
}

/// The source and the id, where it has them.
fn called(json: &RawValue) -> String {
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        source: Option<String>,
        #[serde(default)]
        id: Option<String>,
    }
    match serde_json::from_str(json.get()) {
        Ok(Named { source: Some(source), id: Some(id) }) => format!("`{}` of {}", printable(&id), printable(&source)),
        Ok(_) | Err(_) => String::from("without a name"),
    }
}

/// Parts that the shop takes at once.
fn batches<'a, 'b>(events: &'b [Placed<'a>]) -> Vec<&'b [Placed<'a>]> {
    let (mut batches, mut rest) = (Vec::new(), events);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(BATCH_EVENTS_MAX).take_while(|event| {
            bytes += event.json.get().len();
            bytes <= BATCH_BYTES_MAX
        });
        // An event that is too large alone is the shop's to refuse.
        let (batch, more) = rest.split_at(fits.count().max(1).min(rest.len()));
        batches.push(batch);
        rest = more;
    }
    batches
}

/// The events of a text that is JSON, one value or many: each an event, or a list of them.
fn take_apart(text: &str) -> anyhow::Result<Vec<Placed<'_>>> {
    let mut events = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let value = value?;
        if value.get().starts_with('[') {
            let list: Vec<&RawValue> = serde_json::from_str(value.get())?;
            events.extend(list);
        } else {
            events.push(value);
        }
    }
    let (mut line, mut counted) = (1, 0);
    let placed = events.into_iter().map(|json| {
        // It is a part of the text: where it begins is how far it is from the text's beginning.
        let start = (json.get().as_ptr().addr()).saturating_sub(text.as_ptr().addr());
        line += text.get(counted..start).unwrap_or_default().matches('\n').count();
        counted = start.max(counted);
        Placed { json, line }
    });
    Ok(placed.collect())
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let source: Box<dyn Read> =
        if file == Path::new("-") { Box::new(std::io::stdin()) } else { Box::new(File::open(file).with_context(|| name_of(file))?) };
    source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(|| name_of(file))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("{} is larger than 256 MiB", name_of(file));
    }
    Ok(text)
}

fn name_of(file: &Path) -> String {
    if file == Path::new("-") { String::from("stdin") } else { format!("`{}`", file.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, &str)> {
        take_apart(text).unwrap().into_iter().map(|event| (event.line, event.json.get())).collect()
    }

    #[test]
    fn a_file_holds_one_event_a_list_or_one_a_line() {
        assert_eq!(lines("\n {\"a\": 1}\n"), [(2, "{\"a\": 1}")]);
        assert_eq!(lines("{\"a\":1}\n{\"a\":2}\n\n{\"a\":3}"), [(1, "{\"a\":1}"), (2, "{\"a\":2}"), (4, "{\"a\":3}")]);
        assert_eq!(lines("[\n{\"a\":1},\n{\"a\":2}]"), [(2, "{\"a\":1}"), (3, "{\"a\":2}")]);
        assert!(lines(" ").is_empty() && lines("[]").is_empty());
        let said = take_apart("{\"a\":1}\n{\"a\":").unwrap_err().to_string();
        assert!(said.contains("line 2"), "{said}");
    }

    #[test]
    fn a_large_file_goes_in_parts_that_the_shop_takes() {
        let text = "{\"a\":1}\n".repeat(2_500);
        let events = take_apart(&text).unwrap();
        assert_eq!(batches(&events).iter().map(|batch| batch.len()).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        let text = format!("\"{}\"\n", "x".repeat(3 * 1024 * 1024)).repeat(3);
        let events = take_apart(&text).unwrap();
        assert_eq!(batches(&events).len(), 3);
    }

    #[test]
    fn a_refused_event_is_named_with_its_place_in_the_file() {
        let text = "{\"source\":\"/l\",\"id\":\"1\"}\n{\"source\":\"/l\",\"id\":\"2\"}\n{\"x\":3}\n";
        let events = take_apart(text).unwrap();
        assert_eq!(called(events[1].json), "`2` of /l");
        assert_eq!(called(events[2].json), "without a name");
        let lost = refused(anyhow!("connection reset"), &events, &events[1..], 1).to_string();
        assert!(lost.contains("the first 1 of 3 events are in the log, and perhaps more"), "{lost}");
    }
}
