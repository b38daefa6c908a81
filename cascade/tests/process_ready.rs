//! Whether a process is ready, how it leaves, and the secret that it is given: what whoever runs it in a container goes by.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail as tests do, and this world's clock is real"
)]

mod shop;

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use shop::{
    Customer, Shop, let_time_pass,
    process::{Process, free_port},
    run_to_end, wait_until,
};

/// How long a shop that is told to stop goes on serving here.
const DRAIN: Duration = Duration::from_millis(1_500);
/// What a stop without open requests takes beside that, at most.
const STOP_MAX: Duration = Duration::from_secs(5);
/// What a healthcheck that asks in vain takes, at most.
const ASK_MAX: Duration = Duration::from_secs(5);

fn cascade(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cascade"));
    command.env_clear().args(arguments).stdin(Stdio::null());
    command
}

/// It ends with code 1, and exactly one line that says `expected`.
fn assert_not_ready(command: &mut Command, expected: &str) {
    let (status, said) = run_to_end(command);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.lines().count() == 1 && said.starts_with("cascade: ") && said.contains(expected), "{said}");
}

#[test]
fn a_healthcheck_says_whether_the_shop_is_ready_and_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &[]);
    let port = shop.port().to_string();
    // As in a container: it listens everywhere, and is asked from within.
    for (flags, variables) in [
        (&["--port", &port][..], &[][..]),
        (&[], &[("CASCADE_PORT", port.as_str()), ("CASCADE_HOST", "0.0.0.0")]),
        (&["order", "--port", &port], &[("CASCADE_HOST", "::1")]),
    ] {
        let mut command = cascade(&[&["healthcheck"], flags].concat());
        let output: Output = command.envs(variables.iter().copied()).current_dir(elsewhere.path()).output().unwrap();
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{flags:?}: {output:?}");
    }
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    shop.kill();
    assert_not_ready(&mut cascade(&["healthcheck", "--port", &port]), "the shop does not answer at 127.0.0.1");
    assert_not_ready(&mut cascade(&["healthcheck", "payment", "--port", &port]), "payment does not answer");
}

#[test]
fn a_healthcheck_says_why_a_service_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::five(folder.path(), &[]);
    shop.service("order").start();
    let port = shop.service("order").port().to_string();
    let why = "not ready: the service waits for the broker to take its subscription";
    assert_not_ready(&mut cascade(&["healthcheck", "order", "--port", &port]), why);

    // Nobody there answers: the port is taken by a program that is silent, or by one that speaks something else.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let asked = Instant::now();
    assert_not_ready(&mut cascade(&["healthcheck", "--port", &port]), "no answer within 3 s");
    assert!(asked.elapsed() < ASK_MAX);
    std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut socket, _) = silent.accept().unwrap();
            let _ = socket.read(&mut [0; 1024]);
            let _ = socket.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    assert_not_ready(&mut cascade(&["healthcheck", "--port", &port]), "no service of the shop");
}

