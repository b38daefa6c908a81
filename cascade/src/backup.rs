//! `cascade backup`: a copy of all stores as they were at one instant, while the shop goes on.
//!
//! It is written beside its target, under a name that says that it is not finished, and gets its own name at the end: what has it, is
//! whole.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use kit::{
    security::Keyring,
    store::backup::{self, Copied},
};

use crate::{cli::BackupFlags, wiring::SECRET};

/// Every store that a shop has. A copy that lacks one would hold effects without their causes.
const STORES: [&str; 5] = ["broker.db", "delivery.db", "order.db", "payment.db", "provider.db"];
/// What the name of a copy ends with until it is finished.
const UNFINISHED: &str = ".unfinished";

/// Makes the copy, and says what it holds.
pub(crate) fn run(flags: &BackupFlags) -> anyhow::Result<()> {
    let stores = find_stores(&flags.data_dir)?;
    let secret = find_secret(flags);
    if let Some(secret) = &secret {
        Keyring::load(secret)?;
    }
    let target = Target::open(&flags.to)?;
    let made = fill(&target, &stores, secret.as_deref());
    let (copied, held_ms) = match made.and_then(|made| target.finish().map(|()| made)) {
        Ok(made) => made,
        Err(error) => {
            target.discard();
            return Err(error);
        }
    };
    let mut said = format!("The shop as it was at one instant is in `{}`; writers waited {held_ms:.1} ms for it.\n", flags.to.display());
    for copy in copied {
        let name = copy.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        said.push_str(&format!("  {name:<12} {:>10.2} MiB\n", mebibytes(copy.bytes)));
    }
    said.push_str(match secret {
        Some(_) => "  secret\n",
        None => "The secret is not in it: no data folder has one. Name it with --secret-file, or keep a copy yourself.\n",
    });
    std::io::stdout().write_all(said.as_bytes()).context("stdout")
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Every store in the `folders`, sorted by name.
fn find_stores(folders: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let unreadable = || format!("data folder `{}` cannot be read", folder.display());
        for entry in fs::read_dir(folder).with_context(unreadable)? {
            let path = entry.with_context(unreadable)?.path();
            if path.extension().is_none_or(|extension| extension != "db") {
                continue;
            }
            if let Some(twin) = found.iter().find(|other| other.file_name() == path.file_name()) {
                bail!("`{}` and `{}` are stores of two shops: a backup is of one", twin.display(), path.display());
            }
            found.push(path);
        }
    }
    found.sort_by(|one, other| one.file_name().cmp(&other.file_name()));
    let missing: Vec<_> = STORES.into_iter().filter(|name| !found.iter().any(|path| path.ends_with(name))).collect();
    if !missing.is_empty() {
        let places: Vec<_> = folders.iter().map(|folder| format!("`{}`", folder.display())).collect();
        bail!("{} not found in {}: name the data folder of every service", missing.join(", "), places.join(", "));
    }
    Ok(found)
}

/// The secret's file: the one that was named, or else the one in a data folder.
fn find_secret(flags: &BackupFlags) -> Option<PathBuf> {
    let in_folders = || flags.data_dir.iter().map(|folder| folder.join(SECRET)).find(|path| path.exists());
    flags.secret_file.clone().or_else(in_folders)
}

/// Copies everything; gives what was copied, and how long writers waited, in milliseconds.
fn fill(target: &Target, stores: &[PathBuf], secret: Option<&Path>) -> anyhow::Result<(Vec<Copied>, f64)> {
    let frozen = backup::freeze(stores)?;
    let held_ms = frozen.held().as_secs_f64() * 1_000.0;
    if let Some(secret) = secret {
        copy_secret(secret, &target.work.join(SECRET))?;
    }
    Ok((frozen.copy_into(&target.work)?, held_ms))
}

fn copy_secret(from: &Path, to: &Path) -> anyhow::Result<()> {
    let unusable = || format!("secret file `{}` cannot be copied", from.display());
    let secret = fs::read(from).with_context(unusable)?;
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(to).with_context(unusable)?;
    file.write_all(&secret).and_then(|()| file.sync_all()).with_context(unusable)
}

/// A folder that is being made.
struct Target {
    /// Its name at the end.
    path: PathBuf,
    /// Its name until then.
    work: PathBuf,
    /// The folder itself, locked: nobody else writes there.
    folder: File,
}

