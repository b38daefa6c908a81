//! A subscriber that was away, and comes back.

use std::{sync::Mutex, time::Duration};

use kit::{
    BoxFuture, Recorded,
    transport::{ItemAnswer, Sink, SinkError},
};
use tokio::time::Instant;

use super::{
    TYPE,
    delivery::{live, numbered, start, wait_until},
    environment,
};

const EVENTS: usize = 2_000;

/// Notes when each event came.
#[derive(Default)]
struct Noting(Mutex<Vec<Instant>>);

impl Noting {
    async fn has_all(&self) -> Duration {
        wait_until(|| self.0.lock().unwrap().len() >= EVENTS).await;
        let mut came = std::mem::take(&mut *self.0.lock().unwrap());
        assert_eq!(came.len(), EVENTS);
        came.sort_unstable();
        came[EVENTS - 1] - came[0]
    }
}

impl Sink for Noting {
    fn deliver<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<Vec<ItemAnswer>, SinkError>> {
        self.0.lock().unwrap().extend(events.iter().map(|_| Instant::now()));
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

#[test]
fn whoever_was_away_rests_while_it_catches_up_and_then_no_more() {
    let (folder, noting) = (tempfile::tempdir().unwrap(), std::sync::Arc::new(Noting::default()));
    live(async {
        let (broker, _lifecycle) = start(folder.path(), &environment(1)).await;
        broker.attach("tester", [TYPE], 1, noting.clone()).await.unwrap();
        let publish = async |name: &str| {
            for some in 0..4 {
                let events: Vec<_> = (0..EVENTS / 4).map(|n| numbered(&format!("{name}-{some}-{n}"), 1)).collect();
                broker.publisher().publish(&events).await.unwrap();
            }
        };
        // Time stands still but for rests.
        publish("there").await;
        assert_eq!(noting.has_all().await, Duration::ZERO);
        broker.shared.subscriptions.pause("tester", true).await.unwrap();
        publish("away").await;
        broker.shared.subscriptions.pause("tester", false).await.unwrap();
        let (rests, took) = (u32::try_from(EVENTS / 64).unwrap(), noting.has_all().await);
        assert!(took >= rests * Duration::from_millis(2), "{took:?}");
        publish("there again").await;
        assert_eq!(noting.has_all().await, Duration::ZERO);
    });
}
