//! The accept loop: ours, so that timeouts, limits and a graceful stop are too.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};

use super::connection;
use crate::{BoxFuture, Lifecycle};

/// The most connections served at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 12_000;
/// The pause after an accept that failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long connections that are just being made may take to be complete when listening ends: some ways to a load balancer and back.
const HANDSHAKE_TIME: Duration = Duration::from_millis(5);
/// How long accepting the last connections may take, if it fails at first.
const LAST_ACCEPT_TIMEOUT: Duration = Duration::from_millis(500);

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A connection, and whose it is.
pub type Accepted = (Box<dyn Stream>, SocketAddr);

/// Where connections come from: TCP, or a simulated network.
pub trait Listener: Send + 'static {
    /// Waits for the next connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>>;

    /// Lets no new connection begin, while those that have begun can still be completed and accepted.
    fn turn_away(&mut self) {}

    /// The next connection that waits to be accepted, if there is one now. A listener without a queue has none.
    ///
    /// # Errors
    /// When it could not be accepted; others may wait behind it.
    fn accept_waiting(&mut self) -> io::Result<Option<Accepted>> {
        Ok(None)
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            let (stream, peer) = TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn Stream>, peer))
        })
    }

    /// Whoever asks for a connection now gets no answer, asks again after a second, and is refused, or served by who listens by then.
    /// The system has no call for that; a filter on what reaches the listener does it. Without one a connection that is completed
    /// between the last accept and the close is lost: some microseconds.
    fn turn_away(&mut self) {
        #[cfg(target_os = "linux")]
        if let Err(error) = SockRef::from(&*self).attach_filter(&drop_connection_requests()) {
            tracing::debug!(%error, "the listener cannot turn connections away");
        }
    }

    /// Asks the system: the runtime learns of a connection only some time after it has come.
    fn accept_waiting(&mut self) -> io::Result<Option<Accepted>> {
        let (socket, peer) = match SockRef::from(&*self).accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        socket.set_nonblocking(true)?;
        let stream = TcpStream::from_std(socket.into())?;
        stream.set_nodelay(true)?;
        Ok(Some((Box::new(stream), peer)))
    }
}

/// A program of the classic packet filter, for a TCP socket: it reads from the TCP header on.
#[cfg(target_os = "linux")]
fn drop_connection_requests() -> [socket2::SockFilter; 4] {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_ANY_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 0x02;
    [
        socket2::SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OFFSET),
        socket2::SockFilter::new(JUMP_IF_ANY_SET, 0, 1, SYN),
        socket2::SockFilter::new(RETURN, 0, 0, 0),
        socket2::SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Serves `router` on `listener` until the lifecycle drains. Whoever has connected by then is still answered, once; requests that are
/// under way are finished.
pub fn serve(listener: impl Listener, router: Router, lifecycle: Lifecycle) -> impl Future<Output = ()> + Send {
    // A stop that found no request before the last connections are accepted would be over too early.
    let expected = lifecycle.expect_requests();
    async move {
        listen(listener, &router, &lifecycle).await;
        drop(expected);
    }
}

async fn listen(mut listener: impl Listener, router: &Router, lifecycle: &Lifecycle) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = tokio::select! {
            biased;
            () = lifecycle.drained() => break,
            permit = connections.clone().acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_) => break,
            },
        };
        let accepted = tokio::select! {
            biased;
            () = lifecycle.drained() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => admit(accepted, Some(permit), router, lifecycle),
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    end(listener, router, lifecycle).await;
}

/// Ends listening. Its queue is emptied before: to its clients those connections are open, so none of them would be tried again.
async fn end(mut listener: impl Listener, router: &Router, lifecycle: &Lifecycle) {
    listener.turn_away();
    sleep(HANDSHAKE_TIME).await;
    let give_up_at = Instant::now() + LAST_ACCEPT_TIMEOUT;
    loop {
        match listener.accept_waiting() {
            // Without a permit: there are no more than the queue holds.
            Ok(Some(accepted)) => admit(accepted, None, router, lifecycle),
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "could not accept one of the last connections");
                if Instant::now() >= give_up_at {
                    return;
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit((stream, peer): Accepted, permit: Option<OwnedSemaphorePermit>, router: &Router, lifecycle: &Lifecycle) {
    let connection = connection::serve(stream, peer, router.clone(), lifecycle.clone());
    lifecycle.spawn_request(async move {
        connection.await;
        drop(permit);
    });
}
