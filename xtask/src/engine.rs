//! A container engine for the tests: a daemon of our own, base images, and the shop's image.
//!
//! The daemon has its socket, data and everything else in a folder of its own, and ends with the run. Where no registry can be reached
//! to pull the base images from, stand-ins are made from Debian's packages, from this machine's Rust, and from PyPI's Caddy.
#![allow(clippy::disallowed_methods, reason = "it waits for a process of this machine, whose clock is real")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// Where the engine keeps everything, below the workspace's root.
const FOLDER: &str = ".testbed/engine";
/// How long the daemon may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// The base images of `deploy/Dockerfile` and `compose.yaml`.
const DEBIAN: &str = "debian:bookworm-slim";
const RUST: &str = "rust:1.95-bookworm";
const CADDY: &str = "caddy:2.11";
/// Debian's release that they are made of.
const RELEASE: &str = "bookworm";
/// The image that `compose.yaml` names.
const IMAGE: &str = "cascade";

/// A daemon of our own. It ends, with all its containers, when this is dropped.
pub(crate) struct Engine {
    daemon: Child,
    socket: String,
}

impl Engine {
    /// Starts the daemon, provides the base images, and builds the shop's image as users do.
    ///
    /// # Errors
    /// When the machine cannot run containers, a base image can neither be pulled nor made, or the build fails.
    pub(crate) fn provide(root: &Path) -> anyhow::Result<Self> {
        let began = Instant::now();
        let engine = Self::start(root)?;
        for (image, make) in [(DEBIAN, make_debian as fn(&Self, &Path) -> anyhow::Result<()>), (RUST, make_rust), (CADDY, make_caddy)] {
            if !engine.has(image) && !engine.pull(image) {
                make(&engine, root).with_context(|| format!("no registry can be reached, and a stand-in for `{image}` cannot be made"))?;
                say(&format!("made a stand-in for {image}"));
            }
        }
        say(&format!("container engine and base images: {} s", began.elapsed().as_secs()));
        let began = Instant::now();
        let build = ["build", "--progress=plain", "--file", "deploy/Dockerfile", "--tag", IMAGE, "."];
        run(engine.docker().current_dir(root).env("DOCKER_BUILDKIT", "1").args(build)).context("the image cannot be built")?;
        say(&format!("image: {} s", began.elapsed().as_secs()));
        Ok(engine)
    }

    /// The variable that tells docker's clients where it is.
    pub(crate) fn environment(root: &Path) -> (&'static str, String) {
        ("DOCKER_HOST", format!("unix://{}", root.join(FOLDER).join("docker.sock").display()))
    }

