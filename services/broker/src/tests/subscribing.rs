//! Registering, changing and removing subscriptions.

use std::time::Duration;

use axum::body::Body;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use kit::{Envelope, Position};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    DEADLINE, TYPE,
    api::{OPERATOR, Who},
    delivery::{Subscriber, Temper, let_time_pass, live, numbered, start, wait_until},
    environment, shop,
};
use crate::{
    Broker,
    engine::StatePut,
    keeping,
    subscriptions::{By, Expected, RegisterError, wanted::Wanted},
    tests::Shop,
};

const PATH: &str = "/api/subscriptions/tester";

/// An answer with its entity tag.
struct Answer {
    status: u16,
    etag: String,
    body: Value,
}

impl Shop {
    async fn send(&self, who: Who<'_>, method: Method, condition: Option<(&str, &str)>, body: Option<&Value>) -> Answer {
        let mut request = who.ask(method, PATH).header(header::CONTENT_TYPE, "application/json");
        if let Some((name, value)) = condition {
            request = request.header(name, value);
        }
        let request = request.body(body.map_or(Body::empty(), |body| Body::from(body.to_string()))).unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let etag = answer.headers().get(header::ETAG).map(|tag| tag.to_str().unwrap().to_owned()).unwrap_or_default();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        Answer { status, etag, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }
}

fn registration() -> Value {
    json!({"sink": "http://127.0.0.1:9/events", "types": [TYPE], "revision": 1})
}

#[tokio::test]
async fn a_change_names_what_it_changes_and_another_one_in_between_stops_it() {
    let shop = shop().await;
    let put = shop.send(Who::Service("tester"), Method::PUT, Some(("if-none-match", "*")), Some(&registration())).await;
    assert_eq!((put.status, put.body["required"].clone()), (200, json!(true)), "a service of the shop");
    let again = shop.send(Who::Service("tester"), Method::PUT, Some(("if-none-match", "*")), Some(&registration())).await;
    assert_eq!((again.status, again.body["code"].clone()), (412, json!("precondition_failed")));
    let (patch, stale) = (json!({"batch": {"events_max": 7}}), put.etag.as_str());
    let blind = shop.send(OPERATOR, Method::PATCH, None, Some(&patch)).await;
    assert_eq!((blind.status, blind.body["code"].clone()), (428, json!("precondition_required")));
    let patched = shop.send(OPERATOR, Method::PATCH, Some(("if-match", stale)), Some(&patch)).await;
    assert_eq!((patched.status, patched.body["batch"]["events_max"].clone()), (200, json!(7)));
    assert_ne!(patched.etag, put.etag);
    for (method, body) in [(Method::PATCH, Some(&patch)), (Method::PUT, Some(&registration())), (Method::DELETE, None)] {
        let refused = shop.send(OPERATOR, method.clone(), Some(("if-match", stale)), body).await;
        assert_eq!((refused.status, refused.body["code"].clone()), (412, json!("precondition_failed")), "{method}");
    }
    let seen = shop.send(Who::Service("tester"), Method::GET, None, None).await;
    assert_eq!((seen.status, seen.etag.as_str(), seen.body["batch"]["events_max"].clone()), (200, patched.etag.as_str(), json!(7)));
    let either = format!("\"other\", {}", seen.etag);
    assert_eq!(shop.send(OPERATOR, Method::DELETE, Some(("if-match", &either)), None).await.status, 204);
    assert_eq!(shop.send(OPERATOR, Method::GET, None, None).await.status, 404);
    assert_eq!(shop.send(OPERATOR, Method::DELETE, None, None).await.status, 404);
    assert_eq!(shop.send(OPERATOR, Method::PATCH, Some(("if-match", "*")), Some(&patch)).await.status, 412, "there is nothing to match");
    for condition in [("if-none-match", "\"x\""), ("if-match", &*"\"x\",".repeat(20))] {
        assert_eq!(shop.send(OPERATOR, Method::PUT, Some(condition), Some(&registration())).await.status, 400);
    }
}

#[tokio::test]
async fn only_whom_it_concerns_may_see_and_change_a_subscription() {
    let shop = shop().await;
    shop.send(Who::Service("tester"), Method::PUT, None, Some(&registration())).await;
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
        let body = (method != Method::GET).then(registration);
        for (who, expected) in [(Who::Service("other"), 403), (Who::Guest("ann"), 403), (Who::Nobody, 401)] {
            assert_eq!(shop.send(who, method.clone(), Some(("if-match", "*")), body.as_ref()).await.status, expected, "{method}");
        }
    }
    let (patch, any) = (json!({"required": true}), Some(("if-match", "*")));
    assert_eq!(shop.send(Who::Service("tester"), Method::PATCH, any, Some(&patch)).await.status, 200, "a service of the shop");
    let outsider = json!({"sink": "http://127.0.0.1:9/", "revision": 1});
    let put = async |who: Who<'_>, required: Option<bool>| {
        let mut body = outsider.clone();
        body["required"] = json!(required);
        shop.put(who, "/api/subscriptions/audit", &body).await
    };
    let (status, body) = put(Who::Service("audit"), Some(true)).await;
    assert_eq!((status, &body["field"]), (StatusCode::FORBIDDEN, &json!("required")));
    let (status, body) = put(Who::Service("audit"), None).await;
    assert_eq!((status, &body["required"], &body["types"]), (StatusCode::OK, &json!(false), &Value::Null));
    assert_eq!(put(OPERATOR, Some(true)).await.0, StatusCode::CONFLICT, "the same revision with other terms");
}

