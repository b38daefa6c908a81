//! What can be wrong when the shop starts: one line says it, the exit code too, and nothing is changed.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod shop;

use std::{net::TcpListener, os::unix::fs::PermissionsExt, path::Path, process::Command};

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
    assert_one_line(&said, "broker.db` is in use by another process");
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

/// The same command from somebody whom permissions hold, also if that is root.
fn held_by_permissions(command: &Command) -> Command {
    let mut held = Command::new("setpriv");
    held.env_clear().args(["--bounding-set=-all", "--inh-caps=-all"]).arg(command.get_program()).args(command.get_args());
    held
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_folder_without_the_right_to_write_is_named_and_so_is_one_that_cannot_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    set_mode(&data, 0o555);
    let refuse = |data: &Path, expected: &str| {
        let (status, said) = run_to_end(&mut held_by_permissions(command(data).args(["--port", "0"])));
        assert_eq!(status.code(), Some(1), "{said}");
        assert_one_line(&said, expected);
    };
    refuse(&data, "data` cannot be written: permission denied");
    refuse(&data.join("deep"), "data/deep` cannot be made: permission denied");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    // With a secret there, it is the first store that cannot be made.
    set_mode(&data, 0o755);
    std::fs::write(data.join("secret"), "00".repeat(32)).unwrap();
    set_mode(&data.join("secret"), 0o600);
    set_mode(&data, 0o555);
    refuse(&data, "data` cannot be used: permission denied");
    set_mode(&data, 0o755);
}

#[test]
fn a_secret_that_is_none_or_is_not_kept_secret_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    let refuse = |expected: &str| {
        for arguments in [&["--port", "0"][..], &["--port", "0", "--secret-file", secret.to_str().unwrap()]] {
            let (status, said) = run_to_end(&mut held_by_permissions(command(folder.path()).args(arguments)));
            assert_eq!(status.code(), Some(1), "{said}");
            assert_one_line(&said, &format!("secret` {expected}"));
        }
    };
    for (text, mode, expected) in [
        ("00".repeat(32), 0o644, "can be read by others; run `chmod 600` on it"),
        ("00".repeat(31), 0o600, "must hold exactly 64 hexadecimal digits"),
        ("00".repeat(33), 0o600, "must hold exactly 64 hexadecimal digits"),
        ("zz".repeat(32), 0o600, "must hold exactly 64 hexadecimal digits"),
        (String::new(), 0o600, "must hold exactly 64 hexadecimal digits"),
    ] {
        std::fs::write(&secret, text).unwrap();
        set_mode(&secret, mode);
        refuse(expected);
    }
    set_mode(&secret, 0o000);
    let (status, said) = run_to_end(&mut held_by_permissions(command(folder.path()).args(["--port", "0"])));
    assert_eq!(status.code(), Some(1));
    assert_one_line(&said, "secret`: permission denied");
    std::fs::remove_file(&secret).unwrap();
    let (status, said) = run_to_end(command(folder.path()).args(["--port", "0", "--secret-file"]).arg(&secret));
    assert_eq!(status.code(), Some(1));
    assert_one_line(&said, "secret`: no such file");
    assert!(!secret.exists(), "a secret that was named is never made");
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
    for (text, expected) in [("prot = 4000", "prot"), ("port = \"many\"", "port"), ("pace = \"fast\"", "instant"), ("[", "line 1")] {
        std::fs::write(&file, text).unwrap();
        let (status, said) = run_to_end(command(&folder.path().join("data")).arg("--config").arg(&file));
        assert_eq!(status.code(), Some(2), "{text}");
        assert_one_line(&said, expected);
    }
    for (variable, value, expected) in [
        ("CASCADE_PORT", "many", "'many' for CASCADE_PORT"),
        ("CASCADE_PROT", "4000", "CASCADE_PROT is no setting; did you mean CASCADE_PORT?"),
        ("CASCADE_PLAYGROUND", "yes", "'yes' for CASCADE_PLAYGROUND"),
        ("CASCADE_DRAIN_MS", "-1", "'-1' for CASCADE_DRAIN_MS"),
        ("CASCADE_TRUSTED_PROXIES", "10.0.0.0/99", "`10.0.0.0/99` is neither `private`, nor"),
        ("CASCADE_ALLOWED_HOSTS", "http://shop.example", "'http://shop.example' for CASCADE_ALLOWED_HOSTS"),
        ("CASCADE_CONFIG", "nowhere.toml", "`nowhere.toml` is not there"),
    ] {
        let (status, said) = run_to_end(command(&folder.path().join("data")).env(variable, value));
        assert_eq!(status.code(), Some(2), "{variable}={value}");
        assert_one_line(&said, expected);
    }
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_flag_that_is_none_is_named() {
    let mut wrong = Command::new(env!("CARGO_BIN_EXE_cascade"));
    let (status, said) = run_to_end(wrong.args(["up", "--prot", "1"]));
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("--prot"), "{said}");
}
