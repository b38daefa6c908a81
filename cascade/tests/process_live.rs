//! Events as they happen, over WebSocket and server-sent events: all of one's own, none of others', whatever comes in between.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail as tests do, and this world's clock is real"
)]

#[macro_use]
mod shop;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use axum::http::{HeaderValue, Method, StatusCode};
use futures_util::{StreamExt, stream};
use kit::security::Keyring;
use serde_json::{Value, json};
use shop::{
    Customer, Shape, Shop,
    live::{End, EventStream, Socket, is_end, notice_name, position_of, request, upgrade},
    name_of, raw,
};
use tokio_tungstenite::tungstenite::Message;

/// A WebSocket's close codes: the server goes away; a message is too large.
const GOING_AWAY: u16 = 1001;
const TOO_BIG: u16 = 1009;

/// Reads until the order's end, or for `count` events.
async fn read(socket: &mut Socket, count: usize) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    while events.len() < count && !events.last().is_some_and(is_end) {
        events.push(socket.next().await.unwrap());
    }
    events
}

/// The same from server-sent events, whose ids are positions.
async fn read_sent(stream: &mut EventStream, count: usize) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    while events.len() < count && !events.last().is_some_and(is_end) {
        let sent = stream.next().await.unwrap();
        let event: Value = serde_json::from_str(&sent.data).unwrap();
        assert_eq!((sent.name.as_str(), sent.id), ("message", Some(position_of(&event).to_string())));
        events.push(event);
    }
    events
}

in_both_shapes! {
    an_order_is_shown_from_its_first_event_and_goes_on_after_a_kill_without_gap_or_repetition,
    every_window_of_a_customer_gets_all_of_their_events_and_none_of_others,
    a_stream_that_is_not_ones_own_is_refused,
    noise_on_a_socket_hurts_nobody_else,
    a_stop_ends_open_streams_at_once_and_they_go_on_afterwards,
}

async fn an_order_is_shown_from_its_first_event_and_goes_on_after_a_kill_without_gap_or_repetition(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_as(shape, folder.path(), &["--pace", "demo"]);
    let customer = Customer::visit(&shop).await;
    // An offer expires in scenario 3: there is time to be interrupted.
    let order_id = customer.run(3).await;
    let query = format!("?subject={order_id}");
    let (mut seen, mut sent) = (Vec::new(), Vec::new());
    for count in [1, 2, 3, usize::MAX] {
        let after = |events: &[Value]| events.last().map(|event| position_of(event).to_string());
        let resumed = after(&seen).map(|after| format!("{query}&after={after}")).unwrap_or_else(|| query.clone());
        let mut socket = Socket::open(&shop, &customer, &resumed, &[]).await.unwrap();
        let last_id = after(&sent).unwrap_or_default();
        let last_id = [("last-event-id", last_id.as_str())];
        let mut stream = EventStream::open(&shop, &customer, &query, if sent.is_empty() { &[] } else { &last_id }).await.unwrap();
        seen.extend(read(&mut socket, count).await);
        sent.extend(read_sent(&mut stream, count).await);
        if count < usize::MAX {
            shop.kill();
            shop.restart();
        }
    }
    let events = customer.all_events_of(&order_id).await;
    assert_eq!(seen, events, "over the WebSocket");
    assert_eq!(sent, events, "as server-sent events");
    let mut again = Socket::open(&shop, &customer, &query, &[]).await.unwrap();
    assert_eq!(read(&mut again, usize::MAX).await, events, "once more from the beginning");
    let old = format!("{query}&after=0");
    let last_id = position_of(&events[1]).to_string();
    let mut both = EventStream::open(&shop, &customer, &old, &[("last-event-id", &last_id)]).await.unwrap();
    assert_eq!(read_sent(&mut both, usize::MAX).await, events[2..], "what the browser says when it reconnects counts");
}

