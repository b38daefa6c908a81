//! Which service answers which path: the one table behind the router of a single process and the rules of a load balancer.

use clap::ValueEnum;

/// A service of the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum ServiceName {
    /// Keeps the event log, and brings events to services and browsers.
    Broker,
    /// Owns orders and the catalogue.
    Order,
    /// Owns payments.
    Payment,
    /// Owns deliveries and workers.
    Delivery,
    /// Serves the client app, and runs scenarios.
    Storefront,
}

impl ServiceName {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Broker, Self::Order, Self::Payment, Self::Delivery, Self::Storefront];

    /// Its name, as it stands in a command line, in a subscription and in an event's source.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Order => "order",
            Self::Payment => "payment",
            Self::Delivery => "delivery",
            Self::Storefront => "storefront",
        }
    }

    /// The port that it listens on when it runs alone and nobody says otherwise.
    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Order => 4001,
            Self::Payment => 4002,
            Self::Delivery => 4003,
            Self::Storefront => 4004,
            Self::Broker => 4005,
        }
    }
}

/// What a rule covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The path itself.
    Exact,
    /// The path, and all below it.
    Below,
}

/// The first rule that fits counts; `{}` stands for one segment. What no rule covers is the storefront's.
pub(crate) const RULES: &[(&str, Reach, ServiceName)] = &[
    ("/api/orders/{}/events", Reach::Exact, ServiceName::Broker),
    ("/api/orders", Reach::Below, ServiceName::Order),
    ("/api/products", Reach::Below, ServiceName::Order),
    ("/api/payments", Reach::Below, ServiceName::Payment),
    ("/api/deliveries", Reach::Below, ServiceName::Delivery),
    ("/api/couriers", Reach::Below, ServiceName::Delivery),
    ("/api/events", Reach::Below, ServiceName::Broker),
    ("/api/subscriptions", Reach::Below, ServiceName::Broker),
    ("/api/live", Reach::Below, ServiceName::Broker),
    ("/api/tokens", Reach::Below, ServiceName::Broker),
];

/// An order's events, which the broker has: the same as `/api/events` of a subject.
pub(crate) const ORDER_EVENTS: &str = "/api/orders/{order_id}/events";

/// What each service has on its own port, and what nobody gets to from outside.
pub(crate) const OWN: &[&str] = &["/health", "/ready", "/metrics", "/events"];

/// Who answers `path`; nobody where each process has a route of its own.
pub(crate) fn find(path: &str) -> Option<ServiceName> {
    if OWN.contains(&path) {
        return None;
    }
    let rule = RULES.iter().find(|(pattern, reach, _)| fits(pattern, *reach, path));
    Some(rule.map_or(ServiceName::Storefront, |(_, _, service)| *service))
}

fn fits(pattern: &str, reach: Reach, path: &str) -> bool {
    let mut segments = path.split('/');
    let begins = pattern.split('/').all(|wanted| segments.next().is_some_and(|segment| segment == wanted || wanted == "{}"));
    begins && (reach == Reach::Below || segments.next().is_none())
}
