//! The table of orders, and the queries that lists are made of. The kit writes the rows.

use contract::{CustomerId, OrderId, api::OrderStatus};
use kit::{
    machine::Table,
    service::Entity,
    store::{Readers, StoreError},
};
use rusqlite::{Row, types::Type};

use crate::domain::State;

/// The table of orders.
pub(crate) const TABLE: &str = "orders";
/// All tables of entities, with the columns that queries need.
pub(crate) const TABLES: &[Table] = &[Table { name: TABLE, index_columns: &["owner", "status", "created_ms"] }];

/// The store's changes, oldest first; append-only.
pub(crate) const MIGRATIONS: &[&str] = &[
    // Ids are UUIDv7, so within one owner the order of ids is the order of time: one index serves the list and its paging.
    "create table orders (
       id text primary key,
       version bigint not null,
       sequence bigint not null,
       state text not null,
       owner text not null,
       status text not null,
       created_ms bigint not null
     );
     create index orders_by_owner on orders (owner, id);",
];

/// Greater than any id of an order: all 128 bits set, which no UUIDv7 has.
const AFTER_ALL_IDS: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/// An order as a query finds it.
pub(crate) type Found = (OrderId, Entity<State>);

/// The orders of `owner` that come after `after`, newest first, at most `count`: those of one `status`, or all but the deleted ones.
///
/// # Errors
/// When the store fails or a row breaks the model.
pub(crate) fn find_orders_of(
    readers: &Readers,
    owner: &CustomerId,
    after: Option<OrderId>,
    status: Option<OrderStatus>,
    count: usize,
) -> Result<Vec<Found>, StoreError> {
    let after = after.map_or_else(|| String::from(AFTER_ALL_IDS), |id| id.to_string());
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let (condition, status) = match status {
        Some(status) => ("status = $3", status),
        None => ("status <> $3", OrderStatus::Deleted),
    };
    let query = format!(
        "select id, version, state
         from orders
         where owner = $1 and id < $2 and {condition}
         order by id desc
         limit $4"
    );
    readers.read(|connection| {
        let mut statement = connection.prepare_cached(&query)?;
        let mut rows = statement.query((owner.as_str(), after, status.as_str(), count))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(order(row)?);
        }
        Ok(found)
    })
}

fn order(row: &Row<'_>) -> Result<Found, StoreError> {
    let id: String = row.get(0)?;
    let bad = |column, reason: String| StoreError::BadRow { table: TABLE, id: id.clone(), column, reason };
    let order_id = id.parse().map_err(|error: contract::ids::InvalidId| bad("id", error.to_string()))?;
    let state = row.get_ref(2)?;
    let text = state.as_str().map_err(|_| rusqlite::Error::InvalidColumnType(2, String::from("state"), Type::Text))?;
    let state = serde_json::from_str(text).map_err(|error| bad("state", error.to_string()))?;
    Ok((order_id, Entity { state, version: row.get(1)? }))
}

#[cfg(test)]
mod tests {
    use kit::{
        Machine,
        machine::Column,
        store::{Durability, Store},
    };

    use super::*;
    use crate::{
        Orders,
        domain::{self, Input},
    };

    fn insert(store: &Store, id: &str, state: &State) {
        let columns: Vec<String> = Orders::index(state)
            .into_iter()
            .map(|column| match column {
                Column::Text(text) => text,
                Column::Int(number) => number.to_string(),
                Column::Null => String::new(),
            })
            .collect();
        let [owner, status, created_ms] = columns.as_slice() else { panic!("three index columns") };
        let json = serde_json::to_string(state).unwrap();
        store.connection.execute("insert into orders values ($1, 1, 0, $2, $3, $4, $5)", (id, json, owner, status, created_ms)).unwrap();
    }

    fn id(number: u32) -> String {
        format!("01890a5d-ac96-774b-bcce-{number:012x}")
    }

    fn ids(found: &[Found]) -> Vec<String> {
        found.iter().map(|(order_id, _)| order_id.to_string()).collect()
    }

    fn state_of(owner: &str) -> State {
        let create = Input::Create(domain::NewOrder {
            owner: owner.parse().unwrap(),
            lines: vec![contract::events::OrderLine {
                product_id: "canoe".parse().unwrap(),
                quantity: 1,
                unit_price: contract::Money::new(5, contract::Currency::EUR).unwrap(),
            }],
            recipient: None,
            scenario: None,
        });
        domain::decide(None, &create, kit::Timestamp::from_ms(7)).unwrap().state.unwrap()
    }

    #[test]
    fn a_list_has_the_owners_orders_newest_first_from_where_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), "order", MIGRATIONS, Durability::ProcessOnly).unwrap();
        for number in 1..=5 {
            insert(&store, &id(number), &state_of("guest-1"));
        }
        insert(&store, &id(6), &state_of("guest-2"));
        let deleted = State::Deleted { sale: state_of("guest-1").sale().clone(), end: domain::End::Completed };
        insert(&store, &id(7), &deleted);

        let owner: CustomerId = "guest-1".parse().unwrap();
        let find = |after: Option<u32>, status, count| {
            let after = after.map(|number| id(number).parse().unwrap());
            ids(&find_orders_of(&store.readers(), &owner, after, status, count).unwrap())
        };
        assert_eq!(find(None, None, 2), [id(5), id(4)]);
        assert_eq!(find(Some(4), None, 10), [id(3), id(2), id(1)]);
        assert_eq!(find(None, Some(OrderStatus::Deleted), 10), [id(7)]);
        assert_eq!(find(None, Some(OrderStatus::Completed), 10), Vec::<String>::new());
        assert_eq!(find(None, Some(OrderStatus::Pending), 1), [id(5)]);
    }

    #[test]
    fn a_row_that_breaks_the_model_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), "order", MIGRATIONS, Durability::ProcessOnly).unwrap();
        let row = "insert into orders values ($1, 1, 0, '{}', 'guest-1', 'pending', 7)";
        store.connection.execute(row, [id(1)]).unwrap();
        let error = find_orders_of(&store.readers(), &"guest-1".parse().unwrap(), None, None, 1).unwrap_err();
        assert!(error.to_string().starts_with(&format!("table orders, row `{}`, column state", id(1))), "{error}");
    }
}