#[tokio::test]
async fn a_patch_outlives_the_restart_of_its_service_until_that_asks_for_something_new() {
    let shop = shop().await;
    let service = Who::Service("tester");
    shop.send(service, Method::PUT, None, Some(&registration())).await;
    let patch = json!({"retry": {"attempts_max": 3}, "sink": "http://127.0.0.1:10/"});
    assert_eq!(shop.send(OPERATOR, Method::PATCH, Some(("if-match", "*")), Some(&patch)).await.status, 200);
    let again = shop.send(service, Method::PUT, None, Some(&registration())).await;
    let shown = (&again.body["retry"]["attempts_max"], &again.body["sink"]);
    assert_eq!((again.status, shown), (200, (&json!(3), &json!("http://127.0.0.1:10/"))));
    let mut other_terms = registration();
    other_terms["types"] = json!(["other"]);
    assert_eq!(shop.send(service, Method::PUT, None, Some(&other_terms)).await.body["code"], "revision_taken");
    let mut elsewhere = registration();
    elsewhere["sink"] = json!("http://127.0.0.1:11/");
    let moved = shop.send(service, Method::PUT, None, Some(&elsewhere)).await;
    assert_eq!((&moved.body["sink"], &moved.body["retry"]["attempts_max"]), (&json!("http://127.0.0.1:11/"), &json!(3)));
    let mut newer = registration();
    newer["revision"] = json!(2);
    let newer = shop.send(service, Method::PUT, None, Some(&newer)).await;
    assert_eq!((&newer.body["retry"]["attempts_max"], &newer.body["revision"]), (&json!(50), &json!(2)));
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_by_field_and_changes_nothing() {
    let shop = shop().await;
    shop.send(OPERATOR, Method::PUT, None, Some(&registration())).await;
    let tag = shop.send(OPERATOR, Method::GET, None, None).await.etag;
    for (patch, field) in [
        (json!({"filters": [{"exact": {"type": ""}}]}), "/filters/0/exact/type"),
        (json!({"batch": {"events_max": 0}}), "/batch/events_max"),
        (json!({"start": "latest"}), "start"),
        (json!({"sink": "ftp://h/"}), "sink"),
        (json!({"name": "other"}), "name"),
    ] {
        let refused = shop.send(OPERATOR, Method::PATCH, Some(("if-match", "*")), Some(&patch)).await;
        assert_eq!((refused.status, refused.body["field"].as_str()), (422, Some(field)), "{patch}");
    }
    assert_eq!(shop.send(OPERATOR, Method::PATCH, Some(("if-match", "*")), Some(&json!([]))).await.status, 422);
    let text = OPERATOR.ask(Method::PATCH, PATH).header("if-match", "*").header(header::CONTENT_TYPE, "text/plain");
    assert_eq!(shop.call(text.body(Body::from("{}")).unwrap()).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(shop.send(OPERATOR, Method::GET, None, None).await.etag, tag);
}

pub(super) async fn subscribe(broker: &Broker, subscriber: &std::sync::Arc<Subscriber>, terms: Value) -> Result<(), RegisterError> {
    let mut json = json!({"revision": 1});
    json.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
    let wanted = Wanted::parse(json).unwrap();
    broker.shared.subscriptions.register("tester", wanted, By::Handle(subscriber.clone()), Expected::Anything).await.map(drop)
}

#[test]
fn a_subscription_gets_what_its_filters_choose_and_a_change_counts_for_what_is_read_after_it() {
    let (folder, subscriber) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Fine, 1));
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        let of = |subject: &str, owner: &str| Envelope { owner: Some(owner.into()), ..numbered(subject, 1) };
        subscribe(&broker, &subscriber, json!({"filters": [{"not": {"exact": {"owner": "bob"}}}]})).await.unwrap();
        broker.publisher().publish(&[of("a", "ann"), of("b", "bob"), of("c", "ann")]).await.unwrap();
        subscriber.until(2).await;
        // The lane `bad` fails, and is set aside with an event that the next filter would not choose.
        *subscriber.temper.lock().unwrap() = Temper::Hates("bad", 503);
        broker.publisher().publish(&[of("bad", "ann")]).await.unwrap();
        wait_until(|| broker.subscription("tester").unwrap().status.lanes_set_aside == 1).await;
        let patch = json!({"filters": [{"exact": {"owner": "bob"}}]});
        broker.shared.subscriptions.patch("tester", &patch, By::Shop, Expected::Anything).await.unwrap();
        broker.publisher().publish(&[of("d", "ann"), of("e", "bob")]).await.unwrap();
        subscriber.until(3).await;
        *subscriber.temper.lock().unwrap() = Temper::Fine;
        subscriber.until(4).await;
        assert_eq!(subscriber.lanes(), ["a", "bad", "c", "e"]);
    });
}

