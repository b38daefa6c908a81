//! A copy of several stores as they were at one instant, while their owners go on.
//!
//! For a moment every store is locked for writing, so that none of them changes; in that moment a read transaction is opened on each.
//! Then the locks are given back, and what the read transactions see is copied at leisure: SQLite keeps it for them in the write-ahead
//! file. So no copy holds an effect whose cause another copy lacks.

use std::{
    fs::File,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    backup::{Backup, StepResult},
};
use tokio::time::Instant;

/// How often a lock is asked for. Its owner lets it go between two transactions, which is a short time when there is much to do.
const ASK_AGAIN_AFTER: Duration = Duration::from_micros(50);
/// How often at most: some seconds, longer than any transaction takes.
const ASKED_MAX: i32 = 30_000;
/// How many pages are copied at once.
const PAGES_PER_STEP: i32 = 1_024;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store cannot be read.
    #[error("store `{path}` cannot be copied: {cause}")]
    Store {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        cause: rusqlite::Error,
    },
    /// Somebody writes to the store without end.
    #[error("store `{path}` is locked by another program, and stays so")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The copy is not what it must be.
    #[error("the copy of store `{path}` is damaged: {reason}")]
    Damaged {
        /// The file that was copied.
        path: PathBuf,
        /// What is wrong with the copy.
        reason: String,
    },
    /// The folder of a store cannot be used.
    #[error("data folder `{path}` cannot be used: {cause}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        cause: io::Error,
    },
    /// The copy cannot be written.
    #[error("`{path}` cannot be written: {cause}")]
    Target {
        /// The copy's file.
        path: PathBuf,
        /// What the operating system says.
        cause: io::Error,
    },
}

/// Stores as they were at one instant. They are kept so until this is dropped, and their write-ahead files grow meanwhile.
#[derive(Debug)]
pub struct Frozen {
    stores: Vec<Snapshot>,
    held: Duration,
}

/// A store, with a read transaction that has begun.
#[derive(Debug)]
struct Snapshot {
    path: PathBuf,
    connection: Connection,
}

/// A copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its file.
    pub path: PathBuf,
    /// How large it is.
    pub bytes: u64,
}

/// Keeps the stores in the files `paths` as they are now. Whoever writes to one of them waits meanwhile, for [`Frozen::held`] at most.
///
/// # Errors
/// When one of them cannot be opened or locked; see [`BackupError`].
pub fn freeze(paths: &[PathBuf]) -> Result<Frozen, BackupError> {
    let mut stores = Vec::with_capacity(paths.len());
    for path in paths {
        stores.push(Store { path: path.clone(), locker: connect(path)?, reader: connect(path)? });
    }
    let turn = take_turn(paths)?;
    let began = Instant::now();
    lock_all(&mut stores)?;
    for store in &stores {
        store.run("begin deferred; select count(*) from sqlite_schema", &store.reader)?;
    }
    for store in &stores {
        store.run("rollback", &store.locker)?;
    }
    let held = began.elapsed();
    drop(turn);
    Ok(Frozen { stores: stores.into_iter().map(|store| Snapshot { path: store.path, connection: store.reader }).collect(), held })
}

/// A store on its way to be frozen.
struct Store {
    path: PathBuf,
    locker: Connection,
    reader: Connection,
}

impl Store {
    fn run(&self, sql: &str, connection: &Connection) -> Result<(), BackupError> {
        connection.execute_batch(sql).map_err(|cause| refused(&self.path, cause))
    }
}

