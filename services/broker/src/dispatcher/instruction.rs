//! What a dispatcher is told while it runs, and how it obeys.

use kit::Position;
use tokio::sync::oneshot;

use super::{Dispatcher, Flying, Run, Status, tuning};
use crate::{
    audit::Books,
    engine::EngineError,
    keeping,
    lanes::{Lane, Lanes, LetterState, Standing},
    sink::Target,
    subscriptions::stored::{Stored, TooManyChanges},
};

/// What a dispatcher is told while it runs. What changes something is answered when that is saved.
pub(crate) enum Instruction {
    /// The subscriber can be had through this.
    Attach(Target),
    /// The subscriber has shown that it is there.
    Nudge,
    /// Ask for this from now on, and send it there, if that is named.
    Configure { after: Box<Stored>, target: Option<Target>, reply: oneshot::Sender<Result<Configured, ConfigureError>> },
    /// Deliver nothing, or deliver again.
    Pause { is_paused: bool, reply: oneshot::Sender<Result<(), EngineError>> },
    /// Start anew after this position.
    Seek { after: Position, reply: oneshot::Sender<Result<Configured, EngineError>> },
    /// Decide on the dead letters at these positions; answered by how many of them there were.
    Decide { decision: Decision, positions: Vec<Position>, reply: oneshot::Sender<Result<usize, EngineError>> },
    /// Show the books, as they are saved, and what is asked for.
    Show { reply: oneshot::Sender<Result<(Stored, Books), EngineError>> },
    /// Say where the subscriber is, and how it stands.
    Reveal { reply: oneshot::Sender<Result<(Option<Target>, Status), EngineError>> },
    /// Say how it stands, and what waits longest.
    Look { reply: oneshot::Sender<Result<Look, EngineError>> },
    /// Say where the event at this position, of this lane, stands, if it is asked for; and how the subscription stands.
    Stand { position: Position, lane: String, reply: oneshot::Sender<Result<(Standing, Status, Stored), EngineError>> },
    /// Find dead letters after a position.
    Letters {
        after: Position,
        limit: usize,
        is_wanted: fn(LetterState) -> bool,
        reply: oneshot::Sender<Result<Vec<Position>, EngineError>>,
    },
    /// Let the log lose its events up to here; answered by how far it may go.
    Release { up_to: Position, reply: oneshot::Sender<Result<Position, EngineError>> },
    /// The subscription is gone: end, and save nothing any more.
    End,
}

/// How a subscription stands, and what waits longest.
pub(crate) struct Look {
    pub(crate) status: Status,
    /// The oldest event that is known to wait.
    pub(crate) oldest: Option<Position>,
    /// The lane that was set aside the longest ago, and does not wait behind a dead letter; its next event is not before this.
    pub(crate) oldest_aside: Option<(Position, Lane)>,
}

/// What is to become of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is tried again.
    Redrive,
    /// It is given up for good.
    Discard,
}

/// What a subscription asks for, as it was saved.
pub(crate) struct Configured {
    pub(crate) stored: Stored,
    pub(crate) version: i64,
}

