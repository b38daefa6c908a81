//! Errors as problem documents (RFC 9457).

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// An error as a client sees it: `application/problem+json` with a stable `code`. Holds nothing that is unsafe to show.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// The HTTP status.
    #[serde(serialize_with = "status_number")]
    pub status: StatusCode,
    /// The status in words.
    pub title: &'static str,
    /// What a program can tell the problem by; never changes its meaning.
    pub code: &'static str,
    /// What a person should know.
    pub detail: String,
    /// The field at fault, where there is one, as a JSON pointer or a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// How many items of a batch were done before the one at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub landed: Option<usize>,
    /// After how many seconds a retry makes sense; also sent as `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u32>,
}

/// The longest `detail` or `field`, in bytes: many name what came, and that may be as long as a request.
const TEXT_BYTES_MAX: usize = 1_024;

fn shorten(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX - '…'.len_utf8()));
        text.push('…');
    }
    text
}

fn status_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    /// A problem with a stable `code` and a `detail` for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            title: status.canonical_reason().unwrap_or("Error"),
            code,
            detail: shorten(detail.into()),
            field: None,
            landed: None,
            retry_after_s: None,
        }
    }

    /// And the field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(shorten(field.into()));
        self
    }

    /// And how many items of a batch were done before the one at fault.
    #[must_use]
    pub fn landed(mut self, count: usize) -> Self {
        self.landed = Some(count);
        self
    }

    /// And when to come again.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// 400: the request cannot be read.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// 401: nobody is known to be asking.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "this needs a session or a token")
    }

    /// 403: whoever asks may not.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: not there, or not to be seen by whoever asks.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 409: it contradicts how things stand.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 422: it can be read, and can never be done.
    pub fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 429: too much at once.
    pub fn busy() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", "too much is going on; try again").retry_after_s(1)
    }

    /// 503: not now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after_s(1)
    }

    /// 500: our fault. What went wrong is in the log, not in the answer.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "something broke; it has been logged")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after_s) = (self.status, self.retry_after_s);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_does_not_give_back_all_that_was_sent() {
        let problem = Problem::bad_request("malformed_json", "ä".repeat(5_000)).field("x".repeat(5_000));
        let field = problem.field.unwrap();
        assert!(problem.detail.len() <= TEXT_BYTES_MAX && problem.detail.ends_with("ä…"), "{}", problem.detail);
        assert!(field.len() == TEXT_BYTES_MAX && field.ends_with("x…"), "{field}");
        let short = Problem::bad_request("malformed_json", "y".repeat(TEXT_BYTES_MAX));
        assert_eq!(short.detail, "y".repeat(TEXT_BYTES_MAX));
    }
}
