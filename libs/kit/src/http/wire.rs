//! The stream under a connection: it notes what is going on there, and closes so that no answer is lost.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::server::Stream;

/// How long a closed connection still takes what its client sends. Were it dropped with something unread, the system would tell the
/// client to forget the connection, together with the answer that it may not have read yet.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doing {
    /// Nothing: it waits for a request, its first or its next, of which no byte has come.
    Waiting {
        /// Since when.
        since: Instant,
    },
    /// It reads the head of a request.
    Reading {
        /// When the first byte came.
        since: Instant,
    },
    /// A request is being answered, or its answer not completely sent.
    Answering {
        /// Whether the last of the answer was handed over to be sent.
        is_complete: bool,
    },
}

/// What a connection is doing, as its stream and its service note it. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<Mutex<Doing>>);

impl Activity {
    /// Of a connection that is new.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Doing::Waiting { since: Instant::now() })))
    }

    /// What it is doing.
    pub(super) fn doing(&self) -> Doing {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head of a request was read. Its answer is handed over when what is returned is dropped.
    pub(super) fn answer(&self) -> Answering {
        self.turn(|_| Doing::Answering { is_complete: false });
        Answering(self.clone())
    }

    /// Something came. While a request is being answered it belongs to its body. (Or to a next one that did not wait for the answer: such
    /// a client is rare, its request is served as well, but while it is incomplete it does not count as begun.)
    fn note_read(&self) {
        self.turn(|doing| match doing {
            Doing::Waiting { .. } => Doing::Reading { since: Instant::now() },
            Doing::Reading { .. } | Doing::Answering { .. } => doing,
        });
    }

    fn note_handed_over(&self) {
        self.turn(|_| Doing::Answering { is_complete: true });
    }

    fn note_flushed(&self) {
        self.turn(|doing| match doing {
            Doing::Answering { is_complete: true } => Doing::Waiting { since: Instant::now() },
            Doing::Waiting { .. } | Doing::Reading { .. } | Doing::Answering { is_complete: false } => doing,
        });
    }

    fn turn(&self, turn: impl FnOnce(Doing) -> Doing) {
        let mut doing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *doing = turn(*doing);
    }
}

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub(super) struct Answering(Activity);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.note_handed_over();
    }
}

/// A stream that notes what goes over it.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    activity: Activity,
    /// When the wait for the client's end is over.
    closing: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    /// Notes what goes over `stream` in `activity`.
    pub(super) fn new(stream: Box<dyn Stream>, activity: Activity) -> Self {
        Self { stream, activity, closing: None }
    }

    /// Reads what nobody wants any more, up to the end.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; 4_096];
        loop {
            let mut scrap = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scrap)) {
                Ok(()) if !scrap.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.note_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.activity.note_flushed();
        Poll::Ready(Ok(()))
    }

    /// Ends our direction, then waits until the client ends its own, which it does when it has read the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.closing = Some(Box::pin(sleep(CLOSING_TIMEOUT)));
        }
        if self.poll_rest(cx).is_pending()
            && let Some(closing) = &mut self.closing
        {
            ready!(closing.as_mut().poll(cx));
        }
        Poll::Ready(Ok(()))
    }
}
