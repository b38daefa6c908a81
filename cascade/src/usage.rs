//! Reads the command line: help as clap writes it, and what is wrong with flags in one line.

use std::{io::Write, process::ExitCode};

use axum::http::Uri;
use clap::{
    CommandFactory, Parser,
    error::{Error, ErrorKind},
};

use crate::cli::Cli;

/// The exit code for wrong flags, as shells have it.
const EXIT_USAGE: u8 = 2;

/// The command line; or, when all has been said, the exit code.
pub(crate) fn read() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A pager that was left early has read enough.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(EXIT_USAGE)
        }
        _ => {
            let said = one_line(&error, std::env::args().nth(1).as_deref());
            let _ = std::io::stderr().write_all(format!("cascade: {said}\n").as_bytes());
            ExitCode::from(EXIT_USAGE)
        }
    })
}

/// What clap says in a page, and where there is more: in the help of the command that the first argument names.
fn one_line(error: &Error, first: Option<&str>) -> String {
    let page = error.render().to_string();
    let mut lines = page.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut text = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    for line in lines.take_while(|line| !line.starts_with("Usage: ") && !line.starts_with("For more information")) {
        match line.strip_prefix("tip: ") {
            Some(tip) => text.push_str(&format!("; {tip}")),
            None => text.push_str(&format!(" {line}")),
        }
    }
    let command = Cli::command();
    let named = first.and_then(|first| command.find_subcommand(first)).map(|named| format!(" {}", named.get_name()));
    format!("{text} (see `cascade{} --help`)", named.unwrap_or_default())
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
        one_line(&Cli::try_parse_from(["cascade"].iter().chain(arguments)).unwrap_err(), arguments.first().copied())
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
