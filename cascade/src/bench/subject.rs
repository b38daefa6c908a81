//! A shop to measure: our own in a temporary folder, or somebody else's.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use axum::http::Uri;

use crate::routes::{self, ServiceName};

/// How many workers our own shop has.
const WORKERS: u32 = 1_000;
/// How often the disk is asked how long a sync takes.
const SYNCS: usize = 200;
/// How much is written before each sync: about what a small transaction writes.
const SYNC_BYTES: usize = 4_096;

/// What a shop used between two looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Time on processors, of all threads.
    pub(crate) cpu: Duration,
    /// The most memory it had at once.
    pub(crate) peak_rss_bytes: u64,
}

/// The shop that is measured.
pub(crate) struct Subject {
    bases: Bases,
    own: Option<Own>,
    /// Where the disk is measured.
    folder: PathBuf,
}

/// Where it is.
enum Bases {
    /// Everything under one URL.
    One(String),
    /// Each service under its own.
    Each(BTreeMap<ServiceName, String>),
}

struct Own {
    children: Vec<Child>,
    folder: PathBuf,
    cpu_at_begin: Duration,
}

impl Subject {
    /// A shop that runs already.
    pub(crate) fn at(url: &str) -> Self {
        Self { bases: Bases::One(url.to_owned()), own: None, folder: std::env::temp_dir() }
    }

    /// Starts a shop of our own, in one process.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut own = Own::new();
        let url = own.spawn(&["up", "--port", "0"])?;
        Ok(Self { bases: Bases::One(url), folder: own.folder.clone(), own: Some(own) })
    }

    /// Starts a shop of our own, each service in a process of its own.
    pub(crate) fn start_each() -> anyhow::Result<Self> {
        let mut own = Own::new();
        let mut urls = BTreeMap::new();
        let broker = own.spawn(&["serve", "broker", "--port", "0"])?;
        for service in [ServiceName::Order, ServiceName::Payment, ServiceName::Delivery] {
            urls.insert(service, own.spawn(&["serve", service.as_str(), "--port", "0", "--broker-url", &broker])?);
        }
        let order = urls.get(&ServiceName::Order).context("order did not start")?.clone();
        urls.insert(ServiceName::Storefront, own.spawn(&["serve", "storefront", "--port", "0", "--order-url", &order])?);
        urls.insert(ServiceName::Broker, broker);
        Ok(Self { bases: Bases::Each(urls), folder: own.folder.clone(), own: Some(own) })
    }

    /// The URL of `path`.
    pub(crate) fn url(&self, path: &str) -> anyhow::Result<Uri> {
        let base = match &self.bases {
            Bases::One(url) => Some(url),
            Bases::Each(urls) => routes::find(path).and_then(|service| urls.get(&service)),
        };
        let url = format!("{}{path}", base.with_context(|| format!("nobody answers {path}"))?);
        url.parse().with_context(|| format!("`{url}` is no URL"))
    }

    /// From now on its use counts.
    pub(crate) fn begin(&mut self) {
        if let Some(own) = &mut self.own {
            own.cpu_at_begin = own.cpu().unwrap_or_default();
        }
    }

    /// What it used since then; none for a shop that is not ours.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let own = self.own.as_ref()?;
        let peak_rss_bytes = own.children.iter().map(|child| peak_rss_bytes_of(child.id())).sum::<Option<u64>>()?;
        Some(Usage { cpu: own.cpu()?.checked_sub(own.cpu_at_begin)?, peak_rss_bytes })
    }

    /// How long a sync takes on the shop's disk, in milliseconds: the median.
    pub(crate) fn measure_fdatasync(&self) -> anyhow::Result<f64> {
        let path = self.folder.join(format!("sync-{}", std::process::id()));
        let mut file = File::create(&path)?;
        let mut times_ms = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            file.write_all(&[7; SYNC_BYTES])?;
            let began = tokio::time::Instant::now();
            file.sync_data()?;
            times_ms.push(began.elapsed().as_secs_f64() * 1_000.0);
        }
        fs::remove_file(&path)?;
        times_ms.sort_by(f64::total_cmp);
        Ok(super::report::percentile(&times_ms, 0.5))
    }
}

impl Own {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("cascade-bench-{}", std::process::id()));
        Self { children: Vec::new(), folder, cpu_at_begin: Duration::ZERO }
    }

    /// Starts a process of the shop; gives its URL when it is open.
    fn spawn(&mut self, words: &[&str]) -> anyhow::Result<String> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(words)
            .arg("--data-dir")
            .arg(&self.folder)
            .args(["--pace", "instant", "--luck", "always", "--events", "off", "--log-format", "json"])
            .args(["--workers", &WORKERS.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("the shop cannot be started")?;
        let said = child.stderr.take();
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

    fn cpu(&self) -> Option<Duration> {
        self.children.iter().map(|child| cpu_of(child.id())).sum()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Time on processors that a process had so far (`/proc/[pid]/stat`, fields 14 and 15, in ticks of 10 ms).
fn cpu_of(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// The most memory that a process had at once (`VmHWM`).
fn peak_rss_bytes_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1_024)
}
