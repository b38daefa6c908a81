//! Takes the events that the broker delivers.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::StatusCode;
use serde_json::json;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::{
    BoxFuture, Clock, Machine, Position, Problem, Recorded,
    http::extract::{parse_json, read_bytes},
    security::webhook::Secret,
    transport::{ItemAnswer, Sink, SinkError, log_first},
    writer::{EventFault, Job, Memory},
};

/// The largest batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A service's intake as a handle.
pub(crate) struct Intake<M: Machine> {
    machine: Arc<M>,
    urgent: mpsc::Sender<Job<M>>,
    memory: Arc<Memory>,
}

impl<M: Machine> Intake<M> {
    pub(crate) fn new(machine: Arc<M>, urgent: mpsc::Sender<Job<M>>, memory: Arc<Memory>) -> Self {
        Self { machine, urgent, memory }
    }

    /// Queues an event; none where it means nothing to this service.
    fn queue(&self, recorded: &Recorded) -> Result<Option<oneshot::Receiver<Result<(), EventFault>>>, EventFault> {
        // A fault in the code that reads an event is that event's alone.
        let reaction = catch_unwind(AssertUnwindSafe(|| self.machine.react(&recorded.event)))
            .map_err(|_| EventFault { status: 500, reason: String::from("the event could not be read") })?
            .map_err(|impossible| EventFault::refused(impossible.to_string()))?;
        let Some((key, input)) = reaction else { return Ok(None) };
        let (answer, answered) = oneshot::channel();
        let position = Some(recorded.position).filter(|position| *position > Position::START);
        let job = Job::Event { event: recorded.event.clone(), position, key, input, answer };
        self.urgent.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => EventFault { status: 429, reason: String::from("too many events are waiting") },
            TrySendError::Closed(_) => EventFault::stopping(),
        })?;
        Ok(Some(answered))
    }
}

impl<M: Machine> Sink for Intake<M> {
    fn hear_log_first(&self, first: Position) {
        self.memory.hear_log_first(first);
    }

    fn deliver<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<Vec<ItemAnswer>, SinkError>> {
        Box::pin(async move {
            // All are queued before the first answer is awaited, so that they share a transaction.
            let queued: Vec<_> = events.iter().map(|event| self.queue(event)).collect();
            let mut answers = Vec::new();
            for (index, queued) in queued.into_iter().enumerate() {
                let fault = match queued {
                    Ok(None) => None,
                    Ok(Some(answered)) => match answered.await {
                        Ok(answer) => answer.err(),
                        Err(_) => Some(EventFault::stopping()),
                    },
                    Err(fault) => Some(fault),
                };
                answers.extend(fault.map(|EventFault { status, reason }| ItemAnswer { index, status, retry_after_s: None, reason }));
            }
            Ok(answers)
        })
    }
}

/// The route `POST /events`, for a broker in another process: batches of CloudEvents, signed by the broker with `secret`.
///
/// Answers 204 when all were accepted, else 200 with `{"results": [{"source", "id", "status", "reason"}]}` for those that were not.
pub fn route(sink: Arc<dyn Sink>, secret: Secret, clock: Arc<dyn Clock>) -> Router {
    let door = Arc::new(Door { sink, secret, clock });
    Router::new().route("/events", post(take)).layer(DefaultBodyLimit::max(BATCH_BYTES_MAX)).with_state(door)
}

struct Door {
    sink: Arc<dyn Sink>,
    secret: Secret,
    clock: Arc<dyn Clock>,
}

async fn take(State(door): State<Arc<Door>>, request: Request) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let bytes = read_bytes(request, &()).await?;
    let now = door.clock.now();
    if !door.secret.has_signed_request(&headers, &bytes, now) {
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "bad_signature", "deliveries are taken from the broker only"));
    }
    let events: Vec<Recorded> = parse_json(&bytes)?;
    // A broker that is older says nothing.
    if let Some(first) = log_first::read(&headers, &door.secret, now) {
        door.sink.hear_log_first(first);
    }
    let answers = door.sink.deliver(&events).await.map_err(|error| Problem::unavailable(error.reason))?;
    if answers.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let results: Vec<_> = answers
        .iter()
        .filter_map(|answer| events.get(answer.index).map(|event| (answer, &event.event)))
        .map(|(answer, event)| json!({"source": event.source, "id": event.id, "status": answer.status, "reason": answer.reason}))
        .collect();
    Ok(Json(json!({ "results": results })).into_response())
}
