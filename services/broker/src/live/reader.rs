//! The shared reader: one task follows the end of the log, once for all streams, and tells each event to those whom it concerns. So an
//! event of one owner costs as much with ten thousand open streams as with one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use kit::{Lifecycle, Position, Recorded};
use tokio::sync::Notify;

use super::{
    place::{Next, Place, Told},
    view::View,
};
use crate::engine::{EngineError, LogEngine};

/// The hand-over under every interleaving.
#[cfg(test)]
mod handover;

/// How many events are read at once.
const PAGE: usize = 256;

/// The seats of all streams, and how far the reader has come.
#[derive(Debug, Default)]
pub(super) struct Reader {
    seats: Mutex<Seats>,
    /// Everything up to here has been told.
    at: AtomicI64,
}

/// By whom an event concerns. Ordered, so that streams are woken in the same order in every run of a simulation.
#[derive(Debug, Default)]
struct Seats {
    next_number: u64,
    count: usize,
    all: Row,
    owners: BTreeMap<String, Row>,
    subjects: BTreeMap<String, Row>,
}

type Row = BTreeMap<u64, Arc<Ear>>;

/// What a stream and the reader share.
#[derive(Debug, Default)]
struct Ear {
    told: Mutex<Told>,
    woken: Notify,
}

impl Ear {
    fn hear(&self, tell: impl FnOnce(&mut Told)) {
        tell(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
        self.woken.notify_one();
    }
}

impl Reader {
    /// Begins to follow the log.
    pub(super) fn start(engine: Arc<dyn LogEngine>, lifecycle: &Lifecycle) -> Arc<Self> {
        let reader = Arc::new(Self::default());
        reader.pass(engine.tail().last());
        let halt = lifecycle.clone();
        lifecycle.spawn("live reader", follow(reader.clone(), engine, halt));
        reader
    }

    /// Takes a seat for what `view` shows: from now on it is told. None when `seats_max` are taken.
    pub(super) fn sit_down(self: &Arc<Self>, view: &View, seats_max: usize) -> Option<Seat> {
        let mut seats = self.seats();
        if seats.count >= seats_max {
            return None;
        }
        seats.count += 1;
        seats.next_number += 1;
        let (number, ear, row) = (seats.next_number, Arc::new(Ear::default()), RowName::of(view));
        seats.row(&row).insert(number, ear.clone());
        Some(Seat { reader: self.clone(), row, number, ear })
    }

    /// Tells the events of `page`, the next ones of the log, which ended at `last` before they were read.
    fn tell(&self, page: &[Recorded], last: Position) {
        let (Some(first), Some(newest)) = (page.first(), page.last()) else { return self.tell_all_to_read(last) };
        if first.position != self.at().next() {
            // Reading from the very beginning of a log skips in silence what was trimmed.
            self.tell_all_to_read(self.at());
        }
        let seats = self.seats();
        // Who sees everything reads the log as it is.
        seats.all.values().for_each(|ear| ear.hear(Told::cut));
        for recorded in page {
            let of_owner = recorded.event.owner.as_ref().and_then(|owner| seats.owners.get(owner));
            let of_subject = recorded.event.subject.as_ref().and_then(|subject| seats.subjects.get(subject));
            for ear in of_owner.into_iter().chain(of_subject).flat_map(BTreeMap::values) {
                ear.hear(|told| told.tell(recorded.position));
            }
        }
        // After the last word, and before anybody else sits down.
        self.pass(newest.position);
    }

    /// Nothing up to `last` needs to be told, because nobody is there. Answers whether that is so.
    fn pass_unheard(&self, last: Position) -> bool {
        let seats = self.seats();
        let is_unheard = seats.count == 0;
        if is_unheard {
            self.pass(last);
        }
        is_unheard
    }

    /// What comes up to `last` cannot be told one by one: everybody has to read it.
    fn tell_all_to_read(&self, last: Position) {
        let seats = self.seats();
        let rows = seats.owners.values().chain(seats.subjects.values()).chain([&seats.all]);
        rows.flat_map(BTreeMap::values).for_each(|ear| ear.hear(Told::cut));
        self.pass(last);
    }

    fn at(&self) -> Position {
        Position(self.at.load(Ordering::Acquire))
    }

