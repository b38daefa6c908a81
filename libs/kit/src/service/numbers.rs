//! What waits in a service, and what it remembers.

use std::sync::{PoisonError, atomic::Ordering};

use super::Handle;
use crate::{
    BoxFuture, Machine, Timestamp,
    metrics::{Family, Page, Source, number},
    store::StoreError,
};

/// How long a count of what is remembered is good enough, in milliseconds: counting goes through all of it.
const COUNT_MS: u64 = 60_000;

const OUTBOX: Family =
    Family { name: "cascade_outbox_events", help: "Events that wait for the broker to acknowledge them.", labels: &["service"] };
const INPUTS: Family =
    Family { name: "cascade_inputs_waiting", help: "Inputs that wait for a service's writer.", labels: &["service", "kind"] };
const INBOX: Family =
    Family { name: "cascade_inbox_rows", help: "Applied events that a service remembers; counted once a minute.", labels: &["service"] };

const KEYS: Family = Family {
    name: "cascade_idempotency_rows",
    help: "Idempotency keys that a service remembers, one or two rows a key; counted once a minute.",
    labels: &["service"],
};
const FORGOTTEN: Family = Family {
    name: "cascade_rows_forgotten_total",
    help: "Rows that a service forgot because nothing can ask for them any more.",
    labels: &["service", "table"],
};

/// What is remembered, and when that was counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    inbox_rows: i64,
    idempotency_rows: i64,
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
        let forgotten = [("inbox", shared.memory.events_forgotten()), ("idempotency", shared.memory.keys_forgotten())];
        for (table, rows) in forgotten {
            page.counter(&FORGOTTEN, &[M::NAME, table], number(i64::try_from(rows).unwrap_or(i64::MAX)));
        }
        match self.count_remembered() {
            Ok(counted) => {
                page.gauge(&INBOX, &[M::NAME], number(counted.inbox_rows));
                page.gauge(&KEYS, &[M::NAME], number(counted.idempotency_rows));
            }
            Err(error) => tracing::warn!(service = M::NAME, %error, "what is remembered cannot be counted"),
        }
        Box::pin(std::future::ready(()))
    }
}

impl<M: Machine> Handle<M> {
    fn count_remembered(&self) -> Result<Counted, StoreError> {
        let mut counted = self.shared.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        if counted.at.is_none_or(|at| now >= at.plus_ms(COUNT_MS)) {
            let sql = "select (select count(*) from inbox), (select count(*) from idempotency)";
            let count = |row: &rusqlite::Row<'_>| Ok(Counted { inbox_rows: row.get(0)?, idempotency_rows: row.get(1)?, at: Some(now) });
            *counted = self.shared.readers.read(|db| Ok::<_, StoreError>(db.query_row(sql, [], count)?))?;
        }
        Ok(*counted)
    }
}
