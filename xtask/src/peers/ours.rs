//! Our broker, measured by `cascade bench broker`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use super::{Figures, load::Plan};
use crate::structure;

/// The release build of `cascade`.
pub(super) struct Ours(PathBuf);

impl Ours {
    /// Builds it.
    pub(super) fn build(root: &Path) -> anyhow::Result<Self> {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        build.current_dir(root).args(["build", "--locked", "--release", "--package", "cascade"]).stdin(Stdio::null());
        let status = build.status().context("cargo cannot be started")?;
        ensure!(status.success(), "`cascade` cannot be built ({status})");
        let target = structure::metadata(root)?.target_directory;
        Ok(Self(target.as_std_path().join("release").join("cascade")))
    }

    /// Measures what the peers are measured by.
    pub(super) fn measure(&self, plan: Plan) -> anyhow::Result<Figures> {
        let (seconds, rate) = (plan.time.as_secs().to_string(), plan.rate.to_string());
        let mut bench = Command::new(&self.0);
        bench.args(["bench", "broker", "--json", "--events", "10000000", "--seconds", &seconds, "--rate", &rate]);
        bench.args(["--only", "published,batched,delivered,delay"]).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = bench.output().with_context(|| format!("`{}` cannot be started", self.0.display()))?;
        ensure!(output.status.success(), "`cascade bench broker` failed ({})", output.status);
        read(&String::from_utf8_lossy(&output.stdout))
    }
}

fn read(report: &str) -> anyhow::Result<Figures> {
    let mut values = Figures::NAMES.iter().map(|name| number_in(report, name).with_context(|| format!("no `{name}` in {report}")));
    let mut next = || values.next().context("a name is missing")?;
    Ok(Figures::of_array([next()?, next()?, next()?, next()?, next()?]))
}

/// The number that a flat JSON object has under `name`.
fn number_in(json: &str, name: &str) -> Option<f64> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    rest.split([',', '}']).next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_our_own_benchmark_is_understood() {
        let report = r#"{"published_per_s":1.5,"load_cpu_us":9.0,"published_batched_per_s":2.0,"delivered_per_s":3.0,"delivery_ms_p50":0.4,"delivery_ms_p99":5.0,"silent":null}"#;
        assert_eq!(read(report).unwrap(), Figures::of_array([1.5, 2.0, 3.0, 0.4, 5.0]));
        let error = read(r#"{"published_per_s":null}"#).unwrap_err().to_string();
        assert!(error.contains("published_per_s"), "{error}");
    }
}
