//! The hand-over from the log to the shared reader, against a model: appends, the reader, the stream and the trimming each move step by
//! step, in every interleaving of a few steps and in many of many.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{engine::Scope, tests::event};

/// How many events the model reads at once.
const MODEL_PAGE: usize = 2;

#[derive(Debug, Clone, Copy)]
enum Move {
    /// So many events are appended, the last one hers.
    Append(usize),
    /// The reader reads a page, or tells the one that it has read.
    Reader,
    /// The stream sits down, decides and reads, or takes in what it has read.
    Stream,
    /// The oldest event goes.
    Trim,
}

/// A log, the reader, and one stream.
struct World {
    log: Vec<Recorded>,
    first: Position,
    reader: Arc<Reader>,
    /// What the reader has read and not yet told, and where the log ended before.
    read: Option<(Read, Position)>,
    view: View,
    start: Position,
    stream: Option<Sitting>,
    given: Vec<Position>,
    /// What the stream was told to be lost: after the one, up to the other.
    lost: Vec<(Position, Position)>,
}

struct Sitting {
    seat: Seat,
    place: Place,
    /// What the stream has read and not yet taken in, and why.
    read: Option<(Next, Read)>,
}

/// What reading gave: a page, or where the log begins now.
type Read = Result<Vec<Recorded>, Position>;

impl World {
    fn new(view: View, before: usize, start: Position) -> Self {
        let mut world = Self {
            log: Vec::new(),
            first: Position(1),
            reader: Arc::default(),
            read: None,
            view,
            start,
            stream: None,
            given: Vec::new(),
            lost: Vec::new(),
        };
        world.append(before);
        world
    }

    fn append(&mut self, count: usize) {
        for number in 1..=count {
            let position = self.last().next();
            let owner = if number == count || position.0 % 3 == 0 { "ann" } else { "bob" };
            let event = kit::Envelope { owner: Some(owner.into()), ..event("/tester", &position.to_string(), "o-1") };
            self.log.push(Recorded { position, event: Arc::new(event) });
        }
    }

    fn last(&self) -> Position {
        Position(i64::try_from(self.log.len()).unwrap())
    }

    /// As the engine reads.
    fn read(&self, after: Position, limit: usize, scope: Scope<'_>) -> Read {
        if after > Position::START && after.next() < self.first {
            return Err(self.first);
        }
        let from = usize::try_from(after.0.max(self.first.0 - 1)).unwrap();
        Ok(self.log[from..].iter().filter(|one| scope.contains(&one.event)).take(limit).cloned().collect())
    }

    fn make(&mut self, a_move: Move) {
        match a_move {
            Move::Append(count) => self.append(count),
            Move::Trim if self.first <= self.last() => self.first = self.first.next(),
            Move::Trim => {}
            Move::Reader => self.move_reader(),
            Move::Stream => self.move_stream(),
        }
    }

    fn move_reader(&mut self) {
        match self.read.take() {
            Some((Ok(page), last)) => self.reader.tell(&page, last),
            Some((Err(first), _)) => self.reader.tell_all_to_read(Position(first.0 - 1)),
            None if self.reader.at() < self.last() && !self.reader.pass_unheard(self.last()) => {
                self.read = Some((self.read(self.reader.at(), MODEL_PAGE, Scope::All), self.last()));
            }
            None => {}
        }
    }

    fn move_stream(&mut self) {
        let Some(mut stream) = self.stream.take() else {
            let seat = self.reader.sit_down(&self.view, 1).unwrap();
            self.stream = Some(Sitting { seat, place: Place::new(self.start), read: None });
            return;
        };
        match stream.read.take() {
            None => match stream.seat.next(&mut stream.place) {
                Next::Wait => self.check_cursor(stream.place.after()),
                next @ Next::Read => stream.read = Some((next, self.read(stream.place.after(), MODEL_PAGE, self.view.scope()))),
                next @ Next::Take { after, limit } => stream.read = Some((next, self.read(after, limit, Scope::All))),
            },
            Some((next, Ok(page))) => self.give(stream.place.has_got(next, page)),
            Some((_, Err(first))) => {
                let asked = stream.place.begin_at(first);
                self.lost.extend(asked.map(|asked| (asked, stream.place.after())));
            }
        }
        self.stream = Some(stream);
    }

    fn give(&mut self, page: Vec<Recorded>) {
        for one in page.into_iter().filter(|one| self.view.shows(one)).map(|one| one.position) {
            let last = self.given.last().copied().unwrap_or(self.start);
            assert!(last < one, "{one} was given after {last}");
            self.given.push(one);
        }
    }

