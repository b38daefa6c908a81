//! One process of the shop: it is started, killed, asked to stop, and listened to.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{PATIENCE, pause};

/// Below the ports that operating systems give to connections, so that nobody takes one while its process is away.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// About how many ports the tests of one target take.
const PORTS_OF_A_TEST_RUN: u64 = 64;

/// A process, perhaps not started yet. It is killed when it is dropped.
pub struct Process {
    arguments: Vec<String>,
    port: u16,
    child: Option<Child>,
    said: Arc<Mutex<String>>,
    listening: Option<JoinHandle<()>>,
}

impl Process {
    /// `cascade` with these arguments, to be started on `port`; 0 takes a free one at the first start.
    pub fn new(arguments: Vec<String>, port: u16) -> Self {
        Self { arguments, port, child: None, said: Arc::default(), listening: None }
    }

    /// Starts it, and waits until it is open.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_until_open();
    }

    /// Starts it.
    pub fn spawn(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
        command.env_clear().args(&self.arguments);
        self.spawn_as(command);
    }

    /// Starts `command`, which is what it is started by this once.
    pub fn spawn_as(&mut self, mut command: Command) {
        command.args(["--port", &self.port.to_string()]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let said: Arc<Mutex<String>> = Arc::default();
        self.said = said.clone();
        self.child = Some(child);
        self.listening = Some(std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                said.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        }));
    }

    /// Waits until it has said where it is open.
    pub fn wait_until_open(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.said();
            // Only a whole line has the whole port.
            let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some((_, rest)) = whole.split_once(" open at http://localhost:") {
                self.port = rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
                return;
            }
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                // Its last words may still be on their way.
                self.listening.take().unwrap().join().unwrap();
                panic!("{:?} does not open ({status}): {}", self.arguments, self.said());
            }
            assert!(Instant::now() < deadline, "{:?} does not open: {}", self.arguments, self.said());
            pause();
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What it said on stderr since its last start.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.arguments);
            pause();
        }
    }

    /// What `/ready` answers: its status, or none when nobody listens.
    pub fn readiness(&self) -> Option<u16> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    /// Waits until it wants requests.
    pub fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.readiness() != Some(200) {
            assert!(Instant::now() < deadline, "it does not get ready: {:?}: {}", self.arguments, self.said());
            pause();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody uses.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Test runs beside this one have other process ids, and so other ports, also while theirs are away.
    let of_this_process = u16::try_from(u64::from(std::process::id()) * PORTS_OF_A_TEST_RUN % u64::from(count)).unwrap();
    loop {
        let port = PORTS.start + (of_this_process + NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
