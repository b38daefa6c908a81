//! A connection whose other end takes nothing is given up. Nobody else would: the machine itself waits for a quarter of an hour, and for
//! ever if the other end answers that it has no room.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::server::Stream;

/// How long the other end may take nothing of what is to be sent.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A stream that is patient with the other end, but not for ever.
pub(super) struct Patient {
    stream: Box<dyn Stream>,
    /// When patience ends; none while the other end takes what it gets.
    end: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    /// Wraps a connection.
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, end: None }
    }

    fn unless_stalled(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.end = None;
            return written;
        }
        let end = self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_TIMEOUT)));
        ready!(end.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end takes nothing")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_stalled(context, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.unless_stalled(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up_and_who_takes_little_is_not() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut near = Patient::new(Box::new(near));
        let write = async { (near.write_all(&[7; 64]).await, near.write_all(&[8; 64]).await) };
        let read = async {
            let mut taken = [0; 8];
            for _ in 0..8 {
                tokio::time::sleep(STALL_TIMEOUT - Duration::from_secs(1)).await;
                far.read_exact(&mut taken).await.unwrap();
            }
        };
        let ((slow, stalled), ()) = tokio::join!(write, read);
        assert!(slow.is_ok());
        assert_eq!(stalled.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_not_a_stall() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut near = Patient::new(Box::new(near));
        near.write_all(&[7; 8]).await.unwrap();
        tokio::time::sleep(STALL_TIMEOUT * 10).await;
        far.read_exact(&mut [0; 8]).await.unwrap();
        near.write_all(&[7; 8]).await.unwrap();
    }
}
