//! Server-sent events, read while they come (WHATWG HTML, section 9.2.6).

use std::collections::VecDeque;

use kit::http::client::{ClientError, Pieces};

/// The largest event, in bytes; a line that is longer ends the stream.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// One event of the stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Its id, in a shop the position in the log; empty if there is none.
    pub(crate) id: String,
    /// `message`, or another name.
    pub(crate) name: String,
    /// What it says.
    pub(crate) data: String,
}

/// A stream of them.
pub(crate) struct Feed {
    pieces: Pieces,
    parser: Parser,
    ready: VecDeque<Sent>,
}

impl Feed {
    /// Reads them from a body.
    pub(crate) fn new(pieces: Pieces) -> Self {
        Self { pieces, parser: Parser::default(), ready: VecDeque::new() }
    }

    /// The next event; none at the end. Nothing is lost when it is dropped before.
    pub(crate) async fn next(&mut self) -> Result<Option<Sent>, ClientError> {
        loop {
            if let Some(sent) = self.ready.pop_front() {
                return Ok(Some(sent));
            }
            let Some(piece) = self.pieces.next().await? else { return Ok(None) };
            self.ready.extend(self.parser.take(&piece)?);
        }
    }
}

/// Puts events together from bytes that are cut anywhere.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    event: Sent,
}

impl Parser {
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<Sent>, ClientError> {
        let mut complete = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                complete.extend(self.take_line(line.trim_end_matches('\r')));
            } else {
                self.line.push(byte);
            }
            if self.line.len() + self.event.data.len() > EVENT_BYTES_MAX {
                return Err(ClientError::Answer(format!("an event is larger than {EVENT_BYTES_MAX} bytes")));
            }
        }
        Ok(complete)
    }

    /// Gives the event that this line ends. A comment, and a field that is not known, mean nothing.
    fn take_line(&mut self, line: &str) -> Option<Sent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.event.id),
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: &str, name: &str, data: &str) -> Sent {
        Sent { id: id.into(), name: name.into(), data: data.into() }
    }

    #[test]
    fn events_are_put_together_from_pieces_cut_anywhere() {
        let stream =
            ": hello\n\nevent: message\r\nid: 7\r\ndata: {\"a\":\"ä\"}\r\n\r\n:\n\nid:8\ndata: one\ndata: two\nretry: 5\n\ndata: not compl";
        let expected = [sent("7", "message", "{\"a\":\"ä\"}"), sent("8", "", "one\ntwo")];
        for length in 1..stream.len() {
            let mut parser = Parser::default();
            let found: Vec<Sent> = stream.as_bytes().chunks(length).flat_map(|piece| parser.take(piece).unwrap()).collect();
            assert_eq!(found, expected, "in pieces of {length}");
        }
    }

    #[test]
    fn an_event_without_an_end_is_refused() {
        let mut parser = Parser::default();
        let piece = [b'x'; 64 * 1024];
        let taken = (0..=16).map(|_| parser.take(&piece)).find(Result::is_err);
        assert!(matches!(taken, Some(Err(ClientError::Answer(_)))));
    }
}
