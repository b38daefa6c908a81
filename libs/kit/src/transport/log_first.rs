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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::body::Body;
    use http::{Request, StatusCode, header};
    use tower::ServiceExt;

    use super::*;
    use crate::{
        BoxFuture, Clock, Recorded,
        envelope::BATCH_JSON,
        intake,
        security::Keyring,
        transport::{ItemAnswer, Sink, SinkError},
    };

    const NOW: Timestamp = Timestamp::from_ms(1_000_000_000);
    const SENT_S: i64 = 1_000_000;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            NOW
        }
    }

    /// Notes where the log begins, and which places came.
    #[derive(Default)]
    struct Noting(Mutex<(Option<Position>, Vec<Position>)>);

    impl Sink for Noting {
        fn deliver<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<Vec<ItemAnswer>, SinkError>> {
            self.0.lock().unwrap().1.extend(events.iter().map(|event| event.position));
            Box::pin(std::future::ready(Ok(Vec::new())))
        }
        fn hear_log_first(&self, first: Position) {
            self.0.lock().unwrap().0 = Some(first);
        }
    }

    fn secret(name: &str) -> Secret {
        Keyring::from_secret([7; 32]).webhook_secret(name, None)
    }

    /// What a service hears of a delivery of the event at position 9 with these headers beside its signature.
    async fn hear(extra: &[(&str, &str)]) -> (Option<Position>, Vec<Position>) {
        let (noting, body) = (Arc::new(Noting::default()), r#"[{"specversion":"1.0","id":"1","source":"/a","type":"t","position":"9"}]"#);
        let signature = secret("me").sign("d-1", SENT_S, body.as_bytes());
        let sent = SENT_S.to_string();
        let signed = [(webhook::ID, "d-1"), (webhook::TIMESTAMP, &*sent), (webhook::SIGNATURE, &*signature)];
        let mut request = Request::post("/events").header(header::CONTENT_TYPE, BATCH_JSON);
        for (name, value) in signed.iter().chain(extra) {
            request = request.header(*name, *value);
        }
        let route = intake::route(noting.clone(), secret("me"), Arc::new(Still));
        let answer = route.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{extra:?}");
        noting.0.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn a_service_hears_where_the_log_begins_from_the_broker_alone() {
        let ours = sign(&secret("me"), "d-1", SENT_S, Position(5));
        let both = format!("{} {ours}", sign(&secret("old"), "d-1", SENT_S, Position(5)));
        for signature in [&ours, &both] {
            assert_eq!(hear(&[(LOG_FIRST, "5"), (LOG_SIGNATURE, signature)]).await, (Some(Position(5)), vec![Position(9)]));
        }
        let (other, others) = (sign(&secret("me"), "d-2", SENT_S, Position(5)), sign(&secret("you"), "d-1", SENT_S, Position(5)));
        let forged: [&[(&str, &str)]; 7] = [
            // A broker that is older.
            &[],
            &[(LOG_FIRST, "5")],
            &[(LOG_SIGNATURE, &ours)],
            &[(LOG_FIRST, "6"), (LOG_SIGNATURE, &ours)],
            &[(LOG_FIRST, "5"), (LOG_SIGNATURE, &other)],
            &[(LOG_FIRST, "5"), (LOG_SIGNATURE, &others)],
            &[(LOG_FIRST, "five"), (LOG_SIGNATURE, &secret("me").sign("d-1", SENT_S, b"five"))],
        ];
        for headers in forged {
            assert_eq!(hear(headers).await, (None, vec![Position(9)]), "{headers:?}");
        }
    }
}
