//! Who wants which events: durable registrations, and the dispatcher of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use http::Uri;
use kit::{Environment, Lifecycle, Position, http::client::Client, security::Keyring, transport::Sink};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{
    dispatcher::{Dispatcher, Instruction, Status},
    engine::{EngineError, LogEngine, StatePut},
    keeping,
    lanes::DeadLetter,
    sink::HttpSink,
};

/// The most subscriptions.
const SUBSCRIPTIONS_MAX: usize = 256;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The longest URL of a sink, in bytes.
const URL_BYTES_MAX: usize = 2_048;
/// The most types that one subscription names.
const TYPES_MAX: usize = 256;
/// How many instructions to a dispatcher may wait.
const INSTRUCTIONS_MAX: usize = 64;

/// What a subscriber asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Where the events go; none for a service of this process, which attaches itself.
    pub sink: Option<String>,
    /// The types of events that are wanted.
    pub types: BTreeSet<String>,
    /// Only rises: an older configuration changes nothing.
    pub revision: i64,
}

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
}

/// Why a subscription was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A field does not hold what it must.
    #[error("`{field}` {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it must hold.
        reason: &'static str,
    },
    /// The revision is taken: it stands for other types.
    #[error("revision {revision} of subscription `{name}` asks for other types")]
    RevisionTaken {
        /// The subscription.
        name: String,
        /// The revision.
        revision: i64,
    },
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
    entries: Mutex<BTreeMap<String, Entry>>,
    /// One registration at a time.
    registering: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Entry {
    wanted: Wanted,
    version: i64,
    instructions: mpsc::Sender<Instruction>,
    status: Arc<Mutex<Status>>,
}

impl Subscriptions {
    pub(crate) fn new(engine: Arc<dyn LogEngine>, keyring: Keyring, environment: &Environment, lifecycle: &Lifecycle) -> Self {
        Self {
            engine,
            keyring,
            client: Client::new(environment.connect.clone()),
            environment: environment.clone(),
            lifecycle: lifecycle.clone(),
            entries: Mutex::default(),
            registering: tokio::sync::Mutex::default(),
        }
    }

    /// Starts the dispatchers of all subscriptions that were registered before.
    pub(crate) async fn resume(&self) -> Result<(), EngineError> {
        for entry in self.engine.state_list(keeping::CONFIG_PREFIX).await? {
            let name = entry.key.trim_start_matches(keeping::CONFIG_PREFIX).to_owned();
            let wanted: Wanted = keeping::parse(&entry)?;
            let sink = wanted.sink.as_deref().and_then(|url| url.parse().ok()).map(|url| self.http_sink(url));
            self.start(&name, wanted, entry.version, sink);
        }
        Ok(())
    }

    /// Registers a subscription, or takes its newer configuration; its cursor stays where it is. `handle` is the subscriber itself
    /// when it runs in this process.
    pub(crate) async fn register(&self, name: &str, wanted: Wanted, handle: Option<Arc<dyn Sink>>) -> Result<Subscription, RegisterError> {
        check_name(name)?;
        let url = check(&wanted)?;
        let _one_at_a_time = self.registering.lock().await;
        let before = self.entries().get(name).cloned();
        let (is_new_sink, version) = match &before {
            Some(entry) if wanted.revision < entry.wanted.revision => {
                // An older instance: what it knows of the world is out of date, but it is there.
                if let Some(handle) = handle {
                    let _ = entry.instructions.send(Instruction::Attach(handle)).await;
                }
                return self.get(name).ok_or(RegisterError::Engine(EngineError::Closed));
            }
            Some(entry) if wanted.revision == entry.wanted.revision && wanted.types != entry.wanted.types => {
                return Err(RegisterError::RevisionTaken { name: name.to_owned(), revision: wanted.revision });
            }
            Some(entry) => (wanted.sink != entry.wanted.sink, entry.version),
            None if self.entries().len() >= SUBSCRIPTIONS_MAX => return Err(RegisterError::TooMany),
            None => (true, 0),
        };
        let is_unchanged = before.as_ref().is_some_and(|entry| entry.wanted == wanted);
        if !is_unchanged {
            let (key, value) = (keeping::config_key(name), Some(keeping::to_json(&wanted)));
            self.engine.state_put(vec![StatePut { key, value, expected_version: version }]).await?;
        }
        let sink = handle.or_else(|| url.map(|url| self.http_sink(url)));
        match before {
            None => self.start(name, wanted, version + 1, sink),
            Some(entry) => {
                let instructions = entry.instructions.clone();
                // A handle is another one after every start; a URL is the same.
                let attach = sink.filter(|_| is_new_sink || wanted.sink.is_none());
                let _ = instructions.send(attach.map_or(Instruction::Nudge, Instruction::Attach)).await;
                if !is_unchanged {
                    let _ = instructions.send(Instruction::Types(wanted.types.clone())).await;
                    self.entries().insert(name.to_owned(), Entry { wanted, version: version + 1, ..entry });
                }
            }
        }
        self.get(name).ok_or(RegisterError::Engine(EngineError::Closed))
    }

