//! Redis streams: `XADD` pipelined over one connection, a consumer group, `XACK` for all that were read at once. Each write is synced
//! before its answer (`appendfsync always`), which Redis does once for all that it read in one turn.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use super::{
    load::{Acknowledged, Consumer, Outgoing, Peer, Publisher},
    server::Server,
};

/// The stream.
const STREAM: &str = "bench";
/// The group of its one consumer.
const GROUP: &str = "consumers";
/// How many events are read at once.
const COUNT: &str = "500";
/// How long it is waited for events, in milliseconds.
const BLOCK_MS: &str = "200";
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Starts a server.
pub(super) fn start() -> anyhow::Result<Peer> {
    let server = Server::start(|folder, port| {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        Ok(command)
    })?;
    Ok(Peer { server, open_publisher, open_consumer })
}

fn open_publisher(server: &Server) -> anyhow::Result<Publisher> {
    let connection = Connection::open(server)?;
    Ok((Box::new(Adds { stream: connection.stream, buffer: Vec::new() }), Box::new(Added { answers: connection.answers })))
}

fn open_consumer(server: &Server) -> anyhow::Result<Box<dyn Consumer>> {
    let mut connection = Connection::open(server)?;
    write_command(&mut connection.buffer, &[b"XGROUP", b"CREATE", STREAM.as_bytes(), GROUP.as_bytes(), b"0", b"MKSTREAM"]);
    connection.flush()?;
    connection.answer()?;
    Ok(Box::new(Group { connection, unanswered: None }))
}

struct Adds {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Outgoing for Adds {
    fn publish(&mut self, _: u64, payload: &[u8]) -> anyhow::Result<()> {
        write_command(&mut self.buffer, &[b"XADD", STREAM.as_bytes(), b"*", b"event", payload]);
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

struct Added {
    answers: BufReader<TcpStream>,
}

impl Acknowledged for Added {
    fn wait(&mut self) -> anyhow::Result<u64> {
        let mut count = 0;
        // All that have arrived, and one at least.
        while count == 0 || !self.answers.buffer().is_empty() {
            ensure!(matches!(read_answer(&mut self.answers)?, Answer::Text(_)), "an XADD that is not answered with an id");
            count += 1;
        }
        Ok(count)
    }
}

/// A consumer of a group.
struct Group {
    connection: Connection,
    /// How many events were acknowledged, if that was not answered yet: it is answered with the next events.
    unanswered: Option<usize>,
}

impl Group {
    fn read_acknowledged(&mut self) -> anyhow::Result<()> {
        let Some(sent) = self.unanswered.take() else { return Ok(()) };
        match self.connection.answer()? {
            Answer::Number(count) if usize::try_from(count) == Ok(sent) => Ok(()),
            other => bail!("{sent} events were acknowledged, and the answer is {other:?}"),
        }
    }
}

impl Consumer for Group {
    fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        let words = ["XREADGROUP", "GROUP", GROUP, "one", "COUNT", COUNT, "BLOCK", BLOCK_MS, "STREAMS", STREAM, ">"];
        write_command(&mut self.connection.buffer, &words.map(str::as_bytes));
        self.connection.flush()?;
        self.read_acknowledged()?;
        let Answer::List(streams) = self.connection.answer()? else { return Ok(()) };
        let mut words = vec![b"XACK".to_vec(), STREAM.into(), GROUP.into()];
        for stream in &streams {
            for entry in stream.item(1)?.items()? {
                words.push(entry.item(0)?.text()?.to_vec());
                take(entry.item(1)?.item(1)?.text()?);
            }
        }
        self.unanswered = Some(words.len() - 3);
        write_command(&mut self.connection.buffer, &words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        self.connection.flush()
    }
}

struct Connection {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(server: &Server) -> anyhow::Result<Self> {
        let stream = server.connect()?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let answers = BufReader::with_capacity(256 * 1024, stream.try_clone()?);
        Ok(Self { stream, answers, buffer: Vec::new() })
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        read_answer(&mut self.answers)
    }
}

/// An answer of the protocol RESP2.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    Number(i64),
    Text(Vec<u8>),
    List(Vec<Answer>),
}

impl Answer {
    fn items(&self) -> anyhow::Result<&[Answer]> {
        if let Self::List(items) = self { Ok(items) } else { bail!("{self:?} is no list") }
    }

    fn item(&self, index: usize) -> anyhow::Result<&Answer> {
        self.items()?.get(index).with_context(|| format!("a list without item {index}"))
    }

    fn text(&self) -> anyhow::Result<&[u8]> {
        if let Self::Text(text) = self { Ok(text) } else { bail!("{self:?} is no text") }
    }
}

fn write_command(buffer: &mut Vec<u8>, words: &[&[u8]]) {
    buffer.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        buffer.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        buffer.extend_from_slice(word);
        buffer.extend_from_slice(b"\r\n");
    }
}

fn read_answer(from: &mut impl BufRead) -> anyhow::Result<Answer> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    let line = std::str::from_utf8(&line)?.strip_suffix("\r\n").context("the connection was closed")?;
    let (sign, rest) = line.split_at_checked(1).context("an empty answer")?;
    match sign {
        "+" => Ok(Answer::Text(rest.as_bytes().to_vec())),
        ":" => Ok(Answer::Number(rest.parse()?)),
        "-" => bail!("{rest}"),
        "$" | "*" if rest == "-1" => Ok(Answer::Nothing),
        "$" => {
            let mut text = vec![0; rest.parse::<usize>()? + 2];
            from.read_exact(&mut text)?;
            text.truncate(text.len() - 2);
            Ok(Answer::Text(text))
        }
        "*" => Ok(Answer::List((0..rest.parse::<usize>()?).map(|_| read_answer(from)).collect::<Result<_, _>>()?)),
        other => bail!("an answer that begins with `{other}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_answers_are_those_of_the_protocol() {
        let mut buffer = Vec::new();
        write_command(&mut buffer, &[b"XACK", b"bench"]);
        assert_eq!(buffer, b"*2\r\n$4\r\nXACK\r\n$5\r\nbench\r\n");
        let mut answer: &[u8] = b"*2\r\n$3\r\na\r\n\r\n*2\r\n:7\r\n$-1\r\n";
        let expected = Answer::List(vec![Answer::Text(b"a\r\n".to_vec()), Answer::List(vec![Answer::Number(7), Answer::Nothing])]);
        assert_eq!(read_answer(&mut answer).unwrap(), expected);
        assert_eq!(read_answer(&mut &b"-ERR wrong\r\n"[..]).unwrap_err().to_string(), "ERR wrong");
        assert!(read_answer(&mut &b"$5\r\nab"[..]).is_err());
        assert!(read_answer(&mut &b""[..]).is_err());
    }
}