#[test]
fn a_subscription_starts_where_it_asks_to() {
    for (first, expected) in [
        (json!("earliest"), vec!["a", "b", "c", "d"]),
        (json!({"position": "2"}), vec!["b", "c", "d"]),
        (json!({"position": "99"}), vec![]),
        (json!("latest"), vec!["d"]),
    ] {
        let (folder, subscriber) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Fine, 1));
        live(async {
            let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
            broker.publisher().publish(&[numbered("a", 1), numbered("b", 1), numbered("c", 1)]).await.unwrap();
            subscribe(&broker, &subscriber, json!({"start": first.clone()})).await.unwrap();
            // It starts there also when it is attached for the first time after a restart.
            assert!(lifecycle.stop(DEADLINE).await);
        });
        live(async {
            let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
            broker.publisher().publish(&[numbered("d", 1)]).await.unwrap();
            subscribe(&broker, &subscriber, json!({"start": first.clone()})).await.unwrap();
            let_time_pass(Duration::from_secs(5)).await;
        });
        assert_eq!(subscriber.lanes(), expected, "{first}");
    }
}

#[test]
fn what_is_removed_leaves_nothing_behind_and_begins_anew() {
    let (folder, subscriber) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Hates("bad", 422), 1));
    let left = async |broker: &Broker| {
        let mut keys = Vec::new();
        for prefix in ["floor/tester", "lane/tester/", "dead/tester/", "subscription/tester"] {
            keys.extend(broker.engine().state_list(prefix).await.unwrap().into_iter().map(|entry| entry.key));
        }
        keys
    };
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        broker.publisher().publish(&[numbered("bad", 1), numbered("bad", 2), numbered("good", 1)]).await.unwrap();
        subscribe(&broker, &subscriber, json!({})).await.unwrap();
        subscriber.until(1).await;
        while left(&broker).await.len() < 4 {
            let_time_pass(Duration::from_millis(100)).await;
        }
        broker.shared.subscriptions.remove("tester", Expected::Anything).await.unwrap();
        assert_eq!(left(&broker).await, Vec::<String>::new());
        assert!(broker.subscription("tester").is_none());
        *subscriber.temper.lock().unwrap() = Temper::Fine;
        subscribe(&broker, &subscriber, json!({})).await.unwrap();
        subscriber.until(3).await;
        assert!(lifecycle.stop(DEADLINE).await);
    });
    // A crash in the middle of a removal: it is finished at the next start.
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        let entry = broker.engine().state_get("subscription/tester").await.unwrap().unwrap();
        keeping::mark_removed(broker.engine().as_ref(), "tester", &keeping::parse(&entry).unwrap(), entry.version).await.unwrap();
        assert!(lifecycle.stop(DEADLINE).await);
    });
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        assert_eq!(left(&broker).await, Vec::<String>::new());
        assert!(broker.subscription("tester").is_none());
    });
}

#[test]
fn what_was_stored_before_there_was_more_to_ask_for_is_read_and_goes_on() {
    let (folder, subscriber) = (tempfile::tempdir().unwrap(), Subscriber::new(Temper::Fine, 1));
    live(async {
        let (broker, lifecycle) = start(folder.path(), &environment(1)).await;
        broker.publisher().publish(&[numbered("a", 1), numbered("b", 1), numbered("c", 1)]).await.unwrap();
        let put = |key: &str, value: &str| StatePut { key: key.into(), value: Some(value.into()), expected_version: Some(0) };
        let config = format!(r#"{{"sink":null,"types":["{TYPE}"],"revision":1}}"#);
        let row = r#"{"lane":"a","first":1,"failures":3,"next_at":1800000000000,"is_parked":false}"#;
        let old = vec![put("subscription/tester", &config), put("floor/tester", "2"), put("lane/tester/a", row)];
        broker.engine().state_put(old).await.unwrap();
        assert!(lifecycle.stop(DEADLINE).await);
    });
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        let tester = broker.attach("tester", [TYPE], 1, subscriber.clone()).await.unwrap();
        assert_eq!((tester.wanted.required, tester.etag.as_str()), (Some(true), "\"0-1\""));
        subscriber.until(2).await;
        wait_until(|| broker.subscription("tester").unwrap().status.floor == Position(3)).await;
        assert_eq!(subscriber.lanes(), ["a", "c"]);
    });
}
