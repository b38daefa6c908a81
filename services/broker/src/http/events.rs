//! Reading the log: pages of it, and single events.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, extract::State, response::Response};
use http::header;
use kit::{
    Envelope, EventId, Position, Problem, Recorded,
    envelope::{ATTRIBUTE_BYTES_MAX, EVENT_JSON},
    http::{Gate, Params, Query, identity::GateOf},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    caller::{Caller, missing_scope},
    engine_problem, no_store,
};
use crate::{
    Shared,
    engine::{Scope, weigh},
};

/// How many events a page holds, and at most.
pub(super) const PAGE: usize = 100;
pub(super) const PAGE_MAX: usize = 1_000;
/// About how many bytes of events a page holds at most.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many events of other types are looked through for one page.
const SCAN_EVENTS_MAX: usize = 10_000;
/// The most types that are asked for at once.
const TYPES_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
    after: Option<Position>,
    limit: Option<usize>,
    types: Option<String>,
    subject: Option<String>,
    source: Option<String>,
    id: Option<EventId>,
    share: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareQuery {
    share: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventPage")]
pub(super) struct Page {
    items: Vec<Recorded>,
    /// What to give as `after` for more; none at the end of the log.
    next: Option<Position>,
}

pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    GateOf(gate): GateOf,
    Query(query): Query<ReadQuery>,
) -> Result<Response, Problem> {
    let reader = Reader { shared: &shared, caller: &caller, gate: gate.as_deref().ok_or_else(Problem::internal)? };
    check_length(query.subject.as_deref())?;
    let page = match (&query.source, &query.id) {
        (None, None) => reader.read(&query).await?,
        (Some(source), Some(id)) => {
            let is_alone = query.after.is_none() && query.limit.is_none() && query.types.is_none() && query.subject.is_none();
            if !is_alone {
                return Err(invalid("id", "`source` and `id` name one event: nothing else can be asked for beside them"));
            }
            reader.check_named(query.share.as_deref())?;
            let found = shared.engine.find(source, id).await.map_err(|error| engine_problem(&error))?;
            Page { items: vec![reader.show(found, query.share.as_deref())?], next: None }
        }
        (Some(_), None) => return Err(invalid("id", "`source` and `id` name an event together")),
        (None, Some(_)) => return Err(invalid("source", "`source` and `id` name an event together")),
    };
    Ok(no_store(Json(page)))
}

pub(super) async fn read_one(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    GateOf(gate): GateOf,
    Params(position): Params<Position>,
    Query(query): Query<ShareQuery>,
) -> Result<Response, Problem> {
    let reader = Reader { shared: &shared, caller: &caller, gate: gate.as_deref().ok_or_else(Problem::internal)? };
    reader.check_named(query.share.as_deref())?;
    let found = shared.engine.read_one(position).await.map_err(|error| engine_problem(&error))?;
    // In structured mode, so that a library knows it for an event.
    let media = [(header::CONTENT_TYPE, EVENT_JSON)];
    Ok(no_store((media, Json(reader.show(found, query.share.as_deref())?))))
}

pub(super) async fn read_subject(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    GateOf(gate): GateOf,
    Params(subject): Params<String>,
    Query(query): Query<ReadQuery>,
) -> Result<Response, Problem> {
    if query.subject.is_some() || query.source.is_some() || query.id.is_some() {
        return Err(invalid("subject", "the subject is in the path"));
    }
    let reader = Reader { shared: &shared, caller: &caller, gate: gate.as_deref().ok_or_else(Problem::internal)? };
    let page = reader.read(&ReadQuery { subject: Some(subject), ..query }).await?;
    Ok(no_store(Json(page)))
}

/// A subject that is asked for must be one that an event can have.
pub(crate) fn check_length(subject: Option<&str>) -> Result<(), Problem> {
    match subject.map(str::len) {
        None | Some(1..=ATTRIBUTE_BYTES_MAX) => Ok(()),
        Some(_) => Err(invalid("subject", &format!("`subject` must have 1 to {ATTRIBUTE_BYTES_MAX} bytes"))),
    }
}

fn invalid(field: &'static str, detail: &str) -> Problem {
    Problem::bad_request("invalid_query", detail).field(field)
}

/// Who reads.
struct Reader<'a> {
    shared: &'a Shared,
    caller: &'a Caller,
    gate: &'a Gate,
}