async fn every_window_of_a_customer_gets_all_of_their_events_and_none_of_others(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open_as(shape, folder.path(), &["--pace", "instant"]);
    let (ada, bob) = (Customer::visit(&shop).await, Customer::visit(&shop).await);
    let before = ada.order("before").await.unwrap();
    ada.all_events_of(&before).await;
    let mut windows = Vec::new();
    for _ in 0..2 {
        windows.push(Socket::open(&shop, &ada, "", &[]).await.unwrap());
    }
    let mut tab = EventStream::open(&shop, &ada, "", &[]).await.unwrap();
    let (mut bobs, mut bobs_tab) =
        (Socket::open(&shop, &bob, "", &[]).await.unwrap(), EventStream::open(&shop, &bob, "", &[]).await.unwrap());

    let order_id = ada.order("now").await.unwrap();
    let events = ada.all_events_of(&order_id).await;
    for window in &mut windows {
        assert_eq!(read(window, usize::MAX).await, events, "from now on, all of it");
    }
    assert_eq!(read_sent(&mut tab, usize::MAX).await, events);
    // Had anything of hers come to him, it would come before his own.
    let his = bob.order("his").await.unwrap();
    let events = bob.all_events_of(&his).await;
    assert_eq!(read(&mut bobs, usize::MAX).await, events);
    assert_eq!(read_sent(&mut bobs_tab, usize::MAX).await, events);
    let mut history = Socket::open(&shop, &bob, "?after=0", &[]).await.unwrap();
    assert_eq!(read(&mut history, usize::MAX).await, events, "not in the past either");
    // A name in the query is no proof of anything.
    let owner = events[0]["owner"].as_str().unwrap();
    assert_eq!(Socket::open(&shop, &ada, &format!("?owner={owner}"), &[]).await.err(), Some(400));
}

async fn a_stream_that_is_not_ones_own_is_refused(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open_as(shape, folder.path(), &["--pace", "instant"]);
    let (ada, bob, stranger) = (Customer::visit(&shop).await, Customer::visit(&shop).await, Customer::stranger(&shop));
    let order_id = ada.order("hers").await.unwrap();
    let events = ada.all_events_of(&order_id).await;
    let hers = format!("?subject={order_id}");
    let unknown = "?subject=01890a5d-ac96-774b-bcce-b302099a8057";
    for (who, query, status) in [(&bob, hers.as_str(), 404), (&stranger, &hers, 404), (&stranger, unknown, 404), (&stranger, "", 401)] {
        assert_eq!(Socket::open(&shop, who, query, &[]).await.err(), Some(status), "{query}");
        assert_eq!(EventStream::open(&shop, who, query, &[]).await.err(), Some(status), "{query}");
    }
    for origin in ["http://evil.example", "null", "http://localhost:1", &format!("http://127.0.0.1:{}.evil.example", shop.port())] {
        assert_eq!(Socket::open(&shop, &ada, &hers, &[("origin", origin)]).await.err(), Some(403), "{origin}");
    }
    assert!(Socket::open(&shop, &ada, &hers, &[("origin", &shop.base())]).await.is_ok());
    assert_eq!(Socket::open(&shop, &ada, &hers, &[("host", "evil.example")]).await.err(), Some(421));
    assert_eq!(Socket::open(&shop, &ada, &hers, &[("sec-websocket-version", "7")]).await.err(), Some(426));

    // An order of one's own may be so new that nothing is known of it: the stream waits, and shows nothing of anybody else.
    let mut early = Socket::open(&shop, &bob, unknown, &[]).await.unwrap();
    early.send(Message::Close(None)).await;
    assert_eq!(early.next().await, Err(End::Silent));

    let beyond = (position_of(events.last().unwrap()) + 1_000_000).to_string();
    let query = format!("{hers}&after={beyond}");
    let data = json!({"reason": "unknown", "asked": beyond, "after": "0"});
    let mut lost = Socket::open(&shop, &ada, &query, &[]).await.unwrap();
    let reset = lost.next().await.unwrap();
    assert_eq!((notice_name(&reset), &reset["data"]), (Some("reset"), &data), "a cursor from another log is said to be one");
    assert_eq!(read(&mut lost, usize::MAX).await, events, "and the order is shown again from its first event");
    let mut lost = EventStream::open(&shop, &ada, &query, &[]).await.unwrap();
    let reset = lost.next().await.unwrap();
    assert_eq!((reset.name.as_str(), reset.id.as_deref()), ("reset", Some("0")));
    assert_eq!(read_sent(&mut lost, usize::MAX).await, events);
}

