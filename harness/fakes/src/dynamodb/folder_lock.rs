//! The lock on a database's folder.

use std::fs::{File, TryLockError};
use std::path::Path;

pub(super) const LOCK_FILE: &str = "dynamodb.lock";

/// A folder that is ours alone: two processes on one would hand out the same sequence numbers.
pub(super) struct FolderLock(File);

impl FolderLock {
    /// Takes the lock of a folder, unless another process has it.
    pub(super) fn take(dir: &Path) -> Result<Self, TryLockError> {
        let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK_FILE));
        let file = file.map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Drop for FolderLock {
    /// Closing the file would not do: a process that is being started has it open as well, until it is what it will be.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_free_once_it_is_let_go_whoever_else_has_its_lock_open() {
        let folder = tempfile::tempdir().unwrap();
        let ours = FolderLock::take(folder.path()).unwrap();
        let inherited = ours.0.try_clone().unwrap();
        assert!(matches!(FolderLock::take(folder.path()), Err(TryLockError::WouldBlock)));
        drop(ours);
        FolderLock::take(folder.path()).unwrap();
        drop(inherited);
    }
}
