//! The routes: who may publish, read and subscribe.

use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use kit::envelope::{BATCH_JSON, EVENT_JSON};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{TYPE, keyring, shop, shop_on};
use crate::tests::Shop;

/// Publishing in every mode, and what is refused.
mod publishing;

/// Pages and single events.
mod reading;

/// A log at its limit.
mod full;

pub(super) fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header(header::HOST, "localhost")
}

pub(super) fn cloud_event(id: &str, subject: &str, owner: &str) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/tester", "type": TYPE, "subject": subject, "owner": owner, "data": {"n": 1}})
}

/// The ids of the events of a page.
fn ids(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

impl Shop {
    pub(super) async fn call(&self, request: Request<Body>) -> (StatusCode, Value) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub(super) async fn publish(&self, token: Option<&str>, media: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let mut builder = request(Method::POST, "/api/events").header(header::CONTENT_TYPE, media);
        if let Some(name) = token {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {}", keyring().service_token(name)));
        }
        self.call(builder.body(body.into()).unwrap()).await
    }

    pub(super) async fn get(&self, who: Who<'_>, path: &str) -> (StatusCode, Value) {
        self.call(who.ask(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn put(&self, who: Who<'_>, path: &str, body: &Value) -> (StatusCode, Value) {
        let builder = who.ask(Method::PUT, path).header(header::CONTENT_TYPE, "application/json");
        self.call(builder.body(Body::from(body.to_string())).unwrap()).await
    }
}

#[derive(Clone, Copy)]
pub(super) enum Who<'a> {
    Nobody,
    Guest(&'a str),
    Service(&'a str),
    Token(&'a str),
}

impl Who<'_> {
    pub(super) fn ask(self, method: Method, path: &str) -> http::request::Builder {
        let builder = request(method, path);
        match self {
            Self::Nobody => builder,
            Self::Guest(owner) => builder.header(header::COOKIE, format!("cascade_session={}", keyring().session(owner))),
            Self::Service(name) => builder.header(header::AUTHORIZATION, format!("Bearer {}", keyring().service_token(name))),
            Self::Token(token) => builder.header(header::AUTHORIZATION, format!("Bearer {token}")),
        }
    }
}

pub(super) const OPERATOR: Who<'_> = Who::Service("operator");

#[tokio::test]
async fn a_service_publishes_its_own_events_and_they_are_taken_once() {
    let shop = shop().await;
    let (status, body) = shop.publish(Some("tester"), EVENT_JSON, cloud_event("1", "o-1", "ann").to_string()).await;
    assert_eq!((status, body), (StatusCode::ACCEPTED, json!({"results": [{"position": "1", "duplicate": false}]})));
    let batch = json!([cloud_event("1", "o-1", "ann"), cloud_event("2", "o-1", "ann")]).to_string();
    let (status, body) = shop.publish(Some("tester"), BATCH_JSON, batch).await;
    let expected = json!({"results": [{"position": "1", "duplicate": true}, {"position": "2", "duplicate": false}]});
    assert_eq!((status, body), (StatusCode::ACCEPTED, expected));
    let mut other = cloud_event("2", "o-1", "ann");
    other["data"] = json!({"n": 2});
    let (status, body) = shop.publish(Some("tester"), BATCH_JSON, json!([cloud_event("3", "o-1", "ann"), other]).to_string()).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("other_content")));
    assert_eq!(shop.broker.engine().tail().last(), kit::Position(3));
}

#[tokio::test]
async fn what_is_forged_or_no_event_is_refused_and_nothing_is_stored() {
    let shop = shop().await;
    let good = cloud_event("1", "o-1", "ann");
    let with = |field: &str, value: Value| {
        let mut event = good.clone();
        event[field] = value;
        json!([event, good.clone()]).to_string()
    };
    let deep = format!(
        r#"[{{"specversion":"1.0","id":"9","source":"/tester","type":"{TYPE}","data":{}{}}}]"#,
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    for (token, media, body, expected) in [
        (None, BATCH_JSON, json!([good]).to_string(), (401, "unauthorized")),
        (Some("other"), BATCH_JSON, json!([good]).to_string(), (403, "forbidden")),
        (Some("operator"), BATCH_JSON, json!([good]).to_string(), (403, "forbidden")),
        (Some("tester"), BATCH_JSON, with("source", json!("/other")), (403, "forbidden")),
        (Some("tester"), BATCH_JSON, with("type", json!("cascade.Foreign.v1")), (403, "forbidden")),
        (Some("tester"), BATCH_JSON, with("type", json!("cascade.Nonsense.v1")), (422, "unknown_event_type")),
        (Some("tester"), BATCH_JSON, with("id", json!("")), (422, "invalid_event")),
        (Some("tester"), BATCH_JSON, with("id", json!(7)), (422, "invalid_body")),
        (Some("tester"), BATCH_JSON, with("specversion", json!("0.3")), (422, "invalid_body")),
        (Some("tester"), BATCH_JSON, with("data", json!("x".repeat(300_000))), (413, "event_too_large")),
        (Some("tester"), BATCH_JSON, json!(vec![1; 1_001]).to_string(), (413, "too_many_events")),
        (Some("tester"), BATCH_JSON, "x".repeat(9_000_000), (413, "body_too_large")),
        (Some("tester"), BATCH_JSON, deep, (400, "too_deep")),
        (Some("tester"), BATCH_JSON, "[{".into(), (400, "malformed_json")),
        (Some("tester"), BATCH_JSON, "{}".into(), (422, "invalid_body")),
        (Some("tester"), EVENT_JSON, "[]".into(), (422, "invalid_body")),
        (Some("tester"), "application/json", json!([good]).to_string(), (415, "unsupported_media_type")),
    ] {
        let shown = body.chars().take(200).collect::<String>();
        let (status, body) = shop.publish(token, media, body).await;
        assert_eq!((status.as_u16(), body["code"].as_str().unwrap_or_default()), expected, "{shown}");
    }
    assert_eq!(shop.broker.engine().tail().last(), kit::Position::START);
}

#[tokio::test]
async fn a_batch_lands_as_an_ordered_prefix_and_says_how_much_of_it() {
    let shop = shop().await;
    let mut forged = cloud_event("3", "o-1", "ann");
    forged["source"] = json!("/other");
    let batch = json!([cloud_event("1", "o-1", "ann"), cloud_event("2", "o-1", "ann"), forged, cloud_event("4", "o-1", "ann")]);
    let (status, body) = shop.publish(Some("tester"), BATCH_JSON, batch.to_string()).await;
    assert_eq!((status.as_u16(), &body["landed"], &body["field"]), (403, &json!(2), &json!("/2/source")));
    assert_eq!(shop.broker.engine().tail().last(), kit::Position(2));
    let mut other_content = cloud_event("1", "o-1", "ann");
    other_content["owner"] = json!("bob");
    let (status, body) = shop.publish(Some("tester"), BATCH_JSON, json!([cloud_event("5", "o-1", "ann"), other_content]).to_string()).await;
    assert_eq!((status.as_u16(), &body["landed"]), (409, &json!(1)));
}

#[tokio::test]
async fn events_are_read_by_their_owner_by_whom_they_were_shared_with_and_by_operators() {
    let shop = shop().await;
    let events = [("1", "o-1", "ann"), ("2", "o-2", "bob"), ("3", "o-1", "ann")];
    let batch = json!(events.map(|(id, subject, owner)| cloud_event(id, subject, owner))).to_string();
    shop.publish(Some("tester"), BATCH_JSON, batch).await;
    let share = keyring().share_token("o-1");
    for path in ["/api/events?subject=o-1", "/api/orders/o-1/events"] {
        let shared = format!("{path}{}share={share}", if path.contains('?') { "&" } else { "?" });
        for (who, path) in [(Who::Guest("ann"), path), (OPERATOR, path), (Who::Nobody, &shared), (Who::Guest("bob"), &shared)] {
            let (status, body) = shop.get(who, path).await;
            assert_eq!((status, ids(&body), &body["next"]), (StatusCode::OK, vec!["1".into(), "3".into()], &Value::Null));
            assert_eq!(body["items"][0]["position"], json!("1"));
        }
        for who in [Who::Guest("bob"), Who::Nobody, Who::Service("tester")] {
            assert_eq!(shop.get(who, path).await.0, StatusCode::NOT_FOUND);
        }
    }
    assert_eq!(shop.get(Who::Guest("ann"), &format!("/api/events?subject=o-2&share={share}")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(shop.get(OPERATOR, "/api/events?subject=o-9").await.0, StatusCode::NOT_FOUND);
    assert_eq!(ids(&shop.get(Who::Guest("ann"), "/api/events").await.1), ["1", "3"]);
    let (_, page) = shop.get(OPERATOR, "/api/events?limit=2").await;
    assert_eq!((ids(&page), &page["next"]), (vec!["1".into(), "2".into()], &json!("2")));
    assert_eq!(ids(&shop.get(OPERATOR, "/api/events?after=2").await.1), ["3"]);
    let (_, page) = shop.get(Who::Guest("ann"), "/api/events?subject=o-1&limit=1").await;
    assert_eq!(page["next"], json!("1"));
    assert_eq!(shop.get(Who::Nobody, "/api/events").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.get(Who::Service("tester"), "/api/events").await.0, StatusCode::FORBIDDEN);
    for bad in ["limit=0", "limit=1001", "after=x", "colour=red"] {
        assert_eq!(shop.get(OPERATOR, &format!("/api/events?{bad}")).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn a_service_registers_its_own_subscription_and_operators_see_it() {
    let shop = shop().await;
    let wanted = json!({"sink": "http://127.0.0.1:9/events", "types": [TYPE], "revision": 3});
    let (status, body) = shop.put(Who::Service("tester"), "/api/subscriptions/tester", &wanted).await;
    assert_eq!((status, &body["revision"], &body["name"]), (StatusCode::OK, &json!(3), &json!("tester")));
    let lower = json!({"sink": "http://127.0.0.1:10/events", "types": [TYPE], "revision": 2});
    let (status, body) = shop.put(Who::Service("tester"), "/api/subscriptions/tester", &lower).await;
    assert_eq!((status, &body["revision"], &body["sink"]), (StatusCode::OK, &json!(3), &wanted["sink"]));
    for (who, name, body, expected) in [
        (Who::Service("other"), "tester", wanted.clone(), 403),
        (Who::Guest("ann"), "tester", wanted.clone(), 403),
        (Who::Nobody, "tester", wanted.clone(), 401),
        (OPERATOR, "No-Name", wanted.clone(), 422),
        (OPERATOR, "tester", json!({"sink": "ftp://h/", "types": [TYPE], "revision": 4}), 422),
        (OPERATOR, "tester", json!({"sink": "http://u@h/", "types": [TYPE], "revision": 4}), 422),
        (OPERATOR, "tester", json!({"sink": "/events", "types": [TYPE], "revision": 4}), 422),
        (OPERATOR, "tester", json!({"types": [TYPE], "revision": 4}), 422),
        (OPERATOR, "tester", json!({"sink": "http://h/", "types": [], "revision": 4}), 422),
        (OPERATOR, "tester", json!({"sink": "http://h/", "types": [TYPE], "revision": 4, "more": 1}), 422),
        (OPERATOR, "tester", json!({"sink": "http://h/", "types": ["other"], "revision": 3}), 409),
    ] {
        let path = format!("/api/subscriptions/{name}");
        assert_eq!(shop.put(who, &path, &body).await.0.as_u16(), expected, "{name} {body}");
    }
    let (status, list) = shop.get(OPERATOR, "/api/subscriptions").await;
    assert_eq!((status, list["items"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)));
    let (_, one) = shop.get(OPERATOR, "/api/subscriptions/tester").await;
    assert_eq!((&one["types"], &one["status"]["lanes_set_aside"]), (&json!([TYPE]), &json!(0)));
    assert_eq!(shop.get(OPERATOR, "/api/subscriptions/tester/dead-letters").await, (StatusCode::OK, json!({"items": [], "next": null})));
    assert_eq!(shop.get(Who::Service("tester"), "/api/subscriptions").await.0, StatusCode::FORBIDDEN);
    assert_eq!(shop.get(OPERATOR, "/api/subscriptions/nobody").await.0, StatusCode::NOT_FOUND);
    let redrive = OPERATOR.ask(Method::POST, "/api/subscriptions/tester/dead-letters/1/redrive").body(Body::empty()).unwrap();
    assert_eq!(shop.call(redrive).await.0, StatusCode::NOT_FOUND);
}
