//! Who wants which events: durable registrations, and the dispatcher of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use http::Uri;
use kit::{Environment, Lifecycle, http::client::Client, security::Keyring, transport::Sink};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::{
    dispatcher::{ConfigureError, Dispatcher, Instruction, Status},
    engine::{EngineError, LogEngine},
    keeping::{self, Cursor},
    sink::{HttpSink, Target},
};

/// What a subscriber asks for.
pub mod wanted;

/// A subscription as it is kept.
pub(crate) mod stored;

/// Pausing, seeking, auditing, and how a subscription stands in full.
mod operating;

/// Dead letters: looking at them, deciding on them.
pub(crate) mod letters;

/// Why an event did or did not arrive.
pub(crate) mod arrivals;

/// Sending a part of the log again.
pub(crate) mod replays;

/// Who may still need events of the log.
mod holding;

pub(crate) use operating::OperateError;

use replays::Replays;
use stored::Stored;
use wanted::{Invalid, Wanted, check_name};

/// The most subscriptions.
const SUBSCRIPTIONS_MAX: usize = 256;
/// How many instructions to a dispatcher may wait.
const INSTRUCTIONS_MAX: usize = 64;

/// A subscription and how it stands.
#[derive(Debug, Clone, Serialize)]
pub struct Subscription {
    /// Its name: that of the service.
    pub name: String,
    /// What it asks for.
    #[serde(flatten)]
    pub wanted: Wanted,
    /// How it stands.
    pub status: Status,
    /// Names what it asks for, as an entity tag.
    #[serde(skip)]
    pub etag: String,
}

/// Which version of a subscription a caller wants to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected<'a> {
    /// Whatever there is, or nothing.
    Anything,
    /// Nothing.
    Nothing,
    /// The version that one of these entity tags names; `*` names any that there is.
    OneOf(&'a [String]),
}

/// Why a subscription was not registered or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A field does not hold what it must.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The revision is taken: it stands for something else.
    #[error("revision {revision} of subscription `{name}` asks for something else")]
    RevisionTaken {
        /// The subscription.
        name: String,
        /// The revision.
        revision: i64,
    },
    /// There is no subscription of this name.
    #[error("there is no subscription `{0}`")]
    Unknown(String),
    /// It is not the version that the caller knows.
    #[error("subscription `{0}` is not what the caller knows")]
    OtherVersion(String),
    /// It was changed too often while old events still wait.
    #[error("subscription `{0}` was changed too often while events from before still wait")]
    TooManyChanges(String),
    /// There are too many.
    #[error("there are {SUBSCRIPTIONS_MAX} subscriptions already")]
    TooMany,
    /// The engine cannot keep it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// All subscriptions.
