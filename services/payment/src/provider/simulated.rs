//! A payment provider that is a file: what it did is in its ledger before it answers, as a real provider's books would have it.
//!
//! Its dice are a pure function of order, operation and key, so that a repeated call never rolls again. One loop writes the
//! ledger and commits whatever is queued in one transaction.

use std::path::Path;

use contract::events::DeclineReason;
use kit::{
    BoxFuture, Environment, Lifecycle,
    chance::{Chance, Pace},
    store::{Checkpoints, Durability, Readers, Store, StoreError},
};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{
    Charge, ChargeAnswer, Provider, ProviderError, Refund, RefundAnswer, StatusAnswer,
    store::{self, Entry, EntryKind, FirstOutage},
};
use crate::domain::ProviderKey;

/// How many calls may wait for the ledger; more are turned away.
const CALLS_MAX: usize = 4_096;
/// How many calls are committed together at most.
const BATCH_MAX: usize = 256;
/// How long an answer takes at most, in milliseconds of the demo.
const LATENCY_MS_MAX: u64 = 900;

/// How the provider's dice fall where no script says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Odds {
    /// Of 100 charges, how many are accepted.
    pub accepted_percent: u32,
    /// Of 100 calls, how many go through without an answer.
    pub timeout_percent: u32,
    /// Of 100 keys, how many are turned away the first time because the provider is down.
    pub unavailable_percent: u32,
}

impl Default for Odds {
    fn default() -> Self {
        Self { accepted_percent: 80, timeout_percent: 0, unavailable_percent: 0 }
    }
}

/// Why the provider cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gives no thread.
    #[error("the payment provider's loop cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// The simulated provider.
pub struct SimulatedProvider {
    calls: mpsc::Sender<Call>,
    readers: Readers,
    dice: Dice,
}

enum Call {
    Charge(Charge, oneshot::Sender<Result<ChargeAnswer, ProviderError>>),
    Status(ProviderKey, oneshot::Sender<Result<StatusAnswer, ProviderError>>),
    Refund(Refund, oneshot::Sender<Result<RefundAnswer, ProviderError>>),
}

/// An answer that is given when what it says is durable.
type Answer = Box<dyn FnOnce() + Send>;

impl SimulatedProvider {
    /// Opens the ledger `provider.db` in `folder` and starts its loop on `lifecycle`.
    ///
    /// # Errors
    /// When the ledger cannot be used or the loop cannot be started.
    pub fn start(
        folder: &Path,
        environment: &Environment,
        lifecycle: &Lifecycle,
        chance: Chance,
        pace: Pace,
        odds: Odds,
    ) -> Result<Self, StartError> {
        let durability = if environment.disk.is_durable() { Durability::Full } else { Durability::ProcessOnly };
        let store = Store::open(folder, "provider", store::MIGRATIONS, durability)?;
        let checkpoints = Checkpoints::start(&store, "payment-provider", environment, lifecycle)?;
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let (readers, dice) = (store.readers(), Dice { chance, pace, odds });
        let ledger = Ledger { store, checkpoints, dice, environment: environment.clone() };
        let writer = write(ledger, queue, lifecycle.clone());
        lifecycle.spawn_writer(environment.writers, "payment-provider", writer)?;
        Ok(Self { calls, readers, dice })
    }

    /// The whole ledger, oldest entry first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        self.readers.read(store::find_entries)
    }

    async fn call<T>(&self, call: impl FnOnce(oneshot::Sender<Result<T, ProviderError>>) -> Call) -> Result<T, ProviderError> {
        let (reply, answer) = oneshot::channel();
        self.calls.try_send(call(reply)).map_err(|_| ProviderError::Unavailable)?;
        answer.await.unwrap_or(Err(ProviderError::Unavailable))
    }
}

