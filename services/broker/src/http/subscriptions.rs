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
        Body, Params,
        extract::{parse_json, read_bytes},
    },
};
use serde_json::Value;

use super::{
    List, body_or_nothing,
    caller::{Caller, missing_scope},
    engine_problem, no_store, operate_problem, operators_only,
};
use crate::{
    Shared,
    subscriptions::{
        By, Expected, NotAdmitted, RegisterError, RotateError, Subscription,
        wanted::{Fields, Invalid, Wanted},
    },
    tokens,
};

/// The media type of a JSON merge patch (RFC 7396, section 4).
const MERGE_PATCH_JSON: &str = "application/merge-patch+json";
/// The most entity tags in one condition.
const TAGS_MAX: usize = 16;

pub(super) async fn list_subscriptions(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Response, Problem> {
    // An outsider sees the subscriptions that are theirs, as if there were no others.
    let is_theirs = |name: &str| match &caller {
        Caller::Outsider(grant) => grant.scopes.may_own(name).is_ok() || grant.scopes.may_operate(name).is_ok(),
        Caller::Anonymous | Caller::Guest(_) | Caller::Service(_) | Caller::Operator => true,
    };
    if !matches!(caller, Caller::Outsider(_)) {
        operators_only(&caller)?;
    }
    let items = shared.subscriptions.describe_all(is_theirs).await.map_err(|error| operate_problem(&error))?;
    Ok(no_store(Json(List { items })))
}

pub(super) async fn get_subscription(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
) -> Result<Response, Problem> {
    match &caller {
        Caller::Outsider(grant) if grant.scopes.may_operate(&name).is_ok() => {}
        _ => drop(owner(&shared, caller, &name)?),
    }
    show(&shared, &name).await
}

pub(super) async fn put_subscription(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    headers: HeaderMap,
    body: Body<Value>,
) -> Result<Response, Problem> {
    let may_require = may_require(&shared, &caller);
    let by = owner(&shared, caller, &name)?;
    let wanted = Wanted::parse(body.value).map_err(|error| invalid_problem("invalid_subscription", &error))?;
    if wanted.sink.is_none() {
        return Err(Problem::unprocessable("invalid_subscription", "`sink` must be a URL").field("sink"));
    }
    check_required(may_require, wanted.required)?;
    let condition = Condition::read(&headers)?;
    let registered = shared.subscriptions.register(&name, wanted, by, condition.expected()).await;
    show_made(&shared, registered.map_err(|error| register_problem(&error))?).await
}

pub(super) async fn patch_subscription(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    request: Request,
) -> Result<Response, Problem> {
    let may_require = may_require(&shared, &caller);
    let by = owner(&shared, caller, &name)?;
    let condition = Condition::read(request.headers())?;
    let media = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !matches!(media.split(';').next().unwrap_or_default().trim(), MERGE_PATCH_JSON | "application/json") {
        let detail = format!("the body must be {MERGE_PATCH_JSON}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let patch: Value = parse_json(&read_bytes(request, &()).await?)?;
    check_required(may_require, patch.get("required").and_then(Value::as_bool))?;
    if condition == Condition::None {
        // A patch means a change of what its sender saw; who saw something else would undo another's change.
        let detail = "a patch must say what it changes: `If-Match` with the `ETag` of the subscription";
        return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, "precondition_required", detail));
    }
    let patched = shared.subscriptions.patch(&name, &patch, by, condition.expected()).await;
    show_made(&shared, patched.map_err(|error| register_problem(&error))?).await
}

pub(super) async fn delete_subscription(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    owner(&shared, caller, &name)?;
    let condition = Condition::read(&headers)?;
    let removed = shared.subscriptions.remove(&name, condition.expected()).await;
    removed.map(|()| StatusCode::NO_CONTENT).map_err(|error| register_problem(&error))
}

/// A subscription in full, with its entity tag.
pub(super) async fn show(shared: &Shared, name: &str) -> Result<Response, Problem> {
    let subscription = shared.subscriptions.describe(name).await.map_err(|error| operate_problem(&error))?;
    Ok(no_store(([(header::ETAG, subscription.etag.clone())], Json(subscription))))
}

/// The same, of a subscription that was just `made` or changed: with its secret, if it has a new one.
async fn show_made(shared: &Shared, made: Subscription) -> Result<Response, Problem> {
    let described = shared.subscriptions.describe(&made.name).await.map_err(|error| operate_problem(&error))?;
    let subscription = Subscription { secret: made.secret, ..described };
    Ok(no_store(([(header::ETAG, subscription.etag.clone())], Json(subscription))))
}

pub(super) async fn rotate_secret(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Params(name): Params<String>,
    request: Request,
) -> Result<Response, Problem> {
    owner(&shared, caller, &name)?;
    let Value::Object(map) = body_or_nothing(request).await? else {
        return Err(Problem::unprocessable("invalid_body", "the body must be a JSON object"));
    };
    let mut fields = Fields(map);
    let grace = tokens::grace(&mut fields).and_then(|grace| fields.finish().map(|()| grace));
    let grace = grace.map_err(|error| invalid_problem("invalid_rotation", &error))?;
    let rotated = shared.subscriptions.rotate_secret(&name, grace).await.map_err(|error| match &error {
        RotateError::OfTheShop(_) => Problem::conflict("derived_secret", error.to_string()),
        RotateError::Register(error) => register_problem(error),
    });
    show_made(&shared, rotated?).await
}

/// A service looks after its own subscription, an outsider after those that their token names, operators after all of them.
fn owner(shared: &Shared, caller: Caller, name: &str) -> Result<By, Problem> {
    match caller {
        Caller::Operator => Ok(By::Shop),
        Caller::Service(service) if service == name => Ok(By::Shop),
        Caller::Service(_) => Err(Problem::forbidden("a service looks after its own subscription only")),
        Caller::Outsider(_) if shared.subscriptions.is_of_the_shop(name) => {
            Err(Problem::forbidden("a service of the shop looks after its subscription itself"))
        }
        Caller::Outsider(grant) => match grant.scopes.may_own(name) {
            Ok(()) => Ok(By::Outsider(grant)),
            Err(missing) => Err(missing_scope(&missing)),
        },
        Caller::Anonymous => Err(Problem::unauthorized()),
        Caller::Guest(_) => Err(Problem::forbidden("this is for operators")),
    }
}

/// Whether the caller's subscription may be one that the log waits for: such a one can stop the shop.
fn may_require(shared: &Shared, caller: &Caller) -> Required {
    match caller {
        Caller::Operator => Required::Allowed,
        Caller::Service(service) if shared.subscriptions.is_of_the_shop(service) => Required::Allowed,
        Caller::Service(_) | Caller::Outsider(_) | Caller::Anonymous | Caller::Guest(_) => Required::Refused,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Required {
    Allowed,
    Refused,
}

fn check_required(may_require: Required, required: Option<bool>) -> Result<(), Problem> {
    if may_require == Required::Allowed || required != Some(true) {
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
        RegisterError::NotAdmitted(NotAdmitted::Place(_)) => Problem::unprocessable("sink_not_allowed", error.to_string()).field("sink"),
        RegisterError::NotAdmitted(NotAdmitted::Consent(_)) => Problem::unprocessable("consent_refused", error.to_string()).field("sink"),
        RegisterError::NotAdmitted(NotAdmitted::Scope(missing)) => missing_scope(missing),
        RegisterError::RevisionTaken { .. } => Problem::conflict("revision_taken", error.to_string()).field("revision"),
        RegisterError::Unknown(_) => unknown(),
        RegisterError::OtherVersion(_) => Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", error.to_string()),
        RegisterError::TooManyChanges(_) => Problem::conflict("too_many_changes", error.to_string()),
        RegisterError::TooMany => Problem::conflict("too_many_subscriptions", error.to_string()),
        RegisterError::Engine(error) => engine_problem(error),
    }
}
