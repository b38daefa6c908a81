//! How many tests passed, failed and were skipped, read from what the test runners print.

use std::{fmt, ops::AddAssign};

/// Counts of tests. Shown as the last line of a run; programs read it, so its form never changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u32,
    /// Tests that failed, and steps that failed before they could count.
    pub(crate) failed: u32,
    /// Tests that were not run. There are none in a good run.
    pub(crate) skipped: u32,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed = self.passed.saturating_add(other.passed);
        self.failed = self.failed.saturating_add(other.failed);
        self.skipped = self.skipped.saturating_add(other.skipped);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "total: {} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Whose output is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// `cargo test`: one summary for each test binary.
    Cargo,
    /// `node --test --test-reporter=tap`: one summary at the end.
    Node,
}

/// Reads the summaries out of a runner's output, line by line.
#[derive(Debug)]
pub(crate) struct Reader {
    runner: Runner,
    tally: Tally,
    node: Node,
    is_summary_seen: bool,
}

/// The numbers below node's test report. A test may print a line that looks like one, so the last of each counts.
#[derive(Debug, Clone, Copy, Default)]
struct Node {
    pass: u32,
    fail: u32,
    cancelled: u32,
    skipped: u32,
    todo: u32,
}

impl Reader {
    /// Nothing has been read yet.
    pub(crate) fn new(runner: Runner) -> Self {
        Self { runner, tally: Tally::default(), node: Node::default(), is_summary_seen: false }
    }

    /// Reads the next line.
    pub(crate) fn line(&mut self, line: &str) {
        match self.runner {
            Runner::Cargo => {
                if let Some(tally) = read_cargo(line) {
                    self.tally += tally;
                    self.is_summary_seen = true;
                }
            }
            Runner::Node => {
                if let Some((name, count)) = read_node(line) {
                    self.is_summary_seen |= self.node.set(name, count);
                }
            }
        }
    }

    /// What was counted; none if the runner never summed up.
    pub(crate) fn tally(&self) -> Option<Tally> {
        let tally = match self.runner {
            Runner::Cargo => self.tally,
            Runner::Node => self.node.tally(),
        };
        self.is_summary_seen.then_some(tally)
    }
}

impl Node {
    fn set(&mut self, name: &str, count: u32) -> bool {
        match name {
            "pass" => self.pass = count,
            "fail" => self.fail = count,
            "cancelled" => self.cancelled = count,
            "skipped" => self.skipped = count,
            "todo" => self.todo = count,
            _ => return false,
        }
        true
    }

    fn tally(self) -> Tally {
        let plus = u32::saturating_add;
        Tally { passed: self.pass, failed: plus(self.fail, self.cancelled), skipped: plus(self.skipped, self.todo) }
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn read_cargo(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for part in counts.split("; ") {
        // The last part is the time, which is no count.
        let Some((count, what)) = part.split_once(' ').and_then(|(count, what)| Some((count.parse::<u32>().ok()?, what))) else {
            continue;
        };
        match what {
            "passed" => tally.passed = count,
            "failed" => tally.failed = count,
            "ignored" | "filtered out" => tally.skipped = tally.skipped.saturating_add(count),
            _ => {}
        }
    }
    Some(tally)
}

/// `# pass 3`
fn read_node(line: &str) -> Option<(&str, u32)> {
    let (name, count) = line.strip_prefix("# ")?.split_once(' ')?;
    Some((name, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(runner: Runner, output: &str) -> Option<Tally> {
        let mut reader = Reader::new(runner);
        output.lines().for_each(|line| reader.line(line));
        reader.tally()
    }

    #[test]
    fn the_summaries_of_all_test_binaries_are_added_up() {
        let output = "running 3 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
     Running tests/b.rs
test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.00s
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(read(Runner::Cargo, output), Some(Tally { passed: 5, failed: 1, skipped: 5 }));
    }

    #[test]
    fn what_only_looks_like_a_summary_is_not_counted() {
        assert_eq!(read(Runner::Cargo, "said test result: ok. 3 passed; 0 failed\ntest result: what?\n"), None);
        assert_eq!(read(Runner::Node, "# Subtest: pass 3\n# tests 4\n#pass 1"), None);
    }

    #[test]
    fn the_last_summary_of_node_counts() {
        let output = "# pass 99\nok 1 - a\n1..4\n# tests 7\n# pass 1\n# fail 2\n# cancelled 1\n# skipped 2\n# todo 1\n# duration_ms 5.5";
        assert_eq!(read(Runner::Node, output), Some(Tally { passed: 1, failed: 3, skipped: 3 }));
    }

    #[test]
    fn the_total_line_keeps_its_form() {
        let tally = Tally { passed: 12, failed: 0, skipped: 3 };
        assert_eq!(tally.to_string(), "total: 12 passed, 0 failed, 3 skipped");
    }
}
