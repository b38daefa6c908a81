//! `cascade secret`: the secret of services that run apart.

use std::{io::Write, path::Path};

use anyhow::Context;
use kit::{Environment, security::Keyring};

/// Makes a secret in `file`, or says that there is one. What it is, is never printed.
pub(crate) fn run(file: &Path) -> anyhow::Result<()> {
    let was_there = file.exists();
    Keyring::load_or_create(file, &Environment::real()?.ids)?;
    let said = if was_there { "holds the shop's secret already" } else { "holds the shop's new secret" };
    writeln!(std::io::stdout(), "`{}` {said}.", file.display()).context("stdout")
}
