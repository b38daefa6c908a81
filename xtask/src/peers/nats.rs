//! NATS JetStream: one stream in a file, published asynchronously over one connection, a pull consumer that acknowledges each event, as
//! NATS's own clients do it: acknowledgements are sent together and are not answered.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use super::{
    load::{Acknowledged, Consumer, Outgoing, Peer, Publisher},
    server::Server,
};

/// How many events are asked for at first, and how many once half of them have come.
const PULLED_FIRST: u32 = 1_000;
const PULLED_NEXT: u32 = 500;
/// How many events may be unacknowledged.
const UNACKNOWLEDGED_MAX: u32 = 20_000;
/// How long it is waited for events.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(200);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// When the server syncs what it has acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) enum Syncs {
    /// Before it acknowledges (`sync_interval: always`).
    Always,
    /// Every two minutes: its default.
    Sometimes,
}

/// Starts a server with an empty stream.
pub(super) fn start(root: &Path, syncs: Syncs) -> anyhow::Result<Peer> {
    let program = root.join(crate::tools::PYTHON_PROGRAMS).join("nats-server");
    let server = Server::start(|folder, port| {
        let sync_interval = match syncs {
            Syncs::Always => "sync_interval: always",
            Syncs::Sometimes => "",
        };
        let config = folder.join("nats.conf");
        let store = folder.join("store");
        // It need not ask whether we are there.
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nping_interval: \"1h\"\njetstream {{\n  store_dir: \"{}\"\n  {sync_interval}\n}}\n",
            store.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("--config").arg(config);
        Ok(command)
    })?;
    let mut connection = Connection::open(&server)?;
    connection.ask("STREAM.CREATE.BENCH", r#"{"name":"BENCH","subjects":["bench.*"],"storage":"file","retention":"limits"}"#)?;
    Ok(Peer { server, open_publisher, open_consumer })
}

fn open_publisher(server: &Server) -> anyhow::Result<Publisher> {
    let connection = Connection::open(server)?;
    let publishing = Publishing { stream: connection.stream, buffer: Vec::new(), inbox: connection.inbox };
    Ok((Box::new(publishing), Box::new(Published { incoming: connection.incoming })))
}

fn open_consumer(server: &Server) -> anyhow::Result<Box<dyn Consumer>> {
    let mut connection = Connection::open(server)?;
    let config = format!(
        r#"{{"stream_name":"BENCH","config":{{"durable_name":"one","ack_policy":"explicit","deliver_policy":"all","max_ack_pending":{UNACKNOWLEDGED_MAX}}}}}"#
    );
    connection.ask("CONSUMER.DURABLE.CREATE.BENCH.one", &config)?;
    connection.stream.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
    connection.pull(PULLED_FIRST);
    Ok(Box::new(Pulling { connection, wanted: PULLED_FIRST }))
}

struct Publishing {
    stream: TcpStream,
    buffer: Vec<u8>,
    inbox: String,
}

impl Outgoing for Publishing {
    fn publish(&mut self, order: u64, payload: &[u8]) -> anyhow::Result<()> {
        write_message(&mut self.buffer, &format!("bench.{order}"), Some(&self.inbox), payload);
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

struct Published {
    incoming: Incoming,
}

impl Acknowledged for Published {
    fn wait(&mut self) -> anyhow::Result<u64> {
        let mut count = 0;
        // All that have arrived, and one at least.
        while count == 0 || !self.incoming.reader.buffer().is_empty() {
            let Some(message) = self.incoming.next()? else { bail!("no acknowledgement within {} s", TIMEOUT.as_secs()) };
            let text = String::from_utf8_lossy(&message.payload);
            ensure!(text.contains("\"seq\":") && !text.contains("\"error\""), "an event was answered {text}");
            count += 1;
        }
        Ok(count)
    }
}

struct Pulling {
    connection: Connection,
    /// How many events were asked for and have not come.
    wanted: u32,
}

impl Consumer for Pulling {
    fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        self.connection.flush()?;
        let mut is_first = true;
        while is_first || !self.connection.incoming.reader.buffer().is_empty() {
            let Some(message) = self.connection.incoming.next()? else { break };
            is_first = false;
            take(&message.payload);
            let reply = message.reply.context("an event that cannot be acknowledged")?;
            write_message(&mut self.connection.buffer, &reply, None, b"+ACK");
            self.wanted -= 1;
            if self.wanted <= PULLED_FIRST - PULLED_NEXT {
                self.connection.pull(PULLED_NEXT);
                self.wanted += PULLED_NEXT;
            }
        }
        self.connection.flush()
    }
}

struct Connection {
    stream: TcpStream,
    incoming: Incoming,
    buffer: Vec<u8>,
    /// The subject that it alone listens to.
    inbox: String,
}

impl Connection {
    /// Connects, and listens to an inbox of its own.
    fn open(server: &Server) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stream = server.connect()?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let incoming = Incoming { reader: BufReader::with_capacity(256 * 1024, stream.try_clone()?) };
        let inbox = format!("inbox.{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let hello = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {inbox} 1\r\n");
        let mut connection = Self { stream, incoming, buffer: hello.into_bytes(), inbox };
        connection.flush()?;
        Ok(connection)
    }

    /// Asks JetStream's API, and waits for its answer.
    fn ask(&mut self, what: &str, body: &str) -> anyhow::Result<()> {
        write_message(&mut self.buffer, &format!("$JS.API.{what}"), Some(&self.inbox), body.as_bytes());
        self.flush()?;
        let answer = self.incoming.next()?.with_context(|| format!("{what} is not answered"))?;
        let text = String::from_utf8_lossy(&answer.payload);
        ensure!(!text.contains("\"error\""), "{what} was answered {text}");
        Ok(())
    }

    /// Asks for events; the request is sent with whatever else is in the buffer.
    fn pull(&mut self, count: u32) {
        let body = format!("{{\"batch\":{count}}}");
        write_message(&mut self.buffer, "$JS.API.CONSUMER.MSG.NEXT.BENCH.one", Some(&self.inbox), body.as_bytes());
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

fn write_message(buffer: &mut Vec<u8>, subject: &str, reply: Option<&str>, payload: &[u8]) {
    buffer.extend_from_slice(b"PUB ");
    buffer.extend_from_slice(subject.as_bytes());
    if let Some(reply) = reply {
        buffer.push(b' ');
        buffer.extend_from_slice(reply.as_bytes());
    }
    buffer.extend_from_slice(format!(" {}\r\n", payload.len()).as_bytes());
    buffer.extend_from_slice(payload);
    buffer.extend_from_slice(b"\r\n");
}

/// A message of the server's.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    reply: Option<String>,
    payload: Vec<u8>,
}

struct Incoming<R = TcpStream> {
    reader: BufReader<R>,
}

impl<R: Read> Incoming<R> {
    /// The next message; none if none begins in time.
    fn next(&mut self) -> anyhow::Result<Option<Message>> {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\n") {
                match self.reader.read_until(b'\n', &mut line) {
                    Ok(0) => bail!("the connection was closed"),
                    Ok(_) => {}
                    Err(error) if is_late(&error) && line.is_empty() => return Ok(None),
                    Err(error) if is_late(&error) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let line = std::str::from_utf8(&line)?.trim_end();
            let mut words = line.split(' ');
            match words.next() {
                Some("MSG") => {
                    let words: Vec<&str> = words.collect();
                    let (reply, length) = match *words {
                        [_, _, length] => (None, length),
                        [_, _, reply, length] => (Some(reply.to_owned()), length),
                        _ => bail!("a message without a length: {line}"),
                    };
                    let mut payload = vec![0; length.parse::<usize>()? + 2];
                    read_all(&mut self.reader, &mut payload)?;
                    payload.truncate(payload.len() - 2);
                    return Ok(Some(Message { reply, payload }));
                }
                // Nobody is waiting for an answer to a ping within the time of a measurement.
                Some("INFO" | "PING" | "PONG" | "+OK") => {}
                _ => bail!("the server said: {line}"),
            }
        }
    }
}

/// Reads all of `buffer`, however long the rest of a message takes.
fn read_all(reader: &mut impl Read, mut buffer: &mut [u8]) -> anyhow::Result<()> {
    while !buffer.is_empty() {
        match reader.read(buffer) {
            Ok(0) => bail!("the connection was closed"),
            Ok(read) => buffer = buffer.get_mut(read..).unwrap_or_default(),
            Err(error) if is_late(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_protocol() {
        let mut buffer = Vec::new();
        write_message(&mut buffer, "bench.7", Some("inbox.ours"), b"abc");
        write_message(&mut buffer, "$JS.ACK.1", None, b"+ACK");
        assert_eq!(buffer, b"PUB bench.7 inbox.ours 3\r\nabc\r\nPUB $JS.ACK.1 4\r\n+ACK\r\n");
        let said: &[u8] = b"INFO {}\r\nPING\r\nMSG bench.7 1 $JS.ACK.1 5\r\na\r\nbc\r\nMSG inbox.ours 1 2\r\n{}\r\n-ERR 'no'\r\n";
        let mut incoming = Incoming { reader: BufReader::new(said) };
        let (first, second) = (incoming.next().unwrap().unwrap(), incoming.next().unwrap().unwrap());
        assert_eq!(first, Message { reply: Some("$JS.ACK.1".into()), payload: b"a\r\nbc".to_vec() });
        assert_eq!(second, Message { reply: None, payload: b"{}".to_vec() });
        assert_eq!(incoming.next().unwrap_err().to_string(), "the server said: -ERR 'no'");
    }
}
