//! The storefront's routes, against an order service that is a stand-in on a socket of its own.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, State},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use kit::{
    Environment, Lifecycle,
    http::{Gate, Proxies, finish, identity::SESSION_COOKIE, server::serve},
    security::Keyring,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::Storefront;

const ORDER: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn keyring() -> Keyring {
    Keyring::from_secret([7; 32])
}

/// What the stand-in was asked, and what it is to answer.
#[derive(Clone)]
struct OrderService {
    asked: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    status: StatusCode,
}

impl OrderService {
    fn answering(status: StatusCode) -> Self {
        Self { asked: Arc::default(), status }
    }

    async fn start(&self) -> http::Uri {
        let router = Router::new()
            .route("/api/products", get(async || Json(json!({"items": [{"product_id": "espresso-cups", "name": "Cups", "price": {"amount_minor": 2490, "currency": "EUR"}}]}))))
            .route("/api/orders", post(create))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let lifecycle = Lifecycle::new();
        lifecycle.clone().spawn("order stand-in", serve(listener, router, lifecycle));
        base
    }

    fn orders(&self) -> Vec<(HeaderMap, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn create(State(service): State<OrderService>, headers: HeaderMap, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    service.asked.lock().unwrap().push((headers, body));
    let links = json!({"self": format!("/api/orders/{ORDER}?share=s"), "events": "/e", "live": "/l", "page": "/p"});
    let view = json!({"order_id": ORDER, "status": "pending", "lines": [], "total": {"amount_minor": 2490, "currency": "EUR"},
        "created_at": "2026-01-31T12:00:00.000Z", "version": 1, "links": links});
    (service.status, Json(view))
}

/// A storefront that orders at `order_api`; none is an order service whose address is not known yet.
fn shop(order_api: Option<http::Uri>, is_playground: bool) -> Router {
    shop_behind(Proxies::none(), order_api, is_playground)
}

fn shop_behind(proxies: Proxies, order_api: Option<http::Uri>, is_playground: bool) -> Router {
    let environment = Environment::real().unwrap();
    let gate = Arc::new(Gate { keyring: keyring(), is_playground, hosts: Vec::new(), proxies });
    let address = OnceLock::new();
    if let Some(uri) = order_api {
        address.set(uri).unwrap();
    }
    finish(crate::router(Storefront::new(environment.clone(), Arc::new(address))), gate, &environment)
}

async fn playground(order: &OrderService) -> Router {
    shop(Some(order.start().await), true)
}

fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost:4000");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

async fn ask(shop: &Router, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    shop.clone().oneshot(request(method, path, headers)).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

async fn body_json(response: Response<Body>) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

fn header_of(response: &Response<Body>, name: header::HeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The owner of the session that an answer opens.
fn opened_session(headers: &HeaderMap) -> Option<String> {
    let cookie = headers.get(header::SET_COOKIE)?.to_str().unwrap();
    let value = cookie.strip_prefix(&format!("{SESSION_COOKIE}=")).unwrap().split(';').next().unwrap();
    keyring().open_session(value)
}

const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/json;q=0.9");
const JSON_ACCEPT: (&str, &str) = ("accept", "application/json");
const JSON_BODY: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn every_page_opens_a_session_once_and_is_kept_by_no_cache_when_it_does() {
    let shop = shop(None, true);
    for path in ["/", "/scenarios", "/scenario/1", &format!("/orders/{ORDER}"), "/scenario/99"] {
        let first = ask(&shop, Method::GET, path, &[BROWSER]).await;
        let owner = opened_session(first.headers()).unwrap();
        assert!(owner.starts_with("guest-"), "{owner}");
        assert_eq!(header_of(&first, header::CACHE_CONTROL), "no-store");
        assert!(header_of(&first, header::CONTENT_TYPE).starts_with("text/html"));

        let cookie = format!("{SESSION_COOKIE}={}", keyring().session(&owner));
        let again = ask(&shop, Method::GET, path, &[BROWSER, ("cookie", &cookie)]).await;
        assert_eq!(opened_session(again.headers()), None, "{path}");
        assert_eq!(header_of(&again, header::CACHE_CONTROL), "no-cache");
        let policy = header_of(&again, header::CONTENT_SECURITY_POLICY);
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_that_encrypts_the_session_is_secure_and_commands_are_shown_with_https() {
    let forwarded = [BROWSER, ("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")];
    for (proxies, is_secure) in [(Proxies::none(), false), ("private".parse().unwrap(), true)] {
        let shop = shop_behind(proxies, None, true);
        for path in ["/", "/scenarios", "/scenario/1", &format!("/orders/{ORDER}"), "/nothing"] {
            let mut request = request(Method::GET, path, &forwarded);
            request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([172, 18, 0, 2], 40_000))));
            let answer = shop.clone().oneshot(request).await.unwrap();
            assert!(opened_session(answer.headers()).is_some(), "{path}");
            assert_eq!(header_of(&answer, header::SET_COOKIE).ends_with("; Secure"), is_secure, "{path}");
            let scheme = if is_secure { "https" } else { "http" };
            assert!(path != "/scenarios" || text(answer).await.contains(&format!("{scheme}://localhost:4000/scenario/")));
        }
    }
}

#[tokio::test]
async fn a_page_has_no_inline_script_and_no_placeholder_left() {
    let shop = shop(None, true);
    for path in ["/", "/scenarios", "/scenario/1", &format!("/orders/{ORDER}"), "/scenario/99"] {
        let html = text(ask(&shop, Method::GET, path, &[BROWSER]).await).await;
        assert!(!html.contains("{{"), "{path}");
        assert!(!html.contains("style=\"") && !html.contains("onclick"), "{path}");
        for script in html.split("<script").skip(1) {
            assert!(script.split('>').next().unwrap().contains("src=\"/assets/"), "{path}");
        }
    }
}

#[tokio::test]
async fn a_page_that_the_browser_already_has_is_not_sent_again() {
    let shop = shop(None, true);
    let cookie = format!("{SESSION_COOKIE}={}", keyring().session("guest-1"));
    let first = ask(&shop, Method::GET, "/", &[("cookie", &cookie)]).await;
    let etag = header_of(&first, header::ETAG).to_owned();
    let known = format!("\"other\", W/{etag}");
    let again = ask(&shop, Method::GET, "/", &[("cookie", &cookie), ("if-none-match", &known)]).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(text(again).await, "");
    // Without a session the page is sent whole: the answer carries the cookie.
    let stranger = ask(&shop, Method::GET, "/", &[("if-none-match", &etag)]).await;
    assert_eq!(stranger.status(), StatusCode::OK);
}

#[tokio::test]
async fn files_of_the_client_app_have_their_types_and_what_is_no_such_file_is_404() {
    let shop = shop(None, true);
    for (path, media) in [
        ("/assets/app/style.css", "text/css; charset=utf-8"),
        ("/assets/app/live-page.js", "text/javascript; charset=utf-8"),
        ("/assets/lib/cascade.js", "text/javascript; charset=utf-8"),
        ("/assets/app/icon.svg", "image/svg+xml"),
        ("/assets/app/products/generic.svg", "image/svg+xml"),
        ("/favicon.ico", "image/x-icon"),
    ] {
        let file = ask(&shop, Method::GET, path, &[]).await;
        assert_eq!((file.status(), header_of(&file, header::CONTENT_TYPE)), (StatusCode::OK, media), "{path}");
        assert_eq!(header_of(&file, header::CACHE_CONTROL), "no-cache");
        let etag = header_of(&file, header::ETAG).to_owned();
        assert_eq!(ask(&shop, Method::GET, path, &[("if-none-match", &etag)]).await.status(), StatusCode::NOT_MODIFIED);
    }
    for path in
        ["/assets/app/none.js", "/assets/", "/assets/pages/live.html", "/assets/app/../pages/live.html", "/assets/app/%2e%2e/package.json"]
    {
        assert_eq!(ask(&shop, Method::GET, path, &[]).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn an_unknown_scenario_is_a_problem_for_programs_and_a_page_for_people() {
    let shop = shop(None, true);
    let page = ask(&shop, Method::GET, "/scenario/99", &[BROWSER]).await;
    assert_eq!(page.status(), StatusCode::NOT_FOUND);
    assert!(text(page).await.contains("There is no scenario 99."));
    let hostile = text(ask(&shop, Method::GET, "/scenario/%3Cscript%3E", &[BROWSER]).await).await;
    assert!(hostile.contains("&lt;script&gt;."), "{hostile}");
    for (method, path) in [(Method::GET, "/scenario/99"), (Method::GET, "/api/scenarios/01"), (Method::POST, "/api/scenarios/99/runs")] {
        let problem = ask(&shop, method, path, &[JSON_ACCEPT, JSON_BODY]).await;
        assert_eq!(problem.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(header_of(&problem, header::CONTENT_TYPE), "application/problem+json");
    }
    assert_eq!(ask(&shop, Method::GET, "/orders/7", &[BROWSER]).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask(&shop, Method::DELETE, "/scenario/1", &[]).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn an_unknown_path_is_a_page_for_people_and_a_problem_for_programs() {
    let shop = shop(None, true);
    for path in ["/foo", "/foo/%3Cb%3E/bar", "/scenario/1/x", "/api/nothing"] {
        let page = ask(&shop, Method::GET, path, &[BROWSER]).await;
        assert_eq!(page.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(header_of(&page, header::VARY), "accept");
        assert!(header_of(&page, header::CONTENT_SECURITY_POLICY).contains("default-src 'self'"));
        let html = text(page).await;
        assert!(html.contains("Nothing flows here") && !html.contains("<b>"), "{html}");
        for (method, accept) in [(Method::GET, JSON_ACCEPT), (Method::GET, ("accept", "*/*")), (Method::POST, BROWSER)] {
            let problem = ask(&shop, method, path, &[accept, JSON_BODY]).await;
            assert_eq!(problem.status(), StatusCode::NOT_FOUND, "{path}");
            assert_eq!(header_of(&problem, header::CONTENT_TYPE), "application/problem+json");
        }
    }
}

#[tokio::test]
async fn the_shop_stands_at_the_root_and_the_scenarios_beside_it() {
    let shop = shop(None, true);
    let page = text(ask(&shop, Method::GET, "/", &[BROWSER]).await).await;
    assert!(page.contains("id=\"basket\"") && page.contains("href=\"/scenarios\""), "{page}");
    let scenarios = text(ask(&shop, Method::GET, "/scenarios", &[BROWSER]).await).await;
    assert!(scenarios.contains("Run scenario 12") && scenarios.contains("href=\"/\""), "{scenarios}");
    // An order that was bought leads back to the shop, a scenario to itself.
    let order = text(ask(&shop, Method::GET, &format!("/orders/{ORDER}"), &[BROWSER]).await).await;
    assert!(order.contains("To the shop") && !order.contains("Run again"), "{order}");
}

#[tokio::test]
async fn a_page_visit_orders_nothing() {
    let order = OrderService::answering(StatusCode::CREATED);
    let shop = playground(&order).await;
    for accept in [BROWSER, ("accept", "*/*")] {
        for path in ["/", "/scenario/1"] {
            assert_eq!(ask(&shop, Method::GET, path, &[accept]).await.status(), StatusCode::OK);
        }
    }
    assert!(order.orders().is_empty());
}

#[tokio::test]
async fn a_run_orders_through_the_public_api_in_the_callers_name() {
    let order = OrderService::answering(StatusCode::CREATED);
    let shop = playground(&order).await;
    let cookie = format!("{SESSION_COOKIE}={}", keyring().session("guest-1"));
    let answer = ask(&shop, Method::POST, "/api/scenarios/3/runs", &[JSON_BODY, ("cookie", &cookie), ("idempotency-key", "k1")]).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(header_of(&answer, header::CACHE_CONTROL), "no-store");
    assert_eq!(opened_session(answer.headers()), None);
    let run = body_json(answer).await;
    assert_eq!((&run["order_id"], &run["run"]), (&json!(ORDER), &json!(ORDER)));
    assert_eq!(run["links"]["self"], json!(format!("/api/orders/{ORDER}?share=s")));

    let (headers, body) = order.orders().pop().unwrap();
    assert_eq!(headers.get("cascade-scenario"), Some(&HeaderValue::from_static("3")));
    assert_eq!(headers.get("idempotency-key"), Some(&HeaderValue::from_static("scenario-3-k1")));
    assert_eq!(headers.get(header::COOKIE).unwrap().to_str().unwrap(), cookie);
    assert_eq!(body, json!({"lines": [{"product_id": "espresso-cups", "quantity": 1}]}));
}

#[tokio::test]
async fn a_program_starts_a_run_with_one_get_and_is_given_a_session() {
    let order = OrderService::answering(StatusCode::CREATED);
    let shop = playground(&order).await;
    let answer = ask(&shop, Method::GET, "/scenario/1", &[JSON_ACCEPT]).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!((header_of(&answer, header::CACHE_CONTROL), header_of(&answer, header::VARY)), ("no-store", "accept"));
    let owner = opened_session(answer.headers()).unwrap();
    let (headers, _) = order.orders().pop().unwrap();
    let expected = format!("{SESSION_COOKIE}={}", keyring().session(&owner));
    assert_eq!(headers.get(header::COOKIE).unwrap().to_str().unwrap(), expected);
}

#[tokio::test]
async fn a_run_by_accident_from_afar_or_outside_the_playground_is_refused() {
    let order = OrderService::answering(StatusCode::CREATED);
    let base = order.start().await;
    let (open, closed) = (shop(Some(base.clone()), true), shop(Some(base), false));
    for accident in [("sec-fetch-site", "cross-site"), ("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch")] {
        assert_eq!(ask(&open, Method::GET, "/scenario/1", &[JSON_ACCEPT, accident]).await.status(), StatusCode::FORBIDDEN, "{accident:?}");
    }
    let foreign = ask(&open, Method::POST, "/api/scenarios/1/runs", &[JSON_BODY, ("origin", "http://evil.example")]).await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    assert_eq!(ask(&closed, Method::GET, "/scenario/1", &[JSON_ACCEPT]).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(ask(&closed, Method::POST, "/api/scenarios/1/runs", &[JSON_BODY]).await.status(), StatusCode::FORBIDDEN);
    assert!(order.orders().is_empty());
}

#[tokio::test]
async fn a_run_takes_an_empty_object_or_nothing_as_json_only() {
    let order = OrderService::answering(StatusCode::CREATED);
    let shop = playground(&order).await;
    for (body, media, status) in [
        ("", "application/json", StatusCode::CREATED),
        ("{}", "application/json; charset=utf-8", StatusCode::CREATED),
        (r#"{"odds":1}"#, "application/json", StatusCode::UNPROCESSABLE_ENTITY),
        ("{", "application/json", StatusCode::BAD_REQUEST),
        ("", "text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        let mut request = request(Method::POST, "/api/scenarios/1/runs", &[("content-type", media)]);
        *request.body_mut() = Body::from(body);
        assert_eq!(shop.clone().oneshot(request).await.unwrap().status(), status, "{body} as {media}");
    }
    assert_eq!(order.orders().len(), 2);
}

#[tokio::test]
async fn a_failing_order_service_is_a_503_and_a_busy_one_a_429() {
    for (status, expected) in [
        (StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE),
        (StatusCode::FORBIDDEN, StatusCode::SERVICE_UNAVAILABLE),
        (StatusCode::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS),
    ] {
        let shop = playground(&OrderService::answering(status)).await;
        let answer = ask(&shop, Method::POST, "/api/scenarios/1/runs", &[JSON_BODY]).await;
        assert_eq!(answer.status(), expected);
        assert_eq!(header_of(&answer, header::RETRY_AFTER), "1");
    }
    // Port 1 of this machine refuses connections; an unknown address cannot even be tried.
    for order_api in [Some("http://127.0.0.1:1".parse().unwrap()), None] {
        let answer = ask(&shop(order_api, true), Method::POST, "/api/scenarios/1/runs", &[JSON_BODY]).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn the_catalogue_lists_every_scenario() {
    let list = body_json(ask(&shop(None, true), Method::GET, "/api/scenarios", &[]).await).await;
    let numbers: Vec<i64> = list["items"].as_array().unwrap().iter().map(|item| item["number"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 11, 12]);
    assert_eq!(list["items"][1]["ends"], json!(["cancelled_payment_declined"]));
}
