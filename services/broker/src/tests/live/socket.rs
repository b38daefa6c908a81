//! Over WebSocket, while time is paused.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    of,
    pipe::{Door, Said, WIDE},
};
use crate::tests::{network::within, shop};

/// `count` events of ann, each with about `bytes` of data, from number `first` on.
pub(super) fn anns(first: usize, count: usize, bytes: usize) -> Vec<kit::Envelope> {
    let data = serde_json::value::to_raw_value(&"x".repeat(bytes)).unwrap();
    (first..first + count).map(|number| kit::Envelope { data: Some(data.clone()), ..of(&number.to_string(), "o-1", "ann") }).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_a_welcome_and_then_says_every_twenty_seconds_that_it_lives() {
    let shop = shop().await;
    let (door, publisher) = (Door::open(&shop), shop.broker.publisher());
    publisher.publish(&[of("1", "o-1", "ann"), of("2", "o-2", "bob")]).await.unwrap();
    let mut socket = door.socket("/api/live", "ann").await;
    let welcome = socket.notice("welcome").await;
    assert_eq!((&welcome["after"], &welcome["shows"], &welcome["heartbeat_ms"]), (&json!("2"), &json!("own"), &json!(20_000)));
    publisher.publish(&[of("3", "o-2", "bob")]).await.unwrap();
    assert_eq!(socket.notice("heartbeat").await, json!({"after": "3"}), "a cursor past what is not theirs");
    let first = Instant::now();
    publisher.publish(&[of("4", "o-2", "bob"), of("5", "o-1", "ann")]).await.unwrap();
    assert_eq!(socket.events(1).await, [5]);
    assert_eq!(socket.notice("heartbeat").await, json!({"after": "5"}));
    assert_eq!(first.elapsed(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_lost_before_its_first_event_is_gone_on_from_its_welcome() {
    let shop = shop().await;
    let (door, publisher) = (Door::open(&shop), shop.broker.publisher());
    publisher.publish(&[of("1", "o-1", "ann")]).await.unwrap();
    let mut socket = door.socket("/api/live", "ann").await;
    let after = socket.notice("welcome").await["after"].as_str().unwrap().to_owned();
    drop(socket);
    publisher.publish(&[of("2", "o-1", "ann")]).await.unwrap();
    let mut socket = door.socket(&format!("/api/live?after={after}"), "ann").await;
    socket.notice("welcome").await;
    assert_eq!(socket.events(1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_another_log_is_reset_to_where_the_stream_then_goes_on() {
    let shop = shop().await;
    let (door, publisher) = (Door::open(&shop), shop.broker.publisher());
    publisher.publish(&[of("1", "o-1", "ann"), of("2", "o-1", "ann")]).await.unwrap();
    let mut one = door.socket("/api/live?subject=o-1&after=77", "ann").await;
    assert_eq!(one.notice("welcome").await["after"], json!("0"));
    assert_eq!(one.notice("reset").await, json!({"reason": "unknown", "asked": "77", "after": "0"}));
    assert_eq!(one.events(2).await, [1, 2], "a subject is shown again from its first event");
    let mut own = door.socket("/api/live?after=77", "ann").await;
    own.notice("welcome").await;
    assert_eq!(own.notice("reset").await, json!({"reason": "unknown", "asked": "77", "after": "2"}));
    publisher.publish(&[of("3", "o-1", "ann")]).await.unwrap();
    assert_eq!(own.events(1).await, [3], "all else from now on");
}

#[tokio::test(start_paused = true)]
async fn a_cursor_whose_history_is_gone_is_reset_to_where_the_log_begins() {
    let shop = shop().await;
    let (door, publisher) = (Door::open(&shop), shop.broker.publisher());
    publisher.publish(&anns(1, 9, 0)).await.unwrap();
    shop.broker.engine().trim(kit::Position(5)).await.unwrap();
    for path in ["/api/live?after=4", "/api/live?subject=o-1&after=4"] {
        let mut socket = door.socket(path, "ann").await;
        assert_eq!(socket.notice("welcome").await["after"], json!("5"));
        assert_eq!(socket.notice("reset").await, json!({"reason": "trimmed", "asked": "4", "after": "5"}), "{path}");
        assert_eq!(socket.events(4).await, [6, 7, 8, 9]);
    }
    for (path, first) in [("/api/live?after=5", 6), ("/api/live?after=8", 9), ("/api/live?after=0", 6), ("/api/live?subject=o-1", 6)] {
        let mut socket = door.socket(path, "ann").await;
        socket.notice("welcome").await;
        assert_eq!(socket.events(1).await, [first], "{path}: nothing is lost, so nothing is reset");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_next_events_are_trimmed_while_it_reads_is_told_so() {
    let shop = shop().await;
    let (door, publisher) = (Door::open(&shop), shop.broker.publisher());
    let mut socket = door.try_socket("/api/live", "ann", 4_096, &[]).await.unwrap();
    socket.notice("welcome").await;
    for first in (1..=200).step_by(20) {
        publisher.publish(&anns(first, 20, 1_000)).await.unwrap();
    }
    assert_eq!(socket.events(1).await, [1]);
    shop.broker.engine().trim(kit::Position(150)).await.unwrap();
    let (mut positions, mut reset) = (vec![1], None);
    while *positions.last().unwrap() < 200 {
        match socket.next().await {
            Said::Event(position) => positions.push(position),
            Said::Notice(name, data) if name == "reset" && reset.is_none() => {
                let asked = positions.last().unwrap().to_string();
                assert_eq!(data, json!({"reason": "trimmed", "asked": asked, "after": "150"}));
                reset = Some(positions.len());
            }
            other => panic!("{other:?}"),
        }
    }
    let (before, after) = positions.split_at(reset.expect("what was trimmed is not left out in silence"));
    assert!(before.iter().copied().eq(1..=i64::try_from(before.len()).unwrap()), "{before:?}");
    assert!(after.iter().copied().eq(151..=200), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_for_half_a_minute_is_closed_with_its_cursor() {
    let shop = shop().await;
    let (door, publisher) = (Door::open(&shop), shop.broker.publisher());
    let mut socket = door.try_socket("/api/live", "ann", 4_096, &[]).await.unwrap();
    socket.notice("welcome").await;
    publisher.publish(&anns(1, 100, 1_000)).await.unwrap();
    // The farewell waits for a second.
    let_time_pass(Duration::from_millis(30_500)).await;
    let mut seen = 0;
    let end = loop {
        match socket.next().await {
            Said::Event(position) => {
                assert_eq!(position, seen + 1);
                seen = position;
            }
            Said::Notice(name, data) => break (name, data),
            other => panic!("{other:?}"),
        }
    };
    assert!((3..20).contains(&seen), "what was on its way, and nothing more: {seen}");
    assert_eq!(end, ("end".into(), json!({"reason": "too_slow", "after": seen.to_string()})));
    assert_eq!(socket.next().await, Said::Close(4408, format!("too_slow after={seen}")));
    // It goes on from there as if nothing had been.
    let mut socket = door.socket(&format!("/api/live?after={seen}"), "ann").await;
    socket.notice("welcome").await;
    let rest = usize::try_from(100 - seen).unwrap();
    assert!(socket.events(rest).await.into_iter().eq(seen + 1..=100));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_little_by_little_keeps_its_stream() {
    let shop = shop().await;
    let (door, publisher) = (Door::open(&shop), shop.broker.publisher());
    let mut socket = door.try_socket("/api/live", "ann", 8_192, &[]).await.unwrap();
    socket.notice("welcome").await;
    // There is always more on its way than it reads in twenty seconds: a ping gets through too late.
    publisher.publish(&anns(1, 8, 1_000)).await.unwrap();
    let mut seen = Vec::new();
    for number in 9..=60 {
        let_time_pass(Duration::from_secs(5)).await;
        publisher.publish(&anns(number, 1, 1_000)).await.unwrap();
        match socket.next().await {
            Said::Event(position) => seen.push(position),
            Said::Notice(name, _) => assert_eq!(name, "heartbeat"),
            other => panic!("after {seen:?}: {other:?}"),
        }
    }
    assert!(seen.len() > 25 && seen.iter().copied().eq(1..=i64::try_from(seen.len()).unwrap()), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_after_a_while_so_that_its_reader_is_looked_at_again() {
    let shop = shop().await;
    let (door, publisher) = (Door::open(&shop), shop.broker.publisher());
    publisher.publish(&[of("1", "o-1", "ann")]).await.unwrap();
    let opened = Instant::now();
    let mut socket = door.socket("/api/live", "ann").await;
    socket.notice("welcome").await;
    let end = loop {
        match socket.next().await {
            Said::Notice(name, data) if name == "end" => break data,
            Said::Notice(name, _) => assert_eq!(name, "heartbeat"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end, json!({"reason": "session_check", "after": "1"}));
    assert!((3_600..=4_220).contains(&opened.elapsed().as_secs()), "{:?}", opened.elapsed());
    assert_eq!(socket.next().await, Said::Close(4401, "session_check after=1".into()));
    publisher.publish(&[of("2", "o-1", "ann")]).await.unwrap();
    assert_eq!(socket.next().await, Said::Nothing);
    let mut socket = door.socket("/api/live?after=1", "ann").await;
    socket.notice("welcome").await;
    assert_eq!(socket.events(1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_answers_no_ping_is_given_up() {
    let shop = shop().await;
    let door = Door::open(&shop);
    let mut pipe = door.socket("/api/live", "ann").await.0.into_inner();
    let (opened, mut read) = (Instant::now(), Vec::new());
    tokio::time::timeout(Duration::from_secs(60), pipe.read_to_end(&mut read)).await.expect("it is given up").unwrap();
    assert!((20..=41).contains(&opened.elapsed().as_secs()), "{:?}", opened.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_cannot_be_taken_closes_the_socket_with_the_reason() {
    let shop = shop().await;
    let door = Door::open(&shop);
    let mut large = door.socket("/api/live", "ann").await;
    large.notice("welcome").await;
    large.send(Message::binary(vec![0; 5_000])).await;
    assert_eq!(large.next().await, Said::Close(1009, "a message is too large".into()));
    let broken: [&[u8]; 6] = [
        &[0xff; 64],
        // A length of 2^63.
        &[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
        // No mask.
        &[0x81, 0x01, b'x'],
        // A ping in two parts.
        &[0x09, 0x80, 1, 2, 3, 4],
        // The rest of what never began.
        &[0x80, 0x80, 1, 2, 3, 4],
        // No text: one byte of two.
        &[0x81, 0x81, 0, 0, 0, 0, 0xc3],
    ];
    for (frame, code) in broken.into_iter().zip([1002, 1009, 1002, 1002, 1002, 1007]) {
        let mut socket = door.socket("/api/live", "ann").await;
        socket.notice("welcome").await;
        socket.0.get_mut().write_all(frame).await.unwrap();
        let said = socket.next().await;
        assert!(matches!(said, Said::Close(said, _) if said == code), "{frame:x?}: {said:?}");
        assert_eq!(socket.next().await, Said::Nothing);
    }
    let mut calm = door.socket("/api/live", "ann").await;
    calm.notice("welcome").await;
    for message in [Message::text("{\"type\":\"subscribe\"}"), Message::binary(vec![0; 4_000]), Message::Ping(vec![7; 125].into())] {
        calm.send(message).await;
    }
    shop.broker.publisher().publish(&[of("1", "o-1", "ann")]).await.unwrap();
    assert_eq!(calm.events(1).await, [1], "what it says is of no interest");
}

#[tokio::test(start_paused = true)]
async fn a_close_is_answered() {
    let shop = shop().await;
    let door = Door::open(&shop);
    let mut socket = door.socket("/api/live", "ann").await;
    socket.notice("welcome").await;
    within(socket.0.close(None)).await.unwrap();
    assert_eq!(socket.next().await, Said::Close(1005, String::new()));
    assert_eq!(socket.next().await, Said::Nothing);
}

#[tokio::test(start_paused = true)]
async fn a_client_of_other_subprotocols_is_told_which_one_is_spoken() {
    let shop = shop().await;
    let door = Door::open(&shop);
    let other = [("sec-websocket-protocol", "cloudevents.avro")];
    let (status, problem) = door.try_socket("/api/live", "ann", WIDE, &other).await.err().unwrap();
    let (code, field) = (json!("unsupported_subprotocol"), json!("sec-websocket-protocol"));
    assert_eq!((status, &problem["code"], &problem["field"]), (400, &code, &field));
    for among in [&[("sec-websocket-protocol", "cloudevents.avro, cloudevents.json")][..], &[]] {
        assert!(door.try_socket("/api/live", "ann", WIDE, among).await.is_ok(), "{among:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_reader_that_does_not_read() {
    let shop = shop().await;
    let (door, publisher) = (Door::open(&shop), shop.broker.publisher());
    let mut stuck = door.try_socket("/api/live", "ann", 2_048, &[]).await.unwrap();
    stuck.notice("welcome").await;
    publisher.publish(&anns(1, 50, 1_000)).await.unwrap();
    let asked = Instant::now();
    assert!(shop.lifecycle.stop(Duration::from_secs(10)).await);
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
}

/// Time itself is the matter here: how long a reader does nothing.
async fn let_time_pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}