#[test]
fn what_is_wrong_with_the_settings_of_a_healthcheck_is_said_as_everywhere() {
    for (arguments, variable, expected) in [
        (&["healthcheck", "kitchen"][..], ("X", "1"), "'kitchen'"),
        (&["healthcheck", "--port", "0"], ("X", "1"), "--port"),
        (&["healthcheck"], ("CASCADE_PORT", "x"), "CASCADE_PORT"),
        (&["healthcheck"], ("CASCADE_HSOT", "x"), "did you mean CASCADE_HOST?"),
    ] {
        let (status, said) = run_to_end(cascade(arguments).env(variable.0, variable.1));
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.lines().count() == 1 && said.contains(expected), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_that_leaves_is_not_ready_and_serves_on_until_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let drain_ms = DRAIN.as_millis().to_string();
    let mut shop = Shop::open(folder.path(), &["--drain-ms", &drain_ms]);
    let customer = Customer::visit(&shop).await;
    let asked = Instant::now();
    shop.signal("TERM");
    let port = shop.port().to_string();
    wait_until("it says that it leaves", async || {
        let (status, said) = run_to_end(&mut cascade(&["healthcheck", "--port", &port]));
        (status.code() == Some(1) && said.contains("not ready: the service is stopping")).then_some(())
    })
    .await;
    let mut orders = Vec::new();
    while asked.elapsed() < DRAIN / 2 {
        orders.push(customer.order(&format!("key-{}", orders.len())).await.unwrap());
    }
    assert!(!orders.is_empty(), "it took {:?} to notice", asked.elapsed());
    assert!(shop.wait().success());
    let took = asked.elapsed();
    assert!(took >= DRAIN && took < DRAIN + STOP_MAX, "it took {took:?}");
    shop.restart();
    for order in &orders {
        customer.status(order).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_shop_that_leaves_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &["--drain-ms", "60000"]);
    shop.signal("TERM");
    let_time_pass(Duration::from_millis(300), "it has begun to leave").await;
    shop.signal("TERM");
    let asked = Instant::now();
    assert_eq!(shop.wait().code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(2), "it took {:?}", asked.elapsed());
}

#[test]
fn a_secret_is_made_once_for_its_owner_alone_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let make = |file: &Path| cascade(&["secret", file.to_str().unwrap()]).output().unwrap();
    let made = make(&file);
    assert!(made.status.success() && made.stderr.is_empty(), "{made:?}");
    let secret = std::fs::read_to_string(&file).unwrap();
    assert_eq!((secret.len(), file.metadata().unwrap().permissions().mode() & 0o777), (64, 0o600));
    let again = make(&file);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("already"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), secret);
    for output in [&made.stdout, &again.stdout] {
        assert!(!String::from_utf8_lossy(output).contains(&secret));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");

    for (name, text, expected) in [("short", "00", "64 hexadecimal digits"), ("nowhere/secret", "", "nowhere/secret")] {
        let file = folder.path().join(name);
        if !text.is_empty() {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        assert_not_ready(&mut cascade(&["secret", file.to_str().unwrap()]), expected);
    }
}

#[test]
fn with_a_secret_of_its_own_a_storefront_needs_no_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    assert!(cascade(&["secret", secret.to_str().unwrap()]).stdout(Stdio::null()).status().unwrap().success());
    let data = folder.path().join("data");
    let arguments = ["serve", "storefront", "--data-dir", data.to_str().unwrap(), "--secret-file", secret.to_str().unwrap()];
    let mut storefront = Process::new(arguments.map(str::to_owned).to_vec(), free_port());
    storefront.start();
    storefront.wait_until_ready();
    assert!(!data.exists());
}

#[test]
fn a_playground_can_be_opened_to_others_and_closed_to_oneself() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, is_open) in [(&["--host", "0.0.0.0", "--playground", "on"][..], true), (&["--playground", "off"], false)] {
        let data = folder.path().join(flags.len().to_string());
        let arguments = [&["up", "--pace", "instant", "--data-dir", data.to_str().unwrap()], flags].concat();
        let mut shop = Process::new(arguments.into_iter().map(str::to_owned).collect(), free_port());
        shop.spawn();
        shop.wait_until_ready();
        let (status, said) = run_to_end(&mut cascade(&["scenario", "1", "--url", &shop.base()]));
        assert_eq!(status.success(), is_open, "{flags:?}: {said}");
    }
}

#[test]
fn colours_go_where_they_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    for (flags, variable, is_coloured) in [
        (&[][..], ("X", ""), false),
        (&["--color", "always"], ("X", ""), true),
        (&[], ("CASCADE_COLOR", "always"), true),
        (&["--color", "always"], ("NO_COLOR", "1"), true),
        (&["--color", "never"], ("CASCADE_COLOR", "always"), false),
    ] {
        let base = shop.base();
        let output = cascade(&[&["scenario", "1", "--url", &base], flags].concat()).env(variable.0, variable.1).output().unwrap();
        let drawn = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(drawn.contains('\u{1b}'), is_coloured, "{flags:?} {variable:?}: {drawn}");
        assert!(!drawn.contains('\r'), "only a terminal has a line that moves");
    }
}
