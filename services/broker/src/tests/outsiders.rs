//! Tokens for outsiders: making and ending them, and what they let their bearers do.

use std::time::Duration;

use axum::body::Body;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use kit::envelope::{BATCH_JSON, EVENT_JSON};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    Shop, TYPE,
    api::{OPERATOR, Who},
    event, settings, shop_on,
};
use crate::engine::memory::MemoryDisk;

/// Where their sinks may be, and what signs for them.
mod sinks;

/// The type of event that outsiders publish here.
const EARNED: &str = "loyalty.Earned.v1";

impl Shop {
    pub(super) async fn send_as(&self, who: Who<'_>, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let builder = who.ask(method, path).header(header::CONTENT_TYPE, "application/json");
        self.call(builder.body(Body::from(body.to_string())).unwrap()).await
    }

    /// A token that may do what `scopes` say.
    pub(super) async fn token(&self, name: &str, scopes: &Value) -> String {
        let (status, body) = self.send_as(OPERATOR, Method::POST, "/api/tokens", &json!({"name": name, "scopes": scopes})).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["token"].as_str().unwrap().to_owned()
    }

    async fn publish_as(&self, token: &str, events: &Value) -> (StatusCode, Value) {
        let builder = Who::Token(token).ask(Method::POST, "/api/events");
        let media = if events.is_array() { BATCH_JSON } else { EVENT_JSON };
        self.call(builder.header(header::CONTENT_TYPE, media).body(Body::from(events.to_string())).unwrap()).await
    }
}

async fn memory_shop() -> Shop {
    shop_on(MemoryDisk::default(), settings()).await
}

fn loyalty() -> Value {
    json!({
        "publish": {"source": "/loyalty", "types": ["loyalty.*"]},
        "subscribe": {"names": ["loyalty"], "types": [TYPE]},
    })
}

fn earned(id: &str) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/loyalty", "type": EARNED, "subject": "o-1"})
}

fn with(mut json: Value, field: &str, value: &str) -> Value {
    json[field] = json!(value);
    json
}

#[tokio::test]
async fn a_token_is_shown_once_and_never_kept() {
    let shop = memory_shop().await;
    let (status, made) = shop.send_as(OPERATOR, Method::POST, "/api/tokens", &json!({"name": "loyalty", "scopes": loyalty()})).await;
    assert_eq!((status, &made["name"], &made["scopes"]), (StatusCode::CREATED, &json!("loyalty"), &loyalty()));
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("cascade_loyalty_"));
    let secret = token.trim_start_matches("cascade_loyalty_");
    for path in ["/api/tokens", "/api/tokens/loyalty"] {
        let (status, shown) = shop.get(OPERATOR, path).await;
        assert!(status == StatusCode::OK && shown.to_string().contains("loyalty") && !shown.to_string().contains(&secret[..8]), "{shown}");
    }
    for entry in shop.broker.engine().state_list("").await.unwrap() {
        assert!(!entry.value.contains(&secret[..8]), "{}", entry.value);
    }
    let (_, shown) = shop.get(OPERATOR, "/api/tokens/loyalty").await;
    assert_eq!(shown["last_used_day"], Value::Null);
    assert_eq!(shop.publish_as(token, &earned("1")).await.0, StatusCode::ACCEPTED);
    let (_, shown) = shop.get(OPERATOR, "/api/tokens/loyalty").await;
    assert_eq!((&shown["last_used_day"], &shown["is_expired"]), (&json!("2027-01-15"), &json!(false)));
}

