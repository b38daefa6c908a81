//! Values held to the schemas that the shop publishes, by a validator that we did not write: `jsonschema-rs`, which schemathesis stands
//! on and brings. Its crate would take longer to build than all of these tests to run.
#![allow(dead_code, unreachable_pub, reason = "each test target uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail as tests do"
)]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

/// What to say where a tool is not there.
pub const INSTALL: &str = "cannot be started; `cargo xtask test --install` installs it";

/// A file of what xtask installs.
pub fn testbed(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.testbed")).join(path)
}

/// A file beside this one.
pub fn file(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contracts")).join(name)
}

/// Which JSON Schema a document's schemas are.
#[derive(Debug, Clone, Copy)]
pub enum Draft {
    /// AsyncAPI's.
    Seven,
    /// OpenAPI's.
    Of2020,
}

/// Values, each with the schema that it is to fit, whose references lead into a document's components.
pub struct Cases<'a> {
    document: &'a Value,
    draft: Draft,
    cases: Vec<Value>,
    names: Vec<String>,
}

impl<'a> Cases<'a> {
    pub fn of(document: &'a Value, draft: Draft) -> Self {
        Self { document, draft, cases: Vec::new(), names: Vec::new() }
    }

    pub fn add(&mut self, schema: &Value, value: &Value, name: impl Into<String>) {
        let name = name.into();
        assert!(schema.is_object(), "{name}: there is no schema for it");
        self.cases.push(json!([schema, value]));
        self.names.push(name);
    }

    /// Each fits.
    pub fn fit(&self) {
        let faulty: Vec<_> = self.judge().into_iter().zip(&self.names).filter(|(faults, _)| !faults.is_empty()).collect();
        assert!(!self.cases.is_empty() && faulty.is_empty(), "{faulty:#?}");
    }

    /// None fits.
    pub fn fail(&self) {
        let fitting: Vec<_> = self.judge().into_iter().zip(&self.names).filter(|(faults, _)| faults.is_empty()).collect();
        assert!(!self.cases.is_empty() && fitting.is_empty(), "{fitting:#?}");
    }

    fn judge(&self) -> Vec<Vec<String>> {
        let draft = match self.draft {
            Draft::Seven => "7",
            Draft::Of2020 => "2020-12",
        };
        let asked = json!({"draft": draft, "components": self.document["components"], "cases": self.cases}).to_string();
        let mut judge = Command::new("python3");
        judge.env("PYTHONPATH", testbed("python")).arg(file("judge.py"));
        let judge = judge.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut judge = judge.unwrap_or_else(|error| panic!("python3 {INSTALL}: {error}"));
        judge.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
        let output = judge.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let faults: Vec<Vec<String>> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(faults.len(), self.cases.len());
        faults
    }
}
