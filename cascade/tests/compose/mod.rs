//! The shop in containers: the project's own `compose.yaml`, on a container engine that `cargo xtask test` starts.
#![allow(dead_code, unreachable_pub, reason = "each test target uses a part of it")]

/// Customers who order, look, and listen, at a rate.
pub mod load;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::Method;
use serde_json::Value;

use super::shop::{Customer, Shop, process, wait_until};

/// The root of the project.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// What installs it is `cargo xtask test --install`.
const COMPOSE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.testbed/python/bin/docker-compose");
/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(150);
/// The services that are one instance each.
pub const SINGLE: [&str; 4] = ["broker", "order", "payment", "delivery"];

/// One shop at a time: each has two cores' worth of work for the machine.
static TURN: Mutex<()> = Mutex::new(());

/// A project of docker compose. Everything of it is removed when it is dropped.
pub struct Compose {
    project: String,
    port: u16,
    files: Vec<PathBuf>,
    environment: Vec<(String, String)>,
    _turn: MutexGuard<'static, ()>,
}

impl Compose {
    /// The shop of `compose.yaml`, not started yet. `name` is the test's.
    pub fn of(name: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let port = process::free_port();
        let compose = Self {
            project: format!("test-{name}"),
            port,
            files: vec![Path::new(ROOT).join("compose.yaml")],
            environment: vec![("CASCADE_PORT".into(), port.to_string())],
            _turn: turn,
        };
        // What a test that was killed left behind.
        compose.clear();
        compose
    }

    /// Sets a variable that `compose.yaml` reads.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Adds a file that changes what is in `compose.yaml`.
    pub fn and(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.push(file.into());
        self
    }

    /// `docker compose up`, until the shop answers; `more` are further arguments.
    pub async fn up(&self, more: &[&str]) {
        let output = self.run(&[&["up", "--detach", "--no-build"], more].concat());
        assert!(output.status.success(), "{}\n{}", text(&output), self.logs(""));
        let anybody = Customer::stranger(&self.shop());
        let is_open = async || anybody.send(Method::GET, "/", &[], "").await.is_ok().then_some(());
        wait_until("the balancer answers", is_open).await;
    }

    /// The shop behind its balancer.
    pub fn shop(&self) -> Shop {
        Shop::elsewhere(self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A command of docker compose on this project.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(COMPOSE);
        for file in &self.files {
            command.arg("--file").arg(file);
        }
        command.args(["--project-directory", ROOT, "--project-name", &self.project, "--progress", "quiet"]).args(arguments);
        run(command.envs(self.environment.iter().map(|(name, value)| (name, value))))
    }

    /// The same, which must succeed; gives what it prints.
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a service's containers have printed; of all, if it has no name.
    pub fn logs(&self, service: &str) -> String {
        let arguments: Vec<_> = ["logs", "--no-log-prefix", service].into_iter().filter(|one| !one.is_empty()).collect();
        text(&self.run(&arguments))
    }

    /// The id of a service's first container.
    pub fn container(&self, service: &str) -> String {
        let ids = self.must(&["ps", "--all", "--quiet", service]);
        ids.lines().next().unwrap_or_else(|| panic!("{service} has no container")).to_owned()
    }

    /// What the engine knows of a service's first container.
    pub fn inspect(&self, service: &str) -> Value {
        docker_json(&["inspect", &self.container(service)])[0].take()
    }

    /// kill -9, from outside: the engine does not know why the process died.
    pub fn kill(&self, service: &str) {
        let pid = self.inspect(service)["State"]["Pid"].as_u64().unwrap();
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    }

    /// Waits until a service's first container has been started `times` anew, and is healthy.
    pub async fn is_back(&self, service: &str, times: u64) {
        wait_until(&format!("{service} is back"), async || {
            let container = self.inspect(service);
            let is_healthy = container["State"]["Health"]["Status"] == "healthy" && container["State"]["Running"] == true;
            (container["RestartCount"] == times && is_healthy).then_some(())
        })
        .await;
    }

    /// Copies all stores into one folder, as `docs/operating.md` says, and gives it.
    pub fn backup(&self, name: &str) -> PathBuf {
        let mut command = Command::new(COMPOSE);
        command.args(["--file"]).arg(&self.files[0]).args(["--project-directory", ROOT, "--project-name", &self.project]);
        let environment = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain([("BACKUP", name)]);
        let output = run(command.args(["run", "--rm", "--no-deps", "backup"]).envs(environment));
        assert!(output.status.success(), "{}", text(&output));
        let volume = docker_json(&["volume", "inspect", &format!("{}_backup", self.project)]);
        Path::new(volume[0]["Mountpoint"].as_str().unwrap()).join(name)
    }

    fn clear(&self) {
        let output = self.run(&["--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "20"]);
        assert!(output.status.success(), "{}", text(&output));
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A test that failed has a reason, and it is in there.
            let logs = self.logs("");
            let from = logs.len().saturating_sub(20_000);
            let whole = logs.get(from..).unwrap_or_default();
            eprintln!("--- what the containers said last\n{whole}");
            let _ = self.run(&["--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "20"]);
        } else {
            self.clear();
        }
    }
}

/// A command of docker's client; gives what it prints.
pub fn docker(arguments: &[&str]) -> Output {
    let of_debian = Path::new("/usr/bin/docker");
    let client = if of_debian.is_file() { of_debian } else { Path::new("docker") };
    run(Command::new(client).args(arguments))
}

pub fn docker_json(arguments: &[&str]) -> Value {
    let output = docker(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Everything that a command has printed.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command to its end, against the engine that was started for the tests.
fn run(command: &mut Command) -> Output {
    assert!(std::env::var_os("DOCKER_HOST").is_some(), "there is no container engine; `cargo xtask test` starts one");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (id, began) = (child.id(), Instant::now());
    let (done, watched) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let is_late = watched.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if is_late {
            let _ = Command::new("kill").arg(id.to_string()).status();
        }
        is_late
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    assert!(!watch.join().unwrap(), "{command:?} did not end within {:?}: {}", began.elapsed(), text(&output));
    output
}
