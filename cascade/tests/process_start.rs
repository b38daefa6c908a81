//! What can be wrong when the shop starts: one line says it, the exit code too, and nothing is changed.

mod shop;

use std::{net::TcpListener, os::unix::fs::PermissionsExt, process::Command};

use shop::{Shop, command, run_to_end};

/// Exactly one line, which names what is wrong.
fn assert_one_line(said: &str, expected: &str) {
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(said.starts_with("cascade: ") && said.to_lowercase().contains(&expected.to_lowercase()), "{said}");
}

#[test]
fn a_taken_port_is_named_and_no_data_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (status, said) = run_to_end(command(&folder.path().join("data")).args(["--port", &port]));
    assert_eq!(status.code(), Some(1));
    assert_one_line(&said, &port);
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_folder_in_use_by_another_process_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &[]);
    let (status, said) = run_to_end(command(folder.path()).args(["--port", "0"]));
    assert_eq!(status.code(), Some(1));
    assert_one_line(&said, "in use by another process");
    drop(shop);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (status, said) = run_to_end(command(&file.join("data")).args(["--port", "0"]));
    assert_eq!(status.code(), Some(1));
    assert_one_line(&said, "data");
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "00".repeat(32)).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (status, said) = run_to_end(command(folder.path()).args(["--port", "0"]));
    assert_eq!(status.code(), Some(1));
    assert_one_line(&said, "chmod 600");
}

#[test]
fn a_store_that_is_not_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("order.db"), "this is not a database, and it is long enough to be looked at as one".repeat(40))
        .unwrap();
    let (status, said) = run_to_end(command(folder.path()).args(["--port", "0"]));
    assert_eq!(status.code(), Some(1));
    assert_one_line(&said, "order.db");
}

#[test]
fn a_broken_configuration_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cascade.toml");
    for (text, expected) in [("prot = 4000", "prot"), ("port = \"many\"", "port"), ("pace = \"fast\"", "instant"), ("[", "configuration")] {
        std::fs::write(&file, text).unwrap();
        let (status, said) = run_to_end(command(&folder.path().join("data")).arg("--config").arg(&file));
        assert_eq!(status.code(), Some(1), "{text}");
        assert_one_line(&said, expected);
    }
    let (status, said) = run_to_end(command(&folder.path().join("data")).env("CASCADE_PORT", "many"));
    assert_eq!(status.code(), Some(1));
    assert_one_line(&said, "port");
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_flag_that_is_none_is_named() {
    let mut wrong = Command::new(env!("CARGO_BIN_EXE_cascade"));
    let (status, said) = run_to_end(wrong.args(["up", "--prot", "1"]));
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("--prot"), "{said}");
}
