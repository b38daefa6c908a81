//! Room kept back for when the disk is full: given up then, so that small state can still be written and the log be trimmed, and taken
//! again as the sign that there is room.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use kit::Timestamp;

/// How much is kept back, in bytes: far more than all state that changes between two checkpoints.
const BYTES: usize = 16 * 1024 * 1024;
/// How long it is until the next try to take it again, in milliseconds.
const TRY_AFTER_MS: u64 = 1_000;

/// A file that does nothing but take room.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    is_held: bool,
    try_at: Timestamp,
}

impl Reserve {
    /// Keeps room back beside the log in `folder`, if there is any.
    pub(super) fn take(folder: &Path) -> Self {
        let mut reserve = Self { path: folder.join("broker.reserve"), is_held: false, try_at: Timestamp::from_ms(0) };
        match reserve.fill() {
            Ok(()) => reserve.is_held = true,
            Err(error) => {
                tracing::error!(%error, path = %reserve.path.display(), "no room can be kept back: no events are taken until there is")
            }
        }
        reserve
    }

    /// Whether the room is there.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Gives the room up. Answers whether there was any.
    pub(super) fn give_up(&mut self, now: Timestamp) -> bool {
        self.try_at = now.plus_ms(TRY_AFTER_MS);
        let was_held = std::mem::replace(&mut self.is_held, false);
        was_held && std::fs::remove_file(&self.path).is_ok()
    }

    /// Takes the room again, if it can be had; tries only now and then.
    pub(super) fn take_again(&mut self, now: Timestamp) -> bool {
        if !self.is_held && now >= self.try_at {
            self.try_at = now.plus_ms(TRY_AFTER_MS);
            self.is_held = self.fill().is_ok();
        }
        self.is_held
    }

    /// Writes the file in full: what is only promised may not be there when it counts. It need not survive anything.
    fn fill(&self) -> io::Result<()> {
        let is_whole = std::fs::metadata(&self.path).is_ok_and(|found| usize::try_from(found.len()) == Ok(BYTES));
        if is_whole {
            return Ok(());
        }
        let filled = File::create(&self.path).and_then(|mut file| {
            let zeros = [0; 64 * 1024];
            for _ in 0..BYTES / zeros.len() {
                file.write_all(&zeros)?;
            }
            Ok(())
        });
        filled.inspect_err(|_| drop(std::fs::remove_file(&self.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_given_up_and_taken_again_only_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let size = || std::fs::metadata(folder.path().join("broker.reserve")).map(|found| found.len()).ok();
        let at = Timestamp::from_ms;
        let mut reserve = Reserve::take(folder.path());
        assert!(reserve.is_held());
        assert_eq!(size(), Some(16 * 1024 * 1024));
        assert!(reserve.give_up(at(0)));
        assert_eq!(size(), None);
        assert!(!reserve.give_up(at(0)), "there is nothing more to give up");
        assert!(!reserve.take_again(at(999)));
        assert!(reserve.take_again(at(1_000)));
        assert_eq!(size(), Some(16 * 1024 * 1024));
    }

    #[test]
    fn where_there_is_no_room_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("broker.reserve")).unwrap();
        let mut reserve = Reserve::take(folder.path());
        assert!(!reserve.is_held());
        assert!(!reserve.take_again(Timestamp::from_ms(5_000)));
    }
}
