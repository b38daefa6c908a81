//! Checks what a client wants to order, and prices it. A client never says what something costs.

use contract::{
    api::{LINE_QUANTITY_MAX, NewOrder, NewOrderLine, ORDER_LINES_MAX, RECIPIENT_TEXT_BYTES_MAX, Recipient},
    events::OrderLine,
};
use kit::Problem;

use crate::catalogue;

/// The lines at the catalogue's prices, and for whom. Lines of one product become one line, where the first of them stood.
pub(super) fn check(order: NewOrder) -> Result<(Vec<OrderLine>, Option<Recipient>), Problem> {
    let lines = price(&order.lines)?;
    if let Some(recipient) = &order.recipient {
        check_recipient(recipient)?;
    }
    Ok((lines, order.recipient))
}

fn price(lines: &[NewOrderLine]) -> Result<Vec<OrderLine>, Problem> {
    if lines.is_empty() {
        return Err(Problem::unprocessable("empty_order", "an order needs at least one line").field("/lines"));
    }
    if lines.len() > ORDER_LINES_MAX {
        let detail = format!("an order has at most {ORDER_LINES_MAX} lines");
        return Err(Problem::unprocessable("too_many_lines", detail).field("/lines"));
    }
    let mut priced: Vec<OrderLine> = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let Some(product) = catalogue::find_product(&line.product_id) else {
            let detail = format!("the shop has no product `{}`", line.product_id);
            return Err(Problem::unprocessable("unknown_product", detail).field(format!("/lines/{index}/product_id")));
        };
        let earlier = priced.iter_mut().find(|earlier| earlier.product_id == line.product_id);
        let quantity = line.quantity.saturating_add(earlier.as_ref().map_or(0, |earlier| earlier.quantity));
        if line.quantity == 0 || quantity > LINE_QUANTITY_MAX {
            let detail = format!("of one product 1 to {LINE_QUANTITY_MAX} pieces can be ordered");
            return Err(Problem::unprocessable("invalid_quantity", detail).field(format!("/lines/{index}/quantity")));
        }
        match earlier {
            Some(earlier) => earlier.quantity = quantity,
            None => priced.push(OrderLine { product_id: product.product_id.clone(), quantity, unit_price: product.price }),
        }
    }
    Ok(priced)
}

fn check_recipient(recipient: &Recipient) -> Result<(), Problem> {
    let texts = [
        ("/recipient/name", Some(&recipient.name)),
        ("/recipient/address", Some(&recipient.address)),
        ("/recipient/note", recipient.note.as_ref()),
    ];
    // The texts themselves are personal: they stand in no problem document.
    for (field, text) in texts {
        let text = text.map_or("", String::as_str);
        if text.len() > RECIPIENT_TEXT_BYTES_MAX {
            let detail = format!("a text has at most {RECIPIENT_TEXT_BYTES_MAX} bytes");
            return Err(Problem::unprocessable("text_too_long", detail).field(field));
        }
        if text.chars().any(char::is_control) {
            return Err(Problem::unprocessable("control_character", "a text may have no control characters").field(field));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(order: serde_json::Value) -> Result<(Vec<OrderLine>, Option<Recipient>), Problem> {
        check(serde_json::from_value(order).unwrap())
    }

    #[test]
    fn prices_are_the_catalogues_and_lines_of_one_product_become_one() {
        let (lines, _) = checked(json!({"lines": [
            {"product_id": "trout-socks", "quantity": 2},
            {"product_id": "canoe", "quantity": 1},
            {"product_id": "trout-socks", "quantity": 998},
        ]}))
        .unwrap();
        let lines: Vec<_> = lines.iter().map(|line| (line.product_id.as_str(), line.quantity, line.unit_price.amount_minor())).collect();
        assert_eq!(lines, [("trout-socks", 1_000, 1_120), ("canoe", 1, 189_000)]);
    }

    #[test]
    fn what_cannot_be_ordered_is_refused_with_the_field_at_fault() {
        let socks = |quantity: u32| json!({"product_id": "trout-socks", "quantity": quantity});
        let many: Vec<_> = (0..51).map(|_| socks(1)).collect();
        let recipient = |name: &str, note: &str| json!({"lines": [socks(1)], "recipient": {"name": name, "address": "x", "note": note}});
        for (order, code, field) in [
            (json!({"lines": []}), "empty_order", "/lines"),
            (json!({"lines": many}), "too_many_lines", "/lines"),
            (json!({"lines": [socks(1), {"product_id": "submarine", "quantity": 1}]}), "unknown_product", "/lines/1/product_id"),
            (json!({"lines": [socks(0)]}), "invalid_quantity", "/lines/0/quantity"),
            (json!({"lines": [socks(1_001)]}), "invalid_quantity", "/lines/0/quantity"),
            (json!({"lines": [socks(u32::MAX)]}), "invalid_quantity", "/lines/0/quantity"),
            (json!({"lines": [socks(1), socks(u32::MAX)]}), "invalid_quantity", "/lines/1/quantity"),
            (json!({"lines": [socks(600), socks(401)]}), "invalid_quantity", "/lines/1/quantity"),
            (recipient(&"ä".repeat(251), ""), "text_too_long", "/recipient/name"),
            (recipient("Ada", "ring\u{7}"), "control_character", "/recipient/note"),
        ] {
            let problem = checked(order).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code, problem.field.as_deref()), (422, code, Some(field)));
            assert!(!problem.detail.contains("Ada") && !problem.detail.contains("ring"), "{}", problem.detail);
        }
        assert!(checked(recipient(&"a".repeat(500), "")).is_ok());
    }
}
