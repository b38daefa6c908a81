//! Pausing, seeking and auditing a subscription, and how it stands in full.

use std::sync::atomic::Ordering;

use kit::{Position, Recorded};
use tokio::sync::oneshot;

use super::{Subscription, Subscriptions, stored::Stored, wanted::Start};
use crate::{
    audit::{AuditError, Books, Folding, Report},
    dispatcher::{Instruction, Look, Oldest},
    engine::EngineError,
    lanes::Lane,
};

/// How many events that were not read yet are looked at for those that are asked for: of one subscription, and of each of many.
const LAG_EVENTS_MAX: usize = 10_000;
const LAG_EVENTS_EACH_MAX: usize = 1_000;
/// How many events are read at once.
const PAGE_EVENTS: usize = 1_000;

/// How often an audit is begun when the log is trimmed in the middle of it.
const AUDITS_MAX: usize = 3;

/// Why nothing was done with a subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OperateError {
    /// There is no subscription of this name.
    #[error("there is no subscription `{0}`")]
    Unknown(String),
    /// The engine could not do it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What of the log a subscription has not read yet.
#[derive(Default)]
struct Unread {
    events: i64,
    first: Option<Recorded>,
}

impl Subscriptions {
    /// A subscription, and how it stands in full: with what it asks for of the events that it has not read yet.
    pub(crate) async fn describe(&self, name: &str) -> Result<Subscription, OperateError> {
        self.describe_within(name, LAG_EVENTS_MAX).await
    }

    async fn describe_within(&self, name: &str, looked_max: usize) -> Result<Subscription, OperateError> {
        let look = self.tell(name, |reply| Instruction::Look { reply }).await?;
        let (mut subscription, stored) = {
            let entries = self.entries();
            let entry = entries.get(name).ok_or_else(|| OperateError::Unknown(name.to_owned()))?;
            (entry.show(name, self.environment.clock.now()), entry.stored.clone())
        };
        let unread = self.unread(&stored, look.status.read_head, looked_max).await?;
        let oldest = self.oldest(&stored, &look, unread.first).await?;
        let now = self.environment.clock.now();
        subscription.status = look.status;
        subscription.status.lag_events = subscription.status.counts.pending.saturating_add(unread.events);
        subscription.status.lag_s = oldest.as_ref().map(|oldest| now.since(oldest.published_at).as_secs());
        subscription.status.oldest_unacknowledged = oldest;
        Ok(subscription)
    }

