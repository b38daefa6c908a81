//! What the routes of orders and of the catalogue look like from outside.

use contract::api::{NewOrder, OrderView, Page, ProductView};
use kit::describe::{Api, Input, Operation, Who, schemas};
use serde_json::json;

use super::{
    PAGE_ORDERS, PAGE_ORDERS_MAX,
    headers::{KEY_BYTES_MAX, SCENARIO_BYTES_MAX},
};

const OWNERS: &[Who] = &[Who::Guest, Who::Operator];

/// Describes the routes of [`router`](super::router).
pub fn describe(api: &mut Api) {
    let products = operation(("get", "/api/products"), "listProducts", "What is sold, for how much").by_everybody();
    api.add(products.answers::<Page<ProductView>>(200, "The catalogue."));
    create(api);
    let list = operation(("get", "/api/orders"), "listOrders", "One's own orders, newest first").by(&[Who::Guest]);
    let status = json!({"type": "string", "enum": ["pending", "confirmed", "in_delivery", "cancelling", "reversing", "completed", "cancelled", "deleted"]});
    api.add(
        list.says("Deleted orders are listed only with `status=deleted`.")
            .with_query(&[
                Input {
                    name: "after",
                    says: "Only what comes after this order: the `next` of the page before.",
                    schema: json!({"type": "string", "format": "uuid"}),
                },
                schemas::limit(PAGE_ORDERS, PAGE_ORDERS_MAX),
                Input { name: "status", says: "Only orders that stand so.", schema: status },
            ])
            .answers::<Page<OrderView>>(200, "A page.")
            .problems(403, &["forbidden"]),
    );
    let read = operation(("get", "/api/orders/{order_id}"), "readOrder", "An order").with_path(&order_id());
    api.add(
        read.by(&[Who::Guest, Who::Operator, Who::Everybody])
            .with_query(&[schemas::share()])
            .answers::<OrderView>(200, "The order; for the bearer of a share token without its recipient."),
    );
    let cancel = operation(("post", "/api/orders/{order_id}/cancel"), "cancelOrder", "Asks for an order to be cancelled");
    api.add(
        commanded(cancel)
            .says("Delivery decides whether it can still be had. Repeated, it changes nothing.")
            .takes_what("application/json", json!({"type": "object", "maxProperties": 0}), vec![json!({})])
            .takes_nothing_too()
            .answers::<OrderView>(202, "It has been asked for.")
            .problems(409, &["already_delivered"]),
    );
    let delete = operation(("delete", "/api/orders/{order_id}"), "deleteOrder", "Erases the personal data of an order that has ended");
    api.add(commanded(delete).answers_with(204, "It is erased, now or before.", vec![]).problems(409, &["order_not_ended"]));
}

/// The order that a path names.
pub fn order_id() -> Input {
    Input { name: "order_id", says: "The order.", schema: json!({"$ref": "#/components/schemas/OrderId"}) }
}

fn create(api: &mut Api) {
    let scenario = Input {
        name: "Cascade-Scenario",
        says: "Which script the simulated parts follow; in playground mode only.",
        schema: json!({"type": "string", "pattern": format!("^[a-z0-9-]{{1,{SCENARIO_BYTES_MAX}}}$")}),
    };
    let trace = Input {
        name: "traceparent",
        says: "The trace to go on with (W3C Trace Context). One that is none is passed over.",
        schema: json!({"type": "string"}),
    };
    let example = json!({
        "lines": [{"product_id": "trout-socks", "quantity": 2}],
        "recipient": {"name": "Ada", "address": "1 Mill Lane"},
    });
    let create = operation(("post", "/api/orders"), "createOrder", "Orders").says(
        "When it is answered, the order is on disk. Prices are the catalogue's: a client never names one. Whoever orders anonymously becomes a \
         guest, whose session the answer opens.",
    );
    let create = create
        .by(&[Who::Guest, Who::Operator, Who::Service, Who::Everybody])
        .takes::<NewOrder>("application/json", vec![example])
        .with_header(&schemas::idempotency_key(KEY_BYTES_MAX))
        .with_header(&scenario)
        .with_header(&trace)
        .answers::<OrderView>(201, "The order.")
        .with_headers(&["location", "set-cookie"])
        .answers::<OrderView>(200, "The key was known, with the same body: the order that it made, as it stands now.")
        .with_headers(&["idempotency-replayed", "set-cookie"])
        .problems(400, &["invalid_idempotency_key", "invalid_scenario"])
        .problems(409, &["id_taken"])
        .problems(422, &["empty_order", "too_many_lines", "unknown_product", "invalid_quantity", "total_too_large"])
        .problems(422, &["text_too_long", "control_character", "idempotency_mismatch"])
        .problems(429, &["busy"]);
    api.add(create);
}

fn operation(route: (&'static str, &'static str), id: &'static str, summary: &'static str) -> Operation {
    Operation::new(route, id, summary).tag("orders")
}

/// What a command to an order of one's own has.
fn commanded(operation: Operation) -> Operation {
    let operation = operation.by(OWNERS).with_path(&order_id()).problems(410, &["order_deleted"]);
    operation.problems(429, &["busy"])
}
