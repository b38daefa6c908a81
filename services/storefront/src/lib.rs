//! The storefront: serves the client app, opens guest sessions, and runs scenarios.
//!
//! It is an edge client. It orders through the same public HTTP API as any browser, emits no events, takes none, and keeps no state:
//! any number of instances may run, and one that is killed loses nothing.

/// The catalogue of scenarios.
pub mod scenarios;

/// Creates a scenario's order through the order service's public API.
mod runs;

/// The client app's files, and the pages made from them.
mod pages;

/// The routes.
mod http;

use std::sync::{Arc, OnceLock};

use ::http::Uri;
use kit::{Environment, http::client::Client};

pub use http::{Contracts, describe, router};

/// What the storefront's routes need. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Storefront {
    environment: Environment,
    client: Client,
    order_api: Arc<OnceLock<Uri>>,
}

impl Storefront {
    /// A storefront that orders at `order_api`, e.g. `http://127.0.0.1:4000`. The address may be set later, when the port is known;
    /// until then a run is answered 503.
    pub fn new(environment: Environment, order_api: Arc<OnceLock<Uri>>) -> Self {
        let client = Client::new(environment.connect.clone());
        Self { environment, client, order_api }
    }
}
