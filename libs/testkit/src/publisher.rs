//! Brokers to test a service against: one that records, and can be told to fail.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kit::{
    BoxFuture, Envelope,
    transport::{PublishError, Publisher},
};

/// Records what is published to it. It refuses events of a subject, or all of them, when told to.
#[derive(Debug, Default)]
pub struct RecordingPublisher {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    events: Vec<Envelope>,
    is_away: bool,
    refused_subject: Option<String>,
}

impl RecordingPublisher {
    /// A broker that takes everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on it cannot be reached, or can be again.
    pub fn set_away(&self, is_away: bool) {
        self.inner().is_away = is_away;
    }

    /// From now on it refuses events of `subject`.
    pub fn refuse(&self, subject: &str) {
        self.inner().refused_subject = Some(subject.to_owned());
    }

    /// What was published, in order.
    pub fn events(&self) -> Vec<Envelope> {
        self.inner().events.clone()
    }

    /// The types of what was published of `subject`, in order.
    pub fn types_of(&self, subject: &str) -> Vec<String> {
        self.inner().events.iter().filter(|event| event.lane() == subject).map(|event| event.ty.clone()).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher for RecordingPublisher {
    fn publish<'a>(&'a self, events: &'a [Envelope]) -> BoxFuture<'a, Result<(), PublishError>> {
        let mut inner = self.inner();
        if inner.is_away {
            return Box::pin(std::future::ready(Err(PublishError::Unavailable(String::from("away")))));
        }
        let refused = inner.refused_subject.clone();
        let landed = events.iter().position(|event| Some(event.lane()) == refused.as_deref()).unwrap_or(events.len());
        inner.events.extend(events.iter().take(landed).cloned());
        let result = if landed == events.len() { Ok(()) } else { Err(PublishError::Refused { landed, reason: String::from("refused") }) };
        Box::pin(std::future::ready(result))
    }
}
