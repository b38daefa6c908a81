//! `cascade up`: the whole shop in one process. Every service gets its own store; events go from one to the other by handle.

use std::{
    io::Write,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, bail};
use axum::Router;
use broker::{Broker, publish::PublishRights};
use delivery::Deliveries;
use kit::{
    Environment, Lifecycle, Machine, Service,
    chance::Chance,
    http::{Gate, health, server},
    security::Keyring,
};
use order::Orders;
use payment::{Payments, provider::SimulatedProvider};
use storefront::Storefront;
use tokio::net::TcpListener;

use crate::{settings::Settings, signals::Signals, terminal};

/// How many workers the simulated city has.
const WORKERS: u32 = 20;
/// How long a stop may take; what is not finished by then is durable and goes on after the next start.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// The exit code after a second signal: 128 and SIGINT's number, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;
/// Rises whenever a service wants other events than before.
const SUBSCRIPTION_REVISION: i64 = 1;

/// Runs the shop until a signal stops it.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    kit::telemetry::start(settings.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the runtime cannot be started")?;
    runtime.block_on(async {
        let mut signals = Signals::listen().context("signals cannot be listened to")?;
        // The port first: if it is taken, nothing else is touched.
        let (listeners, address) = listen(settings).await?;
        let lifecycle = Lifecycle::new();
        let (router, shown) = open(settings, address, &lifecycle).await?;
        for listener in listeners {
            lifecycle.spawn("http", server::serve(listener, router.clone(), lifecycle.clone()));
        }
        welcome(settings, address)?;
        tokio::select! {
            biased;
            () = signals.next() => {}
            () = lifecycle.halted() => {}
        }
        let is_stopped = tokio::select! {
            biased;
            is_stopped = lifecycle.stop(STOP_DEADLINE) => is_stopped,
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
async fn listen(settings: &Settings) -> anyhow::Result<(Vec<TcpListener>, SocketAddr)> {
    let wanted = SocketAddr::new(settings.host, settings.port);
    let listener = TcpListener::bind(wanted).await.with_context(|| format!("cannot listen on {wanted}"))?;
    let address = listener.local_addr()?;
    let mut listeners = vec![listener];
    if settings.host == IpAddr::from([127, 0, 0, 1])
        && let Ok(other) = TcpListener::bind((Ipv6Addr::LOCALHOST, address.port())).await
    {
        listeners.push(other);
    }
    Ok((listeners, address))
}

/// Starts all services and gives the one router that stands in front of them, and the end of the terminal log.
async fn open(settings: &Settings, address: SocketAddr, lifecycle: &Lifecycle) -> anyhow::Result<(Router, terminal::Shown)> {
    let (environment, folder) = (Environment::real()?, &settings.data_dir);
    std::fs::create_dir_all(folder).with_context(|| format!("data folder `{}` cannot be made", folder.display()))?;
    let keyring = Keyring::load_or_create(&folder.join("secret"), &environment.ids)?;
    let chance = Chance::seeded(settings.seed.unwrap_or_else(|| environment.ids.up_to(u64::MAX)));

    let broker = Broker::start(folder, broker::Settings { keyring: keyring.clone(), rights: rights() }, &environment, lifecycle).await?;
    let provider = SimulatedProvider::start(folder, &environment, lifecycle, chance, settings.pace, payment::provider::Odds::default())?;
    let orders = Service::start(Orders, folder, &environment, broker.publisher(), lifecycle)?;
    let payments = Payments::new(Arc::new(provider), payment::domain::Settings::default());
    let payments = Service::start(payments, folder, &environment, broker.publisher(), lifecycle)?;
    let deliveries = Deliveries::new(chance, settings.pace, delivery::Odds::default(), delivery::settings_at(settings.pace));
    let deliveries = delivery::start(deliveries, WORKERS, folder, &environment, broker.publisher(), lifecycle).await?;

    // The terminal shows what happens from now on.
    let engine = broker.engine().clone();
    let after = engine.bounds().await?.last;
    let shown = terminal::start(engine, after, settings.log_format, lifecycle.clone())?;

    subscribe(&broker, &orders).await?;
    subscribe(&broker, &payments).await?;
    subscribe(&broker, &deliveries).await?;

    let storefront = Storefront::new(environment.clone(), Arc::new(OnceLock::from(reachable(address).parse::<axum::http::Uri>()?)));
    let router = order::router(orders.handle().clone())
        .merge(broker.router())
        .merge(broker.subject_events_route("/api/orders/{id}/events"))
        .merge(storefront::router(storefront))
        .merge(health::routes(lifecycle.clone()));
    let gate = Gate { keyring, is_playground: settings.is_playground(), hosts: settings.allowed_hosts.clone() };
    Ok((kit::http::finish(router, Arc::new(gate), &environment), shown))
}

async fn subscribe<M: Machine>(broker: &Broker, service: &Service<M>) -> anyhow::Result<()> {
    broker
        .attach(M::NAME, M::SUBSCRIBES.iter().copied(), SUBSCRIPTION_REVISION, service.intake())
        .await
        .with_context(|| format!("subscription of {}", M::NAME))?;
    Ok(())
}

/// Who may publish what: each service the events that the catalogue says it emits.
fn rights() -> PublishRights {
    contract::events::CATALOGUE
        .iter()
        .fold(PublishRights::none(), |rights, (ty, source)| rights.allow(source.trim_start_matches('/'), [*ty]))
}

/// A URL under which this process reaches itself.
fn reachable(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// Says where to click. On stderr, so that stdout is events alone.
fn welcome(settings: &Settings, address: SocketAddr) -> anyhow::Result<()> {
    let base = if settings.host.is_loopback() { format!("http://localhost:{}", address.port()) } else { reachable(address) };
    let mut text = format!("\nCascade is open at {base} (data in `{}`).\n\n", settings.data_dir.display());
    if settings.is_playground() {
        text.push_str(&format!("  Watch an order cascade   {base}/scenario/1\n"));
        text.push_str(&format!("  All scenarios            {base}/\n"));
        text.push_str(&format!("  As JSON                  curl -H 'Accept: application/json' {base}/scenario/1\n"));
    }
    text.push_str("\nKill it in the middle and start it again: it goes on. Ctrl-C stops it in order.\n\n");
    std::io::stderr().write_all(text.as_bytes()).context("stderr")
}