impl Reader<'_> {
    async fn read(&self, query: &ReadQuery) -> Result<Page, Problem> {
        let (after, limit) = (query.after.unwrap_or(Position::START).max(Position::START), page_size(query.limit)?);
        let types = query.types.as_deref().map(types).transpose()?;
        let scope = match (&query.subject, self.caller) {
            (subject, Caller::Outsider(grant)) => {
                grant.scopes.may_read().map_err(|missing| missing_scope(&missing))?;
                subject.as_deref().map_or(Scope::All, Scope::Subject)
            }
            (Some(subject), _) => {
                self.check_subject(subject, query.share.as_deref()).await?;
                Scope::Subject(subject)
            }
            (None, Caller::Operator) => Scope::All,
            (None, Caller::Guest(owner)) => Scope::Owner(owner),
            (None, Caller::Anonymous) => return Err(Problem::unauthorized()),
            (None, Caller::Service(_)) => return Err(services_subscribe()),
        };
        self.page(scope, types.as_ref(), after, limit).await
    }

    /// The events of `scope` that have one of `types` and may be seen. What is not shown is looked through up to a limit; then the page
    /// ends early.
    async fn page(&self, scope: Scope<'_>, types: Option<&BTreeSet<&str>>, mut after: Position, limit: usize) -> Result<Page, Problem> {
        let (mut items, mut bytes, mut scanned) = (Vec::new(), 0, 0);
        while scanned < SCAN_EVENTS_MAX && bytes < PAGE_BYTES_MAX {
            // One more than is shown tells whether there is more.
            let is_filtered = types.is_some() || matches!(self.caller, Caller::Outsider(_));
            let wanted = if is_filtered { PAGE_MAX } else { limit + 1 - items.len() };
            let page = self.shared.engine.read_scope(scope, after, wanted).await.map_err(|error| engine_problem(&error))?;
            if page.is_empty() {
                return Ok(Page { items, next: None });
            }
            for recorded in page {
                if items.len() == limit {
                    return Ok(Page { items, next: Some(after) });
                }
                scanned += 1;
                after = recorded.position;
                if types.is_none_or(|types| types.contains(recorded.event.ty.as_str())) && self.is_granted(&recorded.event) {
                    bytes += weigh(&recorded.event);
                    items.push(recorded);
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(Page { items, next: Some(after) })
    }

    /// Whether the caller may read a subject at all; 404 if not, as if it were not there.
    async fn check_subject(&self, subject: &str, share: Option<&str>) -> Result<(), Problem> {
        let scope = Scope::Subject(subject);
        let first = self.shared.engine.read_scope(scope, Position::START, 1).await.map_err(|error| engine_problem(&error))?;
        let may_read = match first.first() {
            Some(first) => self.caller.may_read(self.gate, first.event.owner.as_deref(), subject, share),
            // A share token is given out before the first event is in the log: until then its bearer sees that there is none.
            None => share.is_some_and(|token| self.gate.keyring.is_share_token(token, subject)),
        };
        if may_read { Ok(()) } else { Err(Problem::not_found("no such subject")) }
    }

    /// Whether an outsider's token covers `event`; for others what they read decides that.
    fn is_granted(&self, event: &Envelope) -> bool {
        match self.caller {
            Caller::Outsider(grant) => grant.scopes.read.as_ref().is_some_and(|read| read.shows(event)),
            Caller::Anonymous | Caller::Guest(_) | Caller::Service(_) | Caller::Operator => true,
        }
    }

    /// Whether the caller may ask for single events.
    fn check_named(&self, share: Option<&str>) -> Result<(), Problem> {
        match self.caller {
            Caller::Anonymous if share.is_none() => Err(Problem::unauthorized()),
            Caller::Service(_) => Err(services_subscribe()),
            Caller::Outsider(grant) => grant.scopes.may_read().map(|_| ()).map_err(|missing| missing_scope(&missing)),
            Caller::Operator | Caller::Guest(_) | Caller::Anonymous => Ok(()),
        }
    }

    /// An event, if it is there and the caller may see it.
    fn show(&self, found: Option<Recorded>, share: Option<&str>) -> Result<Recorded, Problem> {
        let may_read = |event: &Envelope| match &event.subject {
            _ if matches!(self.caller, Caller::Outsider(_)) => self.is_granted(event),
            Some(subject) => self.caller.may_read(self.gate, event.owner.as_deref(), subject, share),
            // There is no subject that could have been shared.
            None => self.caller.may_read(self.gate, event.owner.as_deref(), "", None),
        };
        found.filter(|found| may_read(&found.event)).ok_or_else(|| Problem::not_found("no such event"))
    }
}

fn services_subscribe() -> Problem {
    Problem::forbidden("services get events by subscribing")
}

fn page_size(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(PAGE) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(invalid("limit", "`limit` must be 1 to 1000")),
    }
}

fn types(list: &str) -> Result<BTreeSet<&str>, Problem> {
    let types: BTreeSet<_> = list.split(',').collect();
    let is_type = |ty: &&str| (1..=ATTRIBUTE_BYTES_MAX).contains(&ty.len());
    if types.len() > TYPES_MAX || !types.iter().all(is_type) {
        return Err(invalid("types", "`types` must be 1 to 256 types of events, with commas between them"));
    }
    Ok(types)
}
