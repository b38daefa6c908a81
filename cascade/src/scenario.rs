//! `cascade scenario`: runs a scenario on a running shop, and shows its cascade until the order has ended. It is a client like any other:
//! it uses the public HTTP API only, and goes on by itself when the shop was away for a while.

/// The requests, and what is wrong when they fail.
mod shop;

/// Server-sent events, read while they come.
pub(crate) mod feed;

/// What is shown of it, for people or for machines.
mod screen;

/// One line for each event: its place in the cascade, when, who and what.
pub(crate) mod drawing;

use std::time::Duration;

use anyhow::{Context, bail};
use contract::{Event, api::ScenarioRun, events::CancelReason};
use kit::{Envelope, Environment};
use tokio::time::Instant;

use crate::{cli::ScenarioFlags, signals::Signals};
use screen::Screen;
use shop::{Scenario, Shop, Trouble};

/// The pause before something is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The exit code after an interrupt: 128 and SIGINT's number, as shells have it.
pub(crate) const EXIT_INTERRUPTED: i32 = 130;

/// Runs the scenario, or lists them all.
pub(crate) fn run(flags: &ScenarioFlags) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime cannot be started")?;
    runtime.block_on(async {
        let shop = Shop::at(&flags.url, &Environment::real()?);
        let catalogue = shop.scenarios().await?;
        let screen = Screen::new(flags.json, flags.color);
        let Some(number) = flags.number else { return screen.list(&catalogue, &flags.url) };
        let Some(scenario) = catalogue.iter().find(|scenario| scenario.number == number) else {
            let numbers: Vec<String> = catalogue.iter().map(|scenario| scenario.number.to_string()).collect();
            bail!("there is no scenario {number}; this shop has {}", numbers.join(", "));
        };
        watch(shop, scenario, &screen, Duration::from_secs(flags.timeout)).await
    })
}

/// Starts the scenario, and shows it until its end or until the time is over.
async fn watch(mut shop: Shop, scenario: &Scenario, screen: &Screen, timeout: Duration) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("signals cannot be listened to")?;
    let deadline = Instant::now() + timeout;
    let mut run = None;
    let ended = tokio::select! {
        biased;
        ended = start_and_follow(&mut shop, scenario, screen, &mut run) => Some(ended),
        () = signals.next() => {
            screen.leave();
            std::process::exit(EXIT_INTERRUPTED)
        }
        () = tokio::time::sleep_until(deadline) => None,
        () = screen.keep_alive() => None,
    };
    let end = ended.transpose();
    screen.leave();
    let end = end?;
    screen.sum_up(scenario, end, run.as_ref().map(|run| (run, shop.url_of(&run.links.page))))?;
    match end {
        Some(end) if scenario.ends.iter().any(|documented| documented == end) => Ok(()),
        Some(end) => bail!("the order ended as `{end}`, which is no end of scenario {}", scenario.number),
        None => bail!("{}", why_no_end(scenario, screen, run.is_some(), timeout)),
    }
}

fn why_no_end(scenario: &Scenario, screen: &Screen, is_started: bool, timeout: Duration) -> String {
    let what = if is_started { "reached no end" } else { "could not be started" };
    let why = screen.trouble().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("scenario {} {what} within {} s{why}", scenario.number, timeout.as_secs())
}

/// Gives the end. `run` is known from the moment on that there is an order.
async fn start_and_follow(
    shop: &mut Shop,
    scenario: &Scenario,
    screen: &Screen,
    run: &mut Option<ScenarioRun>,
) -> anyhow::Result<&'static str> {
    let started = loop {
        match shop.start(scenario.number).await {
            Ok(started) => break started,
            Err(Trouble::Passing(reason)) => screen.away(&reason)?,
            Err(Trouble::Lasting(reason)) => bail!("{reason}"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    };
    screen.back()?;
    screen.introduce(scenario, &shop.url_of(&started.links.page))?;
    let live = started.links.live.clone();
    *run = Some(started);
    follow(shop, &live, screen).await
}

/// Shows the order's events, and takes up again behind the last one whenever the stream breaks.
async fn follow(shop: &Shop, live: &str, screen: &Screen) -> anyhow::Result<&'static str> {
    let mut last: Option<i64> = None;
    loop {
        let reason = match shop.follow(live, last).await {
            Err(Trouble::Lasting(reason)) => bail!("{reason}"),
            Err(Trouble::Passing(reason)) => reason,
            Ok(mut feed) => {
                screen.back()?;
                loop {
                    let sent = match feed.next().await {
                        Ok(Some(sent)) => sent,
                        Ok(None) => break String::from("the stream of its events ended"),
                        Err(error) => break error.to_string(),
                    };
                    match sent.name.as_str() {
                        "" | "message" => {}
                        "reset" => bail!("the shop has come back with other data, and does not know the order"),
                        // The stream speaks of itself.
                        _ => continue,
                    }
                    // A repeated start of the stream may repeat an event; never show it twice.
                    let Some(position) = sent.id.parse().ok().filter(|position| last.is_none_or(|last| last < *position)) else { continue };
                    last = Some(position);
                    let event: Envelope = serde_json::from_str(&sent.data).context("the shop sent an event that cannot be read")?;
                    screen.show(&event, &sent.data)?;
                    if let Some(end) = end_of(&event) {
                        return Ok(end);
                    }
                }
            }
        };
        screen.away(&reason)?;
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// The end as the catalogue spells it, when this event is one.
fn end_of(event: &Envelope) -> Option<&'static str> {
    match Event::read(&event.ty, event.data.as_deref()) {
        Ok(Event::OrderCompleted(_)) => Some("completed"),
        Ok(Event::OrderCancelled(data)) => Some(match data.reason {
            CancelReason::CustomerRequest => "cancelled_customer_request",
            CancelReason::PaymentDeclined => "cancelled_payment_declined",
            CancelReason::NoWorker => "cancelled_no_worker",
        }),
        _ => None,
    }
}

/// An end in words; one that is not known here as it is spelled.
fn end_in_words(end: &str) -> String {
    match end {
        "completed" => String::from("delivered and paid"),
        "cancelled_payment_declined" => String::from("cancelled, nothing charged"),
        "cancelled_no_worker" => String::from("cancelled, money returned"),
        "cancelled_customer_request" => String::from("cancelled by the customer"),
        other => drawing::printable(&other.replace('_', " ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_the_catalogue_has_words() {
        for scenario in storefront::scenarios::CATALOGUE {
            for end in scenario.ends {
                let code = serde_json::to_value(end).unwrap();
                assert_eq!(end_in_words(code.as_str().unwrap()), end.in_words());
            }
        }
    }

    #[test]
    fn an_order_ends_with_its_own_last_event_only() {
        let event = |ty: &str, data: &str| -> Envelope {
            serde_json::from_str(&format!(
                r#"{{"specversion":"1.0","id":"1","source":"/order","type":"cascade.{ty}.v1","subject":"01890a5d-ac96-774b-bcce-b302099a8057","data":{data}}}"#
            ))
            .unwrap()
        };
        assert_eq!(end_of(&event("OrderCancelled", r#"{"reason":"no_worker"}"#)), Some("cancelled_no_worker"));
        assert_eq!(end_of(&event("DeliveryCompleted", r#"{"worker_id":"worker-01","attempt":1}"#)), None);
        assert_eq!(end_of(&event("OrderArchived", "{}")), None);
    }
}
