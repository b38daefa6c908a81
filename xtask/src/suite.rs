//! The steps of a test run, in order: cheap ones first, so that a slip is told within seconds.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use crate::{
    engine::Engine,
    structure,
    tally::{Reader, Runner, Tally},
};

/// One step of a run.
struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    /// The checks of structure, in this process.
    Structure,
    /// A command that succeeds or fails.
    Command(Command),
    /// The container engine, which the tests after it find running.
    Engine,
    /// A command that runs tests, or why it cannot be put together.
    Tests(Runner, anyhow::Result<Command>),
}

/// Runs everything, as the continuous integration does.
///
/// # Errors
/// The first step that failed, or that tests were skipped.
pub(crate) fn full(root: &Path) -> anyhow::Result<()> {
    let mut doc = cargo(root, &["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    let mut steps = vec![
        Step { name: "format", work: Work::Command(cargo(root, &["fmt", "--all", "--check"])) },
        Step { name: "structure", work: Work::Structure },
        Step { name: "lints", work: Work::Command(clippy(root, &["--locked"])) },
        Step { name: "documentation", work: Work::Command(doc) },
    ];
    if root.join("web").exists() {
        steps.push(Step { name: "client tests", work: Work::Tests(Runner::Node, client_tests(root)) });
    }
    // The simulation turns the kit's `planted-bugs` on, and cargo gives one build of the kit to all that it builds together. So
    // the simulation is built apart: no binary under test holds a planted bug.
    let all_but_simulation = ["test", "--locked", "--workspace", "--exclude", "sim", "--no-fail-fast"];
    let mut tests = cargo(root, &all_but_simulation);
    // A snapshot that differs is a failure here; the inner loop leaves the new one beside it, to be looked at.
    tests.env("INSTA_UPDATE", "no");
    steps.push(on_engine(root, &mut tests));
    steps.push(Step { name: "tests", work: Work::Tests(Runner::Cargo, Ok(tests)) });
    // It runs thousands of shops, so our own crates are optimised for it. Not `--release`: that would build every dependency once
    // more, and without the overflow checks and debug assertions that make a simulation worth running.
    let mut simulation = cargo(root, &["test", "--locked", "--package", "sim", "--no-fail-fast"]);
    simulation.env("CARGO_PROFILE_DEV_OPT_LEVEL", "2");
    steps.push(Step { name: "simulation", work: Work::Tests(Runner::Cargo, Ok(simulation)) });
    run(root, steps)
}

/// Runs the tests of the shop in containers.
///
/// # Errors
/// The first step that failed, or that tests were skipped.
pub(crate) fn containers(root: &Path) -> anyhow::Result<()> {
    let mut tests = cargo(root, &["test", "--package", "cascade", "--test", "balancer", "--test", "containers", "--no-fail-fast"]);
    let steps = vec![on_engine(root, &mut tests), Step { name: "tests", work: Work::Tests(Runner::Cargo, Ok(tests)) }];
    run(root, steps)
}

/// The step that starts the container engine, which `tests` are told of.
fn on_engine(root: &Path, tests: &mut Command) -> Step {
    let (name, value) = Engine::environment(root);
    tests.env(name, value);
    Step { name: "container engine", work: Work::Engine }
}

/// Runs the inner loop: no processes, no browser, no containers, no simulation.
///
/// # Errors
/// The first step that failed, or that tests were skipped.
pub(crate) fn quick(root: &Path) -> anyhow::Result<()> {
    run(
        root,
        vec![
            Step { name: "format", work: Work::Command(cargo(root, &["fmt", "--all", "--check"])) },
            Step { name: "structure", work: Work::Structure },
            Step { name: "lints", work: Work::Command(clippy(root, &[])) },
            Step { name: "tests", work: Work::Tests(Runner::Cargo, quick_tests(root)) },
        ],
    )
}

fn run(root: &Path, steps: Vec<Step>) -> anyhow::Result<()> {
    let mut total = Tally::default();
    let mut engine = None;
    let outcome = steps.into_iter().try_for_each(|step| run_step(root, step, &mut engine, &mut total, &mut std::io::stdout()));
    // Before anything else: it must not outlive the run, however that ends.
    drop(engine);
    let outcome = outcome.and_then(|()| match total.skipped {
        0 => Ok(()),
        skipped => bail!("{skipped} tests were skipped: a test that is not run is no test"),
    });
    if let Err(error) = &outcome {
        eprintln!("xtask: {error:#}");
    }
    println!("{total}");
    // The reason has been told above the total, which is the last line whatever happens.
    if outcome.is_err() {
        std::process::exit(1);
    }
    Ok(())
}

fn run_step(root: &Path, step: Step, engine: &mut Option<Engine>, total: &mut Tally, screen: &mut impl Write) -> anyhow::Result<()> {
    writeln!(screen, "== {}", step.name)?;
    let failed_before = total.failed;
    let outcome = match step.work {
        Work::Structure => structure::report(root),
        Work::Command(command) => run_command(command),
        Work::Engine => Engine::provide(root).map(|started| *engine = Some(started)),
        Work::Tests(runner, command) => command.and_then(|command| run_tests(runner, command, total, screen)),
    };
    if outcome.is_err() && total.failed == failed_before {
        total.failed = total.failed.saturating_add(1);
    }
    outcome.with_context(|| format!("step `{}` failed", step.name))
}

fn run_command(mut command: Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{command:?} cannot be started"))?;
    if status.success() { Ok(()) } else { bail!("{status}") }
}

/// Runs tests, shows what they print as it comes, and adds what they count to `total`.
fn run_tests(runner: Runner, mut command: Command, total: &mut Tally, screen: &mut impl Write) -> anyhow::Result<()> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| format!("{command:?} cannot be started"))?;
    let output = child.stdout.take().context("the output is missing")?;
    let mut reader = Reader::new(runner);
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    // Read as bytes: a test may print what is not UTF-8.
    while lines.read_until(b'\n', &mut line)? > 0 {
        screen.write_all(&line)?;
        reader.line(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    let status = child.wait()?;
    let tally = reader.tally();
    *total += tally.unwrap_or_default();
    match tally {
        _ if !status.success() => bail!("{status}"),
        None => bail!("no test was run"),
        Some(tally) if tally.failed > 0 => bail!("{} tests failed", tally.failed),
        Some(_) => Ok(()),
    }
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root).args(arguments);
    // Cargo tells a program that it runs about the program's own package; that is not to reach the next cargo.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

fn clippy(root: &Path, options: &[&str]) -> Command {
    let mut command = cargo(root, &["clippy", "--workspace", "--all-targets"]);
    command.args(options).args(["--", "--deny", "warnings"]);
    command
}

/// The client app's tests, named one by one: what `node --test` makes of a folder differs between its versions.
fn client_tests(root: &Path) -> anyhow::Result<Command> {
    let folder = root.join("web/tests");
    let mut files = Vec::new();
    find_client_tests(&folder, &mut files).with_context(|| format!("the client app has no tests in `{}`", folder.display()))?;
    if files.is_empty() {
        bail!("no file in `{}` is named `*.test.js` or `*.test.mjs`", folder.display());
    }
    files.sort();
    let mut command = Command::new("node");
    command.current_dir(root).args(["--test", "--test-reporter=tap"]).args(files);
    Ok(command)
}

fn find_client_tests(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            find_client_tests(&path, files)?;
        } else if name.ends_with(".test.js") || name.ends_with(".test.mjs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Unit tests, and all integration tests that start no process, no browser and no container.
fn quick_tests(root: &Path) -> anyhow::Result<Command> {
    let metadata = structure::metadata(root)?;
    let packages = metadata.workspace_packages().into_iter().filter(|package| package.name.as_str() != "sim");
    let targets = packages.flat_map(|package| &package.targets).filter(|target| target.is_test() && is_quick(&target.name));
    let names: BTreeSet<&str> = targets.map(|target| target.name.as_str()).collect();
    let mut command = cargo(root, &["test", "--workspace", "--exclude", "sim", "--lib", "--bins"]);
    for name in names {
        command.args(["--test", name]);
    }
    Ok(command)
}

fn is_quick(test_target: &str) -> bool {
    !["process", "browser", "balancer", "containers"]
        .iter()
        .any(|slow| test_target == *slow || test_target.starts_with(&format!("{slow}_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_inner_loop_leaves_processes_and_browsers_out() {
        assert!(is_quick("schemas") && is_quick("lanes") && is_quick("processing"));
        assert!(!is_quick("containers") && !is_quick("process_kill") && !is_quick("browser") && !is_quick("browser_scenario"));
    }

    #[test]
    fn a_command_that_counts_no_test_fails() {
        let mut total = Tally::default();
        assert!(run_tests(Runner::Cargo, shell("echo nothing to see"), &mut total, &mut Vec::new()).is_err());
    }

    #[test]
    fn what_a_failing_run_counted_is_kept() {
        // The summary must not reach the screen, where the run around this test would count it.
        let (mut total, mut screen) = (Tally::default(), Vec::new());
        let script = "echo 'test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out'; exit 101";
        let step = Step { name: "tests", work: Work::Tests(Runner::Cargo, Ok(shell(script))) };
        let error = format!("{:#}", run_step(Path::new("."), step, &mut None, &mut total, &mut screen).unwrap_err());
        assert!(error.starts_with("step `tests` failed: "), "{error}");
        assert!(String::from_utf8_lossy(&screen).contains("2 passed"));
        assert_eq!(total, Tally { passed: 2, failed: 1, skipped: 0 });
    }

    #[test]
    fn a_step_that_breaks_before_it_counts_is_one_failure() {
        let mut total = Tally::default();
        let step = Step { name: "lints", work: Work::Command(shell("exit 3")) };
        assert!(run_step(Path::new("."), step, &mut None, &mut total, &mut Vec::new()).is_err());
        assert_eq!(total.failed, 1);
    }
}
