//! What a subscription asks for: registering and changing it, its secret, its end.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, anyhow, bail};
use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Desk,
    flags::{Apply, Delete},
};
use crate::{
    form::print,
    operator::{Answer, Condition, Refused, Request},
};

/// The largest file that is sent, in bytes: what the shop takes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

#[derive(Deserialize)]
struct Registered {
    name: String,
    revision: i64,
    secret: Option<String>,
}

/// Registers or changes it.
pub(super) async fn apply(desk: &Desk, apply: &Apply) -> anyhow::Result<()> {
    let body = read_json(&apply.file)?;
    let request = Request { condition: apply.condition(), ..Request::json(&body) };
    let asked = desk.shop.send(Method::PUT, &format!("/api/subscriptions/{}", apply.name), request).await;
    let answer = asked.map_err(|error| match (apply.condition(), error.downcast_ref::<Refused>()) {
        (Some(Condition::IfNone), Some(refused)) if refused.status == StatusCode::PRECONDITION_FAILED => {
            anyhow!("there is a subscription `{}` already", apply.name)
        }
        _ => error,
    })?;
    show_secret(desk, &answer, |one| {
        let etag = answer.etag.as_ref().map(|etag| format!(", ETag {etag}")).unwrap_or_default();
        format!("The subscription `{}` is registered, revision {}{etag}.", one.name, one.revision)
    })
}

/// Gives it another secret.
pub(super) async fn rotate_secret(desk: &Desk, name: &str, grace_hours: u64) -> anyhow::Result<()> {
    let request = Request::json(&json!({"grace_s": grace_hours * 3_600}));
    let answer = desk.shop.send(Method::POST, &format!("/api/subscriptions/{name}/secret/rotate"), request).await?;
    show_secret(desk, &answer, |one| match grace_hours {
        0 => format!("Deliveries to `{}` are signed with this alone from now on.", one.name),
        hours => format!("Deliveries to `{}` are signed with this from now on, and for {hours} h with the old one too.", one.name),
    })
}

/// Ends it.
pub(super) async fn delete(desk: &Desk, delete: &Delete) -> anyhow::Result<()> {
    let name = &delete.name;
    delete.sure.confirm(&format!("The subscription `{name}` goes, with its place, its dead letters and its replays. Delete it?"))?;
    let request = Request { condition: delete.if_match.clone().map(Condition::IfMatch), ..Request::default() };
    let answer = desk.shop.send(Method::DELETE, &format!("/api/subscriptions/{name}"), request).await?;
    desk.form.show(&answer, || Ok(format!("The subscription `{name}` has ended.\n")))
}

/// A secret alone goes to stdout, so that it can be put into a file; what there is to say goes beside it.
fn show_secret(desk: &Desk, answer: &Answer, say: impl FnOnce(&Registered) -> String) -> anyhow::Result<()> {
    if desk.form.is_json() {
        return desk.form.show(answer, || Ok(String::new()));
    }
    let one: Registered = answer.read()?;
    let mut said = say(&one);
    if let Some(secret) = &one.secret {
        print(&format!("{secret}\n"))?;
        said.push_str(" The secret is shown this once.");
    }
    desk.form.remark(&said);
    Ok(())
}

/// The JSON that a file holds.
pub(super) fn read_json(file: &Path) -> anyhow::Result<Value> {
    let is_stdin = file == Path::new("-");
    let name = if is_stdin { String::from("stdin") } else { format!("`{}`", file.display()) };
    let mut text = String::new();
    let source: Box<dyn Read> =
        if is_stdin { Box::new(std::io::stdin()) } else { Box::new(File::open(file).with_context(|| name.clone())?) };
    source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(|| name.clone())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("{name} is larger than 256 KiB");
    }
    serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))
}
