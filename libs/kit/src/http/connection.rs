//! One connection: its limits on time, and how it ends without losing a request.
//!
//! A load balancer keeps connections open and sends a request over one of them whenever it likes; it cannot know that we are closing
//! it at that moment. So, before a connection is closed, the client is told with an answer (`connection: close`), or has had time to
//! use it once more. What remains is what HTTP/1.1 leaves open: a client that has been silent for longer than that, and whose request
//! is on its way just when we close. Nobody acts on it then; but whether it is sent again is the client's to decide.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::ConnectInfo,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep},
};
use tower::ServiceExt;

use super::{
    server::Stream,
    stall::Patient,
    wire::{Activity, Answering, Doing, Wire},
};
use crate::{Lifecycle, Problem};

/// How long a connection may wait for a request, its first or its next. Longer than a load balancer keeps a connection that it does not
/// use (Caddy: 120 s; most others: 60 to 90 s), so that the balancer is the one who closes it, and never sends a request over a
/// connection that we are closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(180);
/// How long a client may take to send a request's head, from its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// How long a stop waits for a request on a connection that waits for one: its client may have sent it already.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Serves one connection until it ends, its time is over, or the lifecycle drains.
pub(super) async fn serve(stream: Box<dyn Stream>, peer: SocketAddr, router: Router, lifecycle: Lifecycle) {
    let activity = Activity::new();
    let wire = Wire::new(Box::new(Patient::new(stream)), activity.clone());
    let service = {
        let (activity, lifecycle) = (activity.clone(), lifecycle.clone());
        hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = answer(request, activity.answer(), router.clone(), lifecycle.clone());
            async { Ok::<_, Infallible>(answer.await) }
        })
    };
    let connection = hyper::server::conn::http1::Builder::new()
        // The limits on time are ours: hyper has one for waiting and reading together.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(wire), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let (mut drained, mut drained_at) = (pin!(lifecycle.drained()), None);
    let mut alarm = pin!(sleep(IDLE_TIMEOUT));
    let ended = poll_fn(|cx| {
        // First, so that a request that has come is read before its time is found to be over.
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        if drained_at.is_none() && drained.as_mut().poll(cx).is_ready() {
            drained_at = Some(Instant::now());
        }
        let Some(deadline) = deadline(activity.doing(), drained_at) else { return Poll::Pending };
        poll_deadline(alarm.as_mut(), deadline, cx).map(|()| None)
    });
    let ended = match (ended.await, activity.doing()) {
        (Some(ended), _) => ended,
        (None, Doing::Waiting { .. }) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        (None, Doing::Reading { .. } | Doing::Answering { .. }) => return tracing::debug!("a client was too slow"),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// When a connection's time is over, as long as it goes on like that. An answer has limits of its own.
fn deadline(doing: Doing, drained_at: Option<Instant>) -> Option<Instant> {
    match (doing, drained_at) {
        (Doing::Waiting { since }, None) => Some(since + IDLE_TIMEOUT),
        (Doing::Waiting { since }, Some(drained_at)) => Some(since.max(drained_at) + LAST_REQUEST_TIMEOUT),
        (Doing::Reading { since }, _) => Some(since + HEAD_TIMEOUT),
        (Doing::Answering { .. }, _) => None,
    }
}

fn poll_deadline(mut alarm: Pin<&mut Sleep>, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
    if deadline < alarm.deadline() {
        alarm.as_mut().reset(deadline);
    }
    ready!(alarm.as_mut().poll(cx));
    // A later one is set only when an earlier one rings: nearly all are moved again before.
    if deadline > alarm.deadline() {
        alarm.as_mut().reset(deadline);
        ready!(alarm.as_mut().poll(cx));
    }
    Poll::Ready(())
}

/// Answers a request. Whoever is leaving says with each answer that the connection ends with it.
async fn answer(request: Request<Incoming>, answering: Answering, router: Router, lifecycle: Lifecycle) -> Response<Answer> {
    let (answer, answered) = oneshot::channel();
    // A task of its own: a client that goes away must not leave a handler half done.
    lifecycle.spawn_request(async move {
        let _ = answer.send(router.oneshot(request).await.unwrap_or_else(|never| match never {}));
    });
    let mut response = answered.await.unwrap_or_else(|_| Problem::internal().into_response());
    // A connection that changes its protocol is no longer one for requests.
    if lifecycle.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| Answer { body, _answering: answering })
}

/// The body of an answer; when it is dropped, all of it has been handed over to be sent.
struct Answer {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
