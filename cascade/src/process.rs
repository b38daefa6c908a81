//! One process of the shop: it listens, opens what it serves, says where, and stops in order.

use std::{
    io::Write,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail};
use axum::Router;
use kit::{Lifecycle, http::server};
use tokio::net::TcpListener;

use crate::{settings::Settings, signals::Signals, terminal};

/// How long a stop may take once nobody is waited for any more; what is not finished by then is durable and goes on after the next start.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// The exit code after a second signal: 128 and SIGINT's number, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// What a process serves.
pub(crate) struct Opened {
    /// All routes.
    pub(crate) router: Router,
    /// The end of the terminal log.
    pub(crate) shown: terminal::Shown,
    /// What is said when it is open.
    pub(crate) greeting: String,
}

/// Runs what `open` starts until a signal stops it, or something breaks. It listens on `port` unless the settings name another.
pub(crate) fn run(
    settings: &Settings,
    port: u16,
    open: impl AsyncFnOnce(SocketAddr, &Lifecycle) -> anyhow::Result<Opened>,
) -> anyhow::Result<()> {
    kit::telemetry::start(settings.log_format, settings.color);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot be started")?;
    runtime.block_on(async {
        let mut signals = Signals::listen().context("signals cannot be listened to")?;
        // The port first: if it is taken, nothing else is touched.
        let (listeners, address) = listen(settings.host, settings.port.unwrap_or(port)).await?;
        let lifecycle = Lifecycle::new();
        let Opened { router, shown, greeting } = open(address, &lifecycle).await?;
        for listener in listeners {
            lifecycle.spawn("http", server::serve(listener, router.clone(), lifecycle.clone()));
        }
        // On stderr, so that stdout is events alone.
        std::io::stderr().write_all(greeting.as_bytes()).context("stderr")?;
        tokio::select! {
            biased;
            () = signals.next() => {}
            () = lifecycle.halted() => {}
        }
        let stop = async {
            lifecycle.leave(Duration::from_millis(settings.drain_ms)).await;
            lifecycle.stop(STOP_DEADLINE).await
        };
        let is_stopped = tokio::select! {
            biased;
            is_stopped = stop => is_stopped,
            // At once means at once: everything durable is on disk at any instant.
            () = signals.next() => std::process::exit(EXIT_INTERRUPTED),
        };
        shown.wait().await;
        match lifecycle.failure() {
            Some(failure) => bail!("{failure}"),
            None if !is_stopped => bail!("not everything ended within {} s; nothing durable is lost", STOP_DEADLINE.as_secs()),
            None => Ok(()),
        }
    })
}

/// The listeners, and the address to tell people. `localhost` may mean either loopback address, so both are served where possible.
async fn listen(host: IpAddr, port: u16) -> anyhow::Result<(Vec<TcpListener>, SocketAddr)> {
    let wanted = SocketAddr::new(host, port);
    let listener = TcpListener::bind(wanted).await.with_context(|| format!("cannot listen on {wanted}"))?;
    let address = listener.local_addr()?;
    let mut listeners = vec![listener];
    if host == IpAddr::from([127, 0, 0, 1])
        && let Ok(other) = TcpListener::bind((Ipv6Addr::LOCALHOST, address.port())).await
    {
        listeners.push(other);
    }
    Ok((listeners, address))
}

/// A URL under which this process reaches itself.
pub(crate) fn reachable(address: SocketAddr) -> String {
    format!("http://{}", from_here(address))
}

/// The same address as this machine reaches it: one that stands for all of them becomes loopback.
pub(crate) fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The URL to tell people.
pub(crate) fn base_url(settings: &Settings, address: SocketAddr) -> String {
    if settings.host.is_loopback() { format!("http://localhost:{}", address.port()) } else { reachable(address) }
}
