//! A place found by time or by size.

use kit::{Position, Timestamp};

use super::{Bench, Open};

pub(super) async fn suite(open: &Open) {
    a_time_gives_the_place_before_what_came_then(open).await;
    a_clock_that_steps_back_stands_still(open).await;
    a_size_gives_the_place_up_to_which_the_log_must_shrink(open).await;
}

impl Bench {
    async fn find_time(&self, ms: i64) -> Position {
        self.engine.find_time(Timestamp::from_ms(ms)).await.unwrap()
    }
}

async fn a_time_gives_the_place_before_what_came_then(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    assert_eq!(bench.find_time(1_000).await, Position::START);
    assert_eq!(bench.engine.time_after(Position::START).await, Ok(None));
    let mut places = Vec::new();
    for (ids, ms) in [(0..3, 2_000), (3..6, 2_000), (6..7, 2_001), (7..9, 5_000)] {
        bench.set_clock(ms);
        places.extend(bench.append("x", ids).await);
    }
    let before = |index: usize| Position(places[index].0 - 1);
    for (ms, expected) in [
        (i64::MIN, before(0)),
        (1_999, before(0)),
        (2_000, before(0)),
        (2_001, before(6)),
        (2_002, before(7)),
        (5_000, before(7)),
        (5_001, places[8]),
        (i64::MAX, places[8]),
    ] {
        let found = bench.find_time(ms).await;
        // Places may be left out by an engine: what counts is which event comes next.
        assert_eq!(next_after(&bench, found).await, next_after(&bench, expected).await, "at {ms}");
    }
    for (index, ms) in [2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_001, 5_000, 5_000].into_iter().enumerate() {
        assert_eq!(bench.engine.time_after(before(index)).await, Ok(Some(Timestamp::from_ms(ms))));
    }
    assert_eq!(bench.engine.time_after(places[8]).await, Ok(None));
    bench.stop().await;
}

async fn a_clock_that_steps_back_stands_still(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    bench.set_clock(9_000);
    let first = bench.append("x", 0..2).await;
    bench.set_clock(4_000);
    let second = bench.append("x", 2..4).await;
    bench.stop().await;
    // Also over a restart.
    let bench = Bench::open(open, folder.path());
    bench.set_clock(5_000);
    let third = bench.append("x", 4..6).await;
    bench.set_clock(9_001);
    let fourth = bench.append("x", 6..8).await;
    for at in [4_000, 5_000, 9_000] {
        assert_eq!(next_after(&bench, bench.find_time(at).await).await, Some(first[0]), "at {at}");
    }
    assert_eq!(next_after(&bench, bench.find_time(9_001).await).await, Some(fourth[0]));
    for place in second.iter().chain(&third) {
        assert_eq!(bench.engine.time_after(Position(place.0 - 1)).await, Ok(Some(Timestamp::from_ms(9_000))));
    }
    let mut found = Vec::new();
    for at in (3_000..10_000).step_by(250) {
        found.push(bench.find_time(at).await);
    }
    assert!(found.is_sorted(), "a later time never gives an earlier place: {found:?}");
    bench.stop().await;
}

async fn a_size_gives_the_place_up_to_which_the_log_must_shrink(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    assert_eq!(bench.engine.bounds().bytes, 0);
    let mut sizes = vec![0];
    for id in 0..50 {
        bench.append("x", id..id + 1).await;
        sizes.push(bench.engine.bounds().bytes);
    }
    assert!(sizes.is_sorted_by(|one, next| next > &(one + 100)), "every event adds what it takes: {sizes:?}");
    let whole = sizes[50];
    assert_eq!(bench.engine.find_size(whole).await.unwrap().next(), bench.engine.bounds().first);
    for left in [whole - 1, whole / 2, 100, 1, 0] {
        let up_to = bench.engine.find_size(left).await.unwrap();
        bench.engine.trim(up_to).await.unwrap();
        let bytes = bench.engine.bounds().bytes;
        assert!(bytes <= left, "{bytes} are left of {left}");
        assert!(bytes + 400 > left, "no more is trimmed than must be: {bytes} of {left}");
        // It is a sum: what is known after a restart is the same.
        assert_eq!(bench.engine.find_size(left).await.unwrap().next(), bench.engine.bounds().first);
    }
    bench.append("x", 50..51).await;
    let bytes = bench.engine.bounds().bytes;
    bench.stop().await;
    let bench = Bench::open(open, folder.path());
    assert_eq!(bench.engine.bounds().bytes, bytes);
    bench.stop().await;
}

async fn next_after(bench: &Bench, after: Position) -> Option<Position> {
    Some(bench.engine.read(after, 1).await.unwrap().first()?.position)
}