    fn start(root: &Path) -> anyhow::Result<Self> {
        let folder = root.join(FOLDER);
        fs::create_dir_all(&folder).with_context(|| format!("`{}` cannot be made", folder.display()))?;
        let log = fs::File::create(folder.join("log"))?;
        let (_, socket) = Self::environment(root);
        let daemon = Command::new("dockerd")
            .args(["--host", &socket, "--log-level", "warn"])
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("`dockerd` cannot be started")?;
        let mut engine = Self { daemon, socket };
        let deadline = Instant::now() + PATIENCE;
        while !succeeds(engine.docker().arg("version")) {
            if engine.daemon.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                bail!("`dockerd` does not answer: {}", log.lines().last().unwrap_or("it said nothing"));
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        Ok(engine)
    }

    fn docker(&self) -> Command {
        let mut command = Command::new(client());
        command.env("DOCKER_HOST", &self.socket).stdin(Stdio::null());
        command
    }

    fn has(&self, image: &str) -> bool {
        succeeds(self.docker().args(["image", "inspect", image]))
    }

    fn pull(&self, image: &str) -> bool {
        succeeds(self.docker().args(["pull", "--quiet", image]))
    }

    /// Makes an image of a folder.
    fn import(&self, folder: &Path, changes: &[&str], image: &str) -> anyhow::Result<()> {
        let mut tar = Command::new("tar");
        // Some programs have capabilities of their own, which are kept in extended attributes.
        tar.args(["--xattrs", "--xattrs-include=*", "--create", "--file=-", "--directory"]).arg(folder).arg(".");
        let mut packing = tar.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("`tar` cannot be started")?;
        let packed = packing.stdout.take().context("tar's output is missing")?;
        let mut import = self.docker();
        import.arg("import");
        for change in changes {
            import.args(["--change", change]);
        }
        let imported = run(import.arg("-").arg(image).stdin(packed).stdout(Stdio::null()));
        let is_packed = packing.wait()?.success();
        imported?;
        if is_packed { Ok(()) } else { bail!("`{}` cannot be packed", folder.display()) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // By its id, and in order: it ends its containers. `kill` is asked, since std sends no other signal than the last one.
        let _ = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.daemon.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// The client of Debian's package comes first: others in the PATH may not be able to build.
fn client() -> PathBuf {
    let of_debian = Path::new("/usr/bin/docker");
    if of_debian.is_file() { of_debian.to_path_buf() } else { PathBuf::from("docker") }
}

fn make_debian(engine: &Engine, root: &Path) -> anyhow::Result<()> {
    engine.import(&base(root)?, &["CMD [\"bash\"]"], DEBIAN)
}

/// Debian with a C compiler, and the Rust that builds everything else here.
fn make_rust(engine: &Engine, root: &Path) -> anyhow::Result<()> {
    let folder = copy_of_base(root, "rust")?;
    let mut install = Command::new("chroot");
    install.arg(&folder).args(["apt-get", "install", "-qq", "--yes", "--no-install-recommends", "gcc", "libc6-dev"]);
    run(install.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null()))?;
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().context("`rustc` cannot be started")?;
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout)?.trim());
    for part in ["bin", "lib"] {
        copy(&sysroot.join(part), &folder.join("usr/local"))?;
    }
    // What this machine trusts, and what its cargo needs to reach the registry.
    copy(Path::new("/etc/ssl/certs/ca-certificates.crt"), &folder.join("etc/ssl/certs"))?;
    fs::create_dir_all(folder.join("usr/local/cargo"))?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    if let Some(settings) = home.map(|home| home.join("config.toml")).filter(|file| file.is_file()) {
        copy(&settings, &folder.join("usr/local/cargo"))?;
    }
    engine.import(&folder, &["ENV CARGO_HOME=/usr/local/cargo"], RUST)?;
    Ok(fs::remove_dir_all(folder)?)
}

/// Debian with Caddy, which may listen on the web's ports without being root.
fn make_caddy(engine: &Engine, root: &Path) -> anyhow::Result<()> {
    let folder = copy_of_base(root, "caddy")?;
    copy(&root.join(".testbed/python/bin/caddy"), &folder.join("usr/bin"))?;
    run(Command::new("setcap").arg("cap_net_bind_service=+ep").arg(folder.join("usr/bin/caddy")))?;
    for made in ["config", "data", "srv", "etc/caddy"] {
        fs::create_dir_all(folder.join(made))?;
    }
    let start = r#"CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]"#;
    engine.import(&folder, &["ENV XDG_CONFIG_HOME=/config", "ENV XDG_DATA_HOME=/data", "WORKDIR /srv", start], CADDY)?;
    Ok(fs::remove_dir_all(folder)?)
}

/// A small Debian in a folder; it is made once, and then kept.
fn base(root: &Path) -> anyhow::Result<PathBuf> {
    let folder = root.join(".testbed/debian");
    if !folder.exists() {
        let unfinished = root.join(".testbed/debian.unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        let mut make = Command::new("debootstrap");
        make.args(["--variant=minbase", "--include=ca-certificates,wget", RELEASE]).arg(&unfinished);
        run(make.stdin(Stdio::null()).stdout(Stdio::null()))?;
        fs::rename(unfinished, &folder)?;
    }
    Ok(folder)
}

fn copy_of_base(root: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = root.join(FOLDER).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    run(Command::new("cp").arg("--archive").arg(base(root)?).arg(&folder))?;
    // Who answers names is this machine's matter.
    copy(Path::new("/etc/resolv.conf"), &folder.join("etc"))?;
    Ok(folder)
}

fn copy(what: &Path, into: &Path) -> anyhow::Result<()> {
    run(Command::new("cp").args(["--archive", "--dereference"]).arg(what).arg(into))
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = format!("{command:?}");
    let status = command.status().with_context(|| format!("{line} cannot be started"))?;
    if status.success() { Ok(()) } else { bail!("{line} failed ({status})") }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
