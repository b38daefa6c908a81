//! Orders as clients see them, and refusals as problem documents.

use contract::{
    OrderId,
    api::{OrderLinks, OrderStatus, OrderView},
};
use http::StatusCode;
use kit::{
    Problem,
    http::Gate,
    service::{Entity, SubmitError},
};

use crate::domain::{Refusal, State};

/// How much of an order somebody sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// All of it: its owner, and whoever operates the shop.
    Full,
    /// Not where the goods go: whoever has a link to it.
    WithoutRecipient,
}

/// The order `order_id` as `sight` lets it be seen.
pub(super) fn order(order_id: OrderId, order: &Entity<State>, gate: &Gate, sight: Sight) -> OrderView {
    let (state, sale) = (&order.state, order.state.sale());
    let recipient = match sight {
        Sight::Full => state.recipient().cloned(),
        Sight::WithoutRecipient => None,
    };
    OrderView {
        order_id,
        status: state.status(),
        waiting_for: waiting_for(state.status()).map(str::to_owned),
        cancel_reason: state.cancel_reason(),
        lines: sale.lines.clone(),
        total: sale.total,
        recipient,
        created_at: sale.created_at.to_rfc3339(),
        version: order.version,
        links: links(order_id, gate),
    }
}

/// What a cancelling waits for, in plain words.
fn waiting_for(status: OrderStatus) -> Option<&'static str> {
    match status {
        OrderStatus::Cancelling => Some("delivery, to say whether the goods can still be held back"),
        OrderStatus::Reversing => Some("payment, to return what was paid"),
        OrderStatus::Pending
        | OrderStatus::Confirmed
        | OrderStatus::InDelivery
        | OrderStatus::Completed
        | OrderStatus::Cancelled
        | OrderStatus::Deleted => None,
    }
}

/// The order's links. The token in them lets whoever has one read this order and nothing else; it needs no escaping in a URL.
fn links(order_id: OrderId, gate: &Gate) -> OrderLinks {
    let share = gate.keyring.share_token(&order_id.to_string());
    OrderLinks {
        order: format!("/api/orders/{order_id}?share={share}"),
        events: format!("/api/orders/{order_id}/events?share={share}"),
        live: format!("/api/live?subject={order_id}&share={share}"),
        page: format!("/orders/{order_id}?share={share}"),
    }
}

/// Why a command did nothing, as a client is told it.
pub(super) fn problem(error: SubmitError<Refusal>) -> Problem {
    match error {
        SubmitError::Refused(refusal) => refused(&refusal),
        SubmitError::IdempotencyMismatch => {
            let detail = "this `Idempotency-Key` was used with another body";
            Problem::unprocessable("idempotency_mismatch", detail).field("idempotency-key")
        }
        SubmitError::Busy => Problem::busy(),
        SubmitError::Unavailable => Problem::unavailable("the order service takes no commands just now"),
        SubmitError::Failed => Problem::internal(),
    }
}

fn refused(refusal: &Refusal) -> Problem {
    let detail = refusal.to_string();
    match refusal {
        Refusal::NotFound => Problem::not_found(detail),
        Refusal::IdTaken => Problem::conflict("id_taken", detail),
        Refusal::NoLines => Problem::unprocessable("empty_order", detail).field("/lines"),
        Refusal::TotalTooLarge => Problem::unprocessable("total_too_large", detail).field("/lines"),
        Refusal::AlreadyDelivered => Problem::conflict("already_delivered", detail),
        Refusal::NotEnded { .. } => Problem::conflict("order_not_ended", detail),
        Refusal::Deleted => Problem::new(StatusCode::GONE, "order_deleted", detail),
        // Answers to events; no command comes to them.
        Refusal::Contradiction { .. } | Refusal::WrongAmount { .. } => Problem::conflict("contradiction", detail),
    }
}

