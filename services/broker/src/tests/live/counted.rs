//! What `/metrics` says of streams: how many are open, and why others were closed. Time is paused.

use std::{collections::BTreeMap, fs, time::Duration};

use kit::metrics::Metrics;
use serde_json::json;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::{Sent, of, pipe::Door};
use crate::{
    Broker,
    engine::{LogEngine, embedded::Embedded},
    tests::{self, DEADLINE, Shop, environment, settings, shop},
};

/// Waits until so many streams are open, and until others were closed for these reasons and no others.
async fn until_counted(shop: &Shop, open: u64, closed: &[(&str, u64)]) {
    let expected = (open, closed.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect::<BTreeMap<_, _>>());
    let begun = Instant::now();
    loop {
        let counted = count(shop).await;
        if counted == expected {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{counted:?} is not {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn count(shop: &Shop) -> (u64, BTreeMap<String, u64>) {
    let metrics = Metrics::new().unwrap();
    metrics.add(std::sync::Arc::new(shop.broker.clone()));
    let page = metrics.show().await.unwrap();
    let counts = |name: &str| -> Vec<(String, u64)> {
        let lines = page.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        lines.map(|(labels, count)| (labels.to_owned(), count.parse().unwrap())).collect()
    };
    let open = counts("cascade_live_streams").into_iter().find(|(labels, _)| labels.is_empty()).unwrap().1;
    let reasons = counts("cascade_live_streams_closed_total");
    assert_eq!(reasons.len(), 5, "a reason that never was is shown as 0: {reasons:?}");
    let reason = |labels: &str| labels.strip_prefix("{reason=\"").unwrap().strip_suffix("\"}").unwrap().to_owned();
    (open, reasons.iter().filter(|(_, count)| *count > 0).map(|(labels, count)| (reason(labels), *count)).collect())
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_is_counted_as_gone_however_they_go() {
    let shop = shop().await;
    let door = Door::open(&shop);
    let mut closing = door.socket("/api/live", "ann").await;
    let hanging_up = door.socket("/api/live", "ann").await;
    let mut talking_nonsense = door.socket("/api/live", "ann").await;
    let sent = Sent::open(&shop, "/api/live", "ann", &[]).await;
    until_counted(&shop, 4, &[]).await;
    closing.0.close(None).await.unwrap();
    drop(closing);
    until_counted(&shop, 3, &[("client", 1)]).await;
    drop(hanging_up);
    until_counted(&shop, 2, &[("client", 2)]).await;
    drop(sent);
    until_counted(&shop, 1, &[("client", 3)]).await;
    talking_nonsense.send(Message::binary(vec![0; 5_000])).await;
    drop(talking_nonsense);
    until_counted(&shop, 0, &[("client", 4)]).await;
    // Its connection stands, but nobody is there.
    let pipe = door.socket("/api/live", "ann").await.0.into_inner();
    until_counted(&shop, 1, &[("client", 4)]).await;
    tokio::time::sleep(Duration::from_secs(41)).await;
    until_counted(&shop, 0, &[("client", 5)]).await;
    drop(pipe);
}

#[tokio::test(start_paused = true)]
async fn streams_that_a_stop_ends_are_counted_as_that() {
    let shop = shop().await;
    let door = Door::open(&shop);
    let (mut socket, mut sent) = (door.socket("/api/live", "ann").await, Sent::open(&shop, "/api/live", "bob", &[]).await);
    socket.notice("welcome").await;
    sent.notice("welcome").await;
    let reading = async {
        assert_eq!(socket.notice("end").await["reason"], json!("stopping"));
        assert_eq!(sent.notice("end").await["reason"], json!("stopping"));
        drop((socket, sent));
    };
    let stopping = async { assert!(shop.lifecycle.stop(Duration::from_secs(10)).await) };
    tokio::join!(reading, stopping);
    until_counted(&shop, 0, &[("stopping", 2)]).await;
}

#[tokio::test(start_paused = true)]
async fn streams_whose_readers_are_to_be_looked_at_again_are_counted_as_that() {
    let shop = shop().await;
    let mut sent = Sent::open(&shop, "/api/live", "ann", &[]).await;
    sent.notice("welcome").await;
    loop {
        let one = sent.next().await.unwrap();
        if one.name == "end" {
            break;
        }
        assert_eq!(one.name, "heartbeat");
    }
    until_counted(&shop, 1, &[]).await;
    assert!(sent.next().await.is_none());
    drop(sent);
    until_counted(&shop, 0, &[("session_check", 1)]).await;
}

#[tokio::test(start_paused = true)]
async fn readers_that_are_too_slow_are_counted_as_that_over_both_transports() {
    let shop = shop().await;
    let (door, publisher) = (Door::open(&shop), shop.broker.publisher());
    let mut socket = door.try_socket("/api/live", "ann", 4_096, &[]).await.unwrap();
    socket.notice("welcome").await;
    let mut sent = Sent::open(&shop, "/api/live", "ann", &[]).await;
    sent.notice("welcome").await;
    publisher.publish(&super::socket::anns(1, 100, 1_000)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(33)).await;
    until_counted(&shop, 1, &[("too_slow", 1)]).await;
    assert_eq!(sent.notice("end").await["reason"], json!("too_slow"));
    drop(sent);
    until_counted(&shop, 0, &[("too_slow", 2)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_comes_to_a_damaged_event_is_counted_as_unreadable_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let marked = kit::Envelope { data: Some(serde_json::value::to_raw_value("needle").unwrap()), ..of("2", "o-1", "ann") };
    let (log, lifecycle) = (folder.path(), kit::Lifecycle::new());
    let engine = Embedded::start(log, &environment(1), &lifecycle).unwrap();
    engine.append(vec![of("1", "o-1", "ann"), marked, of("3", "o-2", "bob")]).await.unwrap();
    drop(engine);
    assert!(lifecycle.stop(DEADLINE).await);
    let path = log.join("broker.db");
    let mut file = fs::read(&path).unwrap();
    let at = file.windows(6).position(|window| window == b"needle").unwrap();
    file[at] ^= 0b100;
    fs::write(&path, file).unwrap();
    let (environment, lifecycle) = (environment(1), kit::Lifecycle::new());
    let broker = Broker::start(log, settings(), &environment, &lifecycle).await.unwrap();
    let shop = tests::open(broker, &environment, lifecycle);
    let mut hers = Sent::open(&shop, "/api/live?after=0", "ann", &[]).await;
    let mut his = Sent::open(&shop, "/api/live?after=0", "bob", &[]).await;
    hers.notice("welcome").await;
    his.notice("welcome").await;
    assert_eq!(his.events(1).await, [3]);
    assert_eq!(hers.notice("end").await, json!({"reason": "unreadable", "after": "0"}));
    drop(hers);
    until_counted(&shop, 1, &[("unreadable", 1)]).await;
}