    fn pass(&self, last: Position) {
        self.at.store(last.0, Ordering::Release);
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a seat stands.
#[derive(Debug, Clone)]
enum RowName {
    All,
    Owner(String),
    Subject(String),
}

impl RowName {
    fn of(view: &View) -> Self {
        match view {
            View::All => Self::All,
            View::Own { owner } => Self::Owner(owner.clone()),
            View::Subject { subject, .. } => Self::Subject(subject.clone()),
        }
    }
}

impl Seats {
    fn row(&mut self, name: &RowName) -> &mut Row {
        match name {
            RowName::All => &mut self.all,
            RowName::Owner(owner) => self.owners.entry(owner.clone()).or_default(),
            RowName::Subject(subject) => self.subjects.entry(subject.clone()).or_default(),
        }
    }
}

/// A stream's seat; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    reader: Arc<Reader>,
    row: RowName,
    number: u64,
    ear: Arc<Ear>,
}

impl Seat {
    /// What the stream at `place` is to do next.
    pub(super) fn next(&self, place: &mut Place) -> Next {
        // Before the look at what was told: up to here all of it is.
        let at = self.reader.at();
        place.next(&mut self.ear.told.lock().unwrap_or_else(PoisonError::into_inner), at)
    }

    /// Waits until something was told, perhaps in vain.
    pub(super) async fn woken(&self) {
        self.ear.woken.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.reader.seats();
        seats.count -= 1;
        let row = seats.row(&self.row);
        row.remove(&self.number);
        if row.is_empty() {
            match &self.row {
                RowName::All => {}
                RowName::Owner(owner) => drop(seats.owners.remove(owner)),
                RowName::Subject(subject) => drop(seats.subjects.remove(subject)),
            }
        }
    }
}

async fn follow(reader: Arc<Reader>, engine: Arc<dyn LogEngine>, lifecycle: Lifecycle) {
    let mut tail = engine.tail();
    loop {
        let last = tail.look();
        if reader.at() < last && !reader.pass_unheard(last) {
            match engine.read(reader.at(), PAGE).await {
                Ok(page) => reader.tell(&page, last),
                // Trimmed before it was told.
                Err(EngineError::Trimmed { first }) => reader.tell_all_to_read(Position(first.0 - 1)),
                Err(error) => {
                    tracing::error!(%error, "the live reader cannot read the log");
                    reader.tell_all_to_read(last);
                }
            }
            // A long way must not hold up others.
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            () = lifecycle.halted() => return,
            moved = tail.moved() => if moved.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::tests::event;

    fn recorded(position: i64, owner: &str, subject: &str) -> Recorded {
        let event = kit::Envelope { owner: Some(owner.into()), ..event("/tester", &position.to_string(), subject) };
        Recorded { position: Position(position), event: Arc::new(event) }
    }

    fn own(owner: &str) -> View {
        View::Own { owner: owner.into() }
    }

    #[test]
    fn an_event_wakes_those_whom_it_concerns_and_nobody_else() {
        let reader = Arc::new(Reader::default());
        let subject = |name: &str| View::Subject { subject: name.into(), only_of: None };
        let views = [View::All, own("ann"), own("ann"), own("bob"), subject("o-1"), subject("o-2")];
        let seats: Vec<_> = views.iter().map(|view| reader.sit_down(view, usize::MAX).unwrap()).collect();
        let woken = || seats.iter().map(|seat| seat.woken().now_or_never().is_some()).collect::<Vec<_>>();
        assert_eq!(woken(), [false; 6]);
        reader.tell(&[recorded(1, "ann", "o-1")], Position(1));
        assert_eq!(woken(), [true, true, true, false, true, false]);
        reader.tell(&[recorded(2, "bob", "o-2"), recorded(3, "cat", "o-3")], Position(3));
        assert_eq!(woken(), [true, false, false, true, false, true]);
        reader.tell_all_to_read(Position(4));
        assert_eq!(woken(), [true; 6]);
    }

    #[test]
    fn a_seat_is_free_again_when_its_stream_ends() {
        let reader = Arc::new(Reader::default());
        let first = reader.sit_down(&own("ann"), 2).unwrap();
        let second = reader.sit_down(&View::All, 2).unwrap();
        assert!(reader.sit_down(&own("bob"), 2).is_none(), "there are two");
        drop(first);
        let third = reader.sit_down(&own("bob"), 2).unwrap();
        drop((second, third));
        let seats = reader.seats();
        assert_eq!((seats.count, seats.all.len(), seats.owners.len(), seats.subjects.len()), (0, 0, 0, 0), "nothing is left behind");
    }

    #[test]
    fn nothing_is_read_for_nobody() {
        let reader = Arc::new(Reader::default());
        assert!(reader.pass_unheard(Position(5)));
        assert_eq!(reader.at(), Position(5));
        let _seat = reader.sit_down(&own("ann"), 1).unwrap();
        assert!(!reader.pass_unheard(Position(9)));
        assert_eq!(reader.at(), Position(5));
    }
}
