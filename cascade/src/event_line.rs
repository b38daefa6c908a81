//! How an event reads on one line of a terminal: who, what, and what a person wants to know beside that.

use anstyle::{AnsiColor, Color, Style};
use contract::Event;
use kit::Envelope;

/// The service that emitted it.
pub(crate) fn service_of(event: &Envelope) -> &str {
    event.source.trim_start_matches('/')
}

/// The bare name, e.g. `OrderCreated`.
pub(crate) fn name_of(event: &Envelope) -> &str {
    event.ty.split('.').nth(1).unwrap_or(&event.ty)
}

/// What a person wants to know of an event beside its name; nothing of an event that is not known here.
pub(crate) fn detail_of(event: &Envelope) -> String {
    Event::read(&event.ty, event.data.as_deref()).map_or_else(|_| String::new(), |event| describe(&event))
}

/// A colour for each service, so that the cascade can be followed at a glance; ends stand out.
pub(crate) fn style_of(service: &str, name: &str) -> Style {
    let colour = match (name, service) {
        ("OrderCompleted", _) => return Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::BrightGreen))),
        ("OrderCancelled", _) => return Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::BrightRed))),
        (_, "order") => AnsiColor::Cyan,
        (_, "payment") => AnsiColor::Yellow,
        (_, "delivery") => AnsiColor::Magenta,
        _ => AnsiColor::White,
    };
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

fn describe(event: &Event) -> String {
    match event {
        Event::OrderCreated(data) => format!("{} for {}", pieces(&data.lines), data.total),
        Event::PaymentAccepted(data) => format!("{} secured", data.amount),
        Event::PaymentDeclined(data) => format!("{:?}", data.reason),
        Event::PaymentRefunded(data) => format!("{} returned", data.amount),
        Event::PaymentNothingTaken(data) => format!("{:?}", data.reason),
        Event::PaymentReversalRequested(data) => format!("{:?}", data.reason),
        Event::WorkerSearchStarted(data) => format!("search {}", data.search),
        Event::WorkerSearchCompleted(data) => format!("{}, offer {}", data.worker_id, data.offer),
        Event::WorkerAcceptedJob(data) => data.worker_id.to_string(),
        Event::WorkerDeclinedJob(data) => data.worker_id.to_string(),
        Event::WorkerOfferExpired(data) => format!("{} did not answer", data.worker_id),
        Event::WorkerOfferWithdrawn(data) => data.worker_id.to_string(),
        Event::WorkerSearchExhausted(data) => format!("{:?} after {} offers", data.reason, data.offers),
        Event::DeliveryStarted(data) => format!("{}, attempt {}", data.worker_id, data.attempt),
        Event::DeliveryAborted(data) => format!("{}, attempt {}: {:?}", data.worker_id, data.attempt, data.reason),
        Event::DeliveryCompleted(data) => format!("{}, attempt {}", data.worker_id, data.attempt),
        Event::DeliveryCancellationRefused(data) => format!("{:?}", data.reason),
        Event::OrderCancellationRejected(data) => format!("{:?}", data.reason),
        Event::OrderCancelled(data) => format!("{:?}", data.reason),
        Event::OrderCompleted(data) => format!("{} for {}", pieces(&data.lines), data.total),
        Event::OrderCancellationRequested(_) | Event::DeliveryCancelled(_) | Event::OrderDeleted(_) => String::new(),
    }
}

fn pieces(lines: &[contract::events::OrderLine]) -> String {
    let named: Vec<String> = lines.iter().take(3).map(|line| format!("{} {}", line.quantity, line.product_id)).collect();
    let more = lines.len().saturating_sub(named.len());
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}
