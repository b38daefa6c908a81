//! A server that leaves and drains loses no request, on real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::WebSocketUpgrade,
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::StatusCode;
use kit::{Lifecycle, http::health};
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    sync::{Notify, mpsc},
};

mod raw;

use raw::{Connection, Server};

/// How long a stop may take in these tests. Half of it is for requests.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Once a server halts, nothing can be done for a request any more.
fn greeter(lifecycle: &Lifecycle) -> Router {
    let halts = lifecycle.clone();
    Router::new()
        .route("/hello", get(async move || if halts.is_halting() { "too late" } else { "hello" }))
        .route("/echo", post(async |body: String| body))
        .merge(health::routes(lifecycle.clone()))
}

async fn greeting() -> Server {
    let lifecycle = Lifecycle::new();
    Server::start_with(greeter(&lifecycle), lifecycle).await
}

/// Begins to leave; how long that lasts is of no matter here.
fn begin_to_leave(lifecycle: &Lifecycle) {
    assert!(lifecycle.leave(HOUR).now_or_never().is_none());
    assert!(lifecycle.is_leaving() && !lifecycle.is_draining());
}

#[tokio::test]
async fn whoever_leaves_is_not_ready_but_serves_on_and_closes_each_connection_with_its_answer() {
    let server = greeting().await;
    let (mut old, mut older) = (server.connect().await, server.connect().await);
    for connection in [&mut old, &mut older] {
        let answer = connection.get("/ready").await;
        assert_eq!((answer.status, answer.closes()), (200, false));
    }
    begin_to_leave(&server.lifecycle);
    let answer = old.get("/hello").await;
    assert_eq!((answer.body.as_str(), answer.closes()), ("hello", true));
    old.closed().await;
    let mut new = server.connect().await;
    let answer = new.get("/ready").await;
    assert_eq!((answer.status, answer.closes()), (503, true));
    new.closed().await;
    // Also what could not be found, and what has no answer's body.
    for (path, status) in [("/health", 200), ("/nowhere", 404)] {
        let answer = server.connect().await.get(path).await;
        assert_eq!((answer.status, answer.closes()), (status, true), "{path}");
    }
    let answer = older.get("/hello").await;
    assert_eq!((answer.status, answer.closes()), (200, true));
    drop(older);
    assert!(server.lifecycle.stop(STOP_DEADLINE).await);
}

#[tokio::test]
async fn live_streams_and_sockets_stay_open_while_a_server_leaves_and_end_when_it_drains() {
    let (pieces, taken) = mpsc::unbounded_channel::<&'static str>();
    let taken = Arc::new(std::sync::Mutex::new(Some(taken)));
    let lifecycle = Lifecycle::new();
    let streamed = {
        let lifecycle = lifecycle.clone();
        async move || {
            let state = (taken.lock().unwrap().take().unwrap(), lifecycle);
            Body::from_stream(stream::unfold(state, async |(mut taken, lifecycle)| {
                tokio::select! {
                    biased;
                    () = lifecycle.drained() => None,
                    piece = taken.recv() => piece.map(|piece| (Ok::<_, std::io::Error>(piece), (taken, lifecycle))),
                }
            }))
        }
    };
    let talked = {
        let lifecycle = lifecycle.clone();
        async move |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async move |mut socket| {
                let tracker = lifecycle.clone();
                tracker.spawn_request(async move {
                    loop {
                        tokio::select! {
                            biased;
                            () = lifecycle.drained() => return,
                            Some(Ok(message)) = socket.recv() => socket.send(message).await.unwrap(),
                            else => return,
                        }
                    }
                });
            })
        }
    };
    let router = Router::new().route("/stream", get(streamed)).route("/socket", get(talked));
    let server = Server::start_with(router, lifecycle).await;

    let mut stream = server.connect().await;
    stream.send_get("/stream").await;
    pieces.send("before").unwrap();
    assert!(!stream.head().await.contains("connection: close"));
    assert_eq!(stream.read(11).await, b"6\r\nbefore\r\n");
    let mut old_socket = open_socket(&server).await;
    begin_to_leave(&server.lifecycle);
    let mut new_socket = open_socket(&server).await;
    pieces.send("while").unwrap();
    assert_eq!(stream.read(10).await, b"5\r\nwhile\r\n");
    for socket in [&mut old_socket, &mut new_socket] {
        // A masked text frame, and the same unmasked.
        socket.send(b"\x81\x82\0\0\0\0hi").await;
        assert_eq!(socket.read(4).await, b"\x81\x02hi");
    }
    let (is_stopped, rest, (), ()) = tokio::join!(
        server.lifecycle.stop(STOP_DEADLINE),
        async {
            let end = stream.read(5).await;
            stream.closed().await;
            drop(stream);
            end
        },
        async { assert!(old_socket.rest().await.is_ok_and(|rest| rest.is_empty())) },
        async { assert!(new_socket.rest().await.is_ok_and(|rest| rest.is_empty())) },
    );
    assert_eq!(rest, b"0\r\n\r\n");
    assert!(is_stopped);
}