impl Target {
    /// Makes the folder under its name for the meantime. What a backup that was killed has left there is removed.
    fn open(path: &Path) -> anyhow::Result<Self> {
        // The last component, without a slash at its end.
        let Some(name) = path.file_name() else { bail!("`{}` names no folder for a backup", path.display()) };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).with_context(|| format!("`{}` cannot be made", parent.display()))?;
        check_is_free(path, parent)?;
        let mut work = name.to_owned();
        work.push(UNFINISHED);
        let work = parent.join(work);
        let unusable = || format!("`{}` cannot be used", work.display());
        match DirBuilder::new().mode(0o700).create(&work) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error).with_context(unusable),
            _ => {}
        }
        let folder = File::open(&work).with_context(unusable)?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another backup to `{}` is under way", path.display()),
            Err(TryLockError::Error(error)) => return Err(error).with_context(unusable),
        }
        for left in fs::read_dir(&work).with_context(unusable)? {
            fs::remove_file(left.with_context(unusable)?.path()).with_context(unusable)?;
        }
        Ok(Self { path: parent.join(name), work, folder })
    }

    /// Gives the folder its own name, durably.
    fn finish(&self) -> anyhow::Result<()> {
        let parent = self.path.parent().unwrap_or(Path::new("."));
        self.folder
            .sync_all()
            .and_then(|()| fs::rename(&self.work, &self.path))
            .and_then(|()| File::open(parent)?.sync_all())
            .with_context(|| format!("`{}` cannot be made", self.path.display()))
    }

    /// Takes back what was made.
    fn discard(&self) {
        // What cannot be removed still has the name that says what it is.
        let _ = fs::remove_dir_all(&self.work);
    }
}

/// A backup takes no folder that holds something, and none that cannot be put in another's place.
fn check_is_free(path: &Path, parent: &Path) -> anyhow::Result<()> {
    let unreadable = || format!("`{}` cannot be used", path.display());
    let found = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found.with_context(unreadable)?,
    };
    if found.count() > 0 {
        bail!("`{}` is not empty: a backup needs a folder of its own", path.display());
    }
    if fs::metadata(path).with_context(unreadable)?.dev() != fs::metadata(parent).with_context(unreadable)?.dev() {
        bail!("`{0}` is a mount point: name a folder in it, such as `{0}/today`", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| fs::write(folder.path().join(name), "").unwrap());
        folder
    }

    #[test]
    fn stores_are_found_in_one_folder_or_in_several_and_none_may_be_missing_or_there_twice() {
        let all = folder_with(&[&STORES[..], &["secret", "order.lock", "order.db-wal"]].concat());
        let found = find_stores(&[all.path().to_owned()]).unwrap();
        assert_eq!(found, STORES.map(|name| all.path().join(name)));
        let (one, two) = (folder_with(&STORES[2..]), folder_with(&STORES[..2]));
        assert_eq!(find_stores(&[one.path().to_owned(), two.path().to_owned()]).unwrap().len(), 5);
        let missing = find_stores(&[two.path().to_owned()]).unwrap_err().to_string();
        assert!(missing.starts_with("order.db, payment.db, provider.db not found in `"), "{missing}");
        let twice = find_stores(&[all.path().to_owned(), two.path().to_owned()]).unwrap_err().to_string();
        assert!(twice.contains("are stores of two shops"), "{twice}");
        assert!(find_stores(&[PathBuf::from("/nowhere")]).unwrap_err().to_string().contains("`/nowhere` cannot be read"));
    }

    #[test]
    fn a_target_has_its_name_when_it_is_finished_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/backup/");
        let target = Target::open(&path).unwrap();
        assert!(!path.exists());
        assert!(Target::open(&path).err().unwrap().to_string().contains("another backup"));
        fs::write(target.work.join("one"), "").unwrap();
        // Killed, so to speak.
        drop(target);
        let target = Target::open(&path).unwrap();
        fs::write(target.work.join("two"), "").unwrap();
        target.finish().unwrap();
        let names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["two"]);
        assert!(Target::open(&path).err().unwrap().to_string().contains("is not empty"));
        fs::remove_file(path.join("two")).unwrap();
        let target = Target::open(&path).unwrap();
        target.discard();
        assert_eq!(fs::read_dir(folder.path().join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn a_target_that_is_none_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (path, expected) in [
            ("/", "names no folder"),
            ("..", "names no folder"),
            ("/proc", "is not empty"),
            (file.path().to_str().unwrap(), "cannot be used"),
            ("/proc/backup", "cannot be used"),
        ] {
            let said = Target::open(Path::new(path)).err().unwrap().to_string();
            assert!(said.contains(expected), "{path}: {said}");
        }
    }
}
