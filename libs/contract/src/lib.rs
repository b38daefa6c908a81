//! What the shop's services say to one another and to their clients.
//!
//! Plain data and nothing else: identifiers, money, the events with their versions, the shapes of the HTTP API.
//! It does no IO, keeps no clock, and knows neither how an event travels nor how a service runs.

/// Identifiers, one type for each thing they name.
pub mod ids;

/// Integer amounts of minor units, with a currency.
pub mod money;

/// The twelve events of the flow and what a complete shop needs beyond them.
pub mod events;

/// The bodies of HTTP requests and answers.
pub mod api;

pub use events::Event;
pub use ids::{CustomerId, OrderId, ProductId, WorkerId};
pub use money::{Currency, Money};
