//! What the log may lose: nothing that a service of the shop has not applied, and of an outsider's events only what is counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use broker::{
    dispatcher::{Account, Reset},
    engine::{EngineError, LogEngine},
    lanes::Counts,
    retention::Limits,
};
use delivery::Deliveries;
use http::StatusCode;
use kit::{Machine, Position, ids::Ids};
use order::Orders;
use payment::Payments;
use serde_json::Value;

use crate::{
    archive::{Archive, Logged},
    invariants::Stores,
    partner::{PARTNER, Partner},
    world,
};

/// Sets what is drawn for the log apart from what is drawn for all else.
const SALT: u64 = 0x6c6f_6773_6c6f_6773;
/// How large the log may be, in bytes.
const BYTES_MAX: std::ops::Range<u64> = 2_000..16_000;
/// Longer than a taken event's answer is on its way, while the broker loses an event of it.
const ANSWERED_AFTER_MS: u64 = 1_500;
/// Longer than it takes until a taken event is known to be taken after a crash.
const SAVED_AFTER_MS: u64 = 3_500;

/// How the outsider is away.
#[derive(Debug, Clone, Copy)]
enum Away {
    /// Its subscription is paused.
    Paused,
    /// Its sink answers this.
    Refusing(StatusCode),
}

/// What one run does with the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// How much of it is kept.
    pub(crate) limits: Limits,
    /// How the outsider is away, from when, and for how long: long enough to lose events.
    away: Away,
    away_from_ms: u64,
    away_for_ms: u64,
    /// What the outsider refuses is given up for good at first, rather than tried again.
    is_discarding: bool,
}

impl Retention {
    /// Draws it; in every other run the log forgets nothing.
    pub(crate) fn draw(seed: u64) -> Option<Self> {
        let chance = Ids::seeded(seed ^ SALT);
        if chance.up_to(1) == 0 {
            return None;
        }
        let (forever, by) = (Limits::default(), chance.up_to(2));
        let (age_ms_max, bytes_max) = (200 + chance.up_to(1_500), BYTES_MAX.start + chance.up_to(BYTES_MAX.end - BYTES_MAX.start));
        let limits = match by {
            0 => Limits { age_ms_max, ..forever },
            1 => Limits { bytes_max, ..forever },
            _ => Limits { age_ms_max, bytes_max },
        };
        let away = match chance.up_to(2) {
            0 => Away::Paused,
            1 => Away::Refusing(StatusCode::NOT_FOUND),
            _ => Away::Refusing(StatusCode::SERVICE_UNAVAILABLE),
        };
        let (away_from_ms, away_for_ms) = (500 + chance.up_to(2_000), chance.up_to(2_500));
        Some(Self { limits, away, away_from_ms, away_for_ms, is_discarding: chance.up_to(2) == 0 })
    }

    /// From when, and for how long, the outsider's subscription is paused because it is away.
    pub(crate) fn pause(&self) -> Option<(u64, u64)> {
        matches!(self.away, Away::Paused).then_some((self.away_from_ms, self.away_for_ms))
    }

    /// What its sink answers at this time because it is away.
    pub(crate) fn refusal_at(&self, at_ms: u64) -> Option<StatusCode> {
        match self.away {
            Away::Refusing(status) if self.is_away_at(at_ms) => Some(status),
            Away::Refusing(_) | Away::Paused => None,
        }
    }

    /// Whether what it refused is given up for good at this time.
    pub(crate) fn is_discarding_at(&self, at_ms: u64) -> bool {
        self.is_discarding && at_ms < self.away_from_ms + self.away_for_ms
    }

    /// From when on what is left of the log is sent to it again.
    pub(crate) fn replays_from_ms(&self) -> u64 {
        self.away_from_ms
    }

    fn is_away_at(&self, at_ms: u64) -> bool {
        (self.away_from_ms..self.away_from_ms + self.away_for_ms).contains(&at_ms)
    }
}

/// The outsider's books, as the broker has saved them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    after: Position,
    pub(crate) floor: Position,
    pub(crate) counts: Counts,
    reset: Option<Reset>,
}

impl Saved {
    /// Where the broker keeps them.
    pub(crate) fn key() -> String {
        format!("floor/{PARTNER}")
    }

