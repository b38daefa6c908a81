//! A log at its limit. Time is paused.

use std::{sync::Arc, time::Duration};

use kit::{
    BoxFuture, Recorded,
    transport::{ItemAnswer, Sink, SinkError},
};

use super::*;
use crate::{Settings, engine::memory::MemoryDisk, retention::Limits, tests::settings};

/// Takes events and never answers, until it is told to take everything.
#[derive(Default)]
struct Deaf(tokio::sync::Notify);

impl Sink for Deaf {
    fn deliver<'a>(&'a self, _: &'a [Recorded]) -> BoxFuture<'a, Result<Vec<ItemAnswer>, SinkError>> {
        Box::pin(async {
            self.0.notified().await;
            self.0.notify_one();
            Ok(Vec::new())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_a_subscription_holds_at_its_limit_takes_nothing_until_it_lets_go() {
    let retention = Limits { bytes_max: 50_000, ..Limits::default() };
    let shop = shop_on(MemoryDisk::default(), Settings { retention, ..settings() }).await;
    let deaf = Arc::new(Deaf::default());
    shop.broker.attach("tester", [TYPE], 1, deaf.clone()).await.unwrap();
    let mut publish = {
        let (shop, mut id) = (&shop, 0);
        async move || {
            id += 1;
            let answer = shop.publish(Some("tester"), EVENT_JSON, cloud_event(&id.to_string(), &id.to_string(), "ann").to_string()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer
        }
    };
    let mut taken = 0;
    let (status, body) = loop {
        let (status, body) = publish().await;
        if status != StatusCode::ACCEPTED {
            break (status, body);
        }
        taken += 1;
        assert!(taken < 1_000, "it never gets full");
    };
    assert_eq!((status, &body["code"], &body["retry_after_s"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("log_full"), &json!(5)));
    assert_eq!(shop.broker.engine().bounds().first, kit::Position(1), "what is not acknowledged is not lost");
    let handle = shop.broker.publisher();
    assert!(handle.publish(&[crate::tests::event("/tester", "by handle", "x")]).await.is_err(), "a handle is no way around it");
    deaf.0.notify_one();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(publish().await.0, StatusCode::ACCEPTED);
    assert!(shop.broker.engine().bounds().first > kit::Position(1));
}