#[tokio::test]
async fn what_cannot_be_a_token_is_refused_by_field_and_changes_nothing() {
    let shop = memory_shop().await;
    for (body, field) in [
        (json!([]), Value::Null),
        (json!({"scopes": loyalty()}), json!("name")),
        (json!({"name": "Not one", "scopes": loyalty()}), json!("name")),
        (json!({"name": "a"}), json!("scopes")),
        (json!({"name": "a", "scopes": {}}), json!("/scopes")),
        (json!({"name": "a", "scopes": {"publish": {"source": "/tester", "types": ["a"]}}}), json!("/scopes/publish/source")),
        (json!({"name": "a", "scopes": {"publish": {"source": "/a", "types": ["cascade.*"]}}}), json!("/scopes/publish/types")),
        (json!({"name": "a", "scopes": loyalty(), "expires_at": "tomorrow"}), json!("expires_at")),
        (json!({"name": "a", "scopes": loyalty(), "expires_at": "2020-01-01T00:00:00Z"}), json!("expires_at")),
        (json!({"name": "a", "scopes": loyalty(), "more": 1}), json!("more")),
    ] {
        let (status, problem) = shop.send_as(OPERATOR, Method::POST, "/api/tokens", &body).await;
        assert_eq!((status, &problem["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &field), "{body} {problem}");
    }
    assert_eq!(shop.get(OPERATOR, "/api/tokens").await.1, json!({"items": []}));
    shop.token("a", &loyalty()).await;
    let (status, problem) = shop.send_as(OPERATOR, Method::POST, "/api/tokens", &json!({"name": "a", "scopes": loyalty()})).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("token_exists")));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_mistyped_replaced_expired_or_revoked_says_so_and_opens_nothing() {
    let shop = memory_shop().await;
    let code = async |token: &str| {
        let (status, body) = shop.publish_as(token, &earned("1")).await;
        if status == StatusCode::UNAUTHORIZED { body["code"].as_str().unwrap().to_owned() } else { status.as_u16().to_string() }
    };
    let first = shop.token("loyalty", &loyalty()).await;
    assert_eq!(code(&first).await, "202");
    assert_eq!(code(&first[..first.len() - 1]).await, "malformed_token");
    assert_eq!(code("cascade_").await, "malformed_token");
    let rotate = async |body: Value| shop.send_as(OPERATOR, Method::POST, "/api/tokens/loyalty/rotate", &body).await.1;
    let made = rotate(json!({"grace_s": 60})).await;
    let second = made["token"].as_str().unwrap().to_owned();
    assert_eq!((code(&first).await, code(&second).await), ("202".into(), "202".into()));
    assert_eq!(made["previous_until"], json!("2027-01-15T08:01:00.000Z"));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!((code(&first).await, code(&second).await), ("unknown_token".into(), "202".into()));
    let third = rotate(json!({"grace_s": 0, "expires_at": "2027-01-15T09:00:00Z"})).await["token"].as_str().unwrap().to_owned();
    assert_eq!((code(&second).await, code(&third).await), ("unknown_token".into(), "202".into()));
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert_eq!(code(&third).await, "expired_token");
    assert_eq!(shop.get(OPERATOR, "/api/tokens/loyalty").await.1["is_expired"], json!(true));
    let fourth = rotate(json!({"expires_at": "2027-02-01T00:00:00Z"})).await["token"].as_str().unwrap().to_owned();
    assert_eq!((code(&third).await, code(&fourth).await), ("202".into(), "202".into()), "both, for a day");
    assert_eq!(shop.send_as(OPERATOR, Method::DELETE, "/api/tokens/loyalty", &json!({})).await.0, StatusCode::NO_CONTENT);
    assert_eq!((code(&third).await, code(&fourth).await), ("unknown_token".into(), "unknown_token".into()));
    for (body, status) in [(json!({}), 404), (json!({"grace_s": -1}), 422), (json!({"grace_s": 99_999_999}), 422), (json!([]), 422)] {
        let (answered, _) = shop.send_as(OPERATOR, Method::POST, "/api/tokens/loyalty/rotate", &body).await;
        assert_eq!(answered.as_u16(), status, "{body}");
    }
}

#[tokio::test]
async fn tokens_outlive_a_restart() {
    let disk = MemoryDisk::default();
    let shop = shop_on(disk.clone(), settings()).await;
    let (kept, revoked) = (shop.token("kept", &loyalty()).await, shop.token("revoked", &loyalty()).await);
    shop.send_as(OPERATOR, Method::DELETE, "/api/tokens/revoked", &json!({})).await;
    assert!(shop.lifecycle.stop(super::DEADLINE).await);
    let shop = shop_on(disk, settings()).await;
    assert_eq!(shop.publish_as(&kept, &earned("1")).await.0, StatusCode::ACCEPTED);
    assert_eq!(shop.publish_as(&revoked, &earned("2")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(shop.get(OPERATOR, "/api/tokens").await.1["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_outsider_publishes_as_their_own_source_and_nothing_of_the_shops() {
    let shop = memory_shop().await;
    let token = shop.token("loyalty", &loyalty()).await;
    for (event, field, code) in [
        (with(earned("1"), "source", "/tester"), "/source", "missing_scope"),
        (with(earned("1"), "source", "/loyalty/x"), "/source", "missing_scope"),
        (with(earned("1"), "type", "points.Earned.v1"), "/type", "missing_scope"),
        (with(earned("1"), "type", TYPE), "/type", "missing_scope"),
    ] {
        let (status, problem) = shop.publish_as(&token, &event).await;
        let found = (status, problem["field"].as_str().unwrap(), problem["code"].as_str().unwrap());
        assert_eq!(found, (StatusCode::FORBIDDEN, field, code), "{event}");
    }
    let batch = json!([earned("1"), with(earned("2"), "type", "x"), earned("3")]);
    let (status, problem) = shop.publish_as(&token, &batch).await;
    assert_eq!((status, &problem["field"], &problem["landed"]), (StatusCode::FORBIDDEN, &json!("/1/type"), &json!(1)));
    assert_eq!(shop.broker.engine().tail().last(), kit::Position(1));
    let reader = shop.token("reader", &json!({"read": {"types": ["*"]}})).await;
    let (status, problem) = shop.publish_as(&reader, &earned("9")).await;
    assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("missing_scope")));
    assert!(problem["detail"].as_str().unwrap().contains("`publish`"));
}

#[tokio::test]
async fn a_type_that_a_service_emits_since_is_no_outsiders_any_more() {
    let disk = MemoryDisk::default();
    let shop = shop_on(disk.clone(), settings()).await;
    let token = shop.token("loyalty", &loyalty()).await;
    assert!(shop.lifecycle.stop(super::DEADLINE).await);
    let grown = crate::Settings { rights: settings().rights.allow("loyalty", [EARNED]), ..settings() };
    let shop = shop_on(disk, grown).await;
    let (status, problem) = shop.publish_as(&token, &earned("1")).await;
    assert_eq!((status, &problem["code"], &problem["field"]), (StatusCode::FORBIDDEN, &json!("forbidden"), &json!("/source")));
    let path = "/api/subscriptions/loyalty";
    let body = json!({"sink": "https://192.0.2.1/", "types": [TYPE], "revision": 1});
    assert_eq!(shop.put(Who::Token(&token), path, &body).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_outsider_reads_the_types_that_they_may_and_nobodys_own_unless_told_otherwise() {
    let shop = memory_shop().await;
    let of = |id: &str, ty: &str, owner: Option<&str>| kit::Envelope {
        ty: ty.into(),
        owner: owner.map(str::to_owned),
        ..event("/tester", id, "o-1")
    };
    let log =
        [of("1", TYPE, Some("ann")), of("2", TYPE, None), of("3", EARNED, None), of("4", EARNED, Some("ann")), of("5", "other", None)];
    shop.broker.publisher().publish(&log).await.unwrap();
    let plain = shop.token("plain", &json!({"read": {"types": ["cascade.*", "loyalty.*"]}})).await;
    let trusted = shop.token("trusted", &json!({"read": {"types": ["loyalty.*"], "owners": true}})).await;
    let none = shop.token("none", &json!({"operate": ["a"]})).await;
    let ids = async |token: &str, path: &str| {
        let (_, page) = shop.get(Who::Token(token), path).await;
        page["items"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for path in ["/api/events", "/api/events?subject=o-1", "/api/orders/o-1/events"] {
        assert_eq!(ids(&plain, path).await, ["2", "3"], "{path}");
        assert_eq!(ids(&trusted, path).await, ["3", "4"], "{path}");
        let (status, problem) = shop.get(Who::Token(&none), path).await;
        assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("missing_scope")), "{path}");
    }
    assert_eq!(ids(&plain, "/api/events?limit=1").await, ["2"]);
    assert_eq!(ids(&plain, &format!("/api/events?types={EARNED},other")).await, ["3"]);
    assert_eq!(ids(&plain, "/api/events?subject=nothing").await, Vec::<String>::new());
    for (path, status) in [("/api/events/2", 200), ("/api/events/1", 404), ("/api/events/5", 404), ("/api/events/99", 404)] {
        assert_eq!(shop.get(Who::Token(&plain), path).await.0.as_u16(), status, "{path}");
    }
    assert_eq!(shop.get(Who::Token(&plain), "/api/events?source=/tester&id=1").await.0, StatusCode::NOT_FOUND);
    assert_eq!(shop.get(Who::Token(&trusted), "/api/events?source=/tester&id=4").await.0, StatusCode::OK);
    for path in ["/api/events/2", "/api/live"] {
        assert_eq!(shop.get(Who::Token(&none), path).await.1["code"], json!("missing_scope"), "{path}");
    }
}

#[tokio::test]
async fn a_live_stream_shows_an_outsider_what_their_token_covers() {
    let shop = memory_shop().await;
    let of = |id: &str, owner: Option<&str>| kit::Envelope { owner: owner.map(str::to_owned), ..event("/tester", id, "o-1") };
    shop.broker.publisher().publish(&[of("1", Some("ann")), of("2", None)]).await.unwrap();
    let token = shop.token("reader", &json!({"read": {"types": [TYPE]}})).await;
    for (path, shows) in [("/api/live?after=0", "granted"), ("/api/live?subject=o-1", "granted")] {
        let request = Who::Token(&token).ask(Method::GET, path).header(header::ACCEPT, "text/event-stream");
        let mut body = shop.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().into_body();
        shop.broker.publisher().publish(&[of("3", Some("ann")), of("4", None), of("5", Some("ann"))]).await.unwrap();
        let mut text = String::new();
        while !text.contains("\nid: 4\n") && !text.contains("id: 4\n") {
            let frame = tokio::time::timeout(super::DEADLINE, body.frame()).await.expect("in time").unwrap().unwrap();
            text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
        assert!(text.contains(&format!("\"shows\":\"{shows}\"")) && text.contains("id: 2\n"), "{text}");
        assert!(!text.contains("id: 1\n") && !text.contains("id: 3\n") && !text.contains("ann"), "{text}");
    }
}

#[tokio::test]
async fn an_outsider_looks_after_the_subscriptions_that_their_token_names_and_holds_up_nobody() {
    let shop = shop_on(MemoryDisk::default(), sinks::open_to("private")).await;
    let token = shop.token("loyalty", &loyalty()).await;
    let registration = json!({"sink": "http://127.0.0.1:9/", "types": [TYPE], "revision": 1});
    let put = async |name: &str, body: &Value| shop.put(Who::Token(&token), &format!("/api/subscriptions/{name}"), body).await;
    let (status, body) = put("loyalty", &registration).await;
    assert_eq!((status, &body["required"], &body["security"]["token"]), (StatusCode::OK, &json!(false), &json!("loyalty")), "{body}");
    for (name, body, code, field) in [
        ("other-team", registration.clone(), "missing_scope", Value::Null),
        ("tester", registration.clone(), "forbidden", Value::Null),
        ("loyalty", json!({"sink": "http://127.0.0.1:9/", "revision": 2}), "missing_scope", json!("types")),
        ("loyalty", json!({"sink": "http://127.0.0.1:9/", "types": [TYPE, EARNED], "revision": 2}), "missing_scope", json!("types")),
        (
            "loyalty",
            json!({"sink": "http://127.0.0.1:9/", "types": [TYPE], "revision": 2, "required": true}),
            "forbidden",
            json!("required"),
        ),
    ] {
        let (status, problem) = put(name, &body).await;
        assert_eq!((status, &problem["code"], &problem["field"]), (StatusCode::FORBIDDEN, &json!(code), &field), "{name} {body}");
    }
    let patch = async |who: Who<'_>, body: Value| {
        let builder = who.ask(Method::PATCH, "/api/subscriptions/loyalty").header(header::CONTENT_TYPE, "application/json");
        shop.call(builder.header(header::IF_MATCH, "*").body(Body::from(body.to_string())).unwrap()).await
    };
    assert_eq!(patch(Who::Token(&token), json!({"types": null})).await.1["code"], json!("missing_scope"));
    assert_eq!(patch(Who::Token(&token), json!({"batch": {"events_max": 3}})).await.0, StatusCode::OK);
    let (status, problem) = patch(OPERATOR, json!({"required": true})).await;
    assert_eq!((status, &problem["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("required")), "not even for an operator");
    assert_eq!(shop.put(Who::Service("tester"), "/api/subscriptions/tester", &registration).await.0, StatusCode::OK);
    let (_, list) = shop.get(Who::Token(&token), "/api/subscriptions").await;
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["loyalty"]);
    assert_eq!(shop.get(Who::Token(&token), "/api/subscriptions/loyalty").await.0, StatusCode::OK);
    assert_eq!(shop.get(Who::Token(&token), "/api/subscriptions/tester").await.0, StatusCode::FORBIDDEN);
    let delete = async |name: &str| {
        shop.send_as(Who::Token(&token), Method::DELETE, &format!("/api/subscriptions/{name}"), &json!({})).await.0.as_u16()
    };
    assert_eq!((delete("tester").await, delete("loyalty").await), (403, 204));
}

#[tokio::test]
async fn whoever_operates_a_subscription_sees_and_moves_that_one_only() {
    let shop = memory_shop().await;
    shop.put(Who::Service("tester"), "/api/subscriptions/tester", &json!({"sink": "http://127.0.0.1:9/", "types": [TYPE], "revision": 1}))
        .await;
    shop.put(Who::Service("audit"), "/api/subscriptions/audit", &json!({"sink": "http://127.0.0.1:9/", "types": [TYPE], "revision": 1}))
        .await;
    shop.broker.publisher().publish(&[event("/tester", "1", "o-1")]).await.unwrap();
    let one = shop.token("one", &json!({"operate": ["audit"]})).await;
    let all = shop.token("all", &json!({"operate": ["*"]})).await;
    let status =
        async |token: &str, method: Method, path: &str, body: Value| shop.send_as(Who::Token(token), method, path, &body).await.0.as_u16();
    for (name, of_one) in [("audit", 200), ("tester", 403)] {
        let path = |rest: &str| format!("/api/subscriptions/{name}{rest}");
        for (method, rest, body) in [
            (Method::GET, "", json!({})),
            (Method::POST, "/pause", json!({})),
            (Method::POST, "/resume", json!({})),
            (Method::POST, "/seek", json!({"to": "latest", "dry_run": true})),
            (Method::GET, "/dead-letters", json!({})),
            (Method::GET, "/replays", json!({})),
            (Method::POST, "/explain", json!({"event": {"specversion": "1.0", "id": "1", "source": "/x", "type": TYPE}})),
        ] {
            assert_eq!(status(&one, method.clone(), &path(rest), body.clone()).await, of_one, "{name}{rest}");
            assert_eq!(status(&all, method, &path(rest), body).await, 200, "{name}{rest}");
        }
        let registration = json!({"sink": "http://127.0.0.1:9/", "types": [TYPE], "revision": 2});
        assert_eq!(status(&all, Method::PUT, &path(""), registration).await, 403, "who operates does not register");
    }
    assert_eq!(status(&one, Method::POST, "/api/subscriptions/audit/explain", json!({"position": "1"})).await, 404, "they may not read it");
    assert_eq!(status(&one, Method::GET, "/api/events/1/deliveries", json!({})).await, 403);
    assert_eq!(status(&all, Method::GET, "/api/events/1/deliveries", json!({})).await, 200);
    let (_, list) = shop.get(Who::Token(&one), "/api/subscriptions").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn only_operators_and_tokens_made_for_it_make_tokens() {
    let shop = memory_shop().await;
    let manager = shop.token("manager", &json!({"tokens": true})).await;
    let other = shop.token("other", &json!({"operate": ["*"], "read": {"types": ["*"], "owners": true}})).await;
    let body = json!({"name": "x", "scopes": loyalty()});
    for (who, status) in [
        (Who::Nobody, 401),
        (Who::Guest("ann"), 403),
        (Who::Service("tester"), 403),
        (Who::Token(&other), 403),
        (Who::Token(&manager), 201),
    ] {
        assert_eq!(shop.send_as(who, Method::POST, "/api/tokens", &body).await.0.as_u16(), status);
        let listed = shop.get(who, "/api/tokens").await.0.as_u16();
        assert_eq!(listed, if status == 201 { 200 } else { status });
    }
    assert_eq!(shop.send_as(Who::Token(&other), Method::DELETE, "/api/tokens/x", &json!({})).await.1["code"], json!("missing_scope"));
    assert_eq!(shop.send_as(Who::Token(&other), Method::POST, "/api/tokens/x/rotate", &json!({})).await.0, StatusCode::FORBIDDEN);
}
