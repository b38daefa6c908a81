//! Publishing in every mode, and what is refused.

use futures_util::{FutureExt, StreamExt, stream};

use super::*;
use crate::{engine::memory::MemoryDisk, tests::settings};

/// A request to publish in binary mode, with these headers beside those that every event needs.
fn binary(headers: &[(&str, &str)], body: &'static str) -> Request<Body> {
    let mut builder = request(Method::POST, "/api/events")
        .header(header::AUTHORIZATION, format!("Bearer {}", keyring().service_token("tester")))
        .header("ce-specversion", "1.0")
        .header("ce-source", "/tester")
        .header("ce-type", TYPE);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Body::from(body)).unwrap()
}

const AS_JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn an_event_is_the_same_event_in_every_mode() {
    let shop = shop().await;
    let event = cloud_event("1", "o-1", "ann");
    let landed = |duplicate: bool| (StatusCode::ACCEPTED, json!({"results": [{"position": "1", "duplicate": duplicate}]}));
    let headers = [("ce-id", "1"), ("ce-subject", "o-1"), ("ce-owner", "ann"), AS_JSON];
    assert_eq!(shop.call(binary(&headers, r#"{"n": 1}"#)).await, landed(false));
    assert_eq!(shop.publish(Some("tester"), EVENT_JSON, event.to_string()).await, landed(true));
    assert_eq!(shop.publish(Some("tester"), BATCH_JSON, json!([event]).to_string()).await, landed(true));
    assert_eq!(shop.call(binary(&headers, r#"{"n": 1}"#)).await, landed(true));
    let (status, body) = shop.call(binary(&headers, r#"{"n": 2}"#)).await;
    assert_eq!((status, &body["code"], &body["field"]), (StatusCode::CONFLICT, &json!("other_content"), &json!("ce-id")));
    assert_eq!(shop.publish(Some("tester"), BATCH_JSON, "[]").await, (StatusCode::ACCEPTED, json!({"results": []})));
}

#[tokio::test]
async fn what_headers_say_is_decoded_and_kept() {
    let shop = shop().await;
    let headers = [
        ("ce-id", "caf%C3%A9%20%F0%9F%98%80"),
        ("ce-subject", r#""o 1""#),
        ("ce-time", "2026-01-31T12:00:00Z"),
        ("ce-sequence", "3"),
        ("CE-Region", "100%25"),
        ("ce-position", "99"),
        ("content-type", "application/vnd.tested+json; charset=utf-8"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    assert_eq!(shop.call(binary(&headers, "[1, null]")).await.0, StatusCode::ACCEPTED);
    assert_eq!(shop.call(binary(&[("ce-id", "without-data")], "")).await.0, StatusCode::ACCEPTED);
    let (_, page) = shop.get(OPERATOR, "/api/events").await;
    let expected = json!({
        "specversion": "1.0", "id": "café 😀", "source": "/tester", "type": TYPE, "subject": "o 1", "time": "2026-01-31T12:00:00.000Z",
        "sequence": "3", "region": "100%", "position": "1",
        "datacontenttype": "application/vnd.tested+json; charset=utf-8", "data": [1, null]
    });
    assert_eq!(page["items"][0], expected);
    assert_eq!(page["items"][1], json!({"specversion": "1.0", "id": "without-data", "source": "/tester", "type": TYPE, "position": "2"}));
}

#[tokio::test]
async fn a_fault_is_named_by_where_it_stands_and_nothing_is_stored() {
    let shop = shop().await;
    let id = ("ce-id", "1");
    for (headers, body, expected) in [
        (vec![], "", (422, "invalid_event", "ce-id")),
        (vec![("ce-id", "")], "", (422, "invalid_event", "ce-id")),
        (vec![id, ("ce-time", "noon")], "", (422, "invalid_event", "ce-time")),
        (vec![id, ("ce-sequence", "first")], "", (422, "invalid_event", "ce-sequence")),
        (vec![id, ("ce-sequence", "0")], "", (422, "invalid_event", "ce-sequence")),
        (vec![id, ("ce-partitionkey", "")], "", (422, "invalid_event", "ce-partitionkey")),
        (vec![id, ("ce-under_score", "1")], "", (422, "invalid_event", "ce-under_score")),
        (vec![id, ("ce-specversion", "1.0")], "", (400, "invalid_header", "ce-specversion")),
        (vec![id, ("ce-subject", "%")], "", (400, "invalid_header", "ce-subject")),
        (vec![id, ("ce-subject", "%C0%A0")], "", (400, "invalid_header", "ce-subject")),
        (vec![id, ("ce-data", "1")], "", (400, "invalid_header", "ce-data")),
        (vec![id, ("ce-datacontenttype", "application/json"), AS_JSON], "1", (400, "invalid_header", "ce-datacontenttype")),
        (vec![id, AS_JSON], r#"1,"source":"/other""#, (400, "malformed_json", "body")),
        (vec![id, AS_JSON], "{", (400, "malformed_json", "body")),
        (vec![id], "1", (415, "unsupported_media_type", "content-type")),
        (vec![id, ("content-type", "text/plain")], "1", (415, "unsupported_media_type", "content-type")),
        (vec![id, ("ce-subject", "%00")], "", (422, "invalid_event", "ce-subject")),
    ] {
        let shown = format!("{headers:?} {body}");
        let (status, body) = shop.call(binary(&headers, body)).await;
        let found = (status.as_u16(), body["code"].as_str().unwrap_or_default(), body["field"].as_str().unwrap_or_default());
        assert_eq!(found, expected, "{shown}: {body}");
    }
    let long = "x".repeat(1_025);
    for (field, value, expected) in [
        ("id", json!(null), "invalid_body"),
        ("id", json!(7), "invalid_body"),
        ("source", json!(["/tester"]), "invalid_body"),
        ("time", json!("noon"), "invalid_body"),
        ("sequence", json!("x"), "invalid_body"),
        ("data_base64", json!("aGk="), "invalid_body"),
        ("deep", json!({}), "invalid_body"),
        ("subject", json!(""), "invalid_event"),
        ("region", json!(long), "invalid_event"),
        ("region", json!("a\u{7}"), "invalid_event"),
        ("partitionkey", json!(7), "invalid_event"),
        ("type", json!("cascade.Nonsense.v1"), "unknown_event_type"),
        ("source", json!("/other"), "forbidden"),
    ] {
        let mut event = cloud_event("1", "o-1", "ann");
        event[field] = value;
        for (media, body, pointer) in
            [(EVENT_JSON, event.to_string(), format!("/{field}")), (BATCH_JSON, json!([event]).to_string(), format!("/0/{field}"))]
        {
            let (_, body) = shop.publish(Some("tester"), media, body).await;
            assert_eq!((&body["code"], &body["field"]), (&json!(expected), &json!(pointer)), "{event}");
        }
    }
    assert_eq!(shop.broker.engine().tail().last(), kit::Position::START);
}

#[tokio::test]
async fn the_limits_are_told_and_they_are_where_they_are_told_to_be() {
    let shop = shop().await;
    let answer = shop.router.clone().oneshot(request(Method::OPTIONS, "/api/events").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()[header::ALLOW], "GET, HEAD, POST, OPTIONS");
    let accepted = answer.headers()["accept-post"].to_str().unwrap().to_owned();
    assert!(accepted.contains(EVENT_JSON) && accepted.contains(BATCH_JSON), "{accepted}");
    let limits: Value = serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let limit = |name: &str| usize::try_from(limits[name].as_u64().unwrap()).unwrap();
    let sized = |bytes: usize| {
        let mut event = cloud_event(&bytes.to_string(), "o-1", "ann");
        event["datacontenttype"] = json!("application/json");
        event["data"] = json!("");
        event["data"] = json!("x".repeat(bytes - event.to_string().len()));
        event.to_string()
    };
    let largest = limit("event_bytes_max");
    assert_eq!(largest, 256 * 1024);
    assert_eq!(shop.publish(Some("tester"), EVENT_JSON, sized(largest)).await.0, StatusCode::ACCEPTED);
    let (status, body) = shop.publish(Some("tester"), EVENT_JSON, sized(largest + 1)).await;
    assert_eq!((status, &body["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("event_too_large")));
    let many = |count: usize| json!((0..count).map(|id| cloud_event(&id.to_string(), "o-1", "ann")).collect::<Vec<_>>()).to_string();
    assert_eq!(shop.publish(Some("tester"), BATCH_JSON, many(limit("batch_events_max"))).await.0, StatusCode::ACCEPTED);
    let (status, body) = shop.publish(Some("tester"), BATCH_JSON, many(limit("batch_events_max") + 1)).await;
    assert_eq!((status, &body["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_many_events")));
    let padded = |bytes: usize| {
        let batch = many(1);
        let spaces = " ".repeat(bytes - batch.len());
        batch + &spaces
    };
    assert_eq!(shop.publish(Some("tester"), BATCH_JSON, padded(limit("batch_bytes_max"))).await.0, StatusCode::ACCEPTED);
    let (status, body) = shop.publish(Some("tester"), BATCH_JSON, padded(limit("batch_bytes_max") + 1)).await;
    assert_eq!((status, &body["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("body_too_large")));
    let nested = |depth: usize| {
        let data = format!("{}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"specversion":"1.0","id":"deep","source":"/tester","type":"{TYPE}","data":{data}}}"#)
    };
    assert_eq!(shop.publish(Some("tester"), EVENT_JSON, nested(limit("json_depth_max"))).await.0, StatusCode::ACCEPTED);
    assert_eq!(shop.publish(Some("tester"), EVENT_JSON, nested(limit("json_depth_max") + 1)).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn bodies_beyond_the_room_for_them_are_asked_to_come_later() {
    let shop = shop().await;
    let slow = || {
        let builder = request(Method::POST, "/api/events")
            .header(header::AUTHORIZATION, format!("Bearer {}", keyring().service_token("tester")))
            .header(header::CONTENT_TYPE, BATCH_JSON)
            .header(header::CONTENT_LENGTH, 8 * 1024 * 1024);
        let body = Body::from_stream(stream::pending::<Result<bytes::Bytes, std::io::Error>>().boxed());
        shop.router.clone().oneshot(builder.body(body).unwrap()).boxed()
    };
    let mut waiting: Vec<_> = (0..8).map(|_| slow()).collect();
    for one in &mut waiting {
        assert!(one.now_or_never().is_none(), "it waits for its body");
    }
    let late = slow().await.unwrap();
    assert_eq!((late.status(), &late.headers()[header::RETRY_AFTER]), (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap()));
    waiting.pop();
    let event = cloud_event("1", "o-1", "ann").to_string();
    assert_eq!(shop.publish(Some("tester"), EVENT_JSON, event).await.0, StatusCode::ACCEPTED, "who goes away makes room");
}

#[tokio::test]
async fn on_a_full_disk_publishing_is_refused_and_reading_goes_on() {
    let disk = MemoryDisk::default();
    let shop = shop_on(disk.clone(), settings()).await;
    assert_eq!(shop.publish(Some("tester"), EVENT_JSON, cloud_event("1", "o-1", "ann").to_string()).await.0, StatusCode::ACCEPTED);
    disk.set_full(true);
    let answer = shop.router.clone().oneshot(binary(&[("ce-id", "2")], "")).await.unwrap();
    assert_eq!((answer.status(), &answer.headers()[header::RETRY_AFTER]), (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap()));
    let (_, body) = shop.call(binary(&[("ce-id", "2")], "")).await;
    assert_eq!(body["code"], json!("disk_full"));
    assert_eq!(ids(&shop.get(Who::Guest("ann"), "/api/events").await.1), ["1"]);
    disk.set_full(false);
    assert_eq!(shop.call(binary(&[("ce-id", "2")], "")).await.0, StatusCode::ACCEPTED);
}
