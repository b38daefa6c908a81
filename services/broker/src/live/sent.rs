//! A stream as server-sent events (WHATWG HTML, section 9.2): an event's `id` is the cursor after it, so that browsers resume by themselves.

use std::{convert::Infallible, time::Duration, vec};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, Sse},
};
use http::{HeaderValue, header};
use kit::{Position, Recorded};
use tokio::time::Instant;

use super::{
    WRITE_TIMEOUT,
    notice::{Ending, Notice},
    stream::{Item, Stream},
};

/// How long browsers wait before they come back, at least, and how much longer at most: not all at the same moment.
const RETRY_MS_MIN: u64 = 500;
const RETRY_MS_SPREAD: u64 = 3_000;

/// Answers with `stream`.
pub(super) fn respond(stream: Stream) -> Response {
    let cursor = stream.first_cursor();
    let sender = Sender { stream, waiting: Vec::new().into_iter(), cursor, given_at: None, is_over: false };
    let events = futures_util::stream::unfold(sender, async |mut sender| {
        let event = sender.next().await?;
        sender.given_at = Some(Instant::now());
        Some((Ok::<_, Infallible>(event), sender))
    });
    let mut response = Sse::new(events).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

struct Sender {
    stream: Stream,
    /// What was read and is not given yet.
    waiting: vec::IntoIter<Recorded>,
    /// Up to here everything was given.
    cursor: Position,
    /// When something was given last: what comes next is asked for when the connection has room again.
    given_at: Option<Instant>,
    is_over: bool,
}

impl Sender {
    async fn next(&mut self) -> Option<Event> {
        if self.is_over {
            return None;
        }
        if self.given_at.is_some_and(|given_at| given_at.elapsed() > WRITE_TIMEOUT) {
            return Some(self.end(Ending::TooSlow));
        }
        loop {
            if let Some(recorded) = self.waiting.next() {
                return Some(self.event(&recorded));
            }
            match self.stream.next().await {
                Item::Events(events) => self.waiting = events.into_iter(),
                Item::Notice(notice) => return Some(self.notice(&notice)),
                Item::End(ending) => return Some(self.end(ending)),
            }
        }
    }

    fn event(&mut self, recorded: &Recorded) -> Event {
        match Event::default().event("message").id(recorded.position.to_string()).json_data(recorded) {
            Ok(event) => {
                self.cursor = recorded.position;
                event
            }
            Err(_) => self.end(Ending::Unreadable),
        }
    }

    fn notice(&mut self, notice: &Notice) -> Event {
        let environment = &self.stream.live().environment;
        let mut event = Event::default().event(notice.name()).data(notice.to_json(environment));
        if matches!(notice, Notice::Welcome { .. }) {
            event = event.retry(Duration::from_millis(RETRY_MS_MIN + environment.ids.up_to(RETRY_MS_SPREAD)));
        }
        if let Some(cursor) = notice.cursor() {
            self.cursor = cursor;
            event = event.id(cursor.to_string());
        }
        event
    }

    fn end(&mut self, reason: Ending) -> Event {
        self.is_over = true;
        self.stream.ends(reason);
        self.notice(&Notice::End { reason, after: self.cursor })
    }
}
