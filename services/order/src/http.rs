//! HTTP: the routes of orders and of the catalogue, and their handlers.

/// Reads what a request's headers say of a command.
mod headers;

/// Checks what a client wants to order, and prices it.
mod new_order;

/// Orders as clients see them, and refusals as problem documents.
mod view;

/// What the routes look like from outside.
mod described;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use contract::{
    CustomerId, OrderId,
    api::{self, OrderStatus, OrderView, Page, ProductView},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use kit::{
    Handle, Problem,
    http::{
        Body, Caller, Gate, Params, Query, Remote,
        extract::{parse_json, read_bytes},
        identity::{GateOf, session_cookie},
    },
    service::{Entity, Meta},
    store::StoreError,
};
use serde::Deserialize;

use crate::{Key, Orders, catalogue, domain, store};
pub use described::{describe, order_id};
use view::Sight;

/// How many orders a page of the list has when the client does not say.
const PAGE_ORDERS: usize = 20;
/// The most orders that a page of the list may have.
const PAGE_ORDERS_MAX: usize = 100;
/// Says that an idempotency key was known and nothing was done now.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The routes of orders and of the catalogue.
pub fn router(orders: Handle<Orders>) -> Router {
    Router::new()
        .route("/api/products", get(list_products))
        .route("/api/orders", get(list_orders).post(create_order))
        .route("/api/orders/{order_id}", get(read_order).delete(delete_order))
        .route("/api/orders/{order_id}/cancel", post(cancel_order))
        .with_state(orders)
}

async fn list_products() -> Json<Page<ProductView>> {
    Json(Page { items: catalogue::products().to_vec(), next: None })
}

/// Whoever is no customer yet becomes one: a guest, whose session the answer opens.
async fn create_order(
    State(orders): State<Handle<Orders>>,
    GateOf(gate): GateOf,
    caller: Caller,
    remote: Remote,
    headers: HeaderMap,
    body: Body<api::NewOrder>,
) -> Result<Response, Problem> {
    let gate = known(gate)?;
    let owner = match caller.owner() {
        Some(owner) => customer(owner)?,
        None => customer(&format!("guest-{}", orders.new_uuid().simple()))?,
    };
    let idempotency = headers::idempotency(&headers, &caller, &owner, &gate, &body.bytes)?;
    let scenario = headers::scenario(&headers, &gate)?;
    let (lines, recipient) = new_order::check(body.value)?;
    let context = context(&owner, scenario.as_deref(), headers::trace(&headers, &orders));
    let command = domain::Input::Create(domain::NewOrder { owner: owner.clone(), lines, recipient, scenario });
    let key = Key(OrderId::new(orders.new_uuid()));
    let committed = orders.submit(key, command, Meta { context, idempotency }).await.map_err(view::problem)?;

    let Key(order_id) = committed.key;
    let order = match committed.entity {
        Some(order) => order,
        None => load(&orders, order_id)?,
    };
    // A repeated anonymous request finds the order of whoever sent it first. That may be somebody else who chose the same key, so
    // it opens no session and shows no recipient.
    let is_owner = order.state.sale().owner == owner;
    let view = view::order(order_id, &order, &gate, if is_owner { Sight::Full } else { Sight::WithoutRecipient });
    let mut response = if committed.is_repeated {
        (StatusCode::OK, [(REPLAYED, HeaderValue::from_static("true"))], Json(&view)).into_response()
    } else {
        (StatusCode::CREATED, [(header::LOCATION, view.links.order.as_str())], Json(&view)).into_response()
    };
    if caller.owner().is_none()
        && is_owner
        && let Some(cookie) = session_cookie(&gate.keyring, owner.as_str(), remote.scheme)
    {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(private(response))
}

/// Which part of the caller's orders is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    after: Option<String>,
    limit: Option<usize>,
    status: Option<OrderStatus>,
}

/// The caller's own orders, newest first. Deleted ones are listed only when they are asked for by status.
async fn list_orders(
    State(orders): State<Handle<Orders>>,
    GateOf(gate): GateOf,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let gate = known(gate)?;
    let owner = match &caller {
        Caller::Guest(owner) => customer(owner)?,
        Caller::Anonymous => return Err(Problem::unauthorized()),
        Caller::Service(_) | Caller::Operator => return Err(Problem::forbidden("only a customer has orders of their own")),
    };
    let limit = query.limit.unwrap_or(PAGE_ORDERS);
    if !(1..=PAGE_ORDERS_MAX).contains(&limit) {
        return Err(Problem::bad_request("invalid_query", format!("`limit` must be 1 to {PAGE_ORDERS_MAX}")).field("limit"));
    }
    let after = query.after.map(|after| after.parse::<OrderId>()).transpose();
    let after = after.map_err(|error| Problem::bad_request("invalid_query", error.to_string()).field("after"))?;
    // One more than the page holds tells whether another page follows.
    let mut found = store::find_orders_of(orders.readers(), &owner, after, query.status, limit + 1).map_err(|error| broken(&error))?;
    let is_last = found.len() <= limit;
    found.truncate(limit);
    let next = if is_last { None } else { found.last().map(|(order_id, _)| order_id.to_string()) };
    let items = found.iter().map(|(order_id, order)| view::order(*order_id, order, &gate, Sight::Full)).collect();
    Ok(private(Json(Page::<OrderView> { items, next }).into_response()))
}

/// What makes an order readable for others than its owner.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShareQuery {
    share: Option<String>,
}