    /// Reads them.
    ///
    /// # Errors
    /// When the broker keeps them otherwise than this believes.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let mut json: Value = serde_json::from_str(text)?;
        let mut field = |name: &str| json.get_mut(name).map(Value::take).unwrap_or_default();
        Ok(Self {
            after: serde_json::from_value(field("after"))?,
            floor: serde_json::from_value(field("floor"))?,
            counts: serde_json::from_value(field("counts"))?,
            reset: serde_json::from_value(field("reset"))?,
        })
    }

    /// What of these books `log`, which is all that the log ever held, does not bear out.
    pub(crate) fn check(&self, log: &[Logged], partner: &Partner) -> Vec<String> {
        let counted: Vec<_> =
            log.iter().filter(|one| one.position > self.after && one.position <= self.floor && partner.wants(one)).collect();
        let (matched, counts) = (i64::try_from(counted.len()).unwrap_or(i64::MAX), self.counts);
        let taken = i64::try_from(counted.iter().filter(|one| partner.has(one)).count()).unwrap_or(i64::MAX);
        let mut wrong = Vec::new();
        if counts.total() != matched {
            wrong.push(format!("the partner's books are not the archive's: {matched} events up to {} and {counts:?}", self.floor));
        }
        if counts.delivered > taken {
            wrong.push(format!("the partner's books say {counts:?} up to {}, and it took {taken}", self.floor));
        }
        if counts.expired > 0 && self.reset.is_none() {
            wrong.push(format!("the partner lost {} events and is not told", counts.expired));
        }
        wrong
    }
}

/// Sees every event that the log loses.
#[derive(Clone)]
pub(crate) struct Witness {
    pub(crate) archive: Archive,
    stores: Stores,
    partner: Partner,
    before: Arc<Mutex<Before>>,
}

/// How many events the outsider had lost.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    /// When the log was told to forget last.
    last: i64,
    /// When it had done so: what it is told of while a crash keeps it from that is one loss.
    loss: i64,
}

impl Witness {
    pub(crate) fn new(archive: Archive, stores: Stores, partner: Partner) -> Self {
        Self { archive, stores, partner, before: Arc::default() }
    }

    /// The log is about to lose its events up to `up_to`.
    ///
    /// # Errors
    /// When the engine cannot read the outsider's books.
    pub(crate) async fn see_trim(&self, engine: &dyn LogEngine, up_to: Position) -> Result<(), EngineError> {
        let told = self.archive.tell(up_to);
        let losing: Vec<_> = self.archive.events().into_iter().filter(|one| one.position > told && one.position <= up_to).collect();
        let unapplied = unapplied(&self.stores, &losing).map_err(|error| EngineError::Failed(error.to_string()))?;
        self.archive.blame(unapplied.iter().map(|(service, event)| format!("{event} was trimmed before {service} had it")));
        if let Some(entry) = engine.state_get(&Saved::key()).await? {
            let saved = Saved::parse(&entry.value).map_err(|error| EngineError::Failed(error.to_string()))?;
            let is_done = engine.bounds().first > told;
            self.archive.blame(self.uncounted(&losing, &saved, is_done));
        }
        Ok(())
    }

    /// What the outsider loses is counted, no more and no less, and told. The trim before this one was done, or was broken off.
    fn uncounted(&self, losing: &[Logged], saved: &Saved, is_done: bool) -> Vec<String> {
        let now = saved.counts.expired;
        let before = {
            let mut kept = self.before.lock().unwrap_or_else(PoisonError::into_inner);
            let before = Before { loss: if is_done { kept.last } else { kept.loss }, ..*kept };
            *kept = Before { last: now, ..before };
            before
        };
        let (expired, whole) = (now - before.last, now - before.loss);
        let wanted: Vec<_> = losing.iter().filter(|one| one.position > saved.after && self.partner.wants(one)).collect();
        let count = |is_lost: &dyn Fn(&Logged) -> bool| i64::try_from(wanted.iter().filter(|one| is_lost(one)).count()).unwrap_or(i64::MAX);
        // Any of those that were given up for good may be among them.
        let least = count(&|one| !self.partner.has(one)) - saved.counts.discarded;
        let most = count(&|one| !self.is_known_to_be_taken(one));
        let mut wrong = Vec::new();
        if expired < least || expired > most {
            wrong.push(format!("the partner lost {least} to {most} events, and {expired} are counted"));
        }
        let told = saved.reset.map_or(0, |reset| reset.expired);
        if whole > 0 && told != whole {
            wrong.push(format!("the partner lost {whole} events, and is told of {told}"));
        }
        wrong
    }

