//! The log is to lose its oldest events: a subscription that must not lose any holds it, another one counts what it loses.

use kit::{
    Position, Recorded,
    planted::{Bug, is_planted},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dispatcher, PAGE_EVENTS, Run};
use crate::{engine::EngineError, lanes::Lane, wire};

/// How many positions of the log are given up at once.
const SLICE_POSITIONS: i64 = 4_096;

/// Events that were lost before they were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reset {
    /// Everything up to here was taken, or given up.
    pub after: Position,
    /// What was not taken up to here is lost.
    pub up_to: Position,
    /// How many events that is.
    pub expired: i64,
    /// When.
    #[serde(with = "wire::time")]
    #[schemars(with = "kit::Timestamp")]
    pub at: kit::Timestamp,
}

/// Where a loss began.
#[derive(Debug, Clone, Copy)]
struct Loss {
    /// Everything up to here was taken, or given up.
    after: Position,
    /// How many events had been lost before.
    expired_before: i64,
}

impl Dispatcher {
    /// Lets the log lose its events up to `up_to`, or as many of them as it can spare. Answers up to where; that is saved.
    pub(super) async fn release(&self, run: &mut Run, up_to: Position) -> Result<Position, EngineError> {
        self.flush(run).await?;
        let settled = run.lanes.settled_up_to();
        let is_held = self.stored.wanted.required == Some(true) && !is_planted(Bug::LoseRequired);
        let released = if is_held { up_to.min(settled) } else { up_to };
        let first = self.engine.bounds().first;
        let (start, end) = (settled.max(Position(first.0 - 1)), self.last_wanted(released));
        let loss = self.loss(run, first);
        // From here on the log need not have what was counted.
        self.set_checkpoint(run);
        let cursor = run.keeping.cursor_mut();
        cursor.released = cursor.released.max(released);
        let mut at = start.min(end);
        loop {
            let next = Position(at.0.saturating_add(SLICE_POSITIONS)).min(end);
            self.lose(run, next, loss).await?;
            self.flush(run).await?;
            at = next;
            if at >= end {
                break;
            }
        }
        let expired = run.lanes.counts().expired - loss.expired_before;
        if expired > 0 {
            tracing::warn!(subscription = self.name, expired, %released, "events were lost before they were taken");
        }
        self.set_checkpoint(run);
        self.flush(run).await?;
        Ok(released)
    }

    /// The log begins behind what is needed: somebody trimmed it without asking. What is gone is lost; how much of it was asked for, and
    /// waited in lanes that were set aside, nobody knows any more.
    pub(super) async fn skip_to(&self, run: &mut Run, first: Position) {
        let (loss, up_to) = (self.loss(run, first), self.last_wanted(Position(first.0 - 1)));
        tracing::error!(subscription = self.name, after = %loss.after, %up_to, "the log lost events that were still needed");
        if let Err(error) = self.lose(run, up_to, loss).await {
            return self.pause(run, &error).await;
        }
        self.tell(run, up_to, loss);
        if let Err(error) = self.flush(run).await {
            return self.pause(run, &error).await;
        }
        self.set_checkpoint(run);
    }

    /// A replay has an end: what is behind it is none of its events.
    fn last_wanted(&self, up_to: Position) -> Position {
        self.replay.as_ref().map_or(up_to, |replay| up_to.min(replay.to))
    }

    /// The loss that begins, or goes on: one that a crash broke off is not over while the log, which begins at `first`, has its events.
    fn loss(&self, run: &Run, first: Position) -> Loss {
        let cursor = run.keeping.cursor();
        match (cursor.reset, cursor.expired_before) {
            (Some(reset), Some(expired_before)) if reset.up_to >= first => Loss { after: reset.after, expired_before },
            _ => Loss { after: run.lanes.settled_up_to(), expired_before: run.lanes.counts().expired },
        }
    }

    /// Says what is lost. It must be saved together with what is counted.
    fn tell(&self, run: &mut Run, up_to: Position, Loss { after, expired_before }: Loss) {
        let (at, expired) = (self.environment.clock.now(), run.lanes.counts().expired - expired_before);
        let cursor = run.keeping.cursor_mut();
        (cursor.reset, cursor.expired_before) = (Some(Reset { after, up_to, expired, at }), Some(expired_before));
    }

    fn tell_if_any(&self, run: &mut Run, up_to: Position, loss: Loss) {
        if run.lanes.counts().expired > loss.expired_before {
            self.tell(run, up_to, loss);
        }
    }

    fn set_checkpoint(&self, run: &mut Run) {
        let cursor = run.keeping.cursor_mut();
        (cursor.checkpoint.position, cursor.checkpoint.matched) = (cursor.floor, cursor.counts.total());
    }

    /// Counts, and says, what is lost up to `up_to`, in the two steps of [`crate::lanes::Lanes::expire_open`]. Each reads first, and then changes all
    /// or nothing.
    async fn lose(&self, run: &mut Run, up_to: Position, loss: Loss) -> Result<(), EngineError> {
        let unread = self.read_unread(run.lanes.read_head(), up_to).await?;
        run.lanes.expire_open(up_to);
        for (position, lane) in &unread {
            run.lanes.expire_unread(*position, lane);
        }
        run.lanes.passed(up_to);
        run.content.retain(|position, _| run.lanes.is_open(*position));
        self.tell_if_any(run, up_to, loss);
        self.flush(run).await?;
        let aside = self.read_aside(run.lanes.expiring_lanes(up_to), up_to).await?;
        let letters = run.lanes.expire_letters(up_to);
        for (lane, positions) in &aside {
            positions.iter().for_each(|position| run.lanes.expire_aside(&letters, lane, *position));
        }
        aside.iter().for_each(|(lane, _)| run.lanes.expire_lane(&letters, lane));
        self.tell_if_any(run, up_to, loss);
        Ok(())
    }

    /// The events of the lanes in `aside` behind where these are settled to, each lane with its own.
    async fn read_aside(&self, aside: Vec<(Lane, Position)>, up_to: Position) -> Result<Vec<(Lane, Vec<Position>)>, EngineError> {
        let mut read = Vec::new();
        for (lane, mut after) in aside {
            let mut positions = Vec::new();
            while after < up_to {
                let page = match self.engine.read_lane(lane.as_str(), after, PAGE_EVENTS).await {
                    Err(EngineError::Trimmed { first }) => {
                        after = Position(first.0 - 1);
                        continue;
                    }
                    page => page?,
                };
                let Some(last) = page.last() else { break };
                after = last.position;
                positions.extend(self.chosen(&page, up_to).map(|one| one.position));
            }
            read.push((lane, positions));
        }
        Ok(read)
    }

    /// The events behind `after`, with their lanes.
    async fn read_unread(&self, mut after: Position, up_to: Position) -> Result<Vec<(Position, String)>, EngineError> {
        let mut unread = Vec::new();
        while after < up_to {
            let page = match self.engine.read(after, PAGE_EVENTS).await {
                Err(EngineError::Trimmed { first }) => {
                    after = Position(first.0 - 1);
                    continue;
                }
                page => page?,
            };
            let Some(last) = page.last() else { break };
            after = last.position;
            unread.extend(self.chosen(&page, up_to).map(|one| (one.position, one.event.lane().to_owned())));
        }
        Ok(unread)
    }

    fn chosen<'a>(&'a self, page: &'a [Recorded], up_to: Position) -> impl Iterator<Item = &'a Recorded> {
        page.iter().filter(move |one| one.position <= up_to && self.is_asked_for(one))
    }
}
