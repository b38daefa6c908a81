//! Bodies, paths and queries, read with clear errors.

use std::time::Duration;

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request, rejection::PathRejection},
    http::{StatusCode, header, request::Parts},
};
use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};

use crate::Problem;

/// How long a client may take to send a body: less than an answer may take, so that who is slow is told who was.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// A JSON object as the body. 415 for another media type, 400 for what is not JSON, 422 for JSON of another shape.
#[derive(Debug, Clone)]
pub struct Body<T> {
    /// What was read.
    pub value: T,
    /// The bytes it was read from, e.g. to tell whether a request came again.
    pub bytes: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if media.split(';').next().unwrap_or_default().trim() != "application/json" {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "the body must be application/json"));
        }
        let bytes = read_bytes(request, state).await?;
        // A body is an object: serde would also read a struct from the array of its fields.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first == b'[') {
            return Err(Problem::unprocessable("invalid_body", "the body must be a JSON object"));
        }
        let value = parse_json(&bytes)?;
        Ok(Self { value, bytes })
    }
}

/// The whole body of a request, within the route's limit.
///
/// # Errors
/// 413 for a body over the limit, 400 for one that broke off, 408 for one that does not come.
pub async fn read_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await;
    let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body did not come in time");
    read.map_err(late)?.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is over the limit"),
        _ => Problem::bad_request("unreadable_body", "the body broke off"),
    })
}

/// Reads JSON.
///
/// # Errors
/// 400 for what is not JSON (or nests too deep), 422 for JSON of another shape.
pub fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let detail = error.to_string();
        if error.is_data() { Problem::unprocessable("invalid_body", detail) } else { Problem::bad_request("malformed_json", detail) }
    })
}

/// The parameters in the path; what cannot be one is not there: 404.
#[derive(Debug, Clone)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        read.map(|Path(value)| Self(value)).map_err(|_| Problem::not_found("nothing can be found under this path"))
    }
}

/// The query of the URL; 400 for one that does not fit.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        read.map(|query| Self(query.0)).map_err(|rejection| invalid_query(&rejection.body_text()))
    }
}

/// What axum says is `<what failed>: <field>: <why>`, or without a field, which the reason then has in backticks.
fn invalid_query(text: &str) -> Problem {
    let reason = text.split_once(": ").map_or(text, |(_, reason)| reason);
    let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let field = reason.split(": ").next().filter(is_name).or_else(|| reason.split('`').nth(1).filter(is_name));
    let problem = Problem::bad_request("invalid_query", reason);
    match field {
        Some(field) => problem.field(field),
        None => problem,
    }
}
