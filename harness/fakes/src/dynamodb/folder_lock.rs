//! Locks a database's folder, so that no other process can open the database.

use std::fs::{File, TryLockError};
use std::path::Path;

pub(super) const LOCK_FILE: &str = "dynamodb.lock";

/// An exclusive lock on a database's folder. Without the lock, two processes could assign the same sequence numbers.
pub(super) struct FolderLock(File);

impl FolderLock {
    /// Locks a folder. Fails with [`TryLockError::WouldBlock`] if the folder is already locked.
    pub(super) fn take(dir: &Path) -> Result<Self, TryLockError> {
        let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK_FILE));
        let file = file.map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Drop for FolderLock {
    /// Unlocks the file explicitly. Closing the file is not enough: a child process that is being spawned inherits the
    /// open file, and keeps the lock until the child executes its program.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_lock_is_released_on_drop_even_if_a_copy_of_its_file_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let ours = FolderLock::take(folder.path()).unwrap();
        let inherited = ours.0.try_clone().unwrap();
        assert!(matches!(FolderLock::take(folder.path()), Err(TryLockError::WouldBlock)));
        drop(ours);
        FolderLock::take(folder.path()).unwrap();
        drop(inherited);
    }
}
