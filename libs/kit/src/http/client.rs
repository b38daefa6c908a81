//! Requests to other services: pooled connections, a limit on time and size for each.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client as Pool,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{net::TcpStream, time::Instant};

use super::server::Stream;
use crate::BoxFuture;

/// How long an unused connection is kept: less than servers do, so that no request meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(5);
/// How many unused connections are kept for each peer.
const IDLE_MAX: usize = 16;

/// How a connection is opened: TCP, or a simulated network.
pub trait Connect: Send + Sync + 'static {
    /// Opens a connection to `host`:`port`.
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;

    /// Opens an encrypted connection to `host`:`port`, whose certificate must be for `host`. Services of one shop speak in the clear, so
    /// who does not say how refuses.
    fn connect_tls(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let _ = (host, port);
        Box::pin(std::future::ready(Err(io::Error::new(io::ErrorKind::Unsupported, "only http URLs can be reached"))))
    }
}

/// Opens TCP connections.
#[derive(Debug)]
pub struct TcpConnect;

impl Connect for TcpConnect {
    fn connect(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer came within the time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection could not be opened, or broke.
    #[error("{0}")]
    Connection(String),
    /// The answer was larger than allowed, or broke off.
    #[error("the answer could not be read: {0}")]
    Answer(String),
    /// The request itself is not one.
    #[error("the request is malformed: {0}")]
    Request(#[from] http::Error),
}

/// A client. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    pool: Pool<Connector, Full<Bytes>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// The limits of one request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long it may take in all.
    pub timeout: Duration,
    /// The largest answer, in bytes.
    pub answer_bytes_max: usize,
}

impl Client {
    /// A client that opens its connections through `connect`.
    pub fn new(connect: Arc<dyn Connect>) -> Self {
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(Connector(connect));
        Self { pool }
    }

    /// Sends a request and reads the whole answer. No redirect is followed.
    ///
    /// # Errors
    /// See [`ClientError`]; an answer of any status is not an error.
    pub async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: HeaderMap,
        body: Bytes,
        limits: Limits,
    ) -> Result<Response<Bytes>, ClientError> {
        let mut request = Request::builder().method(method).uri(uri).body(Full::new(body))?;
        *request.headers_mut() = headers;
        let exchange = async {
            let answer = self.pool.request(request).await.map_err(|error| ClientError::Connection(describe(&error)))?;
            let (head, body) = answer.into_parts();
            let body =
                Limited::new(body, limits.answer_bytes_max).collect().await.map_err(|error| ClientError::Answer(error.to_string()))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(limits.timeout, exchange).await.map_err(|_| ClientError::Timeout(limits.timeout))?
    }

    /// Sends a GET request, and gives the answer's body piece by piece, as it comes: for answers without an end, such as server-sent
    /// events. The head must come within `silence_max`, and each piece within `silence_max` of the one before.
    ///
    /// # Errors
    /// See [`ClientError`]; an answer of any status is not an error.
    pub async fn stream(&self, uri: &Uri, headers: HeaderMap, silence_max: Duration) -> Result<Response<Pieces>, ClientError> {
        let mut request = Request::builder().uri(uri).body(Full::new(Bytes::new()))?;
        *request.headers_mut() = headers;
        let answer = tokio::time::timeout(silence_max, self.pool.request(request)).await.map_err(|_| ClientError::Timeout(silence_max))?;
        let answer = answer.map_err(|error| ClientError::Connection(describe(&error)))?;
        Ok(answer.map(|body| Pieces { body, silence_max, heard_at: Instant::now() }))
    }
}

/// A body that is read while it comes. A piece is at most as large as the connection's read buffer; what a reader keeps of them, it limits.
#[derive(Debug)]
pub struct Pieces {
    body: Incoming,
    silence_max: Duration,
    heard_at: Instant,
}

impl Pieces {
    /// The next piece; none at the end. Nothing is lost when it is dropped before.
    ///
    /// # Errors
    /// The body broke off, or nothing came for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = tokio::time::timeout_at(self.heard_at + self.silence_max, self.body.frame()).await;
            let Some(frame) = frame.map_err(|_| ClientError::Timeout(self.silence_max))? else { return Ok(None) };
            let frame = frame.map_err(|error| ClientError::Answer(describe(&error)))?;
            self.heard_at = Instant::now();
            // Trailers say nothing that is wanted here.
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
    }
}

/// The innermost cause says what happened ("connection refused"); the outer ones only that something did.
fn describe(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[derive(Clone)]
struct Connector(Arc<dyn Connect>);

impl tower::Service<Uri> for Connector {
    type Response = Pooled;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Pooled>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connect = self.0.clone();
        Box::pin(async move {
            let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned());
            let host = uri.host().ok_or_else(|| invalid("the URL names no host"))?.to_owned();
            let stream = match uri.scheme_str() {
                Some("http") => connect.connect(host, uri.port_u16().unwrap_or(80)).await?,
                Some("https") => connect.connect_tls(host, uri.port_u16().unwrap_or(443)).await?,
                Some(_) | None => return Err(invalid("only http and https URLs can be reached")),
            };
            Ok(Pooled(TokioIo::new(stream)))
        })
    }
}

/// A connection as hyper's pool wants it.
struct Pooled(TokioIo<Box<dyn Stream>>);

impl Connection for Pooled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Pooled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: hyper::rt::ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Pooled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
