//! `cascade tokens` against a running shop: what it prints where, what the token then opens, and how it is refused.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod shop;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use shop::{Shop, run_to_end};

fn tokens(shop: &Shop, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
    command.env_clear().arg("tokens").args(arguments).args(["--url", &shop.base(), "--data-dir", folder.to_str().unwrap()]);
    command.stdin(Stdio::null());
    command
}

fn run(shop: &Shop, folder: &Path, arguments: &[&str]) -> (String, String) {
    let Output { status, stdout, stderr } = tokens(shop, folder, arguments).output().unwrap();
    let (said, beside) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success(), "{arguments:?}: {said}{beside}");
    (said, beside)
}

fn refused(mut command: Command, code: i32, expected: &str) {
    let (status, said) = run_to_end(&mut command);
    assert_eq!(status.code(), Some(code), "{said}");
    assert!(said.lines().count() == 1 && said.starts_with("cascade: ") && said.contains(expected), "{said}");
}

#[test]
fn a_token_goes_to_stdout_alone_and_opens_what_it_was_made_for_until_it_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let data = folder.path();
    let (token, beside) = run(&shop, data, &["create", "reader", "--read", "cascade.*", "--read-owners", "--manage-tokens"]);
    assert!(token.starts_with("cascade_reader_") && token.lines().count() == 1 && token.ends_with('\n'), "{token}");
    assert!(beside.contains("may read cascade.* of anybody; make tokens") && !beside.contains(token.trim()), "{beside}");
    let file = data.join("reader.token");
    std::fs::write(&file, &token).unwrap();
    // Whoever has the token needs no secret.
    let by_token = |arguments: &[&str]| {
        let mut command = tokens(&shop, Path::new("/nowhere"), arguments);
        command.args(["--token-file", file.to_str().unwrap()]);
        command
    };
    let listed = by_token(&["list", "--json"]).output().unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((listed["items"][0]["name"].as_str(), listed["items"].as_array().unwrap().len()), (Some("reader"), 1));
    assert!(!listed["items"][0]["last_used_day"].is_null());
    let (table, _) = run(&shop, data, &["list"]);
    assert!(table.lines().count() == 2 && table.starts_with("NAME") && !table.contains(token.trim()), "{table}");
    let (made, beside) = run(&shop, data, &["rotate", "reader", "--grace-hours", "0", "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert!(beside.is_empty() && made["token"].as_str().is_some_and(|token| token.starts_with("cascade_reader_")));
    refused(by_token(&["list"]), 1, "was revoked or replaced");
    std::fs::write(&file, made["token"].as_str().unwrap()).unwrap();
    assert!(by_token(&["list"]).output().unwrap().status.success());
    run(&shop, data, &["revoke", "reader"]);
    refused(by_token(&["list"]), 1, "was revoked or replaced");
    assert!(run(&shop, data, &["list"]).0.contains("no tokens"));
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let data = folder.path();
    for (arguments, code, expected) in [
        (&["create", "loyalty", "--publish-as", "/order", "--publish", "a"][..], 1, "service of the shop"),
        (&["create", "loyalty", "--publish-as", "/loyalty", "--publish", "cascade.*"], 1, "which a service of the shop emits"),
        (&["create", "loyalty", "--subscribe-as", "payment", "--subscribe", "a"], 1, "`payment`"),
        (&["create", "loyalty"], 2, "required"),
        (&["create", "Loyalty", "--read", "a"], 2, "a-z"),
        (&["create", "loyalty", "--read", "a", "--expires-days", "0"], 2, "--expires-days"),
        (&["rotate", "nobody"], 1, "no token `nobody`"),
        (&["revoke", "nobody"], 1, "no token `nobody`"),
    ] {
        refused(tokens(&shop, data, arguments), code, expected);
    }
    refused(tokens(&shop, Path::new("/nowhere"), &["list"]), 1, "--token-file");
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("secret"), "0".repeat(64)).unwrap();
    std::fs::set_permissions(other.path().join("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    refused(tokens(&shop, other.path(), &["list"]), 1, "its secret is another one");
}
