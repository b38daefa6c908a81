//! Who orders, cancels, and sends things twice.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use contract::api::{NewOrder, NewOrderLine, OrderView, ProductView};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use kit::{
    http::{
        client::{Client, Limits},
        identity::SESSION_COOKIE,
    },
    ids::Ids,
    security::Keyring,
};

use crate::world;

/// Where the order service is.
const ORDERS: &str = "http://order:4001/api/orders";
const PRODUCTS: &str = "http://order:4001/api/products";
/// A customer's patience with one request, and the pause before the next try.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(2), answer_bytes_max: 1024 * 1024 };
const PAUSE: Duration = Duration::from_millis(150);

/// An order that was acknowledged to its customer.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    pub(crate) order: OrderView,
}

/// What one customer will do.
struct Plan {
    name: String,
    starts: Duration,
    quantity: u32,
    cancels_after: Option<Duration>,
    sends_twice: bool,
}

/// All customers of a run.
pub(crate) struct Customers {
    plans: Vec<Plan>,
    acknowledged: Rc<RefCell<Vec<Acknowledged>>>,
    keyring: Keyring,
    is_open: Rc<Cell<bool>>,
}

impl Customers {
    /// Draws what they will do, once the shop `is_open`.
    pub(crate) fn draw(chance: &Ids, acknowledged: Rc<RefCell<Vec<Acknowledged>>>, keyring: Keyring, is_open: Rc<Cell<bool>>) -> Self {
        let plans = (0..4 + chance.up_to(6)).map(|number| Plan {
            name: format!("guest-{number}"),
            starts: Duration::from_millis(chance.up_to(2_500)),
            quantity: 1 + u32::try_from(chance.up_to(4)).unwrap_or(0),
            cancels_after: (chance.up_to(9) < 5).then(|| Duration::from_millis(chance.up_to(600))),
            sends_twice: chance.up_to(3) == 0,
        });
        Self { plans: plans.collect(), acknowledged, keyring, is_open }
    }

    /// Does it all.
    pub(crate) async fn shop(self) -> turmoil::Result {
        let client = Client::new(world::environment(0, Arc::default()).connect);
        while !self.is_open.get() {
            tokio::time::sleep(PAUSE).await;
        }
        let visits = self.plans.iter().map(|plan| self.visit(plan, &client));
        for visited in futures_util::future::join_all(visits).await {
            visited?;
        }
        Ok(())
    }

    async fn visit(&self, plan: &Plan, client: &Client) -> turmoil::Result {
        tokio::time::sleep(plan.starts).await;
        let products: Vec<ProductView> = {
            let (_, body) = self.insist(plan, client, Method::GET, PRODUCTS, Vec::new(), |status| status == StatusCode::OK).await?;
            serde_json::from_slice::<contract::api::Page<ProductView>>(&body)
                .map(|page| page.items)
                .or_else(|_| serde_json::from_slice(&body))?
        };
        let product = products.first().ok_or("there are no products")?;
        let order =
            NewOrder { lines: vec![NewOrderLine { product_id: product.product_id.clone(), quantity: plan.quantity }], recipient: None };
        let body = serde_json::to_vec(&order)?;
        let is_created = |status| status == StatusCode::CREATED || status == StatusCode::OK;
        let (_, answer) = self.insist(plan, client, Method::POST, ORDERS, body.clone(), is_created).await?;
        let order: OrderView = serde_json::from_slice(&answer)?;
        let id = order.order_id;
        self.acknowledged.borrow_mut().push(Acknowledged { order });
        if plan.sends_twice {
            let (_, answer) = self.insist(plan, client, Method::POST, ORDERS, body, is_created).await?;
            let again: OrderView = serde_json::from_slice(&answer)?;
            if again.order_id != id {
                Err(format!("the same key gave order {id} and order {}", again.order_id))?;
            }
        }
        if let Some(after) = plan.cancels_after {
            tokio::time::sleep(after).await;
            let path = format!("{ORDERS}/{id}/cancel");
            self.insist(plan, client, Method::POST, &path, b"{}".to_vec(), |status| status.is_success() || status == StatusCode::CONFLICT)
                .await?;
        }
        Ok(())
    }

    /// Sends a request until it gets an answer that `is_fine`: a service may be down.
    async fn insist(
        &self,
        plan: &Plan,
        client: &Client,
        method: Method,
        url: &str,
        body: Vec<u8>,
        is_fine: impl Fn(StatusCode) -> bool,
    ) -> turmoil::Result<(StatusCode, Vec<u8>)> {
        let uri: Uri = url.parse()?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::COOKIE, HeaderValue::try_from(format!("{SESSION_COOKIE}={}", self.keyring.session(&plan.name)))?);
        headers.insert("idempotency-key", HeaderValue::try_from(format!("{}-first", plan.name))?);
        loop {
            if let Ok(answer) = client.send(method.clone(), &uri, headers.clone(), body.clone().into(), LIMITS).await {
                let status = answer.status();
                if is_fine(status) {
                    return Ok((status, answer.into_body().to_vec()));
                }
                if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
                    Err(format!("{method} {url} answered {status}: {}", String::from_utf8_lossy(answer.body())))?;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
