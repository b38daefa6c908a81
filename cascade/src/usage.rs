//! Reads the command line, with what the environment and the configuration file say beside it: help as clap writes it, and what is wrong
//! in one line.

use std::{ffi::OsString, io::Write, path::PathBuf, process::ExitCode};

use axum::http::Uri;
use clap::{
    Arg, Command, CommandFactory, FromArgMatches, Id,
    error::{Error, ErrorKind},
};

use crate::{cli::Cli, settings::layers::Layers};

/// The exit code for wrong flags and settings, as shells have it.
pub(crate) const EXIT_USAGE: u8 = 2;
/// The command that takes every setting.
const TAKES_ALL: &str = "serve";

/// What was asked for cannot be meant: a flag, a variable or the configuration file is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongUsage(pub(crate) String);

/// Why there is no command to run.
#[derive(Debug)]
pub(crate) enum Unread {
    /// A page was asked for, or has to be shown.
    Help(Error),
    /// Something is wrong: one line.
    Wrong(String),
}

/// The command line; or, when all has been said, the exit code.
pub(crate) fn read() -> Result<Cli, ExitCode> {
    parse(&std::env::args_os().collect::<Vec<_>>(), std::env::vars_os().collect()).map_err(|unread| match unread {
        Unread::Help(error) => {
            // A pager that was left early has read enough.
            let _ = error.print();
            if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
        }
        Unread::Wrong(said) => {
            let _ = std::io::stderr().write_all(format!("cascade: {said}\n").as_bytes());
            ExitCode::from(EXIT_USAGE)
        }
    })
}

/// Reads `arguments`, the program's name first, and those of the `variables` that are settings.
pub(crate) fn parse(arguments: &[OsString], variables: Vec<(OsString, OsString)>) -> Result<Cli, Unread> {
    let first = arguments.get(1).map(|first| first.to_string_lossy().into_owned());
    let settings = settings();
    // Flags first, alone: what is wrong after that is not theirs.
    let none = Layers::default();
    let matches = none.apply(&settings, Cli::command()).try_get_matches_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Unread::Help(error),
        _ => Unread::Wrong(one_line(&error, first.as_deref(), &none)),
    })?;
    let is_setting = |id: &Id| settings.iter().any(|setting| setting.get_id() == id);
    let layers = match matches.subcommand() {
        Some((_, chosen)) if chosen.ids().any(is_setting) => {
            let config = chosen.try_get_one::<PathBuf>("config").ok().flatten();
            let layers = Layers::read(&settings, variables, config.map(PathBuf::as_path));
            layers.map_err(|wrong| Unread::Wrong(format!("{wrong}{}", see(first.as_deref()))))?
        }
        _ => none,
    };
    let matches = layers.apply(&settings, Cli::command()).try_get_matches_from(arguments);
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    cli.map_err(|error| Unread::Wrong(one_line(&error, first.as_deref(), &layers)))
}

/// Every setting that there is, in the order of the help.
pub(crate) fn settings() -> Vec<Arg> {
    let command = Cli::command();
    let all = command.find_subcommand(TAKES_ALL).into_iter().flat_map(Command::get_arguments);
    all.filter(|arg| arg.get_long().is_some()).cloned().collect()
}

/// What clap says in a page, and where there is more. A wrong value that one of the `layers` gave is said to be there, not in a flag.
fn one_line(error: &Error, first: Option<&str>, layers: &Layers) -> String {
    let page = error.render().to_string();
    let mut lines = page.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut text = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    for line in lines.take_while(|line| !line.starts_with("Usage: ") && !line.starts_with("For more information")) {
        match line.strip_prefix("tip: ") {
            Some(tip) => text.push_str(&format!("; {tip}")),
            None => text.push_str(&format!(" {line}")),
        }
    }
    let mut command = Cli::command();
    // Only a built command knows how clap writes its flags.
    command.build();
    for arg in first.and_then(|first| command.find_subcommand(first)).into_iter().flat_map(Command::get_arguments) {
        if let Some(origin) = layers.origin(arg.get_id().as_str()) {
            text = text.replace(&format!("'{arg}'"), &origin);
        }
    }
    format!("{text}{}", see(first))
}

/// Where the help is: that of the command that the first argument names.
fn see(first: Option<&str>) -> String {
    let command = Cli::command();
    let named = first.and_then(|first| command.find_subcommand(first)).map(|named| format!(" {}", named.get_name()));
    format!(" (see `cascade{} --help`)", named.unwrap_or_default())
}

/// A shop's URL, without a slash at its end.
pub(crate) fn base_url(text: &str) -> Result<String, String> {
    let example = "such as http://localhost:4000";
    let uri: Uri = text.parse().map_err(|_| format!("it must be a URL {example}"))?;
    let Some(authority) = uri.authority().filter(|_| uri.scheme_str() == Some("http")) else {
        return Err(format!("it must begin with http://, {example}"));
    };
    let has_port = authority.as_str() != authority.host();
    if uri.host().is_none_or(str::is_empty) || (has_port && uri.port_u16().is_none()) {
        return Err(format!("it must name a host, and may name a port, {example}"));
    }
    match uri.query() {
        None if !text.contains('#') => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(format!("it must end before `?` and `#`, {example}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(arguments: &[&str]) -> String {
        match parse(&["cascade"].iter().chain(arguments).map(OsString::from).collect::<Vec<_>>(), Vec::new()) {
            Err(Unread::Wrong(said)) => said,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn a_wrong_flag_is_named_in_one_line_with_what_helps() {
        for (arguments, expected) in [
            (
                &["up", "--prot", "1"][..],
                "unexpected argument '--prot' found; a similar argument exists: '--port' (see `cascade up --help`)",
            ),
            (&["frob"], "unrecognized subcommand 'frob' (see `cascade --help`)"),
            (&["up", "more"], "unexpected argument 'more' found (see `cascade up --help`)"),
            (&["up", "--port"], "a value is required for '--port <PORT>' but none was supplied (see `cascade up --help`)"),
            (
                &["scenario", "one"],
                "invalid value 'one' for '[NUMBER]': it must be a number; `cascade scenario` lists them (see `cascade scenario --help`)",
            ),
            (&["completions"], "the following required arguments were not provided: <SHELL> (see `cascade completions --help`)"),
            (
                &["completions", "csh"],
                "invalid value 'csh' for '<SHELL>' [possible values: bash, elvish, fish, powershell, zsh]; a similar value exists: 'zsh' (see `cascade completions --help`)",
            ),
        ] {
            assert_eq!(refused(arguments), expected);
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_shop_is_where_a_plain_http_url_says() {
        for good in ["http://localhost:4000", "http://localhost:4000/", "http://[::1]:4000", "http://shop.example"] {
            assert_eq!(base_url(good), Ok(good.trim_end_matches('/').to_owned()));
        }
        for bad in [
            "",
            "localhost",
            "localhost:4000",
            "https://localhost",
            "ftp://x",
            "http://",
            "http://:4000",
            "http://x:99999",
            "http://x/?a=1",
        ] {
            assert!(base_url(bad).is_err_and(|reason| reason.contains("http://localhost:4000")), "{bad}");
        }
    }
}
