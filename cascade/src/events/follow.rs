//! Events as they happen: what the shop sends, from a place in the log on, across every interruption.

use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::http::StatusCode;
use kit::{Position, http::client::ClientError};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Desk, Found, flags::ListFlags, line::Lines};
use crate::{
    form::print,
    operator::{Refused, with_query},
    scenario::{EXIT_INTERRUPTED, drawing::printable, feed::Sent},
    signals::Signals,
};

/// The pause before a stream that ended is opened again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Shows events until there are as many as were asked for, or somebody has seen enough.
pub(super) async fn run(desk: &Desk, wanted: &ListFlags) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("signals cannot be listened to")?;
    tokio::select! {
        biased;
        done = follow(desk, wanted) => done,
        () = signals.next() => std::process::exit(EXIT_INTERRUPTED),
    }
}

/// The position before the `count` newest events of the log.
pub(super) async fn before_the_newest(desk: &Desk, count: u32) -> anyhow::Result<Position> {
    let mut feed = desk.shop.stream("/api/live").await?;
    loop {
        let sent = feed.next().await.context("the shop does not say where its log ends")?;
        let sent = sent.ok_or_else(|| anyhow!("the shop does not say where its log ends"))?;
        if sent.name == "welcome" {
            let end = cursor(&sent)?.after;
            return Ok(Position(end.0.saturating_sub(i64::from(count)).max(0)));
        }
    }
}

/// How a stream ended.
enum End {
    /// All that was asked for was shown.
    Enough,
    /// The shop wants to look at who we are again: nobody needs to know.
    CheckedAgain,
    /// It can be opened again when the shop is back.
    Broken(String),
}

struct Follower<'a> {
    desk: &'a Desk,
    wanted: &'a ListFlags,
    lines: Lines,
    after: Option<Position>,
    left: Option<u32>,
    /// Whether the shop was there once.
    is_known: bool,
    /// Whether it was said that it is away.
    is_away: bool,
}

async fn follow(desk: &Desk, wanted: &ListFlags) -> anyhow::Result<()> {
    let after = match wanted.last {
        Some(count) => Some(before_the_newest(desk, count).await?),
        None => wanted.after,
    };
    let lines = Lines::new(desk.form);
    let mut follower = Follower { desk, wanted, lines, after, left: wanted.limit, is_known: false, is_away: false };
    loop {
        let reason = match follower.stream().await {
            Ok(End::Enough) => return Ok(()),
            Ok(End::CheckedAgain) => None,
            Ok(End::Broken(reason)) => Some(reason),
            // A shop that is not there at the beginning is an error; later it is waited for.
            Err(error) if follower.is_known && may_pass(&error) => Some(format!("{error:#}")),
            Err(error) => return Err(error),
        };
        if let Some(reason) = reason.filter(|_| !follower.is_away) {
            follower.is_away = true;
            desk.form.remark(&format!("… {reason}; waiting for the shop"));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

impl Follower<'_> {
    async fn stream(&mut self) -> anyhow::Result<End> {
        let mut query = Vec::new();
        query.extend(self.wanted.subject.clone().map(|subject| ("subject", subject)));
        query.extend(self.after.map(|after| ("after", after.to_string())));
        let mut feed = self.desk.shop.stream(&with_query("/api/live", query)).await?;
        self.is_known = true;
        loop {
            let sent = match feed.next().await {
                Ok(Some(sent)) => sent,
                Ok(None) => return Ok(End::Broken(String::from("the stream ended"))),
                Err(error) => return Ok(End::Broken(error.to_string())),
            };
            if std::mem::take(&mut self.is_away) {
                self.desk.form.remark("… the shop is back; going on");
            }
            match sent.name.as_str() {
                "" | "message" => {
                    let is_last = self.show(&sent)?;
                    if is_last {
                        return Ok(End::Enough);
                    }
                }
                "welcome" | "heartbeat" => self.after = Some(self.after.unwrap_or(Position::START).max(cursor(&sent)?.after)),
                "reset" => {
                    let Cursor { after, reason } = cursor(&sent)?;
                    let why = if reason == "trimmed" { "the log has lost events" } else { "this is another log" };
                    self.desk.form.remark(&format!("… {why}; going on after {after}"));
                    self.after = Some(after);
                }
                "end" => {
                    let Cursor { after, reason } = cursor(&sent)?;
                    self.after = Some(after);
                    return Ok(match reason.as_str() {
                        "session_check" => End::CheckedAgain,
                        reason => End::Broken(format!("the stream ended: {}", printable(&reason.replace('_', " ")))),
                    });
                }
                // What is not known here is not meant for us.
                _ => {}
            }
        }
    }

    /// Shows one event, if it is wanted; answers whether that was the last one.
    fn show(&mut self, sent: &Sent) -> anyhow::Result<bool> {
        let json: &RawValue = serde_json::from_str(&sent.data).context("the shop sent an event that cannot be read")?;
        let found = Found::read(json).context("the shop sent an event that cannot be read")?;
        self.after = Some(found.position);
        if !self.wanted.types.is_empty() && !self.wanted.types.contains(&found.event.ty) {
            return Ok(false);
        }
        print(&self.lines.draw(&found, &self.desk.when()))?;
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(self.left == Some(0))
    }
}

/// Where a stream stands, and perhaps why.
struct Cursor {
    after: Position,
    reason: String,
}

fn cursor(sent: &Sent) -> anyhow::Result<Cursor> {
    #[derive(Deserialize)]
    struct Notice {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        after: Position,
        #[serde(default)]
        reason: String,
    }
    let Notice { data: Data { after, reason } } =
        serde_json::from_str(&sent.data).with_context(|| format!("the shop's `{}` cannot be read", sent.name))?;
    Ok(Cursor { after, reason })
}

/// Whether asking again may help: the shop is away, too busy, or broken.
fn may_pass(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Refused>() {
        Some(refused) => refused.status == StatusCode::TOO_MANY_REQUESTS || refused.status.is_server_error(),
        None => error.chain().any(|cause| cause.is::<ClientError>()),
    }
}