impl Provider for SimulatedProvider {
    fn charge(&self, charge: Charge) -> BoxFuture<'_, Result<ChargeAnswer, ProviderError>> {
        Box::pin(self.call(|reply| Call::Charge(charge, reply)))
    }

    fn status(&self, key: ProviderKey) -> BoxFuture<'_, Result<StatusAnswer, ProviderError>> {
        Box::pin(self.call(|reply| Call::Status(key, reply)))
    }

    fn refund(&self, refund: Refund) -> BoxFuture<'_, Result<RefundAnswer, ProviderError>> {
        Box::pin(self.call(|reply| Call::Refund(refund, reply)))
    }

    fn answers_after_ms(&self, key: &ProviderKey) -> u64 {
        self.dice.pace.takes_ms(self.dice.chance.up_to(LATENCY_MS_MAX, &[key.as_str(), "latency"]))
    }
}

/// Takes whatever is queued, writes it in one durable transaction, and only then answers.
async fn write(mut ledger: Ledger, mut queue: mpsc::Receiver<Call>, lifecycle: Lifecycle) {
    loop {
        let first = tokio::select! {
            biased;
            () = lifecycle.halted() => return,
            call = queue.recv() => match call {
                Some(call) => call,
                None => return,
            },
        };
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(call) = queue.try_recv()
        {
            batch.push(call);
        }
        match ledger.commit(batch).await {
            Ok(answers) => answers.into_iter().for_each(|answer| answer()),
            // Dropped callers hear that the provider is unavailable, and ask again by key.
            Err(error) if error.is_fatal() => return lifecycle.fail(format!("payment provider's ledger: {error}")),
            Err(error) => tracing::error!(%error, "payment provider's ledger failed"),
        }
    }
}

/// What the writing loop owns.
struct Ledger {
    store: Store,
    checkpoints: Checkpoints,
    dice: Dice,
    environment: Environment,
}

impl Ledger {
    /// Applies `batch` in one durable transaction and gives the answers that may be given now.
    async fn commit(&mut self, batch: Vec<Call>) -> Result<Vec<Answer>, StoreError> {
        self.store.begin().await?;
        let dice = self.dice;
        let applied: Result<Vec<Answer>, StoreError> = batch.into_iter().map(|call| apply(&self.store.connection, call, dice)).collect();
        let done = match applied {
            Ok(answers) => {
                self.environment.disk.before_commit().await;
                self.store.connection.execute_batch("commit").map(|()| answers).map_err(StoreError::from)
            }
            Err(error) => Err(error),
        };
        if done.is_ok() {
            self.environment.disk.after_commit().await;
            self.checkpoints.committed();
        } else if !self.store.connection.is_autocommit() {
            self.store.connection.execute_batch("rollback")?;
        }
        done
    }
}

fn apply(connection: &Connection, call: Call, dice: Dice) -> Result<Answer, StoreError> {
    Ok(match call {
        Call::Charge(charge, reply) => answer(reply, take(connection, &charge, dice)?),
        Call::Status(key, reply) => answer(reply, Ok(status(connection, &key)?)),
        Call::Refund(refund, reply) => answer(reply, give_back(connection, &refund, dice)?),
    })
}

/// Whoever has stopped waiting asks again by key, so an answer that nobody takes is no loss.
fn answer<T: Send + 'static>(reply: oneshot::Sender<T>, answer: T) -> Answer {
    Box::new(move || drop(reply.send(answer)))
}

fn take(connection: &Connection, charge: &Charge, dice: Dice) -> Result<Result<ChargeAnswer, ProviderError>, StoreError> {
    if let Some(known) = store::find_entry(connection, &charge.key)? {
        return Ok(Ok(charge_answer(&known)));
    }
    let asked = [&*charge.order_id.to_string(), "charge", charge.key.as_str()];
    if dice.is_down(asked) && store::note_outage(connection, &charge.key)? == FirstOutage::IsNow {
        return Ok(Err(ProviderError::Unavailable));
    }
    let answer = dice.charge(asked, charge.context.scenario.as_deref());
    let (kind, reason) = match answer {
        ChargeAnswer::Succeeded => (EntryKind::Charge, None),
        ChargeAnswer::Declined(reason) => (EntryKind::Decline, Some(reason)),
    };
    let (key, order_id, amount) = (charge.key.clone(), charge.order_id, charge.amount);
    store::append(connection, &Entry { key, order_id, kind, amount, reason, charge_key: None })?;
    let is_lost = charge.context.scenario.as_deref() == Some("12") || dice.loses_answer(asked);
    Ok(if is_lost { Err(ProviderError::Timeout) } else { Ok(answer) })
}

