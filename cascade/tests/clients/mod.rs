//! Programs in other languages, with libraries that we did not write: they meet the shop as anybody's would.
#![allow(dead_code, unreachable_pub, reason = "each test target uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "helpers of tests may fail as tests do, and say why; this world's clock is real"
)]

/// A line to the shop that can be cut.
pub mod line;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use axum::http::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::shop::{Answer, Customer, Shop, wait_until};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const INSTALL: &str = "run `cargo xtask test --install` as root";

/// Where a program runs: copies of its files beside the installed packages.
pub struct Stage {
    folder: TempDir,
}

impl Stage {
    /// A stage for the files of `folder`, which is below the workspace's root.
    pub fn of(folder: &str) -> Self {
        let (stage, root) = (tempfile::tempdir().unwrap(), Path::new(ROOT));
        for entry in std::fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
            // What somebody has installed or run there is not ours.
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), stage.path().join(entry.file_name())).unwrap();
            }
        }
        let packages = root.join(".testbed/node_modules").canonicalize().unwrap_or_else(|_| panic!("no packages of npm's: {INSTALL}"));
        symlink(packages, stage.path().join("node_modules")).unwrap();
        Self { folder: stage }
    }

    /// A file of it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts its program `file`, by the language that it is written in.
    pub fn start(&self, file: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Program {
        let language = if file.ends_with(".py") { "python3" } else { "node" };
        let packages = Path::new(ROOT).join(".testbed/python");
        assert!(packages.is_dir(), "no packages of PyPI's: {INSTALL}");
        let mut command = Command::new(language);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
        command.envs(variables.iter().copied()).current_dir(self.folder.path()).arg(file).args(arguments);
        Program::spawn(command)
    }
}

/// A program that says a JSON value on each line of its output. It is killed when it is dropped.
pub struct Program {
    name: String,
    child: Child,
    input: ChildStdin,
    lines: Arc<Mutex<Vec<String>>>,
    complaints: Arc<Mutex<String>>,
    listening: Vec<JoinHandle<()>>,
}

impl Program {
    fn spawn(mut command: Command) -> Self {
        let name = command.get_args().take(2).map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started ({error}): {INSTALL}"));
        let (mut output, mut errors) = (BufReader::new(child.stdout.take().unwrap()), child.stderr.take().unwrap());
        let (lines, complaints): (Arc<Mutex<Vec<String>>>, Arc<Mutex<String>>) = Default::default();
        let (kept, kept_complaints) = (lines.clone(), complaints.clone());
        let listening = vec![
            std::thread::spawn(move || {
                let mut line = String::new();
                while output.read_line(&mut line).is_ok_and(|read| read > 0) {
                    kept.lock().unwrap().push(std::mem::take(&mut line));
                }
            }),
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = errors.read(&mut bytes) {
                    kept_complaints.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
                }
            }),
        ];
        Self { name, input: child.stdin.take().unwrap(), child, lines, complaints, listening }
    }

    /// Gives it a line.
    pub fn tell(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// All that it has said so far.
    pub fn said(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.trim_end().to_owned()))).collect()
    }

    /// What it has said on stderr.
    pub fn complaints(&self) -> String {
        self.complaints.lock().unwrap().clone()
    }

    /// Waits until what it has said has what is looked for, named `what`.
    pub async fn wait_for<T>(&mut self, what: &str, look: impl Fn(&[Value]) -> Option<T>) -> T {
        wait_until(&format!("{what}, of {}", self.name), async || {
            let found = look(&self.said());
            if found.is_none()
                && let Some(status) = self.child.try_wait().unwrap()
            {
                self.listening.drain(..).for_each(|reader| reader.join().unwrap());
                // Its last words may have been that.
                let found = look(&self.said());
                assert!(found.is_some(), "{} has ended ({status}): {}", self.name, self.complaints());
                return found;
            }
            found
        })
        .await
    }

    /// Waits until it has ended well; gives all that it said.
    pub async fn end(mut self) -> Vec<Value> {
        let status = self.wait().await;
        self.listening.drain(..).for_each(|reader| reader.join().unwrap());
        assert!(status.success(), "{} has ended ({status}): {}", self.name, self.complaints());
        self.said()
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.wait().await
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    async fn wait(&mut self) -> ExitStatus {
        wait_until(&format!("the end of {}", self.name), async || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{} said:\n{}{}", self.name, self.lines.lock().unwrap().concat(), self.complaints());
        }
    }
}

/// Makes a token with `cascade tokens create`, as an operator on the shop's machine would.
pub fn make_token(shop: &Shop, folder: &Path, name: &str, scopes: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
    command.env_clear().args(["tokens", "create", name, "--url", &shop.base(), "--data-dir", folder.to_str().unwrap()]).args(scopes);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Asks the shop with a token.
pub async fn ask(shop: &Shop, token: &str, method: Method, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let (headers, body) = match body {
        Value::Null => (vec![("authorization", bearer.as_str())], String::new()),
        body => (vec![("authorization", bearer.as_str()), ("content-type", "application/json")], body.to_string()),
    };
    let answer = Customer::stranger(shop).send(method, path, &headers, body).await.unwrap();
    assert!(answer.status.is_success(), "{path}: {answer:?}");
    answer
}

/// All events of these types in the log.
pub async fn logged(shop: &Shop, token: &str, types: &str) -> Vec<Value> {
    let answer = ask(shop, token, Method::GET, &format!("/api/events?limit=1000&types={types}"), &Value::Null).await;
    assert_eq!(answer.status, StatusCode::OK);
    answer.json["items"].as_array().unwrap().clone()
}
