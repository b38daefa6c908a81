//! Events as they happen, for browsers: over WebSocket or server-sent events, from any place in the log.
//!
//! A stream reads the log from its own cursor, so a slow reader costs nothing but its own lag.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{
        FromRequestParts, Request, State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket},
    },
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use http::{HeaderMap, StatusCode, header};
use kit::{
    Lifecycle, Position, Problem, Recorded,
    http::{Caller, Query, Remote, identity::GateOf, layers::is_same_origin},
};
use serde::Deserialize;
use tokio::time::MissedTickBehavior;

use crate::{
    Shared,
    engine::{EngineError, LogEngine, tail::Tail},
    http::engine_problem,
};

/// How often a silent connection is proven alive.
const PING: Duration = Duration::from_secs(20);
/// How long a reader may take to take a page.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The most WebSockets at once.
pub(crate) const SOCKETS_MAX: usize = 12_000;
/// The largest message that a client may send; we expect none.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// How many events are read at once.
const PAGE: usize = 256;
/// The subprotocol (CloudEvents WebSocket binding, section 3.2).
const SUBPROTOCOL: &str = "cloudevents.json";
/// Close codes: the server goes away (RFC 6455); the cursor is not in this log (ours).
const GOING_AWAY: u16 = 1001;
const RESET: u16 = 4410;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiveQuery {
    subject: Option<String>,
    after: Option<i64>,
    share: Option<String>,
}

pub(crate) async fn live(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    GateOf(gate): GateOf,
    remote: Remote,
    Query(query): Query<LiveQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let gate = gate.ok_or_else(Problem::internal)?;
    let filter = Filter::choose(&shared, &caller, &gate, &query).await?;
    let headers = request.headers();
    let resumed = header_text(headers, "last-event-id").and_then(|id| id.parse().ok());
    let last = shared.engine.tail().last();
    let from_start = if query.subject.is_some() { Position::START } else { last };
    let after = resumed.or(query.after).map_or(from_start, |after: i64| Position(after.max(0)));
    let cursor = Cursor { engine: shared.engine.clone(), tail: shared.engine.tail(), history: query.subject.clone(), filter, after };
    let is_reset = after > last;
    let lifecycle = shared.lifecycle.clone();
    if header_text(headers, "accept").is_some_and(|accept| accept.contains("text/event-stream")) {
        return Ok(send_events(cursor, is_reset, lifecycle));
    }
    let host = header_text(headers, "host").unwrap_or_default();
    if !is_same_origin(headers, host, remote.scheme) {
        return Err(Problem::forbidden("sockets from other sites are not taken"));
    }
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|_| {
        Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "this speaks WebSocket, or text/event-stream if you accept that")
    })?;
    // An upgraded connection is no longer counted by the server.
    let Ok(seat) = shared.sockets.clone().try_acquire_owned() else { return Err(Problem::unavailable("too many live streams are open")) };
    let upgrade = upgrade.protocols([SUBPROTOCOL]).max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(async move |socket| {
        let tracker = lifecycle.clone();
        // On our own tracker, so that a stop waits until the client has been told.
        tracker.spawn_request(async move {
            send_frames(socket, cursor, is_reset, lifecycle).await;
            drop(seat);
        });
    }))
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What a stream shows.
struct Filter {
    subject: Option<String>,
    /// None shows everybody's.
    owner: Option<String>,
}

impl Filter {
    async fn choose(shared: &Shared, caller: &Caller, gate: &kit::http::Gate, query: &LiveQuery) -> Result<Self, Problem> {
        let owner = match (caller, &query.subject) {
            (Caller::Operator, _) => None,
            (_, Some(subject)) => {
                let first = shared.engine.read_lane(subject, Position::START, 1).await.map_err(|error| engine_problem(&error))?;
                let unknown = || Problem::not_found("no such subject");
                match (first.first(), caller) {
                    (_, _) if caller.may_read(gate, None, subject, query.share.as_deref()) => None,
                    (Some(first), _) if caller.may_read(gate, first.event.owner.as_deref(), subject, None) => None,
                    // Its first event is still on its way; only what turns out to be theirs is shown.
                    (None, Caller::Guest(owner)) => Some(owner.clone()),
                    (Some(_) | None, _) => return Err(unknown()),
                }
            }
            (Caller::Guest(owner), None) => Some(owner.clone()),
            (Caller::Anonymous, None) => return Err(Problem::unauthorized()),
            (Caller::Service(_), None) => return Err(Problem::forbidden("services get events by subscribing")),
        };
        Ok(Self { subject: query.subject.clone(), owner })
    }

