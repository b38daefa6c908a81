//! Pages of the log, one after the other, until there are as many events as were asked for.

use kit::Position;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Desk, Found, flags::ListFlags, follow, line::Lines};
use crate::{form::print, operator::with_query};

/// How many events are listed if nobody says otherwise.
const LIMIT: u32 = 100;
/// How many events a page of the shop holds at most.
const PAGE_MAX: u32 = 1_000;

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    next: Option<Position>,
}

/// Lists the events that are wanted.
pub(super) async fn run(desk: &Desk, wanted: &ListFlags) -> anyhow::Result<()> {
    let mut after = match wanted.last {
        Some(count) => Some(follow::before_the_newest(desk, count).await?),
        None => wanted.after,
    };
    let (when, mut lines) = (desk.when(), Lines::new(desk.form));
    let limit = wanted.limit.unwrap_or(LIMIT);
    let mut left = limit;
    loop {
        let mut query = vec![("limit", left.min(PAGE_MAX).to_string())];
        query.extend(after.map(|after| ("after", after.to_string())));
        query.extend(wanted.subject.clone().map(|subject| ("subject", subject)));
        if !wanted.types.is_empty() {
            query.push(("types", wanted.types.join(",")));
        }
        let answer = desk.shop.get(&with_query("/api/events", query)).await?;
        let page: Page<'_> = answer.read()?;
        let mut text = String::new();
        for json in page.items {
            text.push_str(&lines.draw(&Found::read(json)?, &when));
            left = left.saturating_sub(1);
        }
        print(&text)?;
        match page.next {
            Some(next) if left == 0 => {
                desk.form.remark(&format!("There are more: --after {next}"));
                return Ok(());
            }
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if left == limit && !desk.form.is_json() {
        desk.form.remark("The log has no such event.");
    }
    Ok(())
}
