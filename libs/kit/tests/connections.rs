//! How long a connection may take for what, in paused time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::{convert::Infallible, time::Duration};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use kit::{Lifecycle, http::health};
use tokio::time::{Instant, sleep};

mod raw;

use raw::{Connection, Pipes};

/// How long load balancers keep a connection that they do not use, at most: Caddy's 2 minutes.
const BALANCERS_KEEP: Duration = Duration::from_secs(120);
/// How long the slowest answer takes.
const SLOW: Duration = Duration::from_secs(300);

fn router(lifecycle: &Lifecycle) -> Router {
    Router::new()
        .route("/hello", get(async || "hello"))
        .route("/slow", get(async || sleep(SLOW).await))
        // Its end is seen only after its last piece.
        .route("/pieces", get(async || Body::from_stream(stream::iter(["he", "llo"].map(Ok::<_, Infallible>)))))
        .route(
            "/pieces-of-known-length",
            get(async || {
                let pieces = Body::from_stream(stream::iter(["he", "llo"].map(|piece| Ok::<_, Infallible>(Bytes::from(piece)))));
                ([("content-length", "5")], pieces)
            }),
        )
        .merge(health::routes(lifecycle.clone()))
}

fn serve() -> (Pipes, Lifecycle) {
    let lifecycle = Lifecycle::new();
    (Pipes::serve(router(&lifecycle), &lifecycle), lifecycle)
}

/// How long it takes until the server closes the connection.
async fn time_until_closed(connection: &mut Connection<tokio::io::DuplexStream>) -> Duration {
    let began_at = Instant::now();
    connection.closed().await;
    began_at.elapsed()
}

fn assert_about(time: Duration, expected: Duration) {
    assert!((expected..expected + Duration::from_millis(20)).contains(&time), "{time:?} is not about {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_wait_for_a_request_longer_than_a_load_balancer_keeps_it_but_not_for_ever() {
    let (pipes, _lifecycle) = serve();
    let limit = Duration::from_secs(180);
    assert!(limit > BALANCERS_KEEP);
    assert_about(time_until_closed(&mut pipes.connect()).await, limit);
    for path in ["/hello", "/pieces", "/pieces-of-known-length"] {
        let mut connection = pipes.connect();
        for _ in 0..3 {
            connection.send_get(path).await;
            connection.head().await;
            connection.read(if path == "/pieces" { "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n".len() } else { "hello".len() }).await;
            sleep(limit - Duration::from_secs(1)).await;
        }
        assert_about(time_until_closed(&mut connection).await, Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_request_must_come_in_time_however_its_bytes_trickle() {
    let (pipes, _lifecycle) = serve();
    let limit = Duration::from_secs(10);
    let mut silent = pipes.connect();
    sleep(Duration::from_secs(60)).await;
    silent.send("GET /hello HTTP/1.1\r\nhost: ").await;
    assert_about(time_until_closed(&mut silent).await, limit);

    let mut trickling = pipes.connect();
    assert_eq!(trickling.get("/hello").await.body, "hello");
    let began_at = Instant::now();
    trickling.send("GET /hello HTTP/1.1\r\nx: ").await;
    for _ in 0..9 {
        sleep(Duration::from_secs(1)).await;
        trickling.send("x").await;
    }
    trickling.closed().await;
    assert_about(began_at.elapsed(), limit);

    let mut in_time = pipes.connect();
    in_time.send("GET /hello HTTP/1.1\r\n").await;
    sleep(limit - Duration::from_secs(1)).await;
    in_time.send("host: localhost\r\n\r\n").await;
    assert_eq!(in_time.answer().await.body, "hello");
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_take_longer_than_a_connection_may_wait() {
    let (pipes, _lifecycle) = serve();
    let mut connection = pipes.connect();
    for _ in 0..2 {
        let began_at = Instant::now();
        assert_eq!(connection.get("/slow").await.status, 200);
        assert_about(began_at.elapsed(), SLOW);
    }
    assert_about(time_until_closed(&mut connection).await, Duration::from_secs(180));
}

#[tokio::test(start_paused = true)]
async fn leaving_lasts_as_long_as_it_was_told_unless_something_breaks() {
    let hour = Duration::from_secs(3_600);
    let lifecycle = Lifecycle::new();
    assert!(!lifecycle.is_leaving());
    lifecycle.leave(Duration::ZERO).now_or_never().unwrap();
    assert!(lifecycle.is_leaving() && !lifecycle.is_draining());
    let began_at = Instant::now();
    lifecycle.leave(hour).await;
    assert_about(began_at.elapsed(), hour);
    assert!(!lifecycle.is_draining());

    let began_at = Instant::now();
    let breaks = async {
        sleep(Duration::from_secs(1)).await;
        lifecycle.fail("a test breaks it");
    };
    tokio::join!(lifecycle.leave(hour), breaks);
    assert_about(began_at.elapsed(), Duration::from_secs(1));
    assert!(lifecycle.is_leaving() && lifecycle.is_draining());
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_each_connection_that_waits_half_a_second_for_a_last_request() {
    let (pipes, lifecycle) = serve();
    let (mut unused, mut used, mut streamed, mut late) = (pipes.connect(), pipes.connect(), pipes.connect(), pipes.connect());
    for (connection, path) in [(&mut used, "/hello"), (&mut late, "/hello"), (&mut streamed, "/pieces-of-known-length")] {
        connection.send_get(path).await;
        connection.head().await;
        connection.read("hello".len()).await;
    }
    let began_at = Instant::now();
    let last_request = async {
        sleep(Duration::from_millis(400)).await;
        let answer = late.get("/ready").await;
        assert_eq!((answer.status, answer.closes()), (503, true));
        late.closed().await;
        assert_about(began_at.elapsed(), Duration::from_millis(400));
        drop(late);
    };
    let closed = async {
        tokio::join!(unused.closed(), used.closed(), streamed.closed());
        assert_about(began_at.elapsed(), Duration::from_millis(500));
        drop((unused, used, streamed));
    };
    let (is_stopped, (), ()) = tokio::join!(lifecycle.stop(Duration::from_secs(10)), last_request, closed);
    assert!(is_stopped);
    assert_about(began_at.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_close_its_end_is_not_waited_for_very_long() {
    let (pipes, lifecycle) = serve();
    let mut stubborn = pipes.connect();
    assert_eq!(stubborn.get("/hello").await.body, "hello");
    let began_at = Instant::now();
    assert!(lifecycle.stop(Duration::from_secs(10)).await);
    assert_about(began_at.elapsed(), Duration::from_millis(1_500));
    stubborn.closed().await;
}
