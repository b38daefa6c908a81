//! Processes of our own, in a temporary folder that goes with them.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};

/// How many workers a shop of our own has.
const WORKERS: u32 = 1_000;
/// How often the disk is asked how long a sync takes.
const SYNCS: usize = 200;
/// How much is written before each sync: about what a small transaction writes.
const SYNC_BYTES: usize = 4_096;

/// Processes that end, with their folder, when this is dropped.
pub(super) struct Processes {
    children: Vec<Child>,
    /// Open as long as we live: who reads its end knows that we are gone.
    inputs: Vec<ChildStdin>,
    folder: PathBuf,
}

impl Processes {
    /// None yet. `name` tells their folder from those of others of this process.
    pub(super) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("cascade-bench-{}-{name}", std::process::id()));
        Self { children: Vec::new(), inputs: Vec::new(), folder }
    }

    /// Where they keep what is durable.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a part of a shop, with all chance certain and nothing shown; gives its URL when it is open.
    pub(super) fn spawn_shop(&mut self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words).arg("--data-dir").arg(&self.folder);
        command.args(["--pace", "instant", "--luck", "always", "--events", "off", "--log-format", "json"]);
        command.args(["--workers", &WORKERS.to_string()]).stdin(Stdio::null());
        self.spawn(command)
    }

    /// Starts this binary with `words`; gives the URL that it tells. Its standard input ends when we do.
    pub(super) fn spawn_self(&mut self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words).stdin(Stdio::piped());
        self.spawn(command)
    }

    fn spawn(&mut self, mut command: Command) -> anyhow::Result<String> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("the shop cannot be started")?;
        let said = child.stderr.take();
        self.inputs.extend(child.stdin.take());
        self.children.push(child);
        let mut lines = BufReader::new(said.context("the shop says nothing")?);
        // A service may first say that it waits for another one.
        let url = loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                bail!("the shop did not open");
            }
            let opened: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(url) = opened.get("url").and_then(|url| url.as_str()) {
                break url.to_owned();
            }
        };
        // What it says later is ours to say.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::stderr()));
        Ok(url)
    }

    /// Time on processors that all of them had so far.
    pub(super) fn cpu(&self) -> Option<Duration> {
        self.children.iter().map(|child| cpu_of(child.id())).sum()
    }

    /// The most memory that they had at once, added up.
    pub(super) fn peak_rss_bytes(&self) -> Option<u64> {
        self.children.iter().map(|child| status_bytes_of(child.id(), "VmHWM:")).sum()
    }

    /// The memory that the first of them has now.
    pub(super) fn first_rss_bytes(&self) -> Option<u64> {
        status_bytes_of(self.children.first()?.id(), "VmRSS:")
    }

    /// Time on processors that the first of them had so far.
    pub(super) fn first_cpu(&self) -> Option<Duration> {
        cpu_of(self.children.first()?.id())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// How long each of some syncs takes in `folder`, in milliseconds.
pub(super) fn sync_times_ms(folder: &Path) -> anyhow::Result<Vec<f64>> {
    let path = folder.join(format!("sync-{}", std::process::id()));
    let mut file = File::create(&path).with_context(|| format!("`{}` cannot be written", path.display()))?;
    let mut times_ms = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[7; SYNC_BYTES])?;
        let began = tokio::time::Instant::now();
        file.sync_data()?;
        times_ms.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    fs::remove_file(&path)?;
    Ok(times_ms)
}

/// Whether `folder` is kept in memory, where a sync does nothing: then nothing that is measured there is durable.
pub(super) fn is_in_memory(folder: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| kind_of_mount(&mounts, folder) == Some("tmpfs"))
}

/// What kind of file system holds `folder`; the last one mounted over its longest part does (`proc_pid_mountinfo`, fields 5 and 9).
fn kind_of_mount<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let (place, source) = line.split_once(" - ")?;
        Some((Path::new(place.split(' ').nth(4)?), source.split(' ').next()?))
    });
    let (_, kind) = mounts.filter(|(place, _)| folder.starts_with(place)).max_by_key(|(place, _)| place.components().count())?;
    Some(kind)
}

/// Time on processors that a process had so far (`/proc/[pid]/stat`, fields 14 and 15, in ticks of 10 ms).
pub(super) fn cpu_of(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// A figure of a process's memory (`/proc/[pid]/status`): `VmRSS:` now, `VmHWM:` at most so far.
fn status_bytes_of(pid: u32, figure: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(figure))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_says_whether_a_folder_is_in_memory() {
        let mounts = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n30 22 0:26 / /tmp rw,nosuid - tmpfs tmpfs rw\n\
                      31 30 254:1 / /tmp/disk rw - ext4 /dev/vdb rw\n";
        let kind_of = |folder: &str| kind_of_mount(mounts, Path::new(folder));
        assert_eq!((kind_of("/tmp/a"), kind_of("/tmp/disk/a"), kind_of("/tmpfoo")), (Some("tmpfs"), Some("ext4"), Some("ext4")));
    }
}
