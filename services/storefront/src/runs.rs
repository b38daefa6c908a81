//! Creates a scenario's order through the order service's public API, as any client would.

use std::time::Duration;

use bytes::Bytes;
use contract::api::{NewOrder, NewOrderLine, OrderView, Page, ProductView, ScenarioRun};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use kit::{
    http::{client::Limits, identity::SESSION_COOKIE},
    security::Keyring,
};

use crate::{Storefront, scenarios::Scenario};

/// The header by which a client of the playground names the script that the simulated parts follow.
const SCENARIO_HEADER: &str = "cascade-scenario";
/// The header by which a client makes a retry harmless.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest idempotency key that a client may send, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 128;

const LIMITS: Limits = Limits { timeout: Duration::from_secs(10), answer_bytes_max: 256 * 1024 };

/// Why a run could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The order service has too much to do.
    #[error("the order service is busy")]
    Busy,
    /// The order service cannot be reached, or does not answer as it should.
    #[error("the order service cannot be used: {0}")]
    Unavailable(String),
}

/// Starts a run of `scenario` for `owner`. The same `key` starts no second one.
pub(crate) async fn start(
    storefront: &Storefront,
    keyring: &Keyring,
    owner: &str,
    scenario: &Scenario,
    key: &str,
) -> Result<ScenarioRun, RunError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::COOKIE, text(&format!("{SESSION_COOKIE}={}", keyring.session(owner)))?);

    let products: Page<ProductView> = read(&send(storefront, Method::GET, "/api/products", headers.clone(), Bytes::new()).await?)?;
    let Some(product) = products.items.into_iter().next() else { return Err(RunError::Unavailable(String::from("it sells nothing"))) };
    let order = NewOrder { lines: vec![NewOrderLine { product_id: product.product_id, quantity: 1 }], recipient: None };
    let body = serde_json::to_vec(&order).map_err(|error| RunError::Unavailable(error.to_string()))?;

    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(SCENARIO_HEADER, HeaderValue::from(scenario.number));
    // A client that uses one key for two scenarios means two runs.
    headers.insert(IDEMPOTENCY_KEY, text(&format!("scenario-{}-{key}", scenario.number))?);
    let view: OrderView = read(&send(storefront, Method::POST, "/api/orders", headers, body.into()).await?)?;
    Ok(ScenarioRun { order_id: view.order_id, run: view.order_id.to_string(), links: view.links })
}

async fn send(storefront: &Storefront, method: Method, path: &str, headers: HeaderMap, body: Bytes) -> Result<Bytes, RunError> {
    let Some(base) = storefront.order_api.get() else { return Err(RunError::Unavailable(String::from("its address is not known yet"))) };
    let unavailable = |reason: String| RunError::Unavailable(reason);
    let uri: Uri = format!("{}{path}", base.to_string().trim_end_matches('/'))
        .parse()
        .map_err(|_| unavailable(format!("`{base}` is no base address")))?;
    let answer = storefront.client.send(method, &uri, headers, body, LIMITS).await.map_err(|error| unavailable(error.to_string()))?;
    match answer.status() {
        StatusCode::OK | StatusCode::CREATED => Ok(answer.into_body()),
        StatusCode::TOO_MANY_REQUESTS => Err(RunError::Busy),
        status => Err(unavailable(format!("{path} answered {status}"))),
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, RunError> {
    serde_json::from_slice(body).map_err(|error| RunError::Unavailable(format!("its answer cannot be read: {error}")))
}

fn text(value: &str) -> Result<HeaderValue, RunError> {
    HeaderValue::try_from(value).map_err(|_| RunError::Unavailable(String::from("a header cannot be written")))
}