async fn read_order(
    State(orders): State<Handle<Orders>>,
    GateOf(gate): GateOf,
    caller: Caller,
    Params(order_id): Params<String>,
    Query(query): Query<ShareQuery>,
) -> Result<Response, Problem> {
    let gate = known(gate)?;
    let (order_id, order) = find(&orders, &order_id)?;
    let (owner, subject) = (Some(order.state.sale().owner.as_str()), order_id.to_string());
    let sight = if caller.may_read(&gate, owner, &subject, None) {
        Sight::Full
    } else if caller.may_read(&gate, owner, &subject, query.share.as_deref()) {
        Sight::WithoutRecipient
    } else {
        return Err(no_order());
    };
    Ok(private(Json(view::order(order_id, &order, &gate, sight)).into_response()))
}

/// Asks for the order to be cancelled; whether it will be, delivery decides.
async fn cancel_order(
    State(orders): State<Handle<Orders>>,
    GateOf(gate): GateOf,
    caller: Caller,
    Params(order_id): Params<String>,
    request: Request,
) -> Result<Response, Problem> {
    let gate = known(gate)?;
    let trace = headers::trace(request.headers(), &orders);
    expect_no_fields(request).await?;
    let (order_id, order) = find_own(&orders, &gate, &caller, &order_id)?;
    let sale = order.state.sale();
    let meta = Meta { context: context(&sale.owner, sale.scenario.as_deref(), trace), idempotency: None };
    let committed = orders.submit(Key(order_id), domain::Input::Cancel, meta).await.map_err(view::problem)?;
    let order = match committed.entity {
        Some(order) => order,
        None => load(&orders, order_id)?,
    };
    Ok(private((StatusCode::ACCEPTED, Json(view::order(order_id, &order, &gate, Sight::Full))).into_response()))
}

async fn delete_order(
    State(orders): State<Handle<Orders>>,
    GateOf(gate): GateOf,
    caller: Caller,
    Params(order_id): Params<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let gate = known(gate)?;
    let trace = headers::trace(&headers, &orders);
    let (order_id, order) = find_own(&orders, &gate, &caller, &order_id)?;
    let sale = order.state.sale();
    let meta = Meta { context: context(&sale.owner, sale.scenario.as_deref(), trace), idempotency: None };
    orders.submit(Key(order_id), domain::Input::Delete, meta).await.map_err(view::problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What travels with a command to all its effects. All events of an order have its script, those of later commands too.
fn context(owner: &CustomerId, scenario: Option<&str>, trace: String) -> kit::Context {
    kit::Context {
        owner: Some(owner.as_str().to_owned()),
        scenario: scenario.map(str::to_owned),
        traceparent: Some(trace),
        causation: None,
    }
}

/// A command without fields: no body, or an empty JSON object.
async fn expect_no_fields(request: Request) -> Result<(), Problem> {
    let media = request.headers().get(header::CONTENT_TYPE).cloned();
    let bytes = read_bytes(request, &()).await?;
    let is_json = media
        .as_ref()
        .is_some_and(|media| media.to_str().is_ok_and(|media| media.split(';').next().unwrap_or_default().trim() == "application/json"));
    // A form that another site sends has a media type even without a body.
    let is_absent = media.is_none() && bytes.is_empty();
    if !is_json && !is_absent {
        let detail = "the body must be application/json, or absent";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    if bytes.is_empty() {
        return Ok(());
    }
    let fields: serde_json::Map<String, serde_json::Value> = parse_json(&bytes)?;
    match fields.keys().next() {
        None => Ok(()),
        Some(_) => Err(Problem::unprocessable("invalid_body", "this takes no fields")),
    }
}

/// The order that the path names, if it is the caller's to change: their own, or any for the operator.
fn find_own(orders: &Handle<Orders>, gate: &Gate, caller: &Caller, order_id: &str) -> Result<(OrderId, Entity<domain::State>), Problem> {
    let (order_id, order) = find(orders, order_id)?;
    let owner = Some(order.state.sale().owner.as_str());
    if caller.may_read(gate, owner, &order_id.to_string(), None) { Ok((order_id, order)) } else { Err(no_order()) }
}

fn find(orders: &Handle<Orders>, order_id: &str) -> Result<(OrderId, Entity<domain::State>), Problem> {
    let order_id = order_id.parse().map_err(|_| no_order())?;
    Ok((order_id, load(orders, order_id)?))
}

fn load(orders: &Handle<Orders>, order_id: OrderId) -> Result<Entity<domain::State>, Problem> {
    orders.load(&Key(order_id)).map_err(|error| broken(&error))?.ok_or_else(no_order)
}

fn customer(owner: &str) -> Result<CustomerId, Problem> {
    owner.parse().map_err(|error| {
        tracing::error!(%error, "a session of ours names no customer");
        Problem::unauthorized()
    })
}

fn known(gate: Option<Arc<Gate>>) -> Result<Arc<Gate>, Problem> {
    gate.ok_or_else(|| {
        tracing::error!("the router was not finished with a gate");
        Problem::internal()
    })
}

/// The same answer for an order that is not there and for one that is another's.
fn no_order() -> Problem {
    Problem::not_found("there is no such order, or it is not yours")
}

fn broken(error: &StoreError) -> Problem {
    tracing::error!(%error, "orders could not be read");
    Problem::internal()
}

/// Keeps an answer about somebody's orders out of every cache.
fn private(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
