//! `cascade serve`: one service in a process of its own. Five of them are the shop that `cascade up` runs in one.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::{Router, http::Uri};
use kit::{
    Lifecycle, Machine, Service,
    broker_client::{Registration, RemoteBroker},
    http::{
        client::Client,
        health::{self, Awaited},
    },
    telemetry::LogFormat,
};

use crate::{
    cli::ServeFlags,
    process::{self, Opened, base_url, reachable},
    routes::ServiceName,
    settings::Partners,
    terminal::Shown,
    usage::WrongUsage,
    wiring::{SUBSCRIPTION_REVISION, Wiring},
};

/// Where events are delivered, on a service's own port.
const SINK_PATH: &str = "/events";

/// Runs the service until a signal stops it.
pub(crate) fn run(flags: &ServeFlags) -> anyhow::Result<()> {
    process::run(&flags.settings, flags.service.port(), async |address, lifecycle| open(flags, address, lifecycle).await)
}

async fn open(flags: &ServeFlags, address: SocketAddr, lifecycle: &Lifecycle) -> anyhow::Result<Opened> {
    let ServeFlags { service, partners, settings } = flags;
    let service = *service;
    let sink = match service {
        ServiceName::Order | ServiceName::Payment | ServiceName::Delivery => Some(sink_url(partners, address)?),
        ServiceName::Broker | ServiceName::Storefront => None,
    };
    // The broker calls a service by the name that it was given.
    let name = sink.as_ref().and_then(|sink| sink.parse::<Uri>().ok()?.host().map(str::to_owned));
    let wiring = Wiring::new(settings, name.into_iter().collect(), lifecycle)?;
    let sink = sink.unwrap_or_default();
    let (routes, shown) = match service {
        ServiceName::Broker => {
            let broker = wiring.broker().await?;
            let shown = wiring.show_events(&broker).await?;
            (Wiring::broker_routes(&broker).merge(health::routes(lifecycle.clone())), shown)
        }
        ServiceName::Order => {
            let broker = remote_broker(&wiring, service, partners)?;
            let orders = wiring.order(broker.clone())?;
            (order::router(orders.handle().clone()).merge(subscriber(&wiring, &orders, &broker, sink)), Shown::nothing())
        }
        ServiceName::Payment => {
            let broker = remote_broker(&wiring, service, partners)?;
            let payments = wiring.payment(broker.clone())?;
            (subscriber(&wiring, &payments, &broker, sink), Shown::nothing())
        }
        ServiceName::Delivery => {
            let broker = remote_broker(&wiring, service, partners)?;
            let deliveries = wiring.delivery(broker.clone()).await?;
            (subscriber(&wiring, &deliveries, &broker, sink), Shown::nothing())
        }
        ServiceName::Storefront => {
            // Its pages do not need the others, so it does not wait for them.
            (wiring.storefront_routes(&partners.order_url)?.merge(health::routes(lifecycle.clone())), Shown::nothing())
        }
    };
    Ok(Opened { router: wiring.finish(service.as_str(), routes.merge(wiring.metrics_route())), shown, greeting: greeting(flags, address) })
}

/// The service's stable address, to which the broker delivers.
fn sink_url(partners: &Partners, address: SocketAddr) -> Result<String, WrongUsage> {
    match &partners.sink_url {
        Some(url) => Ok(url.clone()),
        None if address.ip().is_unspecified() => Err(WrongUsage(format!(
            "`sink-url` is needed: others cannot reach a service at {}, so say where the broker delivers",
            address.ip()
        ))),
        None => Ok(format!("{}{SINK_PATH}", reachable(address))),
    }
}

fn remote_broker(wiring: &Wiring<'_>, service: ServiceName, partners: &Partners) -> anyhow::Result<Arc<RemoteBroker>> {
    let client = Client::new(wiring.environment.connect.clone());
    let token = wiring.keyring.service_token(service.as_str());
    Ok(Arc::new(RemoteBroker::new(client, &partners.broker_url, &token).context("the service's token")?))
}

/// Registers a service's subscription, for as long as it takes, and gives the routes of a subscriber: it is ready when it is registered.
fn subscriber<M: Machine>(wiring: &Wiring<'_>, service: &Service<M>, broker: &RemoteBroker, sink: String) -> Router {
    let (environment, lifecycle) = (&wiring.environment, wiring.lifecycle);
    let types = M::SUBSCRIBES.iter().map(|ty| (*ty).to_owned()).collect();
    let registration = Registration { sink, types, revision: SUBSCRIPTION_REVISION };
    let registered = Awaited::new("the broker to take its subscription");
    let registering = broker.clone().register(M::NAME, registration, environment.clone(), lifecycle.clone());
    let (arrived, stopping) = (registered.clone(), lifecycle.clone());
    lifecycle.spawn("registration", async move {
        registering.await;
        // It ends without success only when the process does.
        if !stopping.is_halting() {
            arrived.arrived();
        }
    });
    let intake = kit::intake::route(service.intake(), wiring.keyring.webhook_secret(M::NAME, None), environment.clock.clone());
    intake.merge(health::routes_awaiting(Some(registered), lifecycle.clone()))
}

fn greeting(flags: &ServeFlags, address: SocketAddr) -> String {
    let ServeFlags { service, partners, settings } = flags;
    let (name, base) = (service.as_str(), base_url(settings, address));
    if settings.log_format == LogFormat::Json {
        let line = serde_json::json!({"message": "open", "service": name, "url": base, "data_dir": settings.data_dir});
        return format!("{line}\n");
    }
    let partner = match service {
        ServiceName::Broker => String::new(),
        ServiceName::Order | ServiceName::Payment | ServiceName::Delivery => format!(", broker at {}", partners.broker_url),
        ServiceName::Storefront => format!(", orders at {}", partners.order_url),
    };
    format!("Cascade's {name} is open at {base} (data in `{}`{partner}).\n", settings.data_dir.display())
}
