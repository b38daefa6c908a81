//! SQLite as every service opens it: checked, locked, migrated.
//!
//! One file per service, in WAL mode with `synchronous=FULL`: a committed transaction survives a power cut. One process owns a
//! file; one writer writes it, readers read beside it.

/// A copy of several stores as they were at one instant.
pub mod backup;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, config::DbConfig};
use tokio::sync::Notify;

use crate::{Environment, Lifecycle, environment::Writers};

/// The oldest SQLite without the bug that could lose a commit when the WAL is reset (sqlite.org, 3.51.3).
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// How many read connections are kept open for the next reader.
const IDLE_READERS_MAX: usize = 4;
/// How many prepared statements a connection keeps.
const STATEMENTS_MAX: usize = 64;
/// How many commits there are from one checkpoint to the next.
const COMMITS_PER_CHECKPOINT: u32 = 256;
/// After how many pages in the write-ahead file it is copied although there were fewer commits; of 4 KiB each.
const FRAMES_PER_CHECKPOINT: i64 = 4_096;
/// From how many pages in the write-ahead file on the writer waits for a copy, once few are left to be copied and the wait is short.
const FRAMES_ENOUGH: i64 = 16_384;
/// How many pages are few.
const FRAMES_FEW: i64 = 2_048;
/// From how many pages on the writer waits in any case.
const FRAMES_MAX: i64 = 65_536;
/// How long a reader waits for a lock, in milliseconds; writers do not lock readers out in WAL mode.
const READ_BUSY_MS: u64 = 2_000;
/// How long a writer waits at once for a lock that only another program can hold; then it says so, and waits on.
pub(crate) const WRITE_BUSY: Duration = Duration::from_millis(250);
/// The pause after that, in which others of the same thread may go on.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made or written.
    #[error("data folder `{path}` cannot be used: {cause}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        cause: std::io::Error,
    },
    /// Another process has the store.
    #[error("store `{path}` is in use by another process")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The linked SQLite would be unsafe, or refuses to be durable.
    #[error("store `{path}` cannot be made durable: {reason}")]
    NotDurable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The store was written by a newer version of this program.
    #[error("store `{path}` has schema {found}, newer than the {known} that this version knows")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema version in the file.
        found: usize,
        /// The newest schema version known here.
        known: usize,
    },
    /// A row that cannot be: it names the place, never a default.
    #[error("table {table}, row `{id}`, column {column}: {reason}")]
    BadRow {
        /// The table.
        table: &'static str,
        /// The row's key.
        id: String,
        /// The column.
        column: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be opened as a store.
    #[error("store `{path}` cannot be opened: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: rusqlite::Error,
    },
    /// SQLite failed.
    #[error("store failed: {0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl StoreError {
    /// Whether another program holds the lock, so that the same may succeed later.
    fn is_busy(&self) -> bool {
        matches!(self, Self::Sqlite(error) if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)))
    }

    /// Whether the disk or the file itself is broken, so that nothing that was not committed can be trusted.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::SystemIoFailure
                        | ErrorCode::DiskFull
                        | ErrorCode::DatabaseCorrupt
                        | ErrorCode::NotADatabase
                        | ErrorCode::ReadOnly
                        | ErrorCode::CannotOpen
                        | ErrorCode::OutOfMemory
                )
            ),
            _ => false,
        }
    }
}

/// A service's store: the one connection that writes, and the lock that keeps other processes out.
#[derive(Debug)]
pub struct Store {
    /// The writing connection. Only the writer loop uses it.
    pub connection: Connection,
    readers: Readers,
    _lock: File,
}

impl Store {
    /// Opens `<folder>/<name>.db`, makes it if it is not there, and brings it up to date with `migrations` (oldest first, append-only).
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is changed when the store is in use or newer.
    pub fn open(folder: &Path, name: &str, migrations: &[&str], durability: Durability) -> Result<Self, StoreError> {
        Self::open_layered(folder, name, &[(name, migrations)], durability)
    }

    /// Like [`Store::open`], for a schema whose layers grow apart: each layer is a name and its own migrations.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_layered(folder: &Path, name: &str, layers: &[(&str, &[&str])], durability: Durability) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(|cause| StoreError::Folder { path: folder.into(), cause })?;
        let lock = lock(folder, name)?;
        let path = folder.join(format!("{name}.db"));
        let mut connection = Connection::open(&path).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen) => StoreError::Folder { path: folder.into(), cause: std::io::Error::other(error.to_string()) },
            _ => error.into(),
        })?;
        keep_statements(&connection)?;
        let unreadable = |error| match error {
            StoreError::Sqlite(cause) => StoreError::Unreadable { path: path.clone(), cause },
            other => other,
        };
        make_durable(&connection, &path, durability).map_err(unreadable)?;
        for (layer, migrations) in layers {
            migrate(&mut connection, &path, layer, migrations).map_err(unreadable)?;
        }
        connection.busy_timeout(WRITE_BUSY)?;
        let readers = Readers { path: Arc::from(path), idle: Arc::default() };
        Ok(Self { connection, readers, _lock: lock })
    }

    /// Begins a transaction that writes, however long another program holds the store's lock: to copy it, for example. Nothing is lost
    /// by waiting; giving up would fail inputs that have nothing wrong with them.
    ///
    /// # Errors
    /// When SQLite fails.
    pub async fn begin(&mut self) -> Result<(), StoreError> {
        let mut is_said = false;
        loop {
            match self.connection.execute_batch("begin immediate").map_err(StoreError::from) {
                Err(error) if error.is_busy() => {
                    if !std::mem::replace(&mut is_said, true) {
                        tracing::warn!(store = %self.readers.path.display(), "another program holds the store's lock; waiting");
                    }
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                begun => return begun,
            }
        }
    }

    /// Read connections to the same file.
    pub fn readers(&self) -> Readers {
        self.readers.clone()
    }
}

