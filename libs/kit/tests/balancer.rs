//! A server is stopped and another takes its place, behind clients that do as a load balancer does: they keep connections open and try
//! again what could not be connected, and nothing else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use axum::{Router, routing::post};
use kit::Lifecycle;
use tokio::net::TcpListener;

mod raw;

use raw::Server;

const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How many requests are under way at once.
const CLIENTS: usize = 16;
/// How long a client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_a_server_leaves_and_stops_under_load() {
    for (linger_ms, uploads) in [(0, "small"), (300, "small"), (0, "large"), (300, "large")] {
        let (first, first_served) = serve(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = first.address;
        let load = Load::start(address, if uploads == "small" { 20 } else { 200_000 });
        wait_until(|| load.answered() > 300).await;
        first.lifecycle.leave(Duration::from_millis(linger_ms)).await;
        assert!(first.lifecycle.stop(STOP_DEADLINE).await);
        let before = load.answered();
        let (second, second_served) = serve(listen_again(address).await);
        wait_until(|| load.answered() > before + 300).await;
        let outcome = load.stop();
        assert_eq!(outcome.lost, Vec::<String>::new(), "of {} with a linger of {linger_ms} ms, {uploads}", outcome.answered);
        let served = first_served.load(Ordering::SeqCst) + second_served.load(Ordering::SeqCst);
        assert_eq!(served, outcome.answered, "each is answered once");
        assert!(outcome.reused > 100, "{}", outcome.reused);
        assert!(second.lifecycle.stop(STOP_DEADLINE).await);
    }
}

/// A server that gives back what it is sent, and the number of requests that it served.
fn serve(listener: TcpListener) -> (Server, Arc<AtomicUsize>) {
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let echo = async move |body: String| {
        // As a commit does: something else runs in between.
        tokio::task::yield_now().await;
        count.fetch_add(1, Ordering::SeqCst);
        body
    };
    (Server::serve(listener, Router::new().route("/echo", post(echo)), Lifecycle::new()), served)
}

/// The port may be taken for a moment by a client that the system connected with itself.
async fn listen_again(address: SocketAddr) -> TcpListener {
    let mut listener = None;
    wait_until(|| {
        listener = std::net::TcpListener::bind(address).ok();
        listener.is_some()
    })
    .await;
    let listener = listener.unwrap();
    listener.set_nonblocking(true).unwrap();
    TcpListener::from_std(listener).unwrap()
}

async fn wait_until(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}

/// Clients that send one request after another, on threads of their own.
struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    body_bytes: usize,
    /// Connections that nobody uses just now; the last one is taken first, as Go's HTTP client does.
    pool: Mutex<Vec<TcpStream>>,
    is_over: AtomicBool,
    answered: AtomicUsize,
    reused: AtomicUsize,
    lost: Mutex<Vec<String>>,
}

struct Outcome {
    answered: usize,
    reused: usize,
    lost: Vec<String>,
}

impl Load {
    fn start(address: SocketAddr, body_bytes: usize) -> Self {
        let shared = Arc::new(Shared {
            address,
            body_bytes,
            pool: Mutex::default(),
            is_over: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            reused: AtomicUsize::new(0),
            lost: Mutex::default(),
        });
        let clients = (0..CLIENTS).map(|client| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.send_requests(client))
        });
        Self { clients: clients.collect(), shared }
    }

    fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::SeqCst)
    }

    fn stop(self) -> Outcome {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().unwrap();
        }
        self.shared.pool.lock().unwrap().clear();
        let lost = std::mem::take(&mut *self.shared.lost.lock().unwrap());
        let reused = self.shared.reused.load(Ordering::SeqCst);
        Outcome { answered: self.shared.answered.load(Ordering::SeqCst), reused, lost }
    }
}

impl Shared {
    fn send_requests(&self, client: usize) {
        for number in 0.. {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            // A third of them with a connection of their own, so that the end of listening meets connections that are just made.
            let is_alone = number % 3 == 0;
            let reused = if is_alone { None } else { self.take() };
            let is_reused = reused.is_some();
            let Some(mut stream) = reused.or_else(|| self.connect()) else { return };
            match self.send_request(&mut stream, &format!("{client}-{number}-")) {
                Ok(is_kept) => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    self.reused.fetch_add(usize::from(is_reused), Ordering::SeqCst);
                    if is_kept && !is_alone {
                        self.pool.lock().unwrap().push(stream);
                    }
                }
                Err(error) => self.lost.lock().unwrap().push(format!("{client}-{number} (reused: {is_reused}): {error}")),
            }
        }
    }

    /// A connection of the pool that is still open, as far as is known here.
    fn take(&self) -> Option<TcpStream> {
        loop {
            let stream = self.pool.lock().unwrap().pop()?;
            stream.set_nonblocking(true).unwrap();
            let peeked = stream.peek(&mut [0]);
            stream.set_nonblocking(false).unwrap();
            if peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                return Some(stream);
            }
        }
    }

    /// A new connection: what cannot be connected is tried again.
    fn connect(&self) -> Option<TcpStream> {
        while !self.is_over.load(Ordering::SeqCst) {
            let connected = TcpStream::connect(self.address);
            // Where nobody listens, the system may connect a port with itself.
            if let Ok(stream) = connected
                && stream.local_addr().unwrap() != self.address
            {
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
                return Some(stream);
            }
            let_time_pass(Duration::from_millis(5), "a balancer rests between two tries");
        }
        None
    }

    /// Sends one request, and answers whether the connection may be used again.
    fn send_request(&self, stream: &mut TcpStream, name: &str) -> io::Result<bool> {
        let body = name.repeat(self.body_bytes / name.len() + 1);
        let head = format!("POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("the connection ended after `{head}`")));
            }
        }
        let mut answered = vec![0; body.len()];
        reader.read_exact(&mut answered)?;
        if head.starts_with("HTTP/1.1 200 ") && answered == body.as_bytes() {
            Ok(!head.contains("\r\nconnection: close\r\n"))
        } else {
            Err(io::Error::new(ErrorKind::InvalidData, head))
        }
    }
}

fn let_time_pass(duration: Duration, _why: &str) {
    std::thread::sleep(duration);
}
