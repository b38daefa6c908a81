//! What is counted of the log, of each subscription and of live streams, for whoever watches.

use kit::{
    BoxFuture,
    metrics::{Family, Page, Source, number},
};

use crate::{
    Broker,
    dispatcher::{State, Status},
};

const BY_NAME: &[&str] = &["subscription"];

const fn of_subscription(name: &'static str, help: &'static str) -> Family {
    Family { name, help, labels: BY_NAME }
}

const fn of_log(name: &'static str, help: &'static str) -> Family {
    Family { name, help, labels: &[] }
}

const MATCHED: Family =
    of_subscription("cascade_subscription_events_matched_total", "Events that were asked for, as far as they were read.");
const DELIVERED: Family = of_subscription("cascade_subscription_events_delivered_total", "Events that were taken.");
const DISCARDED: Family = of_subscription("cascade_subscription_events_discarded_total", "Events that somebody gave up for good.");
const EXPIRED: Family = of_subscription("cascade_subscription_events_expired_total", "Events that the log lost before they were taken.");
const DEAD_LETTERED: Family =
    of_subscription("cascade_subscription_events_dead_lettered", "Events that were given up and wait for somebody to decide.");
const PENDING: Family = of_subscription("cascade_subscription_events_pending", "Events that were read and wait to be taken.");
const LAG_EVENTS: Family = of_subscription("cascade_subscription_lag_events", "Events that wait to be taken, read or not.");
const LAG: Family =
    of_subscription("cascade_subscription_lag_seconds", "How long the oldest event waits that does not wait behind a dead letter.");
const LANES: Family =
    Family { name: "cascade_subscription_lanes", help: "Orders that wait, by what for.", labels: &["subscription", "state"] };
const STATE: Family =
    Family { name: "cascade_subscription_state", help: "1 for the state that it is in.", labels: &["subscription", "state"] };
const IN_FLIGHT: Family = of_subscription("cascade_subscription_deliveries_in_flight", "Deliveries under way.");
const ATTEMPTS: Family = Family {
    name: "cascade_subscription_attempts_total",
    help: "How often events were sent since the broker started, by what came of it.",
    labels: &["subscription", "outcome"],
};
const LOG_APPENDED: Family = of_log("cascade_log_appended_total", "The last position: how many events the log has taken.");
const LOG_FIRST: Family = of_log("cascade_log_first_position", "The position at which the log begins.");
const LOG_EVENTS: Family = of_log("cascade_log_events", "Events that the log holds.");
const LOG_BYTES: Family = of_log("cascade_log_bytes", "What they take, with their indexes.");
const LOG_FULL: Family = of_log("cascade_log_full", "1 while no events are taken because the log is at its limit.");
const STREAMS: Family = of_log("cascade_live_streams", "Live streams that are open.");
const STREAMS_CLOSED: Family = Family {
    name: "cascade_live_streams_closed_total",
    help: "Live streams that were closed since the broker started, by why.",
    labels: &["reason"],
};

impl Source for Broker {
    fn read<'a>(&'a self, page: &'a mut Page) -> BoxFuture<'a, ()> {
        Box::pin(async {
            self.read_log(page);
            let tally = &self.shared.live.tally;
            page.gauge(&STREAMS, &[], number(tally.open()));
            for (reason, count) in tally.by_reason() {
                page.counter(&STREAMS_CLOSED, &[reason], unsigned(count));
            }
            match self.shared.subscriptions.describe_all(|_| true).await {
                Ok(all) => all.iter().for_each(|one| read_subscription(&one.name, &one.status, page)),
                Err(error) => tracing::warn!(%error, "the subscriptions cannot be shown"),
            }
        })
    }
}

impl Broker {
    fn read_log(&self, page: &mut Page) {
        let bounds = self.shared.engine.bounds();
        let (first, last) = (bounds.first.0, bounds.last.0);
        page.counter(&LOG_APPENDED, &[], number(last));
        page.gauge(&LOG_FIRST, &[], number(first));
        page.gauge(&LOG_EVENTS, &[], number(last.saturating_sub(first).saturating_add(1).max(0)));
        page.gauge(&LOG_BYTES, &[], unsigned(bounds.bytes));
        page.gauge(&LOG_FULL, &[], f64::from(u8::from(self.shared.inlet.is_full())));
    }
}

fn read_subscription(name: &str, status: &Status, page: &mut Page) {
    let counts = status.counts;
    page.counter(&MATCHED, &[name], number(counts.matched));
    page.counter(&DELIVERED, &[name], number(counts.delivered));
    page.counter(&DISCARDED, &[name], number(counts.discarded));
    page.counter(&EXPIRED, &[name], number(counts.expired));
    page.gauge(&DEAD_LETTERED, &[name], number(counts.dead_lettered));
    page.gauge(&PENDING, &[name], number(counts.pending));
    page.gauge(&LAG_EVENTS, &[name], number(status.lag_events));
    page.gauge(&LAG, &[name], unsigned(status.lag_s.unwrap_or(0)));
    page.gauge(&IN_FLIGHT, &[name], size(status.in_flight));
    for (state, count) in [("blocked", status.lanes_blocked), ("parked", status.lanes_parked), ("set_aside", status.lanes_set_aside)] {
        page.gauge(&LANES, &[name, state], size(count));
    }
    for (state, is) in
        [("active", State::Active), ("paused", State::Paused), ("holding", State::Holding), ("unattached", State::Unattached)]
    {
        page.gauge(&STATE, &[name, state], f64::from(u8::from(status.state == is)));
    }
    for (outcome, count) in status.attempts.by_name() {
        page.counter(&ATTEMPTS, &[name, outcome], unsigned(count));
    }
}

fn unsigned(count: u64) -> f64 {
    number(i64::try_from(count).unwrap_or(i64::MAX))
}

fn size(count: usize) -> f64 {
    number(i64::try_from(count).unwrap_or(i64::MAX))
}