/// Two backups at once would each hold a lock that the other one wants.
fn take_turn(paths: &[PathBuf]) -> Result<Option<File>, BackupError> {
    let Some(folder) = paths.iter().min().and_then(|path| path.parent()) else { return Ok(None) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let locked = File::open(folder).and_then(|file| file.lock().map(|()| file));
    locked.map(Some).map_err(|cause| BackupError::Folder { path: folder.into(), cause })
}

/// Locks all at the same time: one after the other, the first would be held for as long as all the others take.
fn lock_all(stores: &mut [Store]) -> Result<(), BackupError> {
    std::thread::scope(|scope| {
        let locking: Vec<_> = stores.iter_mut().map(|store| scope.spawn(move || store.run("begin immediate", &store.locker))).collect();
        locking.into_iter().try_for_each(|locking| locking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

impl Frozen {
    /// How long writers had to wait, at most.
    pub fn held(&self) -> Duration {
        self.held
    }

    /// Copies the stores into `folder`, each under its own name, checks the copies, and makes them durable. Nobody but the owner may
    /// read them. Nothing in `folder` is overwritten.
    ///
    /// # Errors
    /// See [`BackupError`]; what was copied before stays.
    pub fn copy_into(self, folder: &Path) -> Result<Vec<Copied>, BackupError> {
        self.stores.iter().map(|store| store.copy_into(folder)).collect()
    }
}

impl Snapshot {
    fn copy_into(&self, folder: &Path) -> Result<Copied, BackupError> {
        let path = folder.join(self.path.file_name().unwrap_or_default());
        let failed = |cause| BackupError::Target { path: path.clone(), cause };
        let file = File::options().create_new(true).write(true).mode(0o600).open(&path).map_err(failed)?;
        self.copy_to(&path)?;
        file.sync_all().map_err(failed)?;
        Ok(Copied { bytes: file.metadata().map_err(failed)?.len(), path })
    }

    fn copy_to(&self, path: &Path) -> Result<(), BackupError> {
        let failed = |cause| BackupError::Store { path: self.path.clone(), cause };
        let mut copy = connect(path)?;
        // The file is made durable as a whole.
        copy.execute_batch("pragma synchronous = off").map_err(failed)?;
        let backup = Backup::new(&self.connection, &mut copy).map_err(failed)?;
        while backup.step(PAGES_PER_STEP).map_err(failed)? != StepResult::Done {}
        drop(backup);
        let found: String = copy.query_row("pragma integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
        if found != "ok" {
            return Err(BackupError::Damaged { path: self.path.clone(), reason: found });
        }
        copy.close().map_err(|(_, cause)| failed(cause))
    }
}

fn connect(path: &Path) -> Result<Connection, BackupError> {
    let failed = |cause| BackupError::Store { path: path.into(), cause };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_handler(Some(ask_again)).map_err(failed)?;
    // The first look at a store takes longest.
    connection.query_row("select count(*) from sqlite_schema", [], |_| Ok(())).map_err(failed)?;
    Ok(connection)
}

/// SQLite's own way to wait becomes slower and slower, and would miss the moments in which a busy store is not locked.
fn ask_again(asked: i32) -> bool {
    std::thread::sleep(ASK_AGAIN_AFTER);
    asked < ASKED_MAX
}

fn refused(path: &Path, cause: rusqlite::Error) -> BackupError {
    match cause.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => BackupError::Locked { path: path.into() },
        _ => BackupError::Store { path: path.into(), cause },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{self, Durability};

    const TABLE: &str = "create table things (id integer primary key, text text not null)";

    fn insert(store: &store::Store, ids: std::ops::Range<i64>) {
        for id in ids {
            store.connection.execute("insert into things values ($1, $2)", (id, "some text ".repeat(40))).unwrap();
        }
    }

    fn count(path: &Path) -> i64 {
        Connection::open(path).unwrap().query_row("select count(*) from things", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_copy_shows_the_instant_of_freezing_whatever_is_written_and_checkpointed_after_it() {
        let (folder, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stores: Vec<store::Store> =
            ["one", "two"].map(|name| store::Store::open(folder.path(), name, &[TABLE], Durability::Full).unwrap()).into();
        stores.iter().for_each(|store| insert(store, 0..500));
        let frozen = freeze(&["one", "two"].map(|name| folder.path().join(format!("{name}.db")))).unwrap();
        for store in &stores {
            insert(store, 500..1_000);
            store.connection.execute_batch("delete from things where id < 100; pragma wal_checkpoint(passive)").unwrap();
        }
        let copied = frozen.copy_into(target.path()).unwrap();
        for copy in &copied {
            assert_eq!((count(&copy.path), std::fs::metadata(&copy.path).unwrap().len()), (500, copy.bytes));
        }
        let names: Vec<_> = std::fs::read_dir(target.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}: what SQLite needs beside a store is not left behind");
        // And it is a store, which the next process goes on with.
        let restored = store::Store::open(target.path(), "one", &[TABLE], Durability::Full).unwrap();
        insert(&restored, 500..501);
    }

    #[test]
    fn what_was_erased_before_cannot_be_read_in_a_copy() {
        let (folder, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = store::Store::open(folder.path(), "one", &[TABLE], Durability::Full).unwrap();
        insert(&store, 0..50);
        for (id, text) in [(50, "a secret".repeat(20)), (51, "a secret".repeat(4_000))] {
            store.connection.execute("insert into things values ($1, $2)", (id, text)).unwrap();
        }
        store.connection.execute_batch("delete from things where id >= 50").unwrap();
        let copied = freeze(&[folder.path().join("one.db")]).unwrap().copy_into(target.path()).unwrap();
        let bytes = std::fs::read(&copied.first().unwrap().path).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"a secret"));
        assert!(bytes.windows(9).any(|window| window == b"some text"));
    }

    #[test]
    fn nobody_can_write_in_the_moment_between_two_snapshots() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(format!("{name}.db"));
        // The first and the last that are frozen, with others between them, so that there is such a moment.
        let others: Vec<String> = (0..40).map(|number| format!("other-{number}")).collect();
        let paths: Vec<PathBuf> = [vec![path("two")], others.iter().map(|name| path(name)).collect(), vec![path("one")]].concat();
        for path in &paths {
            Connection::open(path).unwrap().execute_batch(&format!("pragma journal_mode = wal; {TABLE}")).unwrap();
        }
        // A writer that writes each number into the one, and then into the other: the other never has more.
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let [one, two] = ["one", "two"].map(|name| connect(&path(name)).unwrap());
                [&one, &two].into_iter().for_each(|store| store.execute_batch("pragma synchronous = off").unwrap());
                for id in 0_i64..200_000 {
                    for store in [&one, &two] {
                        store.execute("insert into things values ($1, '')", [id]).unwrap();
                    }
                    if is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                }
            });
            let counts: Vec<(i64, i64)> = (0..20)
                .map(|_| {
                    let frozen = freeze(&paths).unwrap();
                    let count = |store: &Snapshot| store.connection.query_row("select count(*) from things", [], |row| row.get(0)).unwrap();
                    (count(frozen.stores.last().unwrap()), count(frozen.stores.first().unwrap()))
                })
                .collect();
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(counts.iter().all(|(one, two)| one == two || *one == two + 1), "{counts:?}");
        });
    }

    #[test]
    fn a_transaction_that_has_begun_is_waited_for_and_is_in_the_copy() {
        let (folder, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = store::Store::open(folder.path(), "one", &[TABLE], Durability::Full).unwrap();
        store.connection.execute_batch("begin immediate").unwrap();
        insert(&store, 0..3);
        let path = folder.path().join("one.db");
        let copied = std::thread::scope(|scope| {
            let copying = scope.spawn(|| freeze(std::slice::from_ref(&path)).unwrap().copy_into(target.path()).unwrap());
            insert(&store, 3..2_000);
            assert!(!copying.is_finished());
            store.connection.execute_batch("commit").unwrap();
            copying.join().unwrap()
        });
        assert_eq!(count(&copied.first().unwrap().path), 2_000);
    }

    #[test]
    fn a_store_that_is_never_unlocked_is_named_and_the_others_are_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name| store::Store::open(folder.path(), name, &[TABLE], Durability::Full).unwrap();
        let (one, two) = (open("one"), open("two"));
        two.connection.execute_batch("begin immediate").unwrap();
        let said = freeze(&["one", "two"].map(|name| folder.path().join(format!("{name}.db")))).unwrap_err().to_string();
        assert!(said.contains("two.db` is locked by another program"), "{said}");
        insert(&one, 0..1);
    }

    #[test]
    fn a_store_that_is_none_or_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.db");
        assert!(freeze(std::slice::from_ref(&path)).unwrap_err().to_string().contains("one.db"));
        assert!(!path.exists());
        std::fs::write(&path, "no store ".repeat(200)).unwrap();
        assert!(freeze(&[path]).unwrap_err().to_string().contains("one.db"));
    }
}
