//! Where the log begins, as a delivery over HTTP tells it. What makes a service forget must be the broker's own word: a delivery's
//! signature covers its body alone, so this header has a signature of its own.

use http::HeaderMap;

use crate::{
    Position, Timestamp,
    security::webhook::{self, Secret},
};

/// The position at which the log begins: no event before it is sent from then on.
pub const LOG_FIRST: &str = "cascade-log-first";
/// Signatures of that text, made as those of a body are, under the delivery's id and timestamp.
pub const LOG_SIGNATURE: &str = "cascade-log-signature";

/// Signs that the log begins at `first`, for the delivery `id`.
pub fn sign(secret: &Secret, id: &str, sent_s: i64, first: Position) -> String {
    secret.sign(id, sent_s, first.to_string().as_bytes())
}

/// Where the log begins, if these `headers` say so, and `secret` has signed that, and it is fresh at the time `now`.
pub fn read(headers: &HeaderMap, secret: &Secret, now: Timestamp) -> Option<Position> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let first = text(LOG_FIRST)?;
    let sent_s = text(webhook::TIMESTAMP)?.parse().ok()?;
    let is_signed = secret.has_signed(text(LOG_SIGNATURE)?, text(webhook::ID)?, sent_s, first.as_bytes(), now);
    first.parse().ok().filter(|_| is_signed).map(Position)
}
