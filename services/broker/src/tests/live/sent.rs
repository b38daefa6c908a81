//! As server-sent events, while time is paused.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{One, Said, Sent, of};
use crate::tests::shop;

#[tokio::test(start_paused = true)]
async fn every_message_but_a_welcome_before_a_reset_is_a_place_to_come_back_to() {
    let shop = shop().await;
    let publisher = shop.broker.publisher();
    publisher.publish(&[of("1", "o-1", "ann"), of("2", "o-2", "bob")]).await.unwrap();
    let mut stream = Sent::open(&shop, "/api/live", "ann", &[]).await;
    let welcome = stream.next().await.unwrap();
    assert_eq!((welcome.name.as_str(), welcome.id.as_deref()), ("welcome", Some("2")));
    publisher.publish(&[of("3", "o-2", "bob")]).await.unwrap();
    let heartbeat = stream.next().await.unwrap();
    assert_eq!((heartbeat.name.as_str(), heartbeat.id.as_deref()), ("heartbeat", Some("3")));
    assert_eq!(heartbeat.said, Said::Notice("heartbeat".into(), json!({"after": "3"})));
    let beat = Instant::now();
    stream.notice("heartbeat").await;
    assert_eq!(beat.elapsed(), Duration::from_secs(20));
    let mut lost = Sent::open(&shop, "/api/live", "ann", &[("last-event-id", "77")]).await;
    assert_eq!(lost.next().await.unwrap().id, None, "until the reset comes, the reader's own cursor is the better one");
    let reset = lost.next().await.unwrap();
    assert_eq!((reset.name.as_str(), reset.id.as_deref()), ("reset", Some("3")));
    assert_eq!(reset.said, Said::Notice("reset".into(), json!({"reason": "unknown", "asked": "77", "after": "3"})));
    publisher.publish(&[of("4", "o-1", "ann")]).await.unwrap();
    assert_eq!(lost.events(1).await, [4]);
}

#[tokio::test(start_paused = true)]
async fn browsers_are_told_to_come_back_at_different_moments() {
    let shop = shop().await;
    let mut retries = Vec::new();
    for _ in 0..5 {
        let mut stream = Sent::open(&shop, "/api/live", "ann", &[]).await;
        let frame = http_body_util::BodyExt::frame(&mut stream.body).await.unwrap().unwrap().into_data().unwrap();
        let text = std::str::from_utf8(&frame).unwrap().to_owned();
        let retry: u64 = text.lines().find_map(|line| line.strip_prefix("retry: ")).unwrap().parse().unwrap();
        assert!((500..=3_500).contains(&retry), "{retry}");
        retries.push(retry);
    }
    retries.dedup();
    assert!(retries.len() > 1, "{retries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_asks_for_nothing_for_half_a_minute_is_ended_with_its_cursor() {
    let shop = shop().await;
    let events: Vec<_> = (1..=9).map(|number| of(&number.to_string(), "o-1", "ann")).collect();
    shop.broker.publisher().publish(&events).await.unwrap();
    let mut stream = Sent::open(&shop, "/api/live?after=0", "ann", &[]).await;
    stream.notice("welcome").await;
    assert_eq!(stream.events(3).await, [1, 2, 3]);
    tokio::time::sleep(Duration::from_secs(31)).await;
    let end = stream.next().await.unwrap();
    assert_eq!(end.said, Said::Notice("end".into(), json!({"reason": "too_slow", "after": "3"})));
    assert_eq!((end.name.as_str(), end.id.as_deref()), ("end", Some("3")));
    assert!(stream.next().await.is_none());
    let mut stream = Sent::open(&shop, "/api/live", "ann", &[("last-event-id", "3")]).await;
    stream.notice("welcome").await;
    assert_eq!(stream.events(6).await, [4, 5, 6, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_shown_after_the_time_at_which_the_reader_is_to_be_looked_at_again() {
    let shop = shop().await;
    let publisher = shop.broker.publisher();
    let mut stream = Sent::open(&shop, "/api/live", "ann", &[]).await;
    let ends_at = stream.notice("welcome").await["ends_at"].as_str().unwrap().to_owned();
    // Heartbeats go on until the last one before that time.
    let clock = crate::tests::environment(1).clock;
    let begun = kit::Timestamp::from_rfc3339(&ends_at).unwrap().since(clock.now());
    let opened = Instant::now();
    while opened.elapsed() + Duration::from_secs(20) < begun {
        stream.notice("heartbeat").await;
    }
    let left = begun.saturating_sub(opened.elapsed());
    tokio::time::sleep(left + Duration::from_millis(5)).await;
    publisher.publish(&[of("1", "o-1", "ann")]).await.unwrap();
    match stream.next().await {
        // The last heartbeat may have been due before.
        Some(One { name, .. }) if name == "heartbeat" => assert_eq!(stream.notice("end").await["reason"], json!("session_check")),
        Some(One { said: Said::Notice(name, data), .. }) => {
            assert_eq!((name.as_str(), &data["reason"]), ("end", &json!("session_check")));
        }
        other => panic!("{other:?}"),
    }
    assert!(stream.next().await.is_none());
}