/// How much a commit must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Power loss.
    Full,
    /// The end of the process only: for simulated disks, where simulated time decides what survives.
    ProcessOnly,
}

fn lock(folder: &Path, name: &str) -> Result<File, StoreError> {
    let unusable = |cause: std::io::Error| StoreError::Folder { path: folder.into(), cause };
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(format!("{name}.lock"))).map_err(unusable)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { path: folder.join(format!("{name}.db")) }),
        Err(error) => Err(unusable(error.into())),
    }
}

/// Prepares each statement once. SQLite would plan one that has a bound LIMIT anew each time, in case the value makes another plan better.
fn keep_statements(connection: &Connection) -> Result<(), StoreError> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn make_durable(connection: &Connection, path: &Path, durability: Durability) -> Result<(), StoreError> {
    let not_durable = |reason: String| StoreError::NotDurable { path: path.into(), reason };
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(not_durable(format!("SQLite {} is older than 3.51.3", rusqlite::version())));
    }
    let (synchronous, level) = match durability {
        Durability::Full => ("full", 2),
        Durability::ProcessOnly => ("off", 0),
    };
    // Deleted rows are overwritten: personal data that was erased must not be readable in the file.
    connection.execute_batch(&format!(
        "pragma journal_mode = wal; pragma synchronous = {synchronous}; pragma secure_delete = on; pragma foreign_keys = on;
         pragma journal_size_limit = 67108864; pragma cache_size = -16384; pragma temp_store = memory;"
    ))?;
    // A pragma that is not understood is ignored in silence, so what counts is read back.
    let mode: String = connection.query_row("pragma journal_mode", [], |row| row.get(0))?;
    let found: i64 = connection.query_row("pragma synchronous", [], |row| row.get(0))?;
    if mode != "wal" || found != level {
        return Err(not_durable(format!("journal mode is {mode}, synchronous is {found}")));
    }
    Ok(())
}

fn migrate(connection: &mut Connection, path: &Path, layer: &str, migrations: &[&str]) -> Result<(), StoreError> {
    connection.execute_batch("create table if not exists schema_layers (layer text primary key, version bigint not null)")?;
    let found: Option<i64> =
        connection.query_row("select version from schema_layers where layer = $1", [layer], |row| row.get(0)).optional()?;
    let found = usize::try_from(found.unwrap_or(0)).unwrap_or(usize::MAX);
    if found > migrations.len() {
        return Err(StoreError::Newer { path: path.into(), found, known: migrations.len() });
    }
    for (index, migration) in migrations.iter().enumerate().skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.execute(
            "insert into schema_layers (layer, version) values ($1, $2) on conflict (layer) do update set version = excluded.version",
            rusqlite::params![layer, i64::try_from(index + 1).unwrap_or(i64::MAX)],
        )?;
        transaction.commit()?;
    }
    Ok(())
}

/// Copies committed pages from the write-ahead file into the store, beside the writer and not in a commit's way.
#[derive(Debug)]
pub struct Checkpoints {
    rounds: Arc<Rounds>,
    /// Where writers run inline, SQLite's own checkpoints keep the write-ahead file short.
    is_beside: bool,
    commits: u32,
    frames_asked: i64,
}

#[derive(Debug, Default)]
struct Rounds {
    wanted: Notify,
    begun: AtomicU64,
    ended: AtomicU64,
    over: Notify,
}

