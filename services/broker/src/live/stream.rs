//! One reader's stream: a welcome, events, heartbeats, resets, an end. Over which transport does not matter here.

use std::sync::Arc;

use kit::{Position, Problem, Recorded, Timestamp};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::{
    HEARTBEAT, Live, SESSION_CHECK, SESSION_CHECK_SPREAD, STREAMS_MAX,
    notice::{Ending, Notice},
    place::{Next, Place},
    reader::Seat,
    start::{Gone, Reset, Start},
    view::View,
};
use crate::engine::EngineError;

/// How many events are read at once; a stream holds no more than these in memory.
const PAGE: usize = 32;

/// What comes next.
#[derive(Debug)]
pub(super) enum Item {
    /// Events, in the log's order.
    Events(Vec<Recorded>),
    /// Something else to be said.
    Notice(Notice),
    /// Nothing more.
    End(Ending),
}

/// One reader's stream.
pub(super) struct Stream {
    live: Arc<Live>,
    view: View,
    seat: Seat,
    place: Place,
    /// What is to be said first; the last one goes first.
    opening: Vec<Notice>,
    cursor: Position,
    heartbeat: Interval,
    ends_at: Timestamp,
    /// Why it was closed by us.
    ending: Option<Ending>,
}

impl Stream {
    /// Opens the stream of `view` behind the cursor `asked`, or where a stream begins that nobody has seen anything of.
    ///
    /// # Errors
    /// When too many are open.
    pub(super) fn open(live: Arc<Live>, view: View, asked: Option<Position>) -> Result<Self, Problem> {
        let seat = live.reader.sit_down(&view, STREAMS_MAX).ok_or_else(|| Problem::unavailable("too many live streams are open"))?;
        let start = Start::choose(asked, &view, live.engine.bounds());
        // Streams that were opened together, as after a restart, neither speak at the same moment nor come back at the same moment.
        let ids = &live.environment.ids;
        let early = std::time::Duration::from_millis(ids.up_to(u64::try_from(HEARTBEAT.as_millis() / 2).unwrap_or(0)));
        let mut heartbeat = interval_at(Instant::now() + (HEARTBEAT - early), HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let lives_ms = SESSION_CHECK.as_millis() + u128::from(ids.up_to(u64::try_from(SESSION_CHECK_SPREAD.as_millis()).unwrap_or(0)));
        let ends_at = live.environment.clock.now().plus_ms(u64::try_from(lives_ms).unwrap_or(u64::MAX));
        let welcome = Notice::welcome(&view, start, HEARTBEAT, ends_at);
        let reset = start.reset.map(|reset| Notice::reset(reset, start.after));
        let opening = reset.into_iter().chain([welcome]).collect();
        let cursor = start.reset.map_or(start.after, |reset| reset.asked);
        live.tally.opened();
        Ok(Self { live, view, seat, place: Place::new(start.after), opening, cursor, heartbeat, ends_at, ending: None })
    }

    /// The cursor of a reader to whom nothing was given yet.
    pub(super) fn first_cursor(&self) -> Position {
        self.cursor
    }

    /// We close it, for this reason.
    pub(super) fn ends(&mut self, ending: Ending) {
        self.ending = Some(ending);
    }

    /// What it lives in.
    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// What comes next. Nothing is lost when this is dropped before.
    pub(super) async fn next(&mut self) -> Item {
        if let Some(notice) = self.opening.pop() {
            return Item::Notice(notice);
        }
        let live = self.live.clone();
        let given = tokio::select! {
            biased;
            () = live.lifecycle.drained() => return Item::End(Ending::Stopping),
            _ = self.heartbeat.tick() => None,
            given = give(&live, &self.view, &self.seat, &mut self.place) => Some(given),
        };
        // Whatever there is: after this time nobody knows whether the caller may still see it.
        if live.environment.clock.now() >= self.ends_at {
            return Item::End(Ending::SessionCheck);
        }
        match given {
            Some(Ok(item)) => item,
            Some(Err(EngineError::Closed)) => Item::End(Ending::Stopping),
            Some(Err(error)) => {
                tracing::warn!(%error, "a live stream ends");
                Item::End(Ending::Unreadable)
            }
            None => {
                // Brings the cursor past what does not concern this stream.
                self.seat.next(&mut self.place);
                Item::Notice(Notice::Heartbeat { after: self.place.after() })
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.live.tally.closed(self.ending);
    }
}

/// The next events, when there are some.
async fn give(live: &Live, view: &View, seat: &Seat, place: &mut Place) -> Result<Item, EngineError> {
    let engine = live.engine.as_ref();
    loop {
        let next = seat.next(place);
        let read = match next {
            Next::Wait => {
                seat.woken().await;
                continue;
            }
            Next::Take { after, limit } => engine.read(after, limit).await,
            Next::Read => engine.read_scope(view.scope(), place.after(), PAGE).await,
        };
        let page = match read {
            Ok(page) => place.has_got(next, page),
            Err(EngineError::Trimmed { first }) => match place.begin_at(first) {
                Some(asked) => return Ok(Item::Notice(Notice::reset(Reset { reason: Gone::Trimmed, asked }, place.after()))),
                None => continue,
            },
            Err(error) => return Err(error),
        };
        let shown: Vec<_> = page.into_iter().filter(|recorded| view.shows(recorded)).collect();
        if !shown.is_empty() {
            return Ok(Item::Events(shown));
        }
        // A long way without anything to show must not hold up others.
        tokio::task::yield_now().await;
    }
}