    pub(crate) fn get(&self, name: &str) -> Option<Subscription> {
        self.entries().get(name).map(|entry| entry.show(name))
    }

    pub(crate) fn list(&self) -> Vec<Subscription> {
        self.entries().iter().map(|(name, entry)| entry.show(name)).collect()
    }

    pub(crate) async fn dead_letters(&self, name: &str) -> Result<Vec<DeadLetter>, EngineError> {
        keeping::dead_letters(self.engine.as_ref(), name).await
    }

    /// Tries a dead letter again. Answers whether there is one.
    pub(crate) async fn redrive(&self, name: &str, position: Position) -> bool {
        self.tell(name, |reply| Instruction::Redrive(position, reply)).await
    }

    /// Gives up a dead letter for good. Answers whether there is one.
    pub(crate) async fn discard(&self, name: &str, position: Position) -> bool {
        self.tell(name, |reply| Instruction::Discard(position, reply)).await
    }

    async fn tell(&self, name: &str, instruction: impl FnOnce(oneshot::Sender<bool>) -> Instruction) -> bool {
        let Some(instructions) = self.entries().get(name).map(|entry| entry.instructions.clone()) else { return false };
        let (reply, answer) = oneshot::channel();
        instructions.send(instruction(reply)).await.is_ok() && answer.await.unwrap_or(false)
    }

    fn http_sink(&self, url: Uri) -> Arc<dyn Sink> {
        Arc::new(HttpSink::new(self.client.clone(), url, self.keyring.clone(), self.environment.clone()))
    }

    fn start(&self, name: &str, wanted: Wanted, version: i64, sink: Option<Arc<dyn Sink>>) {
        let (instructions, queue) = mpsc::channel(INSTRUCTIONS_MAX);
        let status = Arc::new(Mutex::new(Status::new()));
        let dispatcher = Dispatcher {
            name: name.to_owned(),
            types: wanted.types.clone(),
            sink,
            engine: self.engine.clone(),
            environment: self.environment.clone(),
            lifecycle: self.lifecycle.clone(),
            instructions: queue,
            status: status.clone(),
        };
        self.lifecycle.spawn("dispatcher", dispatcher.run());
        self.entries().insert(name.to_owned(), Entry { wanted, version, instructions, status });
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn show(&self, name: &str) -> Subscription {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Subscription { name: name.to_owned(), wanted: self.wanted.clone(), status }
    }
}

fn check_name(name: &str) -> Result<(), RegisterError> {
    let is_fine = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let reason = "must be 1 to 64 of a-z, 0-9 and `-`, and begin with a letter";
    if is_fine { Ok(()) } else { Err(RegisterError::Invalid { field: "name", reason }) }
}

/// Checks a configuration; answers the URL, if it has one.
fn check(wanted: &Wanted) -> Result<Option<Uri>, RegisterError> {
    let invalid = |field, reason| Err(RegisterError::Invalid { field, reason });
    if wanted.types.is_empty() || wanted.types.len() > TYPES_MAX {
        return invalid("types", "must name 1 to 256 types");
    }
    let is_type = |ty: &String| (1..=256).contains(&ty.len()) && !ty.contains(|character: char| character.is_control() || character == ' ');
    if !wanted.types.iter().all(is_type) {
        return invalid("types", "must be texts of 1 to 256 bytes without spaces");
    }
    if wanted.revision < 1 {
        return invalid("revision", "must be at least 1");
    }
    let Some(sink) = &wanted.sink else { return Ok(None) };
    match sink.parse::<Uri>() {
        Ok(url) if sink.len() <= URL_BYTES_MAX && is_reachable(&url) => Ok(Some(url)),
        _ => invalid("sink", "must be a URL like http://host:port/path without a user name"),
    }
}

fn is_reachable(url: &Uri) -> bool {
    let is_plain = |authority: &str| !authority.contains('@');
    url.scheme_str() == Some("http")
        && url.host().is_some_and(|host| !host.is_empty())
        && url.authority().is_some_and(|a| is_plain(a.as_str()))
}
