//! `cascade up`: the whole shop in one process. Every service gets its own store; events go from one to the other by handle.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::Context;
use axum::{Router, extract::Request};
use broker::Broker;
use kit::{Lifecycle, Machine, Service, http::health, telemetry::LogFormat};
use tower::ServiceExt;

use crate::{
    process::{self, Opened, base_url, reachable},
    routes::{self, ServiceName},
    settings::{SHOP_PORT, Settings},
    wiring::{SUBSCRIPTION_REVISION, Wiring},
};

/// Whose requests those to the process itself are.
const SHOP: &str = "shop";

/// Runs the shop until a signal stops it.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    process::run(settings, SHOP_PORT, async |address, lifecycle| open(settings, address, lifecycle).await)
}

/// Starts all services, and the one router that stands in front of them.
async fn open(settings: &Settings, address: SocketAddr, lifecycle: &Lifecycle) -> anyhow::Result<Opened> {
    let wiring = Wiring::new(settings, Vec::new(), lifecycle)?;
    let broker = wiring.broker().await?;
    let orders = wiring.order(broker.publisher())?;
    let payments = wiring.payment(broker.publisher())?;
    let deliveries = wiring.delivery(broker.publisher()).await?;
    let shown = wiring.show_events(&broker).await?;
    attach(&broker, &orders).await?;
    attach(&broker, &payments).await?;
    attach(&broker, &deliveries).await?;

    let routers = ServiceName::ALL.map(|service| {
        let routes = match service {
            ServiceName::Broker => Wiring::broker_routes(&broker),
            ServiceName::Order => order::router(orders.handle().clone()),
            ServiceName::Payment | ServiceName::Delivery => Router::new(),
            ServiceName::Storefront => wiring.storefront_routes(&reachable(address))?,
        };
        anyhow::Ok((service, wiring.finish(service.as_str(), routes)))
    });
    let routers = routers.into_iter().collect::<anyhow::Result<_>>()?;
    let router = front(wiring.finish(SHOP, health::routes(lifecycle.clone()).merge(wiring.metrics_route())), routers);
    Ok(Opened { router, shown, greeting: greeting(settings, address) })
}

async fn attach<M: Machine>(broker: &Broker, service: &Service<M>) -> anyhow::Result<()> {
    broker
        .attach(M::NAME, M::SUBSCRIBES.iter().copied(), SUBSCRIPTION_REVISION, service.intake())
        .await
        .with_context(|| format!("subscription of {}", M::NAME))?;
    Ok(())
}

/// Does what a load balancer does, by the same table: each request goes to the router of its service, or to the process's `own`.
fn front(own: Router, routers: BTreeMap<ServiceName, Router>) -> Router {
    Router::new().fallback(move |request: Request| {
        let service = routes::find(request.uri().path());
        let router = service.and_then(|service| routers.get(&service)).unwrap_or(&own).clone();
        router.oneshot(request)
    })
}

/// Says where to click.
fn greeting(settings: &Settings, address: SocketAddr) -> String {
    let base = base_url(settings, address);
    if settings.log_format == LogFormat::Json {
        return format!("{}\n", serde_json::json!({"message": "open", "url": base, "data_dir": settings.data_dir}));
    }
    let mut text = format!("\nCascade is open at {base} (data in `{}`).\n\n", settings.data_dir.display());
    if settings.is_playground() {
        text.push_str(&format!("  Order something          {base}/\n"));
        text.push_str(&format!("  Watch an order cascade   {base}/scenario/1\n"));
        text.push_str(&format!("  All scenarios            {base}/scenarios\n"));
        text.push_str(&format!("  As JSON                  curl -H 'Accept: application/json' {base}/scenario/1\n"));
    }
    text.push_str("\nKill it in the middle and start it again: it goes on. Ctrl-C stops it in order.\n\n");
    text
}

#[cfg(test)]
mod tests {
    use crate::routes::{ServiceName, find};

    #[test]
    fn each_path_has_one_service() {
        use ServiceName::{Broker, Delivery, Order, Payment, Storefront};
        for (path, service) in [
            ("/", Storefront),
            ("/scenario/1", Storefront),
            ("/orders/0198", Storefront),
            ("/api/scenarios/1/runs", Storefront),
            ("/openapi.json", Storefront),
            ("/api/orders", Order),
            ("/api/orders/0198", Order),
            ("/api/orders/0198/cancel", Order),
            ("/api/orders/0198/events", Broker),
            ("/api/orders/0198/events/more", Order),
            ("/api/ordersevents", Storefront),
            ("/api/products", Order),
            ("/api/payments/webhooks/some", Payment),
            ("/api/deliveries/0198", Delivery),
            ("/api/couriers", Delivery),
            ("/api/events", Broker),
            ("/api/subscriptions/order/dead-letters", Broker),
            ("/api/live", Broker),
            ("/events/more", Storefront),
            ("//api/orders", Storefront),
            ("", Storefront),
        ] {
            assert_eq!(find(path), Some(service), "{path}");
        }
        for path in ["/health", "/ready", "/metrics", "/events"] {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn no_two_services_share_a_name_or_a_port() {
        for (index, one) in ServiceName::ALL.iter().enumerate() {
            for other in &ServiceName::ALL[index + 1..] {
                assert!(one.as_str() != other.as_str() && one.port() != other.port());
            }
        }
    }
}