async fn open_socket(server: &Server) -> Connection<tokio::net::TcpStream> {
    let mut socket = server.connect().await;
    let key = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    socket.send(format!("GET /socket HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n{key}\r\n\r\n")).await;
    let head = socket.head().await;
    assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    socket
}

#[tokio::test]
async fn everybody_who_has_connected_before_the_end_of_listening_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The system completes connections by itself. Half of them have sent their request, the others take their time.
    let mut waiting: Vec<_> = (0..100)
        .map(|number| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
            }
            stream.set_nonblocking(true).unwrap();
            (number, Connection::over(tokio::net::TcpStream::from_std(stream).unwrap()))
        })
        .collect();
    // The stop has begun before the first of them is accepted.
    let lifecycle = Lifecycle::new();
    let mut stop = std::pin::pin!(lifecycle.stop(STOP_DEADLINE));
    let server = Server::serve(listener, greeter(&lifecycle), lifecycle.clone());
    assert!(stop.as_mut().now_or_never().is_none());
    let clients = async {
        for (_, connection) in waiting.iter_mut().filter(|(number, _)| number % 2 == 1) {
            connection.send_get("/hello").await;
        }
        for (number, mut connection) in waiting {
            let answer = connection.answer().await;
            assert_eq!((answer.body.as_str(), answer.closes()), ("hello", true), "connection {number}");
            connection.closed().await;
        }
    };
    let (is_stopped, ()) = tokio::join!(stop, clients);
    assert!(is_stopped);
    let refused = std::net::TcpStream::connect(server.address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_listener_that_turns_away_lets_nobody_begin_and_keeps_who_has_connected() {
    use kit::http::server::Listener;

    let mut listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let early: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    listener.turn_away();
    let late = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).unwrap_err();
    assert_eq!(late.kind(), std::io::ErrorKind::TimedOut);
    for connection in &early {
        let (mut accepted, peer) = listener.accept_waiting().unwrap().unwrap();
        assert_eq!(peer, connection.local_addr().unwrap());
        accepted.write_all(b"!").await.unwrap();
    }
    assert!(listener.accept_waiting().unwrap().is_none());
    for mut connection in &early {
        assert_eq!(connection.read(&mut [0; 2]).unwrap(), 1);
    }
}

#[tokio::test]
async fn a_stop_answers_a_request_that_comes_on_an_open_connection_and_closes_those_on_which_none_comes() {
    let server = greeting().await;
    let (mut unused, mut used) = (server.connect().await, server.connect().await);
    let (mut silent, mut idle) = (server.connect().await, server.connect().await);
    for connection in [&mut used, &mut idle] {
        assert!(!connection.get("/hello").await.closes());
    }
    let mut stop = std::pin::pin!(server.lifecycle.stop(STOP_DEADLINE));
    assert!(stop.as_mut().now_or_never().is_none());
    assert!(server.lifecycle.is_draining());
    let clients = async {
        for connection in [&mut unused, &mut used] {
            let answer = connection.get("/hello").await;
            assert_eq!((answer.body.as_str(), answer.closes()), ("hello", true));
            connection.closed().await;
        }
        for connection in [&mut silent, &mut idle] {
            connection.closed().await;
        }
        drop((unused, used, silent, idle));
    };
    let (is_stopped, ()) = tokio::join!(stop, clients);
    assert!(is_stopped);
}

