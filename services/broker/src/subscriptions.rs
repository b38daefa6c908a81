//! Who wants which events: durable registrations, and the dispatcher of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicI64},
    time::Duration,
};

use kit::{
    Environment, Lifecycle, Timestamp,
    security::{Keyring, webhook::Secret},
    transport::Sink,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::{
    dispatcher::{ConfigureError, Dispatcher, Instruction, Status},
    engine::{EngineError, LogEngine},
    keeping::{self, Cursor},
    sink::{Target, Ways, outward::Rules},
    tokens::{Grant, Tokens},
};

/// What a subscriber asks for.
pub mod wanted;

/// What its deliveries stand on.
pub mod trust;

/// Whether a sink may be registered.
pub(crate) mod admission;

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

use admission::Admission;
pub use admission::NotAdmitted;
pub(crate) use operating::OperateError;

use replays::Replays;
use stored::Stored;
use trust::{Security, Signs, Trust};
use wanted::{Invalid, Wanted, check_name};

/// The most subscriptions.
const SUBSCRIPTIONS_MAX: usize = 256;
/// How many instructions to a dispatcher may wait.
const INSTRUCTIONS_MAX: usize = 64;

/// A subscription and how it stands.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Subscription {
    /// Its name: that of the service.
    pub name: String,
    /// What it asks for.
    #[serde(flatten)]
    pub wanted: Wanted,
    /// How it stands.
    pub status: Status,
    /// How its deliveries are secured.
    pub security: Security,
    /// The secret that signs them, where it was just made: the only time that it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
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
    /// The sink may not be registered.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
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

/// Why a secret was not replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RotateError {
    /// The service works its secret out by itself.
    #[error("the secret of the service `{0}` follows from the shop's own, and cannot be replaced alone")]
    OfTheShop(String),
    /// The subscription cannot be changed.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Who registers a subscription.
#[derive(Clone)]
pub(crate) enum By {
    /// A service of this process: the subscriber itself.
    Handle(Arc<dyn Sink>),
    /// A service of the shop, or an operator, with a URL.
    Shop,
    /// An outsider with a URL.
    Outsider(Arc<Grant>),
}

impl By {
    fn grant(&self) -> Option<Arc<Grant>> {
        match self {
            Self::Handle(_) | Self::Shop => None,
            Self::Outsider(grant) => Some(grant.clone()),
        }
    }

    fn handle(self) -> Option<Arc<dyn Sink>> {
        match self {
            Self::Handle(handle) => Some(handle),
            Self::Shop | Self::Outsider(_) => None,
        }
    }
}

/// All subscriptions.
pub(crate) struct Subscriptions {
    engine: Arc<dyn LogEngine>,
    keyring: Keyring,
    ways: Arc<Ways>,
    environment: Environment,
    lifecycle: Lifecycle,
    /// The services of the shop: unless they say otherwise, the log keeps every event until they have it.
    shop: BTreeSet<String>,
    entries: Mutex<BTreeMap<String, Entry>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    /// The log may lose its events up to here at any moment: nobody starts before that.
    let_go: AtomicI64,
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
        (keyring, rules): (Keyring, Rules),
        tokens: Arc<Tokens>,
        shop: BTreeSet<String>,
        environment: &Environment,
        lifecycle: &Lifecycle,
    ) -> Self {
        Self {
            engine,
            ways: Arc::new(Ways::new(rules, keyring.clone(), tokens, environment)),
            keyring,
            environment: environment.clone(),
            lifecycle: lifecycle.clone(),
            shop,
            entries: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            let_go: AtomicI64::default(),
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
            let target = self.target(&name, &stored);
            self.start(&name, stored, entry.version, target.clone());
            self.resume_replays(&name, target.as_ref()).await?;
        }
        Ok(())
    }

    /// Registers a subscription, or takes its newer configuration; its cursor stays where it is.
    pub(crate) async fn register(
        &self,
        name: &str,
        mut wanted: Wanted,
        by: By,
        expected: Expected<'_>,
    ) -> Result<Subscription, RegisterError> {
        check_name(name)?;
        wanted.check()?;
        self.choose_required(name, &mut wanted);
        let admission = self.admit(name, &wanted, by.grant()).await?;
        let handle = by.handle();
        let _one_at_a_time = self.changing.lock().await;
        let before = self.entries().get(name).cloned();
        check_version(name, before.as_ref(), expected)?;
        match before.clone() {
            None => self.create(name, wanted, handle, &admission).await?,
            Some(entry) => self.renew(name, entry, wanted, handle, &admission).await?,
        }
        self.show_made(name, before.as_ref())
    }

    /// Changes what a subscription asks for by a JSON merge patch.
    pub(crate) async fn patch(&self, name: &str, patch: &Value, by: By, expected: Expected<'_>) -> Result<Subscription, RegisterError> {
        let admission = self.admit_patch(name, patch, by.grant()).await?;
        let _one_at_a_time = self.changing.lock().await;
        let before = self.entries().get(name).cloned();
        check_version(name, before.as_ref(), expected)?;
        let before = before.ok_or_else(|| RegisterError::Unknown(name.to_owned()))?;
        let mut wanted = before.stored.wanted.patched(patch)?;
        self.choose_required(name, &mut wanted);
        admission.check(name, &wanted)?;
        let trust = self.signing(name, admission.trust_when_patched(&before.stored));
        check_required(&wanted, &trust)?;
        let after = before.stored.patched(wanted).trusting(trust);
        let target = self.new_target(name, &before.stored, &after);
        self.configure(name, before, after, target).await?;
        self.get(name).ok_or(RegisterError::Engine(EngineError::Closed))
    }

    /// Gives the subscription `name` another secret; what it had before signs too, for some time.
    pub(crate) async fn rotate_secret(&self, name: &str, grace: Duration) -> Result<Subscription, RotateError> {
        let _one_at_a_time = self.changing.lock().await;
        let before = self.entries().get(name).cloned().ok_or_else(|| RegisterError::Unknown(name.to_owned()))?;
        if self.signs(name) == Signs::ByName {
            return Err(RotateError::OfTheShop(name.to_owned()));
        }
        let trust = before.stored.trust.clone().rotated(&self.environment.ids, self.environment.clock.now(), grace);
        let after = before.stored.clone().trusting(trust);
        let target = self.new_target(name, &before.stored, &after);
        self.configure(name, before.clone(), after, target).await?;
        Ok(self.show_made(name, Some(&before))?)
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

    async fn create(&self, name: &str, wanted: Wanted, handle: Option<Arc<dyn Sink>>, admission: &Admission) -> Result<(), RegisterError> {
        if self.entries().len() >= SUBSCRIPTIONS_MAX {
            return Err(RegisterError::TooMany);
        }
        // A removal that could not be finished.
        if keeping::stored(self.engine.as_ref(), name).await?.is_some_and(|(stored, _)| stored.is_removed) {
            keeping::remove_all(self.engine.as_ref(), name).await?;
        }
        let after = self.resolve(wanted.start).await?;
        let trust = self.signing(name, admission.trust(None));
        check_required(&wanted, &trust)?;
        let stored = Stored::new(wanted, self.environment.clock.now()).trusting(trust);
        keeping::create(self.engine.as_ref(), name, &stored, &Cursor::at(after)).await?;
        let target = handle.map(Target::Handle).or_else(|| self.target(name, &stored));
        self.start(name, stored, 1, target);
        Ok(())
    }

    /// The subscriber is there again, perhaps with something new.
    async fn renew(
        &self,
        name: &str,
        entry: Entry,
        wanted: Wanted,
        handle: Option<Arc<dyn Sink>>,
        admission: &Admission,
    ) -> Result<(), RegisterError> {
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
        let after = after.trusting(self.signing(name, admission.trust(Some(&entry.stored))));
        check_required(&after.wanted, &after.trust)?;
        // A handle is another one after every start; a URL is the same.
        let target = handle.map(Target::Handle).or_else(|| self.new_target(name, &entry.stored, &after));
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
        self.entries().get(name).map(|entry| entry.show(name, self.environment.clock.now()))
    }

    pub(crate) fn list(&self) -> Vec<Subscription> {
        let now = self.environment.clock.now();
        self.entries().iter().map(|(name, entry)| entry.show(name, now)).collect()
    }

    /// Where the events of `stored` go, if that is a URL.
    fn target(&self, name: &str, stored: &Stored) -> Option<Target> {
        let url = stored.wanted.sink.as_deref().and_then(|url| url.parse().ok());
        url.map(|url| self.ways.target(name, url, stored.trust.clone()))
    }

    /// The same, if `after` goes elsewhere than `before`, or stands on something else.
    fn new_target(&self, name: &str, before: &Stored, after: &Stored) -> Option<Target> {
        let is_other = after.wanted.sink != before.wanted.sink || after.trust != before.trust;
        if is_other { self.target(name, after) } else { None }
    }

    fn signs(&self, name: &str) -> Signs {
        if self.is_of_the_shop(name) { Signs::ByName } else { Signs::ByKey }
    }

    fn signing(&self, name: &str, trust: Trust) -> Trust {
        trust.signing(self.signs(name), &self.environment.ids, self.environment.clock.now())
    }

    /// The subscription `name` as whoever changed it may see it: with its secret, if that is another one than `before`.
    fn show_made(&self, name: &str, before: Option<&Entry>) -> Result<Subscription, RegisterError> {
        let entry = self.entries().get(name).cloned().ok_or(EngineError::Closed)?;
        let trust = &entry.stored.trust;
        let is_new = !before.is_some_and(|before| trust.has_key_of(&before.stored.trust)) && self.signs(name) == Signs::ByKey;
        let now = self.environment.clock.now();
        let secret = trust.secrets(&self.keyring, name, now).first().filter(|_| is_new).map(Secret::to_text);
        Ok(Subscription { secret, ..entry.show(name, now) })
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
    fn show(&self, name: &str, now: Timestamp) -> Subscription {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (wanted, security) = (self.stored.wanted.clone(), self.stored.trust.show(now));
        Subscription { name: name.to_owned(), wanted, status, security, secret: None, etag: self.etag() }
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

/// A subscription that the log waits for can stop the shop: an outsider's never is one.
fn check_required(wanted: &Wanted, trust: &Trust) -> Result<(), Invalid> {
    if wanted.required == Some(true) && trust.token.is_some() {
        return Err(wanted::invalid("required", "cannot be true for the subscription of an outsider"));
    }
    Ok(())
}
