//! Events as they happen, for browsers: over WebSocket or server-sent events, from any place in the log.
//!
//! A stream reads the log by an index up to its end, and from then on is told by the shared reader what concerns it. It holds places, not
//! events: a slow reader costs nothing but its own lag.

/// What a caller may see.
mod view;

/// Where a stream begins.
mod start;

/// The hand-over from the log to the shared reader.
mod place;

/// One task that follows the log for all streams.
mod reader;

/// What a stream says beside events.
pub(crate) mod notice;

/// One reader's stream.
mod stream;

/// How many there are.
mod tally;

/// Over WebSocket.
mod socket;

/// As server-sent events.
mod sent;

use std::{sync::Arc, task::Poll, time::Duration};

use axum::{
    extract::{FromRequestParts, Request, State, WebSocketUpgrade},
    response::Response,
};
use http::{HeaderMap, StatusCode};
use kit::{
    Environment, Lifecycle, Problem,
    http::{Query, Remote, identity::GateOf, layers::is_same_origin},
};
use serde::Deserialize;

use crate::{
    Shared,
    engine::LogEngine,
    http::{caller::Caller, events},
};
use notice::Ending;
use reader::Reader;
use stream::Stream;
use tally::Tally;
use view::View;

/// The most streams at once: fewer than a server has connections, so that they never take the last one.
const STREAMS_MAX: usize = 11_000;
/// How often a stream says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// How long a stream is open before its reader has to come back and is looked at again, at least; and how much longer at most.
const SESSION_CHECK: Duration = Duration::from_secs(60 * 60);
const SESSION_CHECK_SPREAD: Duration = Duration::from_secs(10 * 60);
/// How long a reader may take to make room for the next message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a reader may take for it when the broker stops.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest message that a client may send, in bytes; we expect none.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// A socket's buffers, in bytes: with ten thousand of them they count.
const READ_BUFFER_BYTES: usize = 512;
const WRITE_BUFFER_BYTES: usize = 2 * 1024;
/// The subprotocol (CloudEvents WebSocket binding, section 3.2).
const SUBPROTOCOL: &str = "cloudevents.json";

/// What all streams share.
pub(crate) struct Live {
    reader: Arc<Reader>,
    /// For whoever watches.
    pub(crate) tally: Tally,
    engine: Arc<dyn LogEngine>,
    environment: Environment,
    lifecycle: Lifecycle,
}

impl Live {
    /// Begins to follow the log.
    pub(crate) fn start(engine: Arc<dyn LogEngine>, environment: &Environment, lifecycle: &Lifecycle) -> Arc<Self> {
        let reader = Reader::start(engine.clone(), lifecycle);
        Arc::new(Self { reader, tally: Tally::default(), engine, environment: environment.clone(), lifecycle: lifecycle.clone() })
    }

    /// Waits for a write, unless it takes too long. Without an ending nobody is there any more.
    async fn in_time<E>(&self, write: impl Future<Output = Result<(), E>>) -> Result<Room, Option<Ending>> {
        let mut write = std::pin::pin!(write);
        let at_once = std::future::poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await;
        if let Poll::Ready(written) = at_once {
            return written.map(|()| Room::WasThere).map_err(|_| None);
        }
        let stopping = async {
            self.lifecycle.drained().await;
            tokio::time::sleep(LAST_WRITE_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            written = write => written.map(|()| Room::WasMade).map_err(|_| None),
            () = stopping => Err(Some(Ending::Stopping)),
            () = tokio::time::sleep(WRITE_TIMEOUT) => Err(Some(Ending::TooSlow)),
        }
    }
}

/// Where what was written went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// There was room for it.
    WasThere,
    /// The other end took something first: it is alive.
    WasMade,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiveQuery {
    subject: Option<String>,
    after: Option<String>,
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
    let headers = request.headers();
    let asked = start::asked(headers, query.after.as_deref())?;
    events::check_length(query.subject.as_deref())?;
    let view = View::choose(shared.engine.as_ref(), &caller, &gate, query.subject, query.share.as_deref()).await?;
    if !is_same_origin(headers, header_text(headers, "host").unwrap_or_default(), remote.scheme) {
        return Err(Problem::forbidden("streams for pages of other sites are not opened"));
    }
    if header_text(headers, "accept").is_some_and(|accept| accept.contains("text/event-stream")) {
        return Ok(sent::respond(Stream::open(shared.live.clone(), view, asked)?));
    }
    let upgrade = upgrade(request).await?;
    let stream = Stream::open(shared.live.clone(), view, asked)?;
    let tracker = shared.lifecycle.clone();
    // On our own tracker, so that a stop waits until the client has been told.
    Ok(upgrade.on_upgrade(async move |socket| tracker.spawn_request(socket::serve(socket, stream))))
}

/// The cursor of a request that asks for a stream; see [`start::asked`].
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn cursor_of(headers: &axum::http::HeaderMap, after: Option<&str>) -> Result<Option<kit::Position>, Problem> {
    start::asked(headers, after)
}

async fn upgrade(request: Request) -> Result<WebSocketUpgrade, Problem> {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|_| {
        Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "this speaks WebSocket, or text/event-stream if you accept that")
    })?;
    let upgrade = upgrade.protocols([SUBPROTOCOL]);
    // A client that asks for others only would hang up on an answer that names none of them.
    if upgrade.selected_protocol().is_none() && upgrade.requested_protocols().next().is_some() {
        let detail = format!("the subprotocol spoken here is {SUBPROTOCOL}");
        return Err(Problem::bad_request("unsupported_subprotocol", detail).field("sec-websocket-protocol"));
    }
    Ok(upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX))
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
