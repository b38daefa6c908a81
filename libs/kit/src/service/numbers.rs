//! What waits in a service, and what it remembers.

use std::sync::{PoisonError, atomic::Ordering};

use super::Handle;
use crate::{
    BoxFuture, Machine, Timestamp,
    metrics::{Family, Page, Source, number},
    store::StoreError,
};

/// How long a count of the inbox is good enough, in milliseconds: counting goes through all of it.
const COUNT_MS: u64 = 60_000;

const OUTBOX: Family =
    Family { name: "cascade_outbox_events", help: "Events that wait for the broker to acknowledge them.", labels: &["service"] };
const INPUTS: Family =
    Family { name: "cascade_inputs_waiting", help: "Inputs that wait for a service's writer.", labels: &["service", "kind"] };
const INBOX: Family =
    Family { name: "cascade_inbox_rows", help: "Applied events that a service remembers; counted once a minute.", labels: &["service"] };

/// A count, and when it was made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    rows: i64,
    at: Option<Timestamp>,
}

impl<M: Machine> Source for Handle<M> {
    fn read<'a>(&'a self, page: &'a mut Page) -> BoxFuture<'a, ()> {
        let shared = &self.shared;
        let count = |rows: usize| number(i64::try_from(rows).unwrap_or(i64::MAX));
        page.gauge(&OUTBOX, &[M::NAME], count(shared.outbox_rows.load(Ordering::Relaxed)));
        for (kind, queue) in [("command", &shared.commands), ("event", &shared.urgent)] {
            page.gauge(&INPUTS, &[M::NAME, kind], count(queue.max_capacity() - queue.capacity()));
        }
        match self.count_inbox() {
            Ok(rows) => page.gauge(&INBOX, &[M::NAME], number(rows)),
            Err(error) => tracing::warn!(service = M::NAME, %error, "the inbox cannot be counted"),
        }
        Box::pin(std::future::ready(()))
    }
}

impl<M: Machine> Handle<M> {
    fn count_inbox(&self) -> Result<i64, StoreError> {
        let mut counted = self.shared.inbox_rows.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        if counted.at.is_none_or(|at| now >= at.plus_ms(COUNT_MS)) {
            let rows =
                self.shared.readers.read(|db| Ok::<_, StoreError>(db.query_row("select count(*) from inbox", [], |row| row.get(0))?))?;
            *counted = Counted { rows, at: Some(now) };
        }
        Ok(counted.rows)
    }
}