    /// Everything that concerns the stream up to `cursor` was given to it, or it knows that it was lost.
    fn check_cursor(&self, cursor: Position) {
        let wanted = self.log.iter().filter(|one| self.view.shows(one) && one.position > self.start && one.position <= cursor);
        for one in wanted.map(|one| one.position) {
            let is_known = self.given.binary_search(&one).is_ok() || self.lost.iter().any(|(after, to)| *after < one && one <= *to);
            assert!(is_known, "{one} was left out: given {:?}, lost {:?}", self.given, self.lost);
        }
    }

    /// Everybody moves until nothing moves any more; then nothing is missing.
    fn settle(&mut self) {
        let mut moves_left = self.log.len() * 6 + 20;
        while self.reader.at() < self.last() || self.stream.as_ref().is_none_or(|stream| stream.place.after() < self.last()) {
            self.move_reader();
            self.move_stream();
            moves_left = moves_left.checked_sub(1).expect("the cursor comes to the end");
        }
        self.check_cursor(self.last());
    }
}

/// Every sequence of so many moves of each kind.
fn every_interleaving(moves: &mut Vec<Move>, left: [(Move, usize); 3], visit: &mut impl FnMut(&[Move])) {
    if left.iter().all(|(_, count)| *count == 0) {
        return visit(moves);
    }
    for (index, (a_move, count)) in left.into_iter().enumerate() {
        if let Some(count) = count.checked_sub(1) {
            let mut rest = left;
            rest[index].1 = count;
            moves.push(a_move);
            every_interleaving(moves, rest, visit);
            moves.pop();
        }
    }
}

fn views() -> [View; 3] {
    let subject = |only_of: Option<&str>| View::Subject { subject: "o-1".into(), only_of: only_of.map(str::to_owned) };
    [View::All, View::Own { owner: "ann".into() }, subject(Some("ann"))]
}

#[test]
fn nothing_is_left_out_or_given_twice_wherever_events_come_in() {
    let mut count = 0;
    for view in views() {
        every_interleaving(&mut Vec::new(), [(Move::Append(2), 3), (Move::Reader, 4), (Move::Stream, 5)], &mut |moves| {
            let mut world = World::new(view.clone(), 2, Position(1));
            moves.iter().for_each(|a_move| world.make(*a_move));
            assert!(world.lost.is_empty());
            world.settle();
            assert!(world.lost.is_empty());
            count += 1;
        });
    }
    assert_eq!(count, 3 * 27_720);
}

#[test]
fn a_stream_that_is_told_too_much_reads_it_and_holds_none_of_it() {
    let mut world = World::new(View::Own { owner: "ann".into() }, 0, Position::START);
    for _ in 0..4 {
        world.make(Move::Stream);
    }
    world.append(10_000);
    world.settle_reader();
    let told = format!("{:?}", world.stream.as_ref().unwrap().seat.ear.told.lock().unwrap());
    assert_eq!(told, "Told { positions: [], is_cut: true }");
    world.settle();
    assert_eq!(world.given.len(), 3_334);
}

impl World {
    fn settle_reader(&mut self) {
        while self.reader.at() < self.last() {
            self.move_reader();
        }
    }
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let few = prop_oneof![
        3 => (1_usize..4).prop_map(Move::Append),
        1 => (30_usize..80).prop_map(Move::Append),
        8 => Just(Move::Reader),
        8 => Just(Move::Stream),
        1 => Just(Move::Trim),
    ];
    // Bursts of one kind, so that one of them falls far behind the others.
    vec((few, 1_usize..40), 1..40).prop_map(|all| all.into_iter().flat_map(|(a_move, times)| repeat(a_move, times)).collect())
}

fn repeat(a_move: Move, times: usize) -> Vec<Move> {
    match a_move {
        Move::Append(count) => vec![Move::Append(count)],
        other => vec![other; times],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_gets_all_that_concerns_it_or_is_told_what_was_lost(
        moves in moves(),
        view in prop::sample::select(views().to_vec()),
        before in 1_usize..10,
        start in 1_i64..10,
    ) {
        let mut world = World::new(view, before, Position(start.min(i64::try_from(before).unwrap())));
        let is_trimmed = moves.iter().any(|a_move| matches!(a_move, Move::Trim));
        moves.into_iter().for_each(|a_move| world.make(a_move));
        world.settle();
        prop_assert!(is_trimmed || world.lost.is_empty());
    }
}
