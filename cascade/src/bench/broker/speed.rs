//! How fast a broker with nothing else to do is.

use std::time::Duration;

use super::{
    BrokerFlags, LIVE, all_of,
    event::Orders,
    publisher::{Publisher, Sent, Shape},
    report::{Delay, Speed},
    sink::Manner,
    subject::{Subject, Subscriber},
};

/// How events are sent in batches.
pub(super) const BATCHES: Shape = Shape { connections: 16, batch: 100 };

/// Publishing alone, one event a request.
pub(super) async fn published(flags: &BrokerFlags) -> anyhow::Result<Speed> {
    publish(flags, Shape { connections: flags.concurrency as usize, batch: 1 }).await
}

/// Publishing alone, in batches.
pub(super) async fn batched(flags: &BrokerFlags) -> anyhow::Result<Speed> {
    publish(flags, BATCHES).await
}

async fn publish(flags: &BrokerFlags, shape: Shape) -> anyhow::Result<Speed> {
    let subject = Subject::start("publish")?;
    warm_up(&subject.publisher, flags).await?;
    let before = subject.cost()?;
    let sent = subject.publisher.send(LIVE, Orders::Passing, flags.limit(), shape).await?;
    Ok(Speed::new(sent.events, sent.took, subject.cost()?.since(before)))
}

/// From publishing in batches until a subscriber has acknowledged everything.
pub(super) async fn delivered(flags: &BrokerFlags) -> anyhow::Result<Speed> {
    let mut subject = Subject::start("delivered")?;
    let subscriber = subject.subscribe("bench", &[LIVE], Manner::Take).await?;
    warm_up_to(&subject, &[&subscriber], flags).await?;
    let before = subject.cost()?;
    let sent = subject.publisher.send(LIVE, Orders::Passing, flags.limit(), BATCHES).await?;
    let seen = subscriber.has_taken(sent.events).await?;
    let took = Duration::from_micros(seen.last_answered_us.saturating_sub(sent.began_us));
    let cost = subject.cost()?.since(before);
    let mut speed = Speed::new(sent.events, took, cost);
    (speed.repeated, speed.out_of_order) = (seen.repeated, seen.out_of_order);
    Ok(speed)
}

/// How long events are sent at that rate before it counts.
pub(super) const WARM_UP_ON_TIME: Duration = Duration::from_secs(2);

/// The delay of each event at a steady rate.
pub(super) async fn delay(flags: &BrokerFlags) -> anyhow::Result<Delay> {
    let mut subject = Subject::start("delay")?;
    let subscriber = subject.subscribe("bench", &[LIVE], Manner::Take).await?;
    warm_up_to(&subject, &[&subscriber], flags).await?;
    for time in [WARM_UP_ON_TIME, flags.time()] {
        // What was sent to warm up is forgotten, and so is what it left to be written.
        subscriber.forget().await?;
        let numbers = subject.publisher.send_on_time(LIVE, Orders::Passing, flags.rate, time).await?;
        subscriber.has_taken(numbers.end - numbers.start).await?;
    }
    Ok(Delay::of(&subscriber.delays_ms().await?))
}

/// Sends what is not measured, and waits until `subscribers` have it and have forgotten it.
pub(super) async fn warm_up_to(subject: &Subject, subscribers: &[&Subscriber], flags: &BrokerFlags) -> anyhow::Result<()> {
    let sent = warm_up(&subject.publisher, flags).await?;
    for subscriber in subscribers {
        subscriber.has_taken(sent.events).await?;
        subscriber.forget().await?;
    }
    Ok(())
}

async fn warm_up(publisher: &Publisher, flags: &BrokerFlags) -> anyhow::Result<Sent> {
    publisher.send(LIVE, Orders::Passing, all_of(flags.warm_up.into()), BATCHES).await
}