async fn noise_on_a_socket_hurts_nobody_else(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open_as(shape, folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let mut quiet = Socket::open(&shop, &customer, "", &[]).await.unwrap();
    let mut noisy = Socket::open(&shop, &customer, "", &[]).await.unwrap();
    for message in
        [Message::text("{\"type\":\"subscribe\"}"), Message::text(""), Message::binary(vec![0; 4_000]), Message::Ping(vec![7; 125].into())]
    {
        for _ in 0..50 {
            noisy.send(message.clone()).await;
        }
    }
    let mut large = Socket::open(&shop, &customer, "", &[]).await.unwrap();
    large.send(Message::binary(vec![0; 100_000])).await;
    assert_eq!(large.next().await, Err(End::Code(TOO_BIG)), "more than anybody has to say ends the socket");
    // Frames that are none: reserved bits and opcodes, a length of 2^63, and no mask.
    for frame in [&[0xff; 64][..], &[0x81, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0], &[0x81, 0x01, b'x']] {
        let mut stream = raw::connect(&shop).await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, &[upgrade(&shop, &customer, "").as_bytes(), frame].concat()).await.unwrap();
        assert!(raw::is_closed_within(&mut stream, Duration::from_secs(20)).await, "{frame:?}");
    }
    let events = customer.all_events_of(&customer.order("key").await.unwrap()).await;
    assert_eq!(read(&mut quiet, usize::MAX).await, events);
    assert_eq!(read(&mut noisy, usize::MAX).await, events, "what it says is ignored");
}

