//! The table of settings in `docs/operating.md`: it says what the declarations say, and nothing else does.

use std::path::Path;

use clap::{Arg, CommandFactory};

use super::layers::{CONFIG, variable};
use crate::{cli::Cli, usage};

/// Stands before the table.
const BEGIN: &str =
    "<!-- The table of settings is made from cascade/src/settings.rs; renew it with: WRITE_DOCS=1 cargo test -p cascade settings -->\n";
/// Stands behind it.
const END: &str = "<!-- End of the table of settings. -->\n";

/// One line a setting.
fn table() -> String {
    let command = Cli::command();
    let up = command.find_subcommand("up").unwrap();
    let mut text = String::from("| flag | variable | key in the file | default | |\n|---|---|---|---|---|\n");
    for setting in usage::settings() {
        let id = setting.get_id().as_str();
        let key = if id == CONFIG { String::new() } else { format!("`{id}`") };
        let (meaning, default) = meaning_and_default(&setting);
        let of = if up.get_arguments().any(|arg| arg.get_id() == id) { "" } else { " (`serve` only)" };
        text.push_str(&format!("| `--{}` | `{}` | {key} | {default} | {meaning}{of} |\n", setting.get_long().unwrap(), variable(id)));
    }
    text
}

/// The help without the default that it may name in words, and the default.
fn meaning_and_default(setting: &Arg) -> (String, String) {
    let help = setting.get_help().unwrap().to_string();
    let values: Vec<_> = setting.get_default_values().iter().map(|value| format!("`{}`", value.to_str().unwrap())).collect();
    match help.split_once(" [default: ") {
        Some((meaning, words)) => (meaning.to_owned(), words.trim_end_matches(']').to_owned()),
        None => (help, values.join(",")),
    }
}

#[test]
fn the_table_of_settings_in_the_documentation_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("docs/operating.md has no place for the table of settings");
    let (table_there, after) = rest.split_once(END).expect("the table of settings in docs/operating.md has no end");
    let table = format!("\n{}\n", table());
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, [before, BEGIN, &table, END, after].concat()).unwrap();
    } else {
        assert_eq!(table_there, table, "docs/operating.md is out of date; renew it with: WRITE_DOCS=1 cargo test -p cascade settings");
    }
}

#[test]
fn every_setting_says_what_it_means_and_what_holds_without_it() {
    for setting in usage::settings() {
        let (meaning, default) = meaning_and_default(&setting);
        let may_be_empty = ["allowed_hosts", CONFIG].contains(&setting.get_id().as_str());
        assert!(!meaning.is_empty() && (may_be_empty || !default.is_empty()), "{}", setting.get_id());
    }
}