impl Checkpoints {
    /// Starts checkpointing `store` off the commit path. Where writers run inline, SQLite's own checkpoints do.
    ///
    /// # Errors
    /// When no connection or thread can be had.
    pub fn start(store: &Store, name: &'static str, environment: &Environment, lifecycle: &Lifecycle) -> Result<Self, StoreError> {
        let rounds = Arc::new(Rounds::default());
        let is_beside = environment.writers == Writers::OwnThreads;
        if is_beside {
            store.connection.execute_batch("pragma wal_autocheckpoint = 0")?;
            let connection = Connection::open(&store.readers.path)?;
            let (rounds, stopping) = (rounds.clone(), lifecycle.clone());
            let task = async move {
                loop {
                    tokio::select! {
                        biased;
                        () = stopping.halted() => break,
                        () = rounds.wanted.notified() => {}
                    }
                    let round = rounds.begun.fetch_add(1, Ordering::SeqCst) + 1;
                    if let Err(error) = connection.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(())) {
                        tracing::warn!(%error, "a checkpoint failed");
                    }
                    rounds.end(round);
                }
                // Nobody waits for a round that will not come.
                rounds.end(u64::MAX);
            };
            let unusable = |cause| StoreError::Folder { path: store.readers.path.to_path_buf(), cause };
            lifecycle.spawn_writer(environment.writers, name, task).map_err(unusable)?;
        }
        Ok(Self { rounds, is_beside, commits: 0, frames_asked: 0 })
    }

    /// Says that the writer committed once more.
    pub fn committed(&mut self) {
        self.commits += 1;
        if self.commits >= COMMITS_PER_CHECKPOINT {
            self.commits = 0;
            self.rounds.wanted.notify_one();
        }
    }

    /// Looks how long the write-ahead file is, on the writer's own connection and between its transactions. While commits never pause,
    /// copying never comes to the file's end, and the file would grow for ever: when it is too long, the writer must wait for what this
    /// answers before it writes again.
    ///
    /// # Errors
    /// When SQLite cannot say.
    pub fn look(&mut self, connection: &Connection) -> Result<Option<impl Future<Output = ()> + Send + use<>>, StoreError> {
        if !self.is_beside {
            return Ok(None);
        }
        let mut statement = connection.prepare_cached("pragma wal_checkpoint(noop)")?;
        let (frames, copied): (i64, i64) = statement.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))?;
        self.frames_asked = self.frames_asked.min(frames);
        let is_enough = frames >= FRAMES_ENOUGH;
        let must_wait = frames >= FRAMES_MAX || (is_enough && frames - copied <= FRAMES_FEW);
        if !must_wait {
            // A round that is under way is let end: what it leaves may be few.
            if (is_enough && !self.rounds.is_under_way()) || frames - self.frames_asked >= FRAMES_PER_CHECKPOINT {
                self.frames_asked = frames;
                self.rounds.wanted.notify_one();
            }
            return Ok(None);
        }
        let rounds = self.rounds.clone();
        Ok(Some(async move { rounds.next().await }))
    }
}

impl Rounds {
    fn end(&self, round: u64) {
        self.ended.store(round, Ordering::SeqCst);
        self.over.notify_waiters();
    }

    fn is_under_way(&self) -> bool {
        self.begun.load(Ordering::SeqCst) > self.ended.load(Ordering::SeqCst)
    }

    /// Waits until a round is over that began after this.
    async fn next(&self) {
        let next = self.begun.load(Ordering::SeqCst) + 1;
        self.wanted.notify_one();
        loop {
            let over = self.over.notified();
            let mut over = std::pin::pin!(over);
            // Before the look, so that an end in between is not missed.
            over.as_mut().enable();
            if self.ended.load(Ordering::SeqCst) >= next {
                return;
            }
            over.await;
        }
    }
}

/// Read connections to one store, opened as they are needed. Clones share them.
#[derive(Debug, Clone)]
pub struct Readers {
    path: Arc<Path>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    /// Runs `query` on a read-only connection; sees what was committed when it began.
    ///
    /// # Errors
    /// What the query gives, or why no connection can be had.
    pub fn read<T, E: From<StoreError>>(&self, query: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().map_err(E::from)?,
        };
        let answer = query(&connection);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if answer.is_ok() && idle.len() < IDLE_READERS_MAX {
            idle.push(connection);
        }
        answer
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(Duration::from_millis(READ_BUSY_MS))?;
        keep_statements(&connection)?;
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "create table things (id text primary key)";

    #[test]
    fn a_store_is_durable_by_its_own_word_and_owned_by_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), "things", &[TABLE], Durability::Full).unwrap();
        store.connection.execute("insert into things (id) values ('a')", []).unwrap();
        let again = Store::open(folder.path(), "things", &[TABLE], Durability::Full);
        assert_eq!(again.unwrap_err().to_string(), format!("store `{}/things.db` is in use by another process", folder.path().display()));
        let count: i64 =
            store.readers().read(|db| Ok::<_, StoreError>(db.query_row("select count(*) from things", [], |row| row.get(0))?)).unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn a_store_from_a_newer_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path(), "things", &[TABLE, "create table more (id text)"], Durability::Full).unwrap());
        let older = Store::open(folder.path(), "things", &[TABLE], Durability::Full);
        assert!(matches!(older, Err(StoreError::Newer { found: 2, known: 1, .. })));
    }

    #[tokio::test]
    async fn a_writer_waits_out_another_program_that_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), "things", &[TABLE], Durability::Full).unwrap();
        let other = Connection::open(folder.path().join("things.db")).unwrap();
        other.execute_batch("begin immediate").unwrap();
        let release = async {
            // Longer than one wait of SQLite's own.
            tokio::task::yield_now().await;
            other.execute_batch("rollback").unwrap();
        };
        let (begun, ()) = tokio::join!(store.begin(), release);
        begun.unwrap();
        store.connection.execute_batch("insert into things (id) values ('a'); commit").unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Store::open(&file.path().join("data"), "things", &[TABLE], Durability::Full).unwrap_err();
        assert!(error.to_string().contains("cannot be used"), "{error}");
    }
}