/// Why a subscription does not ask for something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigureError {
    /// Too much would have to be kept in mind.
    #[error(transparent)]
    TooManyChanges(#[from] TooManyChanges),
    /// It could not be saved.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Dispatcher {
    /// Does what it is told. Answers whether it goes on.
    pub(super) async fn obey(&mut self, run: &mut Run, instruction: Instruction) -> bool {
        // Whoever asked and went away does not mind.
        match instruction {
            Instruction::Attach(target) => {
                self.target = Some(target);
                run.lanes.nudge(self.environment.clock.now());
            }
            Instruction::Nudge => run.lanes.nudge(self.environment.clock.now()),
            Instruction::Configure { after, target, reply } => {
                let configured = self.configure(run, *after, target).await;
                drop(reply.send(configured));
            }
            Instruction::Pause { is_paused, reply } => {
                run.keeping.cursor_mut().is_paused = is_paused;
                let saved = self.flush(run).await;
                self.show(run, self.engine.tail().last());
                drop(reply.send(saved));
            }
            Instruction::Seek { after, reply } => {
                let sought = self.go_to(run, after).await;
                self.show(run, self.engine.tail().last());
                drop(reply.send(sought));
            }
            Instruction::Decide { decision, positions, reply } => {
                let decided = self.decide(run, decision, positions).await;
                self.show(run, self.engine.tail().last());
                drop(reply.send(decided));
            }
            Instruction::Show { reply } => {
                let books = self.show_books(run).await;
                drop(reply.send(books));
            }
            Instruction::Reveal { reply } => {
                let status = self.status_now(run, self.engine.tail().last());
                drop(reply.send(Ok((self.target.clone(), status))));
            }
            Instruction::Look { reply } => {
                let (oldest, oldest_aside) = run.lanes.oldest();
                let status = self.status_now(run, self.engine.tail().last());
                drop(reply.send(Ok(Look { status, oldest, oldest_aside })));
            }
            Instruction::Stand { position, lane, reply } => {
                let standing = self.stand(run.lanes.standing(position, &lane), position, &lane).await;
                let standing = standing.and_then(|standing| at_last(run, position, standing));
                let status = self.status_now(run, self.engine.tail().last());
                drop(reply.send(standing.map(|standing| (standing, status, self.stored.clone()))));
            }
            Instruction::Letters { after, limit, is_wanted, reply } => {
                // What is found must be where it is looked for.
                let saved = self.flush(run).await;
                drop(reply.send(saved.map(|()| run.lanes.dead_letters(after, limit, is_wanted))));
            }
            Instruction::Release { up_to, reply } => {
                let released = self.release(run, up_to).await;
                self.show(run, self.engine.tail().last());
                drop(reply.send(released));
            }
            Instruction::End => {
                run.saving.end().await;
                return false;
            }
        }
        true
    }

    /// What was read already stays chosen by what was asked for then.
    async fn configure(&mut self, run: &mut Run, mut after: Stored, target: Option<Target>) -> Result<Configured, ConfigureError> {
        after.remember(&self.stored, run.lanes.read_head(), run.lanes.settled_up_to())?;
        keeping::configure(self.engine.as_ref(), &self.name, &after, self.version).await?;
        (self.stored, self.version) = (after, self.version + 1);
        run.lanes.tune(tuning(&self.stored.wanted));
        if let Some(target) = target {
            self.target = Some(target);
        }
        run.lanes.nudge(self.environment.clock.now());
        Ok(self.configured())
    }

    fn configured(&self) -> Configured {
        Configured { stored: self.stored.clone(), version: self.version }
    }

    /// Starts anew after `after`. What is in flight is dropped; its events come again if they are behind that place.
    async fn go_to(&mut self, run: &mut Run, after: Position) -> Result<Configured, EngineError> {
        self.flush(run).await?;
        run.flying = Flying::new();
        run.content.clear();
        let (stored, now) = (self.stored.without_earlier(), self.environment.clock.now());
        let sought = run.keeping.seek(self.engine.as_ref(), (&stored, self.version), after, now).await;
        match sought {
            Ok(saved) => {
                (self.stored, self.version) = (stored, self.version + 1);
                run.lanes = Lanes::resume(tuning(&self.stored.wanted), saved);
                Ok(self.configured())
            }
            Err(error) => {
                self.load_again(run).await;
                Err(error)
            }
        }
    }

    /// What it knows need not be what is saved.
    async fn load_again(&mut self, run: &mut Run) {
        while !self.lifecycle.is_halting() {
            match self.load_all().await {
                Ok(loaded) => {
                    *run = Run { attempts: run.attempts, ..loaded };
                    return;
                }
                Err(error) => self.pause(run, &error).await,
            }
        }
    }

    async fn load_all(&mut self) -> Result<Run, EngineError> {
        if let Some((stored, version)) = keeping::stored(self.engine.as_ref(), &self.name).await? {
            (self.stored, self.version) = (stored, version);
        }
        self.load().await
    }

    async fn decide(&self, run: &mut Run, decision: Decision, positions: Vec<Position>) -> Result<usize, EngineError> {
        // So that every dead letter is where it is looked for.
        self.flush(run).await?;
        let mut count = 0;
        for position in positions {
            let Some(letter) = keeping::dead_letter(self.engine.as_ref(), &self.key, position).await? else { continue };
            let now = self.environment.clock.now();
            count += usize::from(match decision {
                Decision::Redrive => run.lanes.redrive(letter, now),
                Decision::Discard => run.lanes.discard(letter, now),
            });
        }
        self.flush(run).await?;
        Ok(count)
    }

    /// Finds out where an event stands whose lane must be looked through first.
    async fn stand(&self, standing: Standing, position: Position, lane: &str) -> Result<Standing, EngineError> {
        let Standing::Sought { after, first } = standing else { return Ok(standing) };
        Ok(match self.seek(&Lane::new(lane), after, position).await? {
            Some(found) if found.position == position => *first,
            Some(by) => Standing::Blocked { by: by.position },
            // It is not asked for.
            None => Standing::Settled,
        })
    }

    async fn show_books(&self, run: &mut Run) -> Result<(Stored, Books), EngineError> {
        self.flush(run).await?;
        Ok((self.stored.clone(), keeping::books(self.engine.as_ref(), &self.key).await?))
    }
}

/// Tells what was lost from what was taken, while the log still has both. After a crash nobody knows; then the event counts as gone.
fn at_last(run: &Run, position: Position, standing: Standing) -> Result<Standing, EngineError> {
    let released = run.keeping.cursor().released;
    match standing {
        Standing::Settled if position <= released => {
            run.lanes.standing_at_last(position).ok_or(EngineError::Trimmed { first: released.next() })
        }
        standing => Ok(standing),
    }
}