pub(crate) struct Subscriptions {
    engine: Arc<dyn LogEngine>,
    keyring: Keyring,
    client: Client,
    environment: Environment,
    lifecycle: Lifecycle,
    /// The services of the shop: unless they say otherwise, the log keeps every event until they have it.
    shop: BTreeSet<String>,
    entries: Mutex<BTreeMap<String, Entry>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Entry {
    stored: Stored,
    version: i64,
    instructions: mpsc::Sender<Instruction>,
    status: Arc<Mutex<Status>>,
    replays: Replays,
}

impl Subscriptions {
    pub(crate) fn new(
        engine: Arc<dyn LogEngine>,
        keyring: Keyring,
        shop: BTreeSet<String>,
        environment: &Environment,
        lifecycle: &Lifecycle,
    ) -> Self {
        Self {
            engine,
            keyring,
            client: Client::new(environment.connect.clone()),
            environment: environment.clone(),
            lifecycle: lifecycle.clone(),
            shop,
            entries: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Starts the dispatchers of all subscriptions that were registered before.
    pub(crate) async fn resume(&self) -> Result<(), EngineError> {
        for entry in self.engine.state_list(keeping::CONFIG_PREFIX).await? {
            let name = entry.key.trim_start_matches(keeping::CONFIG_PREFIX).to_owned();
            let mut stored: Stored = keeping::parse(&entry)?;
            if stored.is_removed {
                keeping::remove_all(self.engine.as_ref(), &name).await?;
                continue;
            }
            self.choose_required(&name, &mut stored.wanted);
            let target = stored.wanted.sink.as_deref().and_then(|url| url.parse().ok()).map(|url| self.at(url));
            self.start(&name, stored, entry.version, target.clone());
            self.resume_replays(&name, target.as_ref()).await?;
        }
        Ok(())
    }

    /// Registers a subscription, or takes its newer configuration; its cursor stays where it is. `handle` is the subscriber itself
    /// when it runs in this process.
    pub(crate) async fn register(
        &self,
        name: &str,
        mut wanted: Wanted,
        handle: Option<Arc<dyn Sink>>,
        expected: Expected<'_>,
    ) -> Result<Subscription, RegisterError> {
        check_name(name)?;
        wanted.check()?;
        self.choose_required(name, &mut wanted);
        let _one_at_a_time = self.changing.lock().await;
        let before = self.entries().get(name).cloned();
        check_version(name, before.as_ref(), expected)?;
        match before {
            None => self.create(name, wanted, handle).await?,
            Some(entry) => self.renew(name, entry, wanted, handle).await?,
        }
        self.get(name).ok_or(RegisterError::Engine(EngineError::Closed))
    }

    /// Changes what a subscription asks for by a JSON merge patch.
    pub(crate) async fn patch(&self, name: &str, patch: &Value, expected: Expected<'_>) -> Result<Subscription, RegisterError> {
        let _one_at_a_time = self.changing.lock().await;
        let before = self.entries().get(name).cloned();
        check_version(name, before.as_ref(), expected)?;
        let before = before.ok_or_else(|| RegisterError::Unknown(name.to_owned()))?;
        let mut wanted = before.stored.wanted.patched(patch)?;
        self.choose_required(name, &mut wanted);
        let is_moved = wanted.sink != before.stored.wanted.sink;
        let target = wanted.url()?.filter(|_| is_moved).map(|url| self.at(url));
        let after = before.stored.patched(wanted);
        self.configure(name, before, after, target).await?;
        self.get(name).ok_or(RegisterError::Engine(EngineError::Closed))
    }

    /// Removes a subscription with all that it keeps, when its dispatcher has ended.
    pub(crate) async fn remove(&self, name: &str, expected: Expected<'_>) -> Result<(), RegisterError> {
        let _one_at_a_time = self.changing.lock().await;
        let before = self.entries().get(name).cloned();
        check_version(name, before.as_ref(), expected)?;
        let before = before.ok_or_else(|| RegisterError::Unknown(name.to_owned()))?;
        // From here on it is gone, whatever happens; what a crash leaves is removed at the next start.
        keeping::mark_removed(self.engine.as_ref(), name, &before.stored, before.version).await?;
        self.entries().remove(name);
        let _ = before.instructions.send(Instruction::End).await;
        before.instructions.closed().await;
        for replay in before.replays.values() {
            replay.stop().await;
        }
        Ok(keeping::remove_all(self.engine.as_ref(), name).await?)
    }

    async fn create(&self, name: &str, wanted: Wanted, handle: Option<Arc<dyn Sink>>) -> Result<(), RegisterError> {
        if self.entries().len() >= SUBSCRIPTIONS_MAX {
            return Err(RegisterError::TooMany);
        }
        // A removal that could not be finished.
        if keeping::stored(self.engine.as_ref(), name).await?.is_some_and(|(stored, _)| stored.is_removed) {
            keeping::remove_all(self.engine.as_ref(), name).await?;
        }
        let url = wanted.url()?;
        let after = self.resolve(wanted.start).await?;
        let stored = Stored::new(wanted, self.environment.clock.now());
        keeping::create(self.engine.as_ref(), name, &stored, &Cursor::at(after)).await?;
        self.start(name, stored, 1, handle.map(Target::Handle).or_else(|| url.map(|url| self.at(url))));
        Ok(())
    }

    /// The subscriber is there again, perhaps with something new.
    async fn renew(&self, name: &str, entry: Entry, wanted: Wanted, handle: Option<Arc<dyn Sink>>) -> Result<(), RegisterError> {
        let declared = entry.stored.declared();
        let (is_older, is_same_revision) = (wanted.revision < declared.revision, wanted.revision == declared.revision);
        if is_older {
            // An older instance: what it knows of the world is out of date, but it is there.
            if let Some(handle) = handle {
                self.attach(name, &entry, Some(Target::Handle(handle))).await;
            }
            return Ok(());
        }
        if is_same_revision && !wanted.is_same_but_for_the_sink(declared) {
            return Err(RegisterError::RevisionTaken { name: name.to_owned(), revision: wanted.revision });
        }
        let is_moved = wanted.sink != declared.sink;
        let after = match (is_same_revision, is_moved) {
            (true, true) => entry.stored.moved(wanted.sink.clone()),
            (true, false) => entry.stored.clone(),
            (false, _) => entry.stored.registered(wanted.clone()),
        };
        // A handle is another one after every start; a URL is the same.
        let is_elsewhere = after.wanted.sink != entry.stored.wanted.sink;
        let target = match (handle, after.wanted.url()?) {
            (Some(handle), _) => Some(Target::Handle(handle)),
            (None, Some(url)) if is_elsewhere => Some(self.at(url)),
            (None, _) => None,
        };
        if after == entry.stored {
            self.attach(name, &entry, target).await;
            return Ok(());
        }
        self.configure(name, entry, after, target).await
    }

    /// The subscriber is there, perhaps at another place.
    async fn attach(&self, name: &str, entry: &Entry, target: Option<Target>) {
        let instruction = || target.clone().map_or(Instruction::Nudge, Instruction::Attach);
        let _ = entry.instructions.send(instruction()).await;
        self.tell_replays(name, instruction).await;
    }

    /// Has the dispatcher take `after` instead of what it has; it alone knows which events it has read already.
    async fn configure(&self, name: &str, entry: Entry, after: Stored, target: Option<Target>) -> Result<(), RegisterError> {
        let (reply, answer) = oneshot::channel();
        let instruction = Instruction::Configure { after: Box::new(after), target: target.clone(), reply };
        entry.instructions.send(instruction).await.map_err(|_| EngineError::Closed)?;
        let configured = answer.await.map_err(|_| EngineError::Closed)?.map_err(|error| match error {
            ConfigureError::TooManyChanges(_) => RegisterError::TooManyChanges(name.to_owned()),
            ConfigureError::Engine(error) => RegisterError::Engine(error),
        })?;
        if let Some(entry) = self.entries().get_mut(name) {
            (entry.stored, entry.version) = (configured.stored, configured.version);
        }
        if let Some(target) = target {
            self.tell_replays(name, || Instruction::Attach(target.clone())).await;
        }
        Ok(())
    }

    fn choose_required(&self, name: &str, wanted: &mut Wanted) {
        wanted.required = Some(wanted.required.unwrap_or_else(|| wanted.sink.is_none() || self.is_of_the_shop(name)));
    }

    /// Whether `name` is a service of the shop.
    pub(crate) fn is_of_the_shop(&self, name: &str) -> bool {
        self.shop.contains(name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Subscription> {
        self.entries().get(name).map(|entry| entry.show(name))
    }

    pub(crate) fn list(&self) -> Vec<Subscription> {
        self.entries().iter().map(|(name, entry)| entry.show(name)).collect()
    }

    fn at(&self, url: Uri) -> Target {
        let sink = HttpSink::new(self.client.clone(), url, self.keyring.clone(), self.environment.clone());
        Target::Url(Arc::new(sink))
    }

    fn start(&self, name: &str, stored: Stored, version: i64, target: Option<Target>) {
        let (instructions, queue) = mpsc::channel(INSTRUCTIONS_MAX);
        let status = Arc::new(Mutex::new(Status::at(&Cursor::default(), target.as_ref())));
        let dispatcher = Dispatcher {
            name: name.to_owned(),
            key: name.to_owned(),
            stored: stored.clone(),
            version,
            target,
            engine: self.engine.clone(),
            environment: self.environment.clone(),
            lifecycle: self.lifecycle.clone(),
            instructions: queue,
            status: status.clone(),
            replay: None,
        };
        self.lifecycle.spawn("dispatcher", dispatcher.run());
        self.entries().insert(name.to_owned(), Entry { stored, version, instructions, status, replays: Replays::new() });
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn show(&self, name: &str) -> Subscription {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Subscription { name: name.to_owned(), wanted: self.stored.wanted.clone(), status, etag: self.etag() }
    }

    /// A subscription that was removed and made again has another tag.
    fn etag(&self) -> String {
        format!("\"{:x}-{}\"", self.stored.created_at.as_ms(), self.version)
    }
}

fn check_version(name: &str, entry: Option<&Entry>, expected: Expected<'_>) -> Result<(), RegisterError> {
    let is_expected = match (entry, expected) {
        (_, Expected::Anything) | (None, Expected::Nothing) => true,
        (Some(entry), Expected::OneOf(tags)) => tags.iter().any(|tag| tag == "*" || *tag == entry.etag()),
        (Some(_), Expected::Nothing) | (None, Expected::OneOf(_)) => false,
    };
    if is_expected { Ok(()) } else { Err(RegisterError::OtherVersion(name.to_owned())) }
}
