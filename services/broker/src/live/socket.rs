//! A stream over WebSocket: one CloudEvent a text frame.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures_util::SinkExt;
use kit::{Position, Recorded};

use super::{
    Room,
    notice::{Ending, Notice},
    stream::{Item, Stream},
};

/// How long a reader may take to hear why it is closed.
const FAREWELL: Duration = Duration::from_secs(1);
/// Close codes for frames that are not taken (RFC 6455, section 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;
const NOT_TEXT: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// Gives `stream` to whoever is at the other end, until one of them ends.
pub(super) async fn serve(socket: WebSocket, stream: Stream) {
    let cursor = stream.first_cursor();
    let mut connection = Connection { socket, stream, cursor, has_answered: true };
    if let Err(Some(ending)) = connection.run().await {
        connection.end(ending).await;
    }
}

struct Connection {
    socket: WebSocket,
    stream: Stream,
    /// Up to here the reader has got everything, or will when it reads on.
    cursor: Position,
    /// Whether the other end has shown since the last ping that it is there.
    has_answered: bool,
}

/// Why no more is written: with an ending it is to be told, without one nobody is there.
type Over = Option<Ending>;

impl Connection {
    async fn run(&mut self) -> Result<(), Over> {
        loop {
            tokio::select! {
                biased;
                message = self.socket.recv() => match message {
                    // What a client says is of no interest, only that it is there.
                    Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => self.has_answered = true,
                    Some(Ok(Message::Close(_))) => return self.say_goodbye(None).await,
                    Some(Err(error)) => return self.say_goodbye(Some(refused(&error))).await,
                    None => return Err(None),
                },
                item = self.stream.next() => match item {
                    Item::Events(events) => self.write_events(&events).await?,
                    Item::Notice(notice) => self.write_notice(&notice).await?,
                    Item::End(ending) => return Err(Some(ending)),
                },
            }
        }
    }

    async fn write_events(&mut self, events: &[Recorded]) -> Result<(), Over> {
        for recorded in events {
            let text = serde_json::to_string(recorded).map_err(|_| Some(Ending::Unreadable))?;
            self.write(Message::Text(text.into())).await?;
            self.cursor = recorded.position;
        }
        self.flush().await
    }

    async fn write_notice(&mut self, notice: &Notice) -> Result<(), Over> {
        if matches!(notice, Notice::Heartbeat { .. }) {
            // A browser's script sees no ping, and a heartbeat is not answered: it takes both.
            if !std::mem::replace(&mut self.has_answered, false) {
                return Err(None);
            }
            self.write(Message::Ping(Bytes::new())).await?;
        }
        let text = notice.to_json(&self.stream.live().environment);
        self.write(Message::Text(text.into())).await?;
        self.cursor = notice.cursor().unwrap_or(self.cursor);
        self.flush().await
    }

    async fn write(&mut self, message: Message) -> Result<(), Over> {
        let live = self.stream.live().clone();
        // Behind all that it has not read yet, a slow reader sees a ping late.
        self.has_answered |= live.in_time(self.socket.feed(message)).await? == Room::WasMade;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Over> {
        let live = self.stream.live().clone();
        self.has_answered |= live.in_time(self.socket.flush()).await? == Room::WasMade;
        Ok(())
    }

    /// Says why it ends and how to go on, behind all that was written: whoever reads it has read that.
    async fn end(&mut self, ending: Ending) {
        self.stream.ends(ending);
        let notice = Notice::End { reason: ending, after: self.cursor };
        let text = notice.to_json(&self.stream.live().environment);
        let reason = format!("{} after={}", ending.name(), self.cursor);
        let _ = tokio::time::timeout(FAREWELL, async {
            self.socket.feed(Message::Text(text.into())).await?;
            self.socket.send(Message::Close(Some(CloseFrame { code: ending.close_code(), reason: reason.into() }))).await?;
            self.wait_for_close().await
        })
        .await;
    }

    /// Closes what the other end has closed, or broken.
    async fn say_goodbye(&mut self, frame: Option<CloseFrame>) -> Result<(), Over> {
        let _ = tokio::time::timeout(FAREWELL, async {
            match frame {
                Some(frame) => self.socket.send(Message::Close(Some(frame))).await?,
                // The answer to a close is already waiting to be written.
                None => self.socket.flush().await?,
            }
            self.wait_for_close().await
        })
        .await;
        Err(None)
    }

    /// Hanging up before the other end has read would take from it what was just written.
    async fn wait_for_close(&mut self) -> Result<(), axum::Error> {
        while let Some(message) = self.socket.recv().await {
            message?;
        }
        Ok(())
    }
}

/// What is said to frames that are not taken.
fn refused(error: &axum::Error) -> CloseFrame {
    // axum does not show which error it is; a test holds on to these words.
    let text = error.to_string();
    let (code, reason) = if text.starts_with("Space limit exceeded") {
        (TOO_BIG, "a message is too large")
    } else if text.starts_with("UTF-8") {
        (NOT_TEXT, "a text is not UTF-8")
    } else {
        (PROTOCOL_ERROR, "a frame cannot be read")
    };
    CloseFrame { code, reason: reason.into() }
}
