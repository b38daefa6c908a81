//! A server in a process and a folder of its own; both go when it is dropped.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// How long it may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time from one attempt to connect to the next.
const PAUSE: Duration = Duration::from_millis(20);

/// A server on a free port of loopback.
pub(super) struct Server {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Server {
    /// Starts what `command` makes of an empty folder and a free port, and waits until it takes connections.
    pub(super) fn start(command: impl FnOnce(&Path, u16) -> anyhow::Result<Command>) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = std::env::temp_dir().join(format!("cascade-peer-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&folder).with_context(|| format!("`{}` cannot be made", folder.display()))?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let spawn = || {
            let mut command = command(&folder, port)?;
            let log = fs::File::create(folder.join("log"))?;
            let name = command.get_program().to_string_lossy().into_owned();
            let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
            child.with_context(|| format!("`{name}` cannot be started"))
        };
        let child = spawn().inspect_err(|_| drop(fs::remove_dir_all(&folder)))?;
        let mut server = Self { child, folder, port };
        server.wait_until_open()?;
        Ok(server)
    }

    fn wait_until_open(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.connect().is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("it takes no connections: {}", log.lines().last().unwrap_or("it says nothing"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// A new connection to it.
    pub(super) fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_ends_at_once_is_told_with_its_last_words_and_leaves_nothing() {
        let mut folder = PathBuf::new();
        let started = Server::start(|of, _| {
            folder = of.to_owned();
            let mut shell = Command::new("sh");
            shell.args(["-c", "echo first; echo 'no such option'; exit 1"]);
            Ok(shell)
        });
        let error = started.err().unwrap().to_string();
        assert!(error.contains("no such option"), "{error}");
        assert!(!folder.exists());
    }
}
