//! The tables of deliveries and workers, and the couriers' queries. The kit writes every row.

use contract::{OrderId, WorkerId};
use kit::{
    machine::{Column, Table},
    step::Context,
    store::StoreError,
};
use rusqlite::Connection;

use crate::domain::{Delivery, Key, State, delivery::Looking};

const DELIVERIES: &str = "deliveries";
const WORKERS: &str = "workers";

/// Deliveries, one row an order, and workers.
pub(crate) const TABLES: &[Table] = &[
    Table { name: DELIVERIES, index_columns: &["status", "waiting_since_ms"] },
    Table { name: WORKERS, index_columns: &["status", "busy_with"] },
];

/// The store's changes, oldest first. Append-only: these have run where the shop runs.
pub(crate) const MIGRATIONS: &[&str] = &[
    // Deliveries by order; `waiting_since_ms` only where nobody was free, so that whoever becomes free finds the longest waiting.
    // Workers by id; by status, so that somebody free is found without looking at all.
    "create table deliveries (
        id text primary key,
        version bigint not null,
        sequence bigint not null,
        state text not null,
        status text not null,
        waiting_since_ms bigint
    );
    create index deliveries_waiting on deliveries (waiting_since_ms, id) where waiting_since_ms is not null;
    create table workers (
        id text primary key,
        version bigint not null,
        sequence bigint not null,
        state text not null,
        status text not null,
        busy_with text
    );
    create index workers_status on workers (status, id);",
];

/// The values of [`TABLES`]' index columns.
pub(crate) fn index(state: &State) -> Vec<Column> {
    let beside = match state {
        State::Delivery(Delivery::Searching { looking: Looking::Waiting { since, .. }, .. }) => Column::Int(since.as_ms()),
        State::Delivery(_) => Column::Null,
        State::Worker(worker) => worker.job().map_or(Column::Null, |job| Column::Text(job.order_id.to_string())),
    };
    vec![Column::Text(state.status().to_owned()), beside]
}

impl kit::machine::Key for Key {
    fn table(&self) -> &'static str {
        match self {
            Self::Delivery(_) => DELIVERIES,
            Self::Worker(_) => WORKERS,
        }
    }

    fn id(&self) -> String {
        match self {
            Self::Delivery(order_id) => order_id.to_string(),
            Self::Worker(worker_id) => worker_id.to_string(),
        }
    }

    fn parse(table: &str, id: &str) -> Option<Self> {
        match table {
            DELIVERIES => id.parse().ok().map(Self::Delivery),
            WORKERS => id.parse().ok().map(Self::Worker),
            _ => None,
        }
    }
}

/// Who is free for a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Free {
    /// This one.
    Worker(WorkerId),
    /// Everybody has been left out.
    AllDeclined,
    /// Nobody just now.
    Nobody,
}

/// Somebody who is free and not in `declined`, looked for from the id `from` upwards and then from the beginning.
pub(crate) fn find_free_worker(connection: &Connection, from: &str, declined: &[WorkerId]) -> Result<Free, StoreError> {
    const ABOVE: &str = "select id from workers where status = 'available' and id >= $1 order by id";
    const BELOW: &str = "select id from workers where status = 'available' and id < $1 order by id";
    for half in [ABOVE, BELOW] {
        let mut statement = connection.prepare_cached(half)?;
        let mut rows = statement.query([from])?;
        while let Some(row) = rows.next()? {
            let worker_id = parse(WORKERS, row.get(0)?)?;
            if !declined.contains(&worker_id) {
                return Ok(Free::Worker(worker_id));
            }
        }
    }
    if declined.is_empty() || is_anybody_left(connection, declined)? { Ok(Free::Nobody) } else { Ok(Free::AllDeclined) }
}

fn is_anybody_left(connection: &Connection, declined: &[WorkerId]) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("select id from workers order by id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let worker_id: WorkerId = parse(WORKERS, row.get(0)?)?;
        if !declined.contains(&worker_id) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A delivery for which nobody was free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WaitingDelivery {
    pub(crate) order_id: OrderId,
    pub(crate) search: u32,
    pub(crate) declined: Vec<WorkerId>,
    pub(crate) context: Context,
}

/// Up to `count_max` deliveries for which nobody was free, the longest waiting first.
pub(crate) fn find_waiting(connection: &Connection, count_max: usize) -> Result<Vec<WaitingDelivery>, StoreError> {
    let mut statement = connection.prepare_cached(
        "select id, state
         from deliveries
         where waiting_since_ms is not null
         order by waiting_since_ms, id
         limit $1",
    )?;
    let mut rows = statement.query([i64::try_from(count_max).unwrap_or(i64::MAX)])?;
    let mut waiting = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let state: State = serde_json::from_str(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)
            .map_err(|error| StoreError::BadRow { table: DELIVERIES, id: id.clone(), column: "state", reason: error.to_string() })?;
        if let State::Delivery(Delivery::Searching { quest, looking: Looking::Waiting { context, .. } }) = state {
            waiting.push(WaitingDelivery {
                order_id: parse(DELIVERIES, id)?,
                search: quest.tally.search,
                declined: quest.declined,
                context,
            });
        }
    }
    Ok(waiting)
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(table: &'static str, id: String) -> Result<T, StoreError> {
    id.parse().map_err(|error: T::Err| StoreError::BadRow { table, id, column: "id", reason: error.to_string() })
}