#[tokio::test]
async fn a_body_that_is_on_its_way_when_a_stop_begins_is_read_to_its_end() {
    let server = greeting().await;
    let mut connection = server.connect().await;
    let (mut whole_head, mut part_of_head) = (server.connect().await, server.connect().await);
    connection.send("POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhello").await;
    whole_head.send("POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n").await;
    part_of_head.send("POST /echo HTTP/1.1\r\nhost: local").await;
    // Answered after the others were accepted, and read as far as they go.
    assert_eq!(server.connect().await.get("/hello").await.status, 200);
    let mut stop = std::pin::pin!(server.lifecycle.stop(STOP_DEADLINE));
    assert!(stop.as_mut().now_or_never().is_none());
    let clients = async {
        connection.send("hello").await;
        whole_head.send("hellohello").await;
        part_of_head.send("host\r\ncontent-length: 10\r\n\r\nhellohello").await;
        for connection in [&mut connection, &mut whole_head, &mut part_of_head] {
            let answer = connection.answer().await;
            assert_eq!((answer.body.as_str(), answer.closes()), ("hellohello", true));
            connection.closed().await;
        }
        drop((connection, whole_head, part_of_head));
    };
    let (is_stopped, ()) = tokio::join!(stop, clients);
    assert!(is_stopped);
}

#[tokio::test]
async fn an_answer_that_is_being_sent_when_a_stop_begins_is_sent_to_its_end_and_its_connection_is_good_for_one_more_request() {
    const PIECES: usize = 200;
    let goes_on = Arc::new(Notify::new());
    let pieces = {
        let goes_on = goes_on.clone();
        async move || {
            let pieces = stream::unfold((0, goes_on), async |(count, goes_on)| {
                if count == 1 {
                    goes_on.notified().await;
                }
                (count < PIECES).then(|| (Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 10_000])), (count + 1, goes_on)))
            });
            ([("content-length", (PIECES * 10_000).to_string())], Body::from_stream(pieces))
        }
    };
    let lifecycle = Lifecycle::new();
    let server = Server::start_with(greeter(&lifecycle).route("/pieces", get(pieces)), lifecycle).await;
    let mut connection = server.connect().await;
    connection.send_get("/pieces").await;
    assert!(!connection.head().await.contains("connection: close"));
    let mut stop = std::pin::pin!(server.lifecycle.stop(STOP_DEADLINE));
    assert!(stop.as_mut().now_or_never().is_none());
    let client = async {
        goes_on.notify_one();
        assert_eq!(connection.read(PIECES * 10_000).await, vec![b'x'; PIECES * 10_000]);
        // The head was sent before the stop: the client thinks that it may go on.
        let answer = connection.get("/hello").await;
        assert_eq!((answer.body.as_str(), answer.closes()), ("hello", true));
        connection.closed().await;
        drop(connection);
    };
    let (is_stopped, ()) = tokio::join!(stop, client);
    assert!(is_stopped);
}

#[tokio::test]
async fn an_answer_reaches_a_client_that_is_still_sending_a_body_that_nobody_reads() {
    let router = Router::new().route("/busy", post(async || (StatusCode::TOO_MANY_REQUESTS, "busy")));
    let server = Server::start(router).await;
    // More than the system takes before the server reads.
    let body = vec![b'x'; 16 << 20];
    for _ in 0..5 {
        let mut connection = server.connect().await;
        connection.send(format!("POST /busy HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len())).await;
        connection.send(&body).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (429, "busy"));
    }
    assert!(server.lifecycle.stop(STOP_DEADLINE).await);
}
