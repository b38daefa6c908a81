//! One subscription whole.

use kit::Position;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Desk,
    list::{Status, mood},
};
use crate::{
    events::why::with_status,
    form::count,
    operator::Answer,
    scenario::drawing::printable,
    when::{Time, span},
};

#[derive(Deserialize)]
struct Subscription {
    name: String,
    sink: Option<String>,
    types: Option<Vec<String>>,
    #[serde(default)]
    filters: Vec<Value>,
    start: Value,
    revision: i64,
    required: Option<bool>,
    on_exhausted: String,
    batch: Map<String, Value>,
    retry: Map<String, Value>,
    status: Standing,
    security: Security,
}

/// How it stands.
#[derive(Deserialize)]
struct Standing {
    #[serde(flatten)]
    brief: Status,
    after: Position,
    floor: Position,
    read_head: Position,
    oldest_unacknowledged: Option<Oldest>,
    in_flight: u64,
    in_flight_max: u64,
    lanes_set_aside: u64,
    counts: Counts,
    reset: Option<Reset>,
    next_attempt: Option<Time>,
}

#[derive(Deserialize)]
struct Oldest {
    position: Position,
    lane: String,
    published_at: Time,
}

/// What became of its events.
#[derive(Deserialize)]
pub(super) struct Counts {
    matched: i64,
    delivered: i64,
    dead_lettered: i64,
    discarded: i64,
    expired: i64,
    pending: i64,
}

#[derive(Deserialize)]
struct Reset {
    after: Position,
    up_to: Position,
    expired: i64,
    at: Time,
}

#[derive(Deserialize)]
struct Security {
    token: Option<String>,
    secret_since: Option<Time>,
    previous_secret_until: Option<Time>,
    consent: Option<Consent>,
}

#[derive(Deserialize)]
struct Consent {
    origin: String,
    rate_per_minute: Option<u64>,
    at: Time,
}

impl Counts {
    /// The sum, and what it is made of.
    pub(super) fn words(&self) -> String {
        let Self { matched, delivered, dead_lettered, discarded, expired, pending } = self;
        format!(
            "{matched} asked for = {delivered} delivered + {dead_lettered} dead letters + {discarded} discarded + {expired} expired + \
             {pending} pending"
        )
    }
}

/// Shows it.
pub(super) async fn run(desk: &Desk, name: &str) -> anyhow::Result<()> {
    let answer = desk.shop.get(&format!("/api/subscriptions/{name}")).await?;
    desk.form.show(&answer, || draw(desk, &answer))
}

/// A subscription for people.
pub(super) fn draw(desk: &Desk, answer: &Answer) -> anyhow::Result<String> {
    let one: Subscription = answer.read()?;
    let (form, when) = (desk.form, &desk.when());
    let (status, place) = (&one.status.brief, &one.status);
    let state = form.mood(mood(&status.state), &printable(&status.state));
    let error = status.last_error.as_ref();
    let lag = match (status.lag_events, status.lag_s) {
        (0, _) => String::from("none: everything was taken"),
        (events, None) => count(events.unsigned_abs(), "event"),
        (events, Some(seconds)) => format!("{}, the oldest for {}", count(events.unsigned_abs(), "event"), span(seconds)),
    };
    let oldest = place
        .oldest_unacknowledged
        .as_ref()
        .map(|oldest| format!("event {} of lane {}, published {}", oldest.position, oldest.lane, when.full(oldest.published_at.0)));
    let letters = match status.dead_letters {
        0 => String::from("none"),
        1 => format!("1 waits for somebody: cascade dead-letters list {}", one.name),
        letters => format!("{letters} wait for somebody: cascade dead-letters list {}", one.name),
    };
    let stands = form.fields(&[
        ("lag", Some(lag)),
        ("oldest", oldest),
        (
            "lanes",
            Some(format!(
                "{} wait for the next attempt, {} behind a dead letter; {} are set aside",
                status.lanes_blocked, status.lanes_parked, place.lanes_set_aside
            )),
        ),
        ("dead letters", Some(letters)),
        ("last error", error.map(|error| format!("{} ({})", with_status(error.status, &error.reason), when.full(error.at.0)))),
        ("next attempt", place.next_attempt.map(|next| format!("{} ({})", when.due(next.0), when.moment(next.0)))),
        ("in flight", Some(format!("{} deliveries, of {} at most", place.in_flight, place.in_flight_max))),
        ("account", Some(place.counts.words())),
        (
            "place",
            Some(format!(
                "starts after {}; all up to {} is taken or set aside; the log was read up to {}",
                place.after, place.floor, place.read_head
            )),
        ),
        (
            "reset",
            place.reset.as_ref().map(|reset| {
                format!(
                    "the log lost {} of its events between {} and {}, {}",
                    reset.expired,
                    reset.after.next(),
                    reset.up_to,
                    when.full(reset.at.0)
                )
            }),
        ),
    ]);
    Ok(format!("{} is {state}\n{stands}\n{}", form.bold(&printable(&one.name)), asks_for(desk, &one, answer.etag.clone())))
}

fn asks_for(desk: &Desk, one: &Subscription, etag: Option<String>) -> String {
    let (when, security) = (&desk.when(), &one.security);
    let json = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs = |map: &Map<String, Value>| {
        let pairs = map.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| format!("{name} {}", json(value)));
        Some(pairs.collect::<Vec<_>>().join(", "))
    };
    let filters = one.filters.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let secret = match (&security.secret_since, &security.previous_secret_until) {
        (None, _) => String::from("follows from the shop's, and its name"),
        (Some(since), None) => format!("since {}", when.moment(since.0)),
        (Some(since), Some(until)) => format!("since {}; the one before signs too until {}", when.moment(since.0), when.moment(until.0)),
    };
    let consent = security.consent.as_ref().map(|consent| {
        let rate = consent.rate_per_minute.map_or_else(|| String::from("at any rate"), |rate| format!("at {rate} requests a minute"));
        format!("to {}, {rate}, {}", consent.origin, when.moment(consent.at.0))
    });
    desk.form.fields(&[
        ("sink", Some(one.sink.clone().unwrap_or_else(|| String::from("a service in the broker's own process")))),
        ("types", Some(one.types.as_ref().map_or_else(|| String::from("all"), |types| types.join("\n")))),
        ("filters", Some(filters).filter(|filters| !filters.is_empty())),
        ("start", Some(json(&one.start))),
        ("batch", pairs(&one.batch)),
        ("retry", pairs(&one.retry)),
        ("on exhausted", Some(one.on_exhausted.clone())),
        ("required", one.required.map(|required| if required { "yes: the log waits for it" } else { "no" }.to_owned())),
        ("token", security.token.clone()),
        ("secret", Some(secret)),
        ("consent", consent),
        ("revision", Some(one.revision.to_string())),
        ("ETag", etag),
    ])
}