    /// The same, of all subscriptions that are wanted.
    pub(crate) async fn describe_all(&self, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<Subscription>, OperateError> {
        let mut all = Vec::new();
        for subscription in self.list().into_iter().filter(|subscription| is_wanted(&subscription.name)) {
            match self.describe_within(&subscription.name, LAG_EVENTS_EACH_MAX).await {
                Ok(described) => all.push(described),
                // It was removed meanwhile.
                Err(OperateError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// How many events after `after` are asked for. Of many only the first are looked at; behind those all are counted.
    async fn unread(&self, stored: &Stored, mut after: Position, looked_max: usize) -> Result<Unread, EngineError> {
        let (last, mut unread, mut looked) = (self.engine.tail().last(), Unread::default(), 0);
        while after < last && looked < looked_max {
            let page = match self.engine.read(after, PAGE_EVENTS).await {
                Ok(page) => page,
                // It is about to find that out.
                Err(EngineError::Trimmed { first }) => {
                    after = Position(first.0 - 1);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(end) = page.last() else { break };
            after = end.position;
            looked += page.len();
            for one in page.into_iter().filter(|one| stored.selection_at(one.position).takes(&one.event)) {
                unread.events += 1;
                unread.first.get_or_insert(one);
            }
        }
        unread.events = unread.events.saturating_add(last.0.saturating_sub(after.0).max(0));
        Ok(unread)
    }

    /// The oldest event that waits to be taken.
    async fn oldest(&self, stored: &Stored, look: &Look, unread: Option<Recorded>) -> Result<Option<Oldest>, EngineError> {
        let known = match look.oldest {
            Some(position) => unless_trimmed(self.engine.read_one(position).await)?,
            None => None,
        };
        let aside = match &look.oldest_aside {
            Some((first, lane)) => unless_trimmed(self.first_of(stored, lane, *first).await)?,
            None => None,
        };
        let candidates = [known, aside, unread].into_iter().flatten();
        let Some(oldest) = candidates.min_by_key(|one| one.position) else { return Ok(None) };
        let published_at = self.engine.time_after(Position(oldest.position.0 - 1)).await?;
        let (position, lane) = (oldest.position, oldest.event.lane().to_owned());
        Ok(published_at.map(|published_at| Oldest { position, lane, published_at }))
    }

    /// The first event of `lane` from `first` on that is asked for; it is looked for in one page.
    async fn first_of(&self, stored: &Stored, lane: &Lane, first: Position) -> Result<Option<Recorded>, EngineError> {
        let page = self.engine.read_lane(lane.as_str(), Position(first.0 - 1), PAGE_EVENTS).await?;
        Ok(page.into_iter().find(|one| stored.selection_at(one.position).takes(&one.event)))
    }

    /// Delivers nothing from now on, or delivers again.
    pub(crate) async fn pause(&self, name: &str, is_paused: bool) -> Result<(), OperateError> {
        self.tell(name, |reply| Instruction::Pause { is_paused, reply }).await?;
        self.tell_replays(name, || Instruction::Pause { is_paused, reply: oneshot::channel().0 }).await;
        Ok(())
    }

    /// Starts anew at `start`; answers the position after which that is. See [`crate::keeping::Keeping::seek`].
    pub(crate) async fn seek(&self, name: &str, start: Start) -> Result<Position, OperateError> {
        let _one_at_a_time = self.changing.lock().await;
        let after = self.resolve(start).await?;
        let configured = self.tell(name, |reply| Instruction::Seek { after, reply }).await?;
        if let Some(entry) = self.entries().get_mut(name) {
            (entry.stored, entry.version) = (configured.stored, configured.version);
        }
        Ok(after)
    }

    /// The position after which a subscription starts. What the log has lost already, or is about to, is before that.
    pub(crate) async fn resolve(&self, start: Start) -> Result<Position, EngineError> {
        let before = |position: Position| Position(position.0.saturating_sub(1).max(0));
        let earliest = before(self.engine.bounds().first).max(Position(self.let_go.load(Ordering::Relaxed)));
        Ok(match start {
            Start::Earliest => earliest,
            Start::Latest => self.engine.tail().last(),
            Start::Position(position) => before(position).max(earliest),
            Start::Time(time) => self.engine.find_time(time).await?.max(earliest),
        })
    }

    /// Audits the books of the subscription `name` against the log, while both are in use.
    pub(crate) async fn audit(&self, name: &str) -> Result<Report, AuditError> {
        Ok(self.begin_audit(name, || false).await?.report())
    }

    /// Begins such an audit, and reads the log until all is read or `is_enough`.
    pub(crate) async fn begin_audit(&self, name: &str, is_enough: impl Fn() -> bool) -> Result<Folding, AuditError> {
        let mut tries = 0;
        loop {
            let (stored, books) = self.tell(name, |reply| Instruction::Show { reply }).await.map_err(|error| match error {
                OperateError::Unknown(name) => AuditError::Unknown(name),
                OperateError::Engine(error) => AuditError::Engine(error),
            })?;
            tries += 1;
            match self.fold_some(stored, books, &is_enough).await {
                Ok(folding) => return Ok(folding),
                // The log was trimmed meanwhile; the books know it by now.
                Err(EngineError::Trimmed { .. }) if tries < AUDITS_MAX => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn fold_some(&self, stored: Stored, books: Books, is_enough: impl Fn() -> bool) -> Result<Folding, EngineError> {
        let mut folding = Folding::begin(self.engine.as_ref(), stored, books)?;
        self.go_on_with_audit(&mut folding, is_enough).await?;
        Ok(folding)
    }

    /// Reads on, a page at least, until all is read or `is_enough`.
    pub(crate) async fn go_on_with_audit(&self, folding: &mut Folding, is_enough: impl Fn() -> bool) -> Result<(), EngineError> {
        while !folding.is_done() {
            folding.read_page(self.engine.as_ref()).await?;
            if is_enough() {
                break;
            }
        }
        Ok(())
    }

    /// Tells the dispatcher of `name` something, and waits for its answer.
    pub(super) async fn tell<T>(
        &self,
        name: &str,
        instruction: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Instruction,
    ) -> Result<T, OperateError> {
        let instructions = self.entries().get(name).map(|entry| entry.instructions.clone());
        let instructions = instructions.ok_or_else(|| OperateError::Unknown(name.to_owned()))?;
        let (reply, answer) = oneshot::channel();
        instructions.send(instruction(reply)).await.map_err(|_| EngineError::Closed)?;
        Ok(answer.await.map_err(|_| EngineError::Closed)??)
    }
}

/// What the log has lost since it was said to wait does not wait any more.
fn unless_trimmed(found: Result<Option<Recorded>, EngineError>) -> Result<Option<Recorded>, EngineError> {
    match found {
        Err(EngineError::Trimmed { .. }) => Ok(None),
        found => found,
    }
}