    fn shows(&self, recorded: &Recorded) -> bool {
        let is_subject = self.subject.as_deref().is_none_or(|subject| recorded.event.subject.as_deref() == Some(subject));
        is_subject && self.owner.as_deref().is_none_or(|owner| recorded.event.owner.as_deref() == Some(owner))
    }
}

/// A reader's place in the log.
struct Cursor {
    engine: Arc<dyn LogEngine>,
    tail: Tail,
    /// The lane whose past is still to be read; then the tail is followed.
    history: Option<String>,
    filter: Filter,
    after: Position,
}

impl Cursor {
    /// The next events, when there are some. Nothing is lost when it is dropped before.
    async fn next(&mut self) -> Result<Vec<Recorded>, EngineError> {
        loop {
            let last = self.tail.look();
            let (page, until) = match &self.history {
                Some(lane) => {
                    let page = self.engine.read_lane(lane, self.after, PAGE).await?;
                    let until = page.last().map(|one| one.position);
                    (page, until)
                }
                None => {
                    let page = self.engine.read(self.after, PAGE).await?;
                    let until = page.last().map(|one| one.position);
                    (page, until)
                }
            };
            match until {
                Some(until) => self.after = until,
                None if self.history.take().is_some() => {
                    // The lane had nothing more up to `last`; what came since is read again from there.
                    self.after = self.after.max(last);
                    continue;
                }
                None => {
                    if self.tail.moved().await.is_err() {
                        return Err(EngineError::Closed);
                    }
                    continue;
                }
            }
            let shown: Vec<_> = page.into_iter().filter(|one| self.filter.shows(one)).collect();
            if !shown.is_empty() {
                return Ok(shown);
            }
            tokio::task::yield_now().await;
        }
    }
}

fn send_events(cursor: Cursor, is_reset: bool, lifecycle: Lifecycle) -> Response {
    struct Stream {
        cursor: Cursor,
        waiting: VecDeque<Recorded>,
        is_reset: bool,
        lifecycle: Lifecycle,
    }
    let stream = Stream { cursor, waiting: VecDeque::new(), is_reset, lifecycle };
    let events = futures_util::stream::unfold(stream, async |mut stream| {
        if std::mem::take(&mut stream.is_reset) {
            stream.cursor.after = stream.cursor.tail.last();
            let event = Event::default().event("reset").data("the cursor is not in this log");
            return Some((Ok::<_, Infallible>(event), stream));
        }
        while stream.waiting.is_empty() {
            let lifecycle = stream.lifecycle.clone();
            tokio::select! {
                biased;
                () = lifecycle.drained() => return None,
                page = stream.cursor.next() => match page {
                    Ok(page) => stream.waiting.extend(page),
                    Err(error) => {
                        tracing::warn!(%error, "a live stream ends");
                        return None;
                    }
                },
            }
        }
        let recorded = stream.waiting.pop_front()?;
        let event = Event::default().event("message").id(recorded.position.to_string()).json_data(&recorded).ok()?;
        Some((Ok(event), stream))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(PING)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

async fn send_frames(mut socket: WebSocket, mut cursor: Cursor, is_reset: bool, lifecycle: Lifecycle) {
    if is_reset {
        return close(&mut socket, RESET, "the cursor is not in this log").await;
    }
    let mut ping = tokio::time::interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.reset();
    let mut is_alive = true;
    loop {
        tokio::select! {
            biased;
            () = lifecycle.drained() => return close(&mut socket, GOING_AWAY, "the broker is stopping").await,
            _ = ping.tick() => {
                if !std::mem::replace(&mut is_alive, false) || !write(&mut socket, vec![Message::Ping(bytes::Bytes::new())]).await {
                    return;
                }
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => is_alive = true,
            },
            page = cursor.next() => match page {
                Ok(page) => {
                    let texts = page.iter().filter_map(|one| serde_json::to_string(one).ok());
                    if !write(&mut socket, texts.map(|text| Message::Text(text.into())).collect()).await {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a live stream ends");
                    return close(&mut socket, GOING_AWAY, "the log cannot be read").await;
                }
            },
        }
    }
}

/// Sends messages; false when the reader is gone or too slow.
async fn write(socket: &mut WebSocket, messages: Vec<Message>) -> bool {
    use futures_util::SinkExt;
    let all = async {
        for message in messages {
            socket.feed(message).await?;
        }
        socket.flush().await
    };
    matches!(tokio::time::timeout(WRITE_TIMEOUT, all).await, Ok(Ok(())))
}

async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: reason.into() };
    let _ = tokio::time::timeout(Duration::from_secs(1), socket.send(Message::Close(Some(frame)))).await;
}
