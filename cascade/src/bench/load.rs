//! Sends orders.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use kit::http::client::{Client, Limits, TcpConnect};
use serde::Deserialize;
use tokio::time::Instant;

use super::subject::Subject;

/// The limits of one request.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), answer_bytes_max: 1024 * 1024 };
/// The pause after a shop that is too busy.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// An order that was acknowledged.
pub(crate) struct Sent {
    /// Its id.
    pub(crate) order_id: String,
    /// When it was sent; with a rate, when it was to be sent.
    pub(crate) at: Instant,
}

/// One customer who orders a lot.
pub(crate) struct Load {
    client: Client,
    orders: Uri,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Deserialize)]
struct Created {
    order_id: String,
}

impl Load {
    /// Visits the shop: takes a session and looks at what there is to buy.
    pub(crate) async fn open(subject: &Subject) -> anyhow::Result<Self> {
        let client = Client::new(Arc::new(TcpConnect));
        let home = subject.url("/")?;
        let page = client.send(Method::GET, &home, HeaderMap::new(), Bytes::new(), LIMITS).await;
        let page = page.with_context(|| format!("no shop answers at {home}"))?;
        let cookie = page.headers().get(header::SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
        let cookie =
            cookie.and_then(|cookie| cookie.split(';').next()).with_context(|| format!("{home} opens no session: it is no shop"))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::try_from(cookie)?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let products = client.send(Method::GET, &subject.url("/api/products")?, HeaderMap::new(), Bytes::new(), LIMITS).await?;
        let products: serde_json::Value = serde_json::from_slice(products.body())?;
        let product = products.pointer("/items/0/product_id").and_then(|id| id.as_str()).context("the shop sells nothing")?;
        let body = serde_json::json!({"lines": [{"product_id": product, "quantity": 1}]}).to_string().into();
        Ok(Self { client, orders: subject.url("/api/orders")?, headers, body })
    }

    /// The client and the session's headers.
    pub(crate) fn session(&self) -> (&Client, &HeaderMap) {
        (&self.client, &self.headers)
    }

    /// Sends `count` orders, `concurrency` at once, or `rate` a second.
    pub(crate) async fn send(&self, count: u32, rate: Option<u32>, concurrency: u32) -> anyhow::Result<Vec<Sent>> {
        let began = Instant::now();
        let due = |number: u32| rate.map(|rate| began + Duration::from_secs_f64(f64::from(number) / f64::from(rate)));
        let orders = stream::iter(0..count).map(|number| self.send_one(due(number)));
        // With a rate, whoever is late must not hold the others up.
        let at_once = if rate.is_some() { concurrency.max(1_024) } else { concurrency };
        orders.buffer_unordered(at_once as usize).try_collect().await
    }

    async fn send_one(&self, due: Option<Instant>) -> anyhow::Result<Sent> {
        if let Some(due) = due {
            tokio::time::sleep_until(due).await;
        }
        let at = due.unwrap_or_else(Instant::now);
        loop {
            let answer = self.client.send(Method::POST, &self.orders, self.headers.clone(), self.body.clone(), LIMITS).await?;
            match answer.status() {
                StatusCode::CREATED => {
                    let Created { order_id } = serde_json::from_slice(answer.body()).context("an order's answer")?;
                    ensure!(!order_id.is_empty(), "an order without an id");
                    return Ok(Sent { order_id, at });
                }
                StatusCode::TOO_MANY_REQUESTS => tokio::time::sleep(BUSY_PAUSE).await,
                status => bail!("an order was answered {status}: {}", String::from_utf8_lossy(answer.body())),
            }
        }
    }
}
