//! Whether one subscriber, or many failing orders, make others late: two brokers are given the same events, in turn, at the same rate.
//! One of them is disturbed.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

use super::{
    BrokerFlags, LIVE, OLD, all_of,
    event::Orders,
    report::{CatchUp, Delay, Disturbance},
    sink::{Manner, ONE_FAILS_OF},
    speed::{BATCHES, WARM_UP_ON_TIME, warm_up_to},
    subject::{Subject, Subscriber},
};

/// In how many rounds each of the two is measured, so that whatever else the machine does meets both.
const ROUNDS: u32 = 5;

/// Beside a subscriber that never answers.
pub(super) async fn silent(flags: &BrokerFlags) -> anyhow::Result<Disturbance> {
    let (quiet, mut disturbed) = (Side::start("quiet", Manner::Take).await?, Side::start("disturbed", Manner::Take).await?);
    for side in [&quiet, &disturbed] {
        warm_up_to(&side.subject, &[&side.measured], flags).await?;
    }
    let rss_bytes_before = disturbed.subject.rss_bytes()?;
    disturbed.subject.subscribe("silent", &[LIVE], Manner::Silent).await?;
    let (quiet_delays_ms, delays_ms) = in_turn(&quiet, &disturbed, Orders::Passing, flags).await?;
    Ok(Disturbance::new(1, &quiet_delays_ms, &delays_ms, (rss_bytes_before, disturbed.subject.rss_bytes()?)))
}

/// Beside a subscriber that is far behind: while it is away, and while it catches up.
pub(super) async fn backlog(flags: &BrokerFlags) -> anyhow::Result<Disturbance> {
    let (quiet, mut disturbed) = (Side::start("quiet", Manner::Take).await?, Side::start("disturbed", Manner::Take).await?);
    for side in [&quiet, &disturbed] {
        warm_up_to(&side.subject, &[&side.measured], flags).await?;
    }
    let rss_bytes_before = disturbed.subject.rss_bytes()?;
    let behind = disturbed.subject.subscribe("behind", &[OLD, LIVE], Manner::Absent).await?;
    for side in [&quiet, &disturbed] {
        side.subject.publisher.send(OLD, Orders::Passing, all_of(flags.backlog.into()), BATCHES).await?;
    }
    let (quiet_delays_ms, delays_ms) = in_turn(&quiet, &disturbed, Orders::Passing, flags).await?;
    let rss_bytes = (rss_bytes_before, disturbed.subject.rss_bytes()?);
    let mut found = Disturbance::new(flags.backlog.into(), &quiet_delays_ms, &delays_ms, rss_bytes);

    found.catch_up = Some(catch_up(&disturbed, &behind, flags).await?);
    Ok(found)
}

/// Mends a subscriber that is behind, and goes on at the rate until it has caught up.
async fn catch_up(side: &Side, behind: &Subscriber, flags: &BrokerFlags) -> anyhow::Result<CatchUp> {
    side.measured.forget().await?;
    let waiting = side.subject.publisher.sent();
    let (began, took) = (Instant::now(), Cell::new(None));
    side.subject.mend(behind).await?;
    let going_on = async {
        while took.get().is_none() {
            side.send(Orders::Passing, flags.rate, flags.time() / ROUNDS).await?;
        }
        anyhow::Ok(())
    };
    let catching_up = async {
        behind.has_taken(waiting).await?;
        took.set(Some(began.elapsed()));
        anyhow::Ok(())
    };
    tokio::try_join!(going_on, catching_up)?;
    let delay = Delay::of(&side.measured.delays_ms().await?);
    let took = took.get().unwrap_or_default();
    Ok(CatchUp::new(delay, waiting, took, side.subject.rss_bytes()?))
}

/// The other orders of a subscriber that fails on one order in twenty, for ever.
pub(super) async fn failing(flags: &BrokerFlags) -> anyhow::Result<Disturbance> {
    let (quiet, disturbed) = (Side::start("quiet", Manner::Take).await?, Side::start("disturbed", Manner::Fail).await?);
    for side in [&quiet, &disturbed] {
        // Of another type: the subscriber takes none, and so fails on none.
        side.subject.publisher.send(OLD, Orders::Passing, all_of(flags.warm_up.into()), BATCHES).await?;
    }
    let rss_bytes_before = disturbed.subject.rss_bytes()?;
    let failing = u64::from(flags.failing);
    let count = failing * ONE_FAILS_OF;
    let orders = Orders::Lasting(count);
    for (side, taken) in [(&quiet, count), (&disturbed, count - failing)] {
        side.subject.publisher.send(LIVE, orders, all_of(count), BATCHES).await?;
        side.measured.has_taken(taken).await?;
        side.measured.forget().await?;
    }
    disturbed.subject.has_set_aside(&disturbed.measured, failing).await?;
    let (quiet_delays_ms, delays_ms) = in_turn(&quiet, &disturbed, orders, flags).await?;
    Ok(Disturbance::new(failing, &quiet_delays_ms, &delays_ms, (rss_bytes_before, disturbed.subject.rss_bytes()?)))
}

/// A broker and the subscriber whose delays are measured.
struct Side {
    subject: Subject,
    measured: Subscriber,
}

impl Side {
    async fn start(name: &str, manner: Manner) -> anyhow::Result<Self> {
        let mut subject = Subject::start(name)?;
        let measured = subject.subscribe("bench", &[LIVE], manner).await?;
        Ok(Self { subject, measured })
    }

    /// Sends events on time, and waits until all that can be taken were.
    async fn send(&self, orders: Orders, rate: u32, time: Duration) -> anyhow::Result<()> {
        let taken_before = self.measured.seen().await?.taken;
        let numbers = self.subject.publisher.send_on_time(LIVE, orders, rate, time).await?;
        let takeable = numbers.filter(|number| self.measured.takes(orders.of(*number))).count();
        self.measured.has_taken(taken_before + takeable as u64).await.map(drop)
    }
}

/// The delays at both, in milliseconds, ascending.
async fn in_turn(quiet: &Side, disturbed: &Side, orders: Orders, flags: &BrokerFlags) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    // What was sent before must not be on its way to the disk any more: that would be measured, at both.
    // It blocks, and nothing else happens meanwhile.
    rustix::fs::sync();
    for side in [quiet, disturbed] {
        side.send(orders, flags.rate, WARM_UP_ON_TIME).await?;
        side.measured.forget().await?;
    }
    for _ in 0..ROUNDS {
        for side in [quiet, disturbed] {
            side.send(orders, flags.rate, flags.time() / ROUNDS).await?;
        }
    }
    Ok((quiet.measured.delays_ms().await?, disturbed.measured.delays_ms().await?))
}