    /// Whether the outsider has it.
    pub(crate) fn partner_has(&self, one: &Logged) -> bool {
        self.partner.has(one)
    }

    /// Up to where some subscription has let go of the log.
    pub(crate) fn released(&self) -> Position {
        self.stores.released().unwrap_or_default()
    }

    /// Whether `service` has applied it.
    pub(crate) fn is_applied(&self, service: &str, one: &Logged) -> bool {
        self.stores.unapplied(service, std::iter::once(one)).is_ok_and(|unapplied| unapplied.is_empty())
    }

    /// Whether the broker must know that the outsider took it.
    pub(crate) fn is_known_to_be_taken(&self, one: &Logged) -> bool {
        let now_ms = world::elapsed_ms();
        // Of one that was published twice only the first place is known.
        !one.is_again
            && self.partner.taken_at_ms(one).is_some_and(|at_ms| {
                at_ms + ANSWERED_AFTER_MS < now_ms && self.archive.lived_through(at_ms, (at_ms + SAVED_AFTER_MS).min(now_ms))
            })
    }
}

/// What services of the shop ask for of `log` and have not applied, each with its service.
///
/// # Errors
/// When a service's store cannot be read.
pub(crate) fn unapplied(stores: &Stores, log: &[Logged]) -> rusqlite::Result<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    for (service, types) in required() {
        let wanted = log.iter().filter(|one| types.contains(&one.event.ty.as_str()));
        let describe = |one: &Logged| format!("{} {} of order {}", one.event.ty, one.event.id, one.event.lane());
        found.extend(stores.unapplied(service, wanted)?.into_iter().map(|one| (service, describe(one))));
    }
    Ok(found)
}

/// The services of the shop, which must not lose any event of these types.
fn required() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([(Orders::NAME, Orders::SUBSCRIBES), (Payments::NAME, Payments::SUBSCRIBES), (Deliveries::NAME, Deliveries::SUBSCRIBES)])
}

/// What must hold in the end of `log`, which is all that the log ever held: the services have applied what they ask for; whatever the
/// outsider does not have is counted; and so is what each replay sent.
///
/// # Errors
/// When the broker's store cannot be read.
pub(crate) fn check_end(stores: &Stores, log: &[Logged], partner: &Partner) -> anyhow::Result<Vec<String>> {
    let Some(saved) = stores.partner_books()? else { return Ok(vec![String::from("the partner's subscription is gone")]) };
    let unapplied = unapplied(stores, log)?;
    let mut wrong: Vec<_> = unapplied.iter().map(|(service, event)| format!("{event} was never applied by {service}")).collect();
    let missing = partner.missing(log);
    let counted = usize::try_from(saved.counts.expired + saved.counts.discarded).unwrap_or(0);
    if missing.len() > counted {
        wrong.push(format!("the partner misses {} events, and its books say {:?}", missing.len(), saved.counts));
        wrong.extend(missing);
    }
    for replay in stores.replays()? {
        wrong.extend(check_replay(&replay, log, partner)?);
    }
    Ok(wrong)
}

fn check_replay(replay: &Value, log: &[Logged], partner: &Partner) -> anyhow::Result<Option<String>> {
    let field = |name: &str| replay.get(name).cloned().unwrap_or_default();
    let (after, to): (Position, Position) = (serde_json::from_value(field("after"))?, serde_json::from_value(field("to"))?);
    if field("ended").is_null() {
        return Ok(Some(format!("a replay from {} to {to} has not ended", after.next())));
    }
    let counts: Account = serde_json::from_value(field("ended").get("counts").cloned().unwrap_or_default())?;
    let asked: Vec<_> = log.iter().filter(|one| one.position > after && one.position <= to && partner.wants(one)).collect();
    let id = field("id").as_str().unwrap_or_default().to_owned();
    let (asked_for, replayed) = (asked.len(), partner.count_replayed(&id, asked.into_iter()));
    let is_right = usize::try_from(counts.matched) == Ok(asked_for)
        && counts.matched == counts.delivered + counts.dead_lettered + counts.expired
        && usize::try_from(counts.delivered).is_ok_and(|delivered| delivered <= replayed);
    Ok((!is_right).then(|| format!("a replay of {asked_for} events from {} to {to} brought {replayed}, and says {counts:?}", after.next())))
}