#[cfg(test)]
mod tests {
    use contract::{
        Currency, Money,
        api::Recipient,
        events::{CancelReason, OrderLine},
    };
    use kit::{Timestamp, http::Proxies, security::Keyring};

    use super::*;
    use crate::domain::{End, Funds, Kept, Sale, Stage};

    fn gate() -> Gate {
        Gate { keyring: Keyring::from_secret([7; 32]), is_playground: false, hosts: Vec::new(), proxies: Proxies::none() }
    }

    fn id() -> OrderId {
        "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
    }

    fn sale() -> Sale {
        let price = Money::new(500, Currency::EUR).unwrap();
        let line = OrderLine { product_id: "canoe".parse().unwrap(), quantity: 1, unit_price: price };
        Sale { owner: "guest-1".parse().unwrap(), lines: vec![line], total: price, created_at: Timestamp::from_ms(0), scenario: None }
    }

    fn kept(stage: Stage) -> Entity<State> {
        let recipient = Recipient { name: String::from("Ada"), address: String::from("1 Mill Lane"), note: None };
        Entity { state: State::Kept(Kept { sale: sale(), recipient: Some(recipient), stage }), version: 3 }
    }

    #[test]
    fn only_the_owner_sees_where_the_goods_go() {
        let full = order(id(), &kept(Stage::Pending), &gate(), Sight::Full);
        assert_eq!(full.recipient.unwrap().name, "Ada");
        let shared = order(id(), &kept(Stage::Pending), &gate(), Sight::WithoutRecipient);
        assert!(!serde_json::to_string(&shared).unwrap().contains("Ada"));
    }

    #[test]
    fn links_carry_a_token_for_this_order_alone() {
        let links = order(id(), &kept(Stage::Pending), &gate(), Sight::Full).links;
        for link in [links.order, links.events, links.live, links.page] {
            let (_, token) = link.split_once("share=").unwrap();
            assert!(gate().keyring.is_share_token(token, &id().to_string()), "{link}");
            assert!(!gate().keyring.is_share_token(token, "another"), "{link}");
        }
    }

    #[test]
    fn an_order_that_is_being_cancelled_says_what_it_waits_for() {
        let view = order(id(), &kept(Stage::Reversing { reason: CancelReason::NoWorker, funds: Funds::Secured }), &gate(), Sight::Full);
        assert_eq!((view.status, view.cancel_reason, view.version), (OrderStatus::Reversing, Some(CancelReason::NoWorker), 3));
        assert!(view.waiting_for.unwrap().starts_with("payment"));
        assert_eq!(order(id(), &kept(Stage::Completed), &gate(), Sight::Full).waiting_for, None);
    }

    #[test]
    fn a_deleted_order_shows_its_books_only() {
        let deleted = Entity { state: State::Deleted { sale: sale(), end: End::Completed }, version: 9 };
        let view = order(id(), &deleted, &gate(), Sight::Full);
        assert_eq!((view.status, view.recipient, view.lines), (OrderStatus::Deleted, None, sale().lines));
    }

    #[test]
    fn every_failed_command_has_a_status_and_a_code() {
        for (error, status, code) in [
            (SubmitError::Busy, 429, "busy"),
            (SubmitError::Unavailable, 503, "unavailable"),
            (SubmitError::Failed, 500, "internal"),
            (SubmitError::IdempotencyMismatch, 422, "idempotency_mismatch"),
            (SubmitError::Refused(Refusal::NotFound), 404, "not_found"),
            (SubmitError::Refused(Refusal::AlreadyDelivered), 409, "already_delivered"),
            (SubmitError::Refused(Refusal::NotEnded { status: "pending" }), 409, "order_not_ended"),
            (SubmitError::Refused(Refusal::Deleted), 410, "order_deleted"),
            (SubmitError::Refused(Refusal::TotalTooLarge), 422, "total_too_large"),
        ] {
            let problem = problem(error);
            assert_eq!((problem.status.as_u16(), problem.code), (status, code));
        }
    }
}
