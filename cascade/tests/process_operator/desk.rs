//! An operator's desk: the binary as they type it, and a subscriber whose answers a test decides.
#![allow(dead_code, unreachable_pub, reason = "each test target uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Json, Router, extract::State, routing::post};
use serde_json::{Value, json};

use super::shop::{Shop, run_to_end, wait_until};

/// Who operates a shop, by the secret in its data folder.
pub struct Desk {
    pub base: String,
    pub folder: PathBuf,
}

impl Desk {
    pub fn of(shop: &Shop, folder: &Path) -> Self {
        Self { base: shop.base(), folder: folder.to_owned() }
    }

    /// The command, as it stands.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
        let (first, rest) = arguments.split_first().unwrap();
        let access = ["--url", &self.base, "--data-dir", self.folder.to_str().unwrap()];
        command.env_clear().env("TZ", "UTC").arg(first).args(access).args(rest).stdin(Stdio::null());
        command
    }

    /// What it prints, where it must succeed: on stdout, and beside that.
    pub fn run(&self, arguments: &[&str]) -> (String, String) {
        let output = self.command(arguments).output().unwrap();
        let (said, beside) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{arguments:?}: {said}{beside}");
        assert!(!said.contains('\u{1b}'), "a pipe gets plain text: {said:?}");
        (said, beside)
    }

    /// What it prints on stdout.
    pub fn says(&self, arguments: &[&str]) -> String {
        self.run(arguments).0
    }

    /// The same as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let said = self.says(&[arguments, &["--json"]].concat());
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        serde_json::from_str(&said).unwrap()
    }

    /// That it fails with this code, and one line that says this.
    pub fn refuses(&self, arguments: &[&str], code: i32, expected: &str) {
        refused(self.command(arguments), code, expected);
    }

    /// Waits until it prints all of this.
    pub async fn waits_for(&self, arguments: &[&str], expected: &[&str]) -> String {
        let what = format!("{expected:?} in {arguments:?}");
        let is_said = async || {
            let said = self.says(arguments);
            // What is wrapped reads on in the next line.
            let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
            expected.iter().all(|expected| flat.contains(expected)).then_some(said)
        };
        wait_until(&what, is_said).await
    }

    /// Runs it with `text` on its stdin.
    pub fn with_input(&self, arguments: &[&str], text: &str) -> (Option<i32>, String, String) {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// A file in the folder.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A file with a token that may do this.
    pub fn token(&self, name: &str, scopes: &[&str]) -> String {
        let token = self.says(&[&["tokens", "create", name], scopes].concat());
        self.file(&format!("{name}.token"), &token)
    }
}

/// That it fails with this code, and one line that says this.
pub fn refused(mut command: Command, code: i32, expected: &str) {
    let (status, said) = run_to_end(&mut command);
    assert_eq!(status.code(), Some(code), "{said}");
    assert!(said.lines().count() == 1 && said.starts_with("cascade: ") && said.contains(expected), "{expected} is not in: {said}");
}

/// A subscriber on a port of its own: it answers for each event what the event's `data.answer` says, until it is healed.
pub struct Subscriber {
    pub url: String,
    is_healed: Arc<AtomicBool>,
}

impl Subscriber {
    pub async fn open() -> Self {
        let is_healed = Arc::<AtomicBool>::default();
        let router = Router::new().route("/events", post(take)).with_state(is_healed.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        #[allow(clippy::disallowed_methods, reason = "a test's own world has no lifecycle")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, is_healed }
    }

    /// From now on it takes everything.
    pub fn heal(&self) {
        self.is_healed.store(true, Ordering::SeqCst);
    }

    /// What asks for its events, as a file holds it.
    pub fn registration(&self, revision: i64) -> String {
        // The next attempt comes within the hour: long after a test has seen that one is waited for.
        let retry = json!({"backoff_ms": 3_600_000, "backoff_ms_max": 3_600_000});
        json!({"sink": self.url, "types": ["l.Made.v1"], "revision": revision, "retry": retry}).to_string()
    }
}

async fn take(State(is_healed): State<Arc<AtomicBool>>, Json(batch): Json<Vec<Value>>) -> Json<Value> {
    let refused = batch.iter().filter_map(|event| {
        let status = event["data"]["answer"].as_u64().filter(|_| !is_healed.load(Ordering::SeqCst))?;
        Some(json!({"source": event["source"], "id": event["id"], "status": status, "reason": "the books are closed"}))
    });
    Json(json!({"results": refused.collect::<Vec<_>>()}))
}

/// An event on a line; `answer` is what the subscriber says to it.
pub fn event(id: &str, subject: &str, answer: Option<u16>) -> String {
    event_of("l.Made.v1", id, subject, answer)
}

/// The same of another type.
pub fn event_of(ty: &str, id: &str, subject: &str, answer: Option<u16>) -> String {
    json!({"specversion": "1.0", "id": id, "source": "/l", "type": ty, "subject": subject, "data": {"answer": answer}}).to_string() + "\n"
}