fn status(connection: &Connection, key: &ProviderKey) -> Result<StatusAnswer, StoreError> {
    Ok(match store::find_entry(connection, key)? {
        None => StatusAnswer::NotFound,
        Some(entry) => match charge_answer(&entry) {
            ChargeAnswer::Succeeded => StatusAnswer::Succeeded,
            ChargeAnswer::Declined(reason) => StatusAnswer::Declined(reason),
        },
    })
}

/// A decline has a reason, and nothing else has one: the ledger's rows are checked for that.
fn charge_answer(entry: &Entry) -> ChargeAnswer {
    entry.reason.map_or(ChargeAnswer::Succeeded, ChargeAnswer::Declined)
}

fn give_back(connection: &Connection, refund: &Refund, dice: Dice) -> Result<Result<RefundAnswer, ProviderError>, StoreError> {
    if store::find_entry(connection, &refund.key)?.is_some() {
        return Ok(Ok(RefundAnswer::Succeeded));
    }
    let charge = store::find_entry(connection, &refund.charge_key)?.filter(|entry| entry.kind == EntryKind::Charge);
    let Some(charge) = charge else {
        tracing::error!(key = refund.key.as_str(), "a refund of what was never charged is not carried out");
        return Ok(Err(ProviderError::Unavailable));
    };
    let returned_minor = store::sum_refunds(connection, &refund.charge_key)?;
    if returned_minor.saturating_add(refund.amount.amount_minor()) > charge.amount.amount_minor() {
        tracing::error!(key = refund.key.as_str(), "a refund of more than was charged is not carried out");
        return Ok(Err(ProviderError::Unavailable));
    }
    let asked = [&*charge.order_id.to_string(), "refund", refund.key.as_str()];
    if dice.is_down(asked) && store::note_outage(connection, &refund.key)? == FirstOutage::IsNow {
        return Ok(Err(ProviderError::Unavailable));
    }
    let entry = Entry {
        key: refund.key.clone(),
        order_id: charge.order_id,
        kind: EntryKind::Refund,
        amount: refund.amount,
        reason: None,
        charge_key: Some(refund.charge_key.clone()),
    };
    store::append(connection, &entry)?;
    Ok(if dice.loses_answer(asked) { Err(ProviderError::Timeout) } else { Ok(RefundAnswer::Succeeded) })
}

/// The provider's chance: a pure function of order, operation and key.
#[derive(Debug, Clone, Copy)]
struct Dice {
    chance: Chance,
    pace: Pace,
    odds: Odds,
}

impl Dice {
    /// Scenario 2 is a card that is declined; 3, 11 and 12 teach something else than that.
    fn charge(&self, asked: [&str; 3], scenario: Option<&str>) -> ChargeAnswer {
        let is_accepted = match scenario {
            Some("2") => false,
            Some("3" | "11" | "12") => true,
            _ => self.happens(self.odds.accepted_percent, asked, "accepted"),
        };
        if is_accepted {
            ChargeAnswer::Succeeded
        } else if self.happens(50, asked, "funds") {
            ChargeAnswer::Declined(DeclineReason::InsufficientFunds)
        } else {
            ChargeAnswer::Declined(DeclineReason::CardDeclined)
        }
    }

    fn is_down(&self, asked: [&str; 3]) -> bool {
        self.happens(self.odds.unavailable_percent, asked, "down")
    }

    fn loses_answer(&self, asked: [&str; 3]) -> bool {
        self.happens(self.odds.timeout_percent, asked, "lost")
    }

    fn happens(&self, percent: u32, [order_id, operation, key]: [&str; 3], what: &str) -> bool {
        self.chance.happens(percent, &[order_id, operation, key, what])
    }
}

#[cfg(test)]
mod tests;
