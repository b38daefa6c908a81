//! The table of payments. The kit writes every row.

use contract::OrderId;
use kit::machine::{Column, Table};

use crate::domain::{Key, Payment};

const PAYMENTS: &str = "payments";

/// The table of payments, one row an order.
pub(crate) const TABLES: &[Table] = &[Table { name: PAYMENTS, index_columns: &["status"] }];

/// The store's changes, oldest first. Append-only: these have run where the shop runs.
pub(crate) const MIGRATIONS: &[&str] = &[
    // Payments by order; the status beside the state is for counting and looking things up.
    "create table payments (
        id text primary key,
        version bigint not null,
        sequence bigint not null,
        state text not null,
        status text not null
    );",
];

/// The values of [`TABLES`]' index columns.
pub(crate) fn index(state: &Payment) -> Vec<Column> {
    vec![Column::Text(state.status().to_owned())]
}

impl kit::machine::Key for Key {
    fn table(&self) -> &'static str {
        PAYMENTS
    }

    fn id(&self) -> String {
        self.0.to_string()
    }

    fn parse(table: &str, id: &str) -> Option<Self> {
        (table == PAYMENTS).then(|| id.parse::<OrderId>().ok().map(Self)).flatten()
    }
}
