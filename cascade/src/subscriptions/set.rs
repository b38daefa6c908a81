//! Changing what a subscription asks for, field by field, where it stands.

use anyhow::anyhow;
use axum::http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::{Desk, flags::Set};
use crate::{
    form::print,
    operator::{Condition, Refused, Request},
    scenario::drawing::printable,
};

const MERGE_PATCH_JSON: &str = "application/merge-patch+json";
/// What can be changed, as JSON pointers.
const FIELDS: [&str; 11] = [
    "/sink",
    "/types",
    "/filters",
    "/batch/events_max",
    "/batch/wait_ms",
    "/retry/attempts_max",
    "/retry/age_ms_max",
    "/retry/backoff_ms",
    "/retry/backoff_ms_max",
    "/on_exhausted",
    "/required",
];

/// Changes it, unless somebody else did meanwhile.
pub(super) async fn run(desk: &Desk, set: &Set) -> anyhow::Result<()> {
    let (name, path, patch) = (&set.name, format!("/api/subscriptions/{}", set.name), set.patch()?);
    let found = desk.shop.get(&path).await?;
    let before: Value = found.read()?;
    let etag = HeaderValue::try_from(found.etag.as_deref().unwrap_or("*"))?;
    if set.if_match.as_ref().is_some_and(|wanted| wanted != "*" && *wanted != etag) {
        return Err(changed_meanwhile(name));
    }
    let mut would_be = before.clone();
    merge(&mut would_be, &patch);
    let would = changes(&before, &would_be);
    if set.dry_run {
        if desk.form.is_json() {
            let changes: Vec<_> = would.iter().map(|one| json!({"field": one.field(), "from": one.from, "to": one.to})).collect();
            return print(&format!("{}\n", json!({"dry_run": true, "patch": patch, "changes": changes})));
        }
        return print(&told(&format!("The subscription `{name}` would change:"), &would, name));
    }
    if would.is_empty() {
        return desk.form.show(&found, || Ok(told("", &would, name)));
    }
    let body = Some((MERGE_PATCH_JSON, patch.to_string()));
    let answer = desk.shop.send(Method::PATCH, &path, Request { body, condition: Some(Condition::IfMatch(etag)) }).await;
    let answer = answer.map_err(|error| match error.downcast_ref::<Refused>() {
        Some(refused) if refused.status == StatusCode::PRECONDITION_FAILED => changed_meanwhile(name),
        Some(_) | None => error,
    })?;
    let after: Value = answer.read()?;
    let said = told(&format!("The subscription `{name}` is changed:"), &changes(&before, &after), name);
    // A secret goes alone, so that it can be put into a file.
    if let (false, Some(secret)) = (desk.form.is_json(), after.get("secret").and_then(Value::as_str)) {
        desk.form.remark(said.trim_end());
        return print(&format!("{secret}\n"));
    }
    desk.form.show(&answer, || Ok(said))
}

fn changed_meanwhile(name: &str) -> anyhow::Error {
    anyhow!("the subscription `{name}` was changed by somebody else, and is left as it is; `cascade subscriptions show {name}` tells how")
}

/// A field before and after; what is not there has its default.
struct Change<'a> {
    pointer: &'static str,
    from: Option<&'a Value>,
    to: Option<&'a Value>,
}

impl Change<'_> {
    fn field(&self) -> String {
        self.pointer.trim_start_matches('/').replace('/', ".")
    }

    fn words(&self, value: Option<&Value>) -> String {
        match (self.pointer, value) {
            (_, None) => String::from("its default"),
            ("/types", Some(Value::Null)) => String::from("all"),
            ("/filters", Some(Value::Array(filters))) if filters.is_empty() => String::from("none"),
            (_, Some(Value::Null)) => String::from("none"),
            (_, Some(Value::String(text))) => printable(text),
            (_, Some(other)) => printable(&other.to_string()),
        }
    }
}

fn changes<'a>(before: &'a Value, after: &'a Value) -> Vec<Change<'a>> {
    let both = FIELDS.into_iter().map(|pointer| Change { pointer, from: before.pointer(pointer), to: after.pointer(pointer) });
    both.filter(|change| change.from != change.to).collect()
}

/// The changes for people, each on a line.
fn told(heading: &str, changes: &[Change<'_>], name: &str) -> String {
    if changes.is_empty() {
        return format!("Nothing changes: that is what `{name}` asks for.\n");
    }
    let widest = changes.iter().map(|change| change.field().len()).max().unwrap_or(0);
    let lines = changes
        .iter()
        .map(|change| format!("  {:widest$}  {} -> {}\n", change.field(), change.words(change.from), change.words(change.to)));
    format!("{heading}\n{}", lines.collect::<String>())
}

/// Applies a merge patch (RFC 7396). What is put back to its default is not there afterwards: only the shop knows the defaults.
fn merge(target: &mut Value, patch: &Value) {
    let (Value::Object(fields), Value::Object(patch)) = (&mut *target, patch) else {
        *target = patch.clone();
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_with_what_was_before() {
        let before = json!({
            "sink": "http://a/", "types": ["l.Made.v1"], "filters": [], "batch": {"events_max": 64, "wait_ms": 0},
            "retry": {"age_ms_max": null, "backoff_ms": 100}, "required": null,
        });
        let mut after = before.clone();
        merge(&mut after, &json!({"types": null, "batch": {"events_max": 10}, "retry": {"age_ms_max": 5000}, "sink": "http://b\u{1b}/"}));
        let expected = "l:\n  sink              http://a/ -> http://b\u{fffd}/\n  types             [\"l.Made.v1\"] -> its default\n  \
                        batch.events_max  64 -> 10\n  retry.age_ms_max  none -> 5000\n";
        assert_eq!(told("l:", &changes(&before, &after), "l"), expected);
        assert!(told("l:", &changes(&before, &before), "l").starts_with("Nothing changes"));
    }
}