/// Makes `owner`'s past longer than what the operating system takes for a reader who does not read (4 MiB by Linux's default).
async fn write_a_long_past(shop: &Shop, folder: &Path, owner: &str) {
    let token = Keyring::load(&folder.join("secret")).unwrap().service_token("order");
    let bearer = format!("Bearer {token}");
    let headers = [("content-type", kit::envelope::EVENT_JSON), ("authorization", bearer.as_str())];
    for number in 0..60 {
        // Nobody reacts to this type, and its subject is no order.
        let event = json!({
            "specversion": "1.0", "id": format!("long-{number}"), "source": "/order", "type": "cascade.OrderCompleted.v1",
            "subject": "the-past", "owner": owner, "data": {"padding": "x".repeat(200_000)},
        });
        let answer = Customer::stranger(shop).send(Method::POST, "/api/events", &headers, event.to_string()).await.unwrap();
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_holds_up_nobody_and_no_stop() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let customer = Customer::visit(&shop).await;
    let first = customer.all_events_of(&customer.order("first").await.unwrap()).await;
    write_a_long_past(&shop, folder.path(), first[0]["owner"].as_str().unwrap()).await;
    let mut stuck = Vec::new();
    for _ in 0..6 {
        stuck.push(raw::send_and_never_read(&shop, &request(&shop, &customer, "?after=0", &[])).await);
        stuck.push(raw::send_and_never_read(&shop, &upgrade(&shop, &customer, "?after=0")).await);
    }
    let neighbour = Customer::visit(&shop).await;
    let mut window = Socket::open(&shop, &neighbour, "", &[]).await.unwrap();
    for number in 0..10 {
        let events = neighbour.all_events_of(&neighbour.order(&format!("key-{number}")).await.unwrap()).await;
        assert_eq!(read(&mut window, usize::MAX).await, events);
    }
    let asked = Instant::now();
    shop.signal("TERM");
    assert_eq!(window.next().await, Err(End::Code(GOING_AWAY)));
    assert!(shop.wait().success());
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
}

/// How many streams of each kind are held open. Both ends need a file for each, and many a system gives a process 1,024.
const CROWD: usize = 450;
/// The most memory that a stream may take where it is served, in KiB.
const STREAM_KIB_MAX: u64 = 40;

/// How much memory a process has, in KiB.
fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Opens a stream for each of so many customers, some at a time.
async fn crowd<T, F: Future<Output = Result<T, u16>>>(count: usize, open: impl Fn(usize) -> F) -> Vec<T> {
    stream::iter(0..count).map(open).buffered(16).map(Result::unwrap).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_takes_little_memory_and_each_of_it_is_told_what_is_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open(folder.path(), &["--pace", "instant"]);
    let keyring = Keyring::load(&folder.path().join("secret")).unwrap();
    let cookie = |number: usize| HeaderValue::try_from(format!("cascade_session={}", keyring.session(&format!("crowd-{number}")))).unwrap();
    let customers: Vec<_> = (0..CROWD).map(|number| Customer::stranger(&shop).with_cookie(Some(&cookie(number)))).collect();
    let socket = async |number: usize| Socket::open(&shop, &customers[number], "", &[]).await;
    let sent = async |number: usize| EventStream::open(&shop, &customers[number], "", &[]).await;
    // What is allocated once, whoever comes, is not what a stream takes.
    drop((crowd(50, socket).await, crowd(50, sent).await));
    let mut held = resident_kib(shop.pid());
    let mut sockets = crowd(CROWD, socket).await;
    let mut streams = Vec::new();
    for kind in ["a socket", "server-sent events"] {
        if kind == "server-sent events" {
            streams = crowd(CROWD, sent).await;
        }
        let now = resident_kib(shop.pid());
        let each = now.saturating_sub(held) / u64::try_from(CROWD).unwrap();
        assert!(each <= STREAM_KIB_MAX, "{kind} takes {each} KiB");
        held = now;
    }
    // Had anything come to the wrong one, it would come before their own.
    for number in [CROWD - 1, CROWD / 2, 0] {
        let events = customers[number].all_events_of(&customers[number].order("hers").await.unwrap()).await;
        assert_eq!(read(&mut sockets[number], usize::MAX).await, events);
        assert_eq!(read_sent(&mut streams[number], usize::MAX).await, events);
    }
}

async fn a_stop_ends_open_streams_at_once_and_they_go_on_afterwards(shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open_as(shape, folder.path(), &["--pace", "demo"]);
    let customer = Customer::visit(&shop).await;
    let order_id = customer.run(3).await;
    let query = format!("?subject={order_id}");
    let mut sockets = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..10 {
        sockets.push(Socket::open(&shop, &customer, &query, &[]).await.unwrap());
        streams.push(EventStream::open(&shop, &customer, &query, &[]).await.unwrap());
    }
    let asked = Instant::now();
    shop.signal("TERM");
    let mut last = Vec::new();
    for mut socket in sockets {
        let mut position = 0;
        let end = loop {
            match socket.next().await {
                Ok(event) => position = position_of(&event),
                Err(end) => break end,
            }
        };
        assert_eq!(end, End::Code(GOING_AWAY));
        last.push(position);
    }
    for mut stream in streams {
        while stream.next().await.is_some() {}
    }
    assert!(shop.wait().success());
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    shop.restart();
    let events = customer.all_events_of(&order_id).await;
    for position in last {
        let mut socket = Socket::open(&shop, &customer, &format!("{query}&after={position}"), &[]).await.unwrap();
        let rest: Vec<_> = events.iter().filter(|event| position_of(event) > position).cloned().collect();
        assert_eq!(json!(read(&mut socket, usize::MAX).await), json!(rest));
    }
    assert_eq!(name_of(events.last().unwrap()), "OrderCompleted");
}
