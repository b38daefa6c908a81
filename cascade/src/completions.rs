//! `cascade completions`: scripts with which a shell completes commands and flags.

use std::io::Write;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Prints the script for `shell`.
pub(crate) fn print(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cascade", &mut script);
    std::io::stdout().lock().write_all(&script).context("stdout")
}
