//! Compare-and-set, and leases.

use std::time::Duration;

use kit::Timestamp;

use super::{Bench, DEADLINE, Open};
use crate::engine::{EngineError, Fence, Lease, LeaseRequest, StatePut};

pub(super) async fn suite(open: &Open) {
    state_changes_only_from_the_version_that_was_read(open).await;
    a_change_that_another_one_guards_goes_whatever_is_there(open).await;
    whoever_holds_the_engine_can_write_while_all_else_ends(open).await;
    a_lease_is_held_by_one_until_it_ends_or_is_given_back(open).await;
    a_write_under_a_stale_lease_is_refused(open).await;
}

fn put(key: &str, value: Option<&str>, expected_version: i64) -> StatePut {
    StatePut { key: key.into(), value: value.map(str::to_owned), expected_version: Some(expected_version) }
}

async fn state_changes_only_from_the_version_that_was_read(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    bench.engine.state_put(vec![put("a/1", Some("1"), 0), put("a/2", Some("2"), 0), put("b", Some("3"), 0)]).await.unwrap();
    let conflict = bench.engine.state_put(vec![put("a/2", Some("9"), 1), put("a/1", Some("9"), 0)]).await;
    assert_eq!(conflict, Err(EngineError::VersionConflict { key: "a/1".into() }));
    bench.engine.state_put(vec![put("a/1", Some("4"), 1), put("a/2", None, 1)]).await.unwrap();
    bench.stop().await;
    let bench = Bench::open(open, folder.path());
    let list = bench.engine.state_list("a/").await.unwrap();
    assert_eq!(list.iter().map(|one| (&*one.key, &*one.value, one.version)).collect::<Vec<_>>(), [("a/1", "4", 2)]);
    assert_eq!(bench.engine.state_get("a/2").await, Ok(None));
    bench.engine.state_put(vec![put("a/2", Some("5"), 0)]).await.unwrap();
    bench.stop().await;
}

async fn a_change_that_another_one_guards_goes_whatever_is_there(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let guarded = |key, value| StatePut { expected_version: None, ..put(key, value, 0) };
    let puts = vec![put("guard", Some("1"), 0), guarded("a", Some("1")), guarded("never there", None)];
    bench.engine.state_put(puts).await.unwrap();
    bench.engine.state_put(vec![put("guard", Some("2"), 1), guarded("a", Some("2"))]).await.unwrap();
    let conflict = bench.engine.state_put(vec![guarded("a", Some("9")), put("guard", Some("9"), 1)]).await;
    assert_eq!(conflict, Err(EngineError::VersionConflict { key: "guard".into() }));
    bench.stop().await;
    let bench = Bench::open(open, folder.path());
    let a = bench.engine.state_get("a").await.unwrap().unwrap();
    assert_eq!((&*a.value, a.version), ("2", 2));
    bench.engine.state_put(vec![put("guard", Some("3"), 2), guarded("a", None)]).await.unwrap();
    assert_eq!(bench.engine.state_get("a").await, Ok(None));
    bench.stop().await;
}

async fn whoever_holds_the_engine_can_write_while_all_else_ends(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let hold = bench.engine.hold();
    let (stopped, ()) = futures_util::join!(bench.lifecycle.stop(DEADLINE), async {
        bench.lifecycle.halted().await;
        bench.engine.state_put(vec![put("last", Some("1"), 0)]).await.unwrap();
        drop(hold);
    });
    assert!(stopped);
}

impl Bench {
    async fn lease(&self, name: &str, holder: &str, ttl_ms: u64) -> Result<Lease, EngineError> {
        let request = LeaseRequest { name: name.into(), holder: holder.into(), ttl: Duration::from_millis(ttl_ms) };
        self.engine.lease(request).await
    }
}

async fn a_lease_is_held_by_one_until_it_ends_or_is_given_back(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let first = bench.lease("x", "ann", 500).await.unwrap();
    assert_eq!(first.until, Timestamp::from_ms(1_500));
    let held = |until| EngineError::LeaseHeld { name: "x".into(), holder: "ann".into(), until: Timestamp::from_ms(until) };
    bench.set_clock(1_499);
    assert_eq!(bench.lease("x", "bob", 500).await, Err(held(1_500)));
    assert_eq!(bench.lease("x", "bob", 0).await, Err(held(1_500)), "only its holder can give it back");
    assert!(bench.lease("y", "bob", 500).await.is_ok(), "another lease is another's");
    let renewed = bench.lease("x", "ann", 500).await.unwrap();
    assert_eq!((renewed.token, renewed.until), (first.token, Timestamp::from_ms(1_999)));
    bench.stop().await;
    let bench = Bench::open(open, folder.path());
    assert_eq!(bench.lease("x", "bob", 500).await, Err(held(1_999)), "a restart frees nothing");
    bench.set_clock(1_999);
    let taken = bench.lease("x", "bob", 500).await.unwrap();
    assert!(taken.token > first.token);
    bench.lease("x", "bob", 0).await.unwrap();
    let again = bench.lease("x", "ann", 500).await.unwrap();
    assert!(again.token > taken.token, "what was given back is free at once");
    bench.stop().await;
}

async fn a_write_under_a_stale_lease_is_refused(open: &Open) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(open, folder.path());
    let anns = bench.lease("x", "ann", 500).await.unwrap().fence();
    bench.engine.state_put_fenced(Some(anns.clone()), vec![put("a", Some("1"), 0)]).await.unwrap();
    // It has ended and nobody else has it: nothing can be trampled on.
    bench.set_clock(2_000);
    bench.engine.state_put_fenced(Some(anns.clone()), vec![put("a", Some("2"), 1)]).await.unwrap();
    let bobs = bench.lease("x", "bob", 500).await.unwrap().fence();
    let lost = Err(EngineError::LeaseLost { name: "x".into() });
    assert_eq!(bench.engine.state_put_fenced(Some(anns.clone()), vec![put("a", Some("3"), 2)]).await, lost);
    bench.engine.state_put_fenced(Some(bobs), vec![put("a", Some("4"), 2)]).await.unwrap();
    bench.stop().await;
    let bench = Bench::open(open, folder.path());
    assert_eq!(bench.engine.state_put_fenced(Some(anns), vec![put("a", Some("5"), 3)]).await, lost);
    let unknown = Fence { name: "nobody's".into(), token: 1 };
    let lost = Err(EngineError::LeaseLost { name: "nobody's".into() });
    assert_eq!(bench.engine.state_put_fenced(Some(unknown), vec![put("a", Some("5"), 3)]).await, lost);
    assert_eq!(bench.engine.state_get("a").await.unwrap().unwrap().value, "4");
    bench.stop().await;
}
