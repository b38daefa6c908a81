//! Registering, changing and removing subscriptions, and how they stand.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, HeaderName, StatusCode, header};
use kit::{
    Problem,
    http::{
        Body, Caller, Params,
        extract::{parse_json, read_bytes},
    },
};
use serde_json::Value;

use super::{List, engine_problem, no_store, operate_problem, operators_only};
use crate::{
    Shared,
    subscriptions::{
        Expected, RegisterError,
        wanted::{Invalid, Wanted},
    },
};

/// The media type of a JSON merge patch (RFC 7396, section 4).
const MERGE_PATCH_JSON: &str = "application/merge-patch+json";
/// The most entity tags in one condition.
const TAGS_MAX: usize = 16;

pub(super) async fn list_subscriptions(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Response, Problem> {
    operators_only(&caller)?;
    let items = shared.subscriptions.describe_all().await.map_err(|error| operate_problem(&error))?;
    Ok(no_store(Json(List { items })))
}

pub(super) async fn get_subscription(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
) -> Result<Response, Problem> {
    owner_only(&caller, &name)?;
    show(&shared, &name).await
}

pub(super) async fn put_subscription(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    headers: HeaderMap,
    body: Body<Value>,
) -> Result<Response, Problem> {
    owner_only(&caller, &name)?;
    let wanted = Wanted::parse(body.value).map_err(|error| invalid_problem("invalid_subscription", &error))?;
    if wanted.sink.is_none() {
        return Err(Problem::unprocessable("invalid_subscription", "`sink` must be a URL").field("sink"));
    }
    may_require(&shared, &caller, wanted.required)?;
    let condition = Condition::read(&headers)?;
    let registered = shared.subscriptions.register(&name, wanted, None, condition.expected()).await;
    registered.map_err(|error| register_problem(&error))?;
    show(&shared, &name).await
}

pub(super) async fn patch_subscription(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    request: Request,
) -> Result<Response, Problem> {
    owner_only(&caller, &name)?;
    let condition = Condition::read(request.headers())?;
    let media = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !matches!(media.split(';').next().unwrap_or_default().trim(), MERGE_PATCH_JSON | "application/json") {
        let detail = format!("the body must be {MERGE_PATCH_JSON}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let patch: Value = parse_json(&read_bytes(request, &()).await?)?;
    may_require(&shared, &caller, patch.get("required").and_then(Value::as_bool))?;
    if condition == Condition::None {
        // A patch means a change of what its sender saw; who saw something else would undo another's change.
        let detail = "a patch must say what it changes: `If-Match` with the `ETag` of the subscription";
        return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, "precondition_required", detail));
    }
    let patched = shared.subscriptions.patch(&name, &patch, condition.expected()).await;
    patched.map_err(|error| register_problem(&error))?;
    show(&shared, &name).await
}

pub(super) async fn delete_subscription(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    owner_only(&caller, &name)?;
    let condition = Condition::read(&headers)?;
    let removed = shared.subscriptions.remove(&name, condition.expected()).await;
    removed.map(|()| StatusCode::NO_CONTENT).map_err(|error| register_problem(&error))
}

/// A subscription in full, with its entity tag.
pub(super) async fn show(shared: &Shared, name: &str) -> Result<Response, Problem> {
    let subscription = shared.subscriptions.describe(name).await.map_err(|error| operate_problem(&error))?;
    Ok(no_store(([(header::ETAG, subscription.etag.clone())], Json(subscription))))
}

/// A service looks after its own subscription, operators after all of them.
fn owner_only(caller: &Caller, name: &str) -> Result<(), Problem> {
    match caller {
        Caller::Operator => Ok(()),
        Caller::Service(service) if service == name => Ok(()),
        Caller::Service(_) => Err(Problem::forbidden("a service looks after its own subscription only")),
        Caller::Anonymous => Err(Problem::unauthorized()),
        Caller::Guest(_) => Err(Problem::forbidden("this is for operators")),
    }
}

/// A subscription that the log waits for can stop the shop: outsiders may not have one.
fn may_require(shared: &Shared, caller: &Caller, required: Option<bool>) -> Result<(), Problem> {
    let may = match caller {
        Caller::Operator => true,
        Caller::Service(service) => shared.subscriptions.is_of_the_shop(service),
        Caller::Anonymous | Caller::Guest(_) => false,
    };
    if may || required != Some(true) {
        Ok(())
    } else {
        Err(Problem::forbidden("only services of the shop may be required").field("required"))
    }
}

/// What a request expects to find (RFC 9110, section 13.1).
#[derive(Debug, PartialEq, Eq)]
enum Condition {
    None,
    IfMatch(Vec<String>),
    IfNoneMatch,
}

impl Condition {
    fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let invalid = |detail: &str| Err(Problem::bad_request("invalid_condition", detail));
        match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
            (None, None) => Ok(Self::None),
            (Some(tags), None) => {
                let tags: Vec<_> = tags.split(',').map(|tag| tag.trim().to_owned()).take(TAGS_MAX + 1).collect();
                if tags.len() > TAGS_MAX { invalid("`If-Match` names more than 16 tags") } else { Ok(Self::IfMatch(tags)) }
            }
            (None, Some("*")) => Ok(Self::IfNoneMatch),
            (None, Some(_)) => invalid("`If-None-Match` can only be `*` here"),
            (Some(_), Some(_)) => invalid("`If-Match` and `If-None-Match` contradict one another"),
        }
    }

    fn expected(&self) -> Expected<'_> {
        match self {
            Self::None => Expected::Anything,
            Self::IfMatch(tags) => Expected::OneOf(tags),
            Self::IfNoneMatch => Expected::Nothing,
        }
    }
}

pub(super) fn unknown() -> Problem {
    Problem::not_found("no such subscription")
}

pub(super) fn invalid_problem(code: &'static str, error: &Invalid) -> Problem {
    let problem = Problem::unprocessable(code, error.to_string());
    if error.field.is_empty() { problem } else { problem.field(error.field.clone()) }
}

fn register_problem(error: &RegisterError) -> Problem {
    match error {
        RegisterError::Invalid(error) => invalid_problem("invalid_subscription", error),
        RegisterError::RevisionTaken { .. } => Problem::conflict("revision_taken", error.to_string()).field("revision"),
        RegisterError::Unknown(_) => unknown(),
        RegisterError::OtherVersion(_) => Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", error.to_string()),
        RegisterError::TooManyChanges(_) => Problem::conflict("too_many_changes", error.to_string()),
        RegisterError::TooMany => Problem::conflict("too_many_subscriptions", error.to_string()),
        RegisterError::Engine(error) => engine_problem(error),
    }
}
