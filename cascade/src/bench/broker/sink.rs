//! `cascade bench sink`: a subscriber in a process of its own. It acknowledges what comes, and remembers what it saw.

use std::{
    io::{Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    connection::Head,
    event::{Delivered, id_of, read_delivery},
    now_us,
};

/// The largest request, in bytes.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most events that it can tell apart.
const NUMBERS_MAX: u64 = 100_000_000;
/// One order of so many fails where orders fail.
pub(super) const ONE_FAILS_OF: u64 = 20;

/// Flags of `cascade bench sink`.
#[derive(Debug, Args)]
pub(crate) struct SinkFlags {
    /// What it does with what comes.
    #[arg(long, value_enum, default_value_t = Manner::Take)]
    manner: Manner,
}

/// What a subscriber does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Manner {
    /// It takes everything.
    Take,
    /// It never answers.
    Silent,
    /// It says that it is not there, until it is mended.
    Absent,
    /// It fails on each event of one order in twenty, and takes all others.
    Fail,
}

impl Manner {
    /// As the command line spells it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Silent => "silent",
            Self::Absent => "absent",
            Self::Fail => "fail",
        }
    }
}

/// What a subscriber saw since it was told to forget.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Seen {
    /// How many events it took, each counted once.
    pub(super) taken: u64,
    /// How many it was given again after it had taken them.
    pub(super) repeated: u64,
    /// How many came after a later one of their order.
    pub(super) out_of_order: u64,
    /// When it had answered for the last one that was new, in microseconds of [`now_us`].
    pub(super) last_answered_us: u64,
}

/// Runs until its standard input ends: whoever started it is gone then.
pub(crate) fn run(flags: &SinkFlags) -> anyhow::Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(flags.manner))
}

async fn serve(manner: Manner) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let opened = serde_json::json!({"message": "open", "url": format!("http://{}", listener.local_addr()?)});
    writeln!(std::io::stderr(), "{opened}")?;
    let memory = Arc::new(Mutex::new(Memory::new(manner)));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let memory = memory.clone();
        let serve = async move {
            // A broker that closes a connection is no error.
            let _ = serve_connection(stream, &memory).await;
        };
        #[expect(clippy::disallowed_methods, reason = "it ends with the process, which keeps nothing")]
        drop(tokio::spawn(serve));
    }
}

async fn serve_connection(mut stream: TcpStream, memory: &Mutex<Memory>) -> anyhow::Result<()> {
    let (mut buffer, mut filled) = (vec![0; 64 * 1024], 0);
    loop {
        let head = Head::read(buffer.get(..filled).unwrap_or_default())?;
        let end = head.as_ref().map(|head| head.body_at + head.body_bytes);
        let Some((head, end)) = head.zip(end.filter(|end| *end <= filled)) else {
            let wanted = end.unwrap_or(filled + 1);
            ensure!(wanted <= REQUEST_BYTES_MAX, "a request of more than {REQUEST_BYTES_MAX} bytes");
            if buffer.len() < wanted {
                buffer.resize(wanted.next_power_of_two(), 0);
            }
            match stream.read(buffer.get_mut(filled..).unwrap_or_default()).await? {
                0 => return Ok(()),
                read => filled += read,
            }
            continue;
        };
        let (line, body) = (buffer.get(..head.body_at).unwrap_or_default(), buffer.get(head.body_at..end).unwrap_or_default());
        let Some(answer) = answer(memory, line, body)? else {
            // Silence: whatever else comes is read and left alone.
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            return Ok(());
        };
        stream.write_all(&answer.bytes).await?;
        if answer.is_acknowledgement {
            recall(memory).seen.last_answered_us = now_us();
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
    }
}

struct Answer {
    bytes: Vec<u8>,
    /// Whether it acknowledges events that are new.
    is_acknowledgement: bool,
}

/// What to answer; none for nothing at all.
fn answer(memory: &Mutex<Memory>, head: &[u8], body: &[u8]) -> anyhow::Result<Option<Answer>> {
    let mut memory = recall(memory);
    let told = |value: &str| Ok(Some(Answer { bytes: with_body("200 OK", value), is_acknowledgement: false }));
    match head.split(|byte| *byte == b' ').nth(1).unwrap_or_default() {
        b"/events" => Ok(memory.take(body)),
        b"/seen" => told(&serde_json::to_string(&memory.seen)?),
        b"/delays" => told(&serde_json::to_string(&memory.delays_us)?),
        b"/forget" => {
            (memory.seen, memory.delays_us) = (Seen::default(), Vec::new());
            told("{}")
        }
        b"/mend" => {
            memory.manner = Manner::Take;
            told("{}")
        }
        path => {
            let bytes = with_body("404 Not Found", &format!("there is no {}", String::from_utf8_lossy(path)));
            Ok(Some(Answer { bytes, is_acknowledgement: false }))
        }
    }
}

fn with_body(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn recall(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What it knows of all that came.
struct Memory {
    manner: Manner,
    seen: Seen,
    /// From when an event was to be sent until it was here.
    delays_us: Vec<u32>,
    /// A bit for each event that was taken, by its number.
    taken: Vec<u64>,
    /// The place of the last event that was taken of each order.
    places: Vec<u64>,
}

impl Memory {
    fn new(manner: Manner) -> Self {
        Self { manner, seen: Seen::default(), delays_us: Vec::new(), taken: Vec::new(), places: Vec::new() }
    }

    fn take(&mut self, body: &[u8]) -> Option<Answer> {
        let (arrived_us, taken_before) = (now_us(), self.seen.taken);
        let mut failed = Vec::new();
        match self.manner {
            Manner::Silent => return None,
            Manner::Absent => return Some(Answer { bytes: with_body("404 Not Found", "\"away\""), is_acknowledgement: false }),
            Manner::Take => read_delivery(body).iter().for_each(|one| self.take_one(*one, arrived_us)),
            Manner::Fail => {
                for one in read_delivery(body) {
                    match one.mark.order % ONE_FAILS_OF {
                        0 => failed.push(one.mark.number),
                        _ => self.take_one(one, arrived_us),
                    }
                }
            }
        }
        let bytes = if failed.is_empty() { b"HTTP/1.1 204 No Content\r\n\r\n".to_vec() } else { with_body("200 OK", &failures(&failed)) };
        Some(Answer { bytes, is_acknowledgement: self.seen.taken > taken_before })
    }

    fn take_one(&mut self, Delivered { mark, position }: Delivered, arrived_us: u64) {
        let is_known = mark.number < NUMBERS_MAX && mark.order < NUMBERS_MAX;
        let (word, bit) = ((mark.number / 64) as usize, 1 << (mark.number % 64));
        if !is_known || self.taken.get(word).is_some_and(|bits| bits & bit != 0) {
            self.seen.repeated += 1;
            return;
        }
        *at(&mut self.taken, word) |= bit;
        self.seen.taken += 1;
        if mark.due_us > 0 {
            self.delays_us.push(u32::try_from(arrived_us.saturating_sub(mark.due_us)).unwrap_or(u32::MAX));
        }
        let place = at(&mut self.places, mark.order as usize);
        if position < *place {
            self.seen.out_of_order += 1;
        }
        *place = position.max(*place);
    }
}

/// The place `index` of `list`, which grows as far as that.
fn at(list: &mut Vec<u64>, index: usize) -> &mut u64 {
    if index >= list.len() {
        list.resize((index + 1).next_power_of_two(), 0);
    }
    #[expect(clippy::indexing_slicing, reason = "it was made long enough just above")]
    &mut list[index]
}

fn failures(numbers: &[u64]) -> String {
    let items = numbers.iter().map(|number| serde_json::json!({"source": "/order", "id": id_of(*number), "status": 503}));
    serde_json::json!({"results": items.collect::<Vec<_>>()}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::broker::event::{Mark, Template};

    fn delivery(marks: &[(u64, u64)]) -> Vec<u8> {
        let marks = marks.iter().map(|(number, order)| Mark { number: *number, order: *order, due_us: 1 });
        let mut body = Vec::new();
        Template::new("cascade.OrderCreated.v1").write_batch(marks, &mut body);
        body
    }

    #[test]
    fn what_was_taken_counts_once() {
        let mut memory = Memory::new(Manner::Take);
        assert!(memory.take(&delivery(&[(0, 1), (64, 2), (5_000, 3)])).unwrap().is_acknowledgement);
        assert!(!memory.take(&delivery(&[(64, 2)])).unwrap().is_acknowledgement);
        assert_eq!((memory.seen.taken, memory.seen.repeated, memory.delays_us.len()), (3, 1, 3));
    }

    #[test]
    fn an_event_behind_a_later_one_of_its_order_is_out_of_order() {
        let mut memory = Memory::new(Manner::Take);
        for (number, order, position) in [(0, 1, 7), (1, 2, 6), (2, 1, 5), (3, 1, 8)] {
            memory.take_one(Delivered { mark: Mark { number, order, due_us: 0 }, position }, 0);
        }
        assert_eq!(memory.seen.out_of_order, 1);
    }

    #[test]
    fn where_orders_fail_one_in_twenty_does_and_is_named() {
        let mut memory = Memory::new(Manner::Fail);
        let answer = memory.take(&delivery(&[(1, 39), (2, 40), (3, 41)])).unwrap();
        let text = String::from_utf8(answer.bytes).unwrap();
        assert!(text.contains(&id_of(2)) && text.contains("503") && !text.contains(&id_of(1)), "{text}");
        assert_eq!(memory.seen.taken, 2);
    }
}
