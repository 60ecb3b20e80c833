//! [`FolderLock`]: one save at a time in a folder.

use super::disk::Disk;
use crate::error::{Error, Result};
use crate::read::Control;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Name of the lock file; it is gone when nobody saves.
pub const LOCK_FILE: &str = ".windlass.lock";

/// How often a waiting save looks whether the lock is free.
const POLL: Duration = Duration::from_millis(20);

/// Longest holder's name that is read.
const MAX_HOLDER_LEN: u64 = 64;

/// An exclusive lock on a folder, released and removed when dropped.
///
/// It is the kernel's lock on an open file (`flock`), so it ends with the process that holds it: a
/// lock file left by a crash holds nobody up. Where the file system has no such locks, saves go on
/// without: then only work folders of their own keep them apart.
#[derive(Debug)]
pub(super) struct FolderLock {
    path: PathBuf,
    /// Whether it keeps anybody out.
    is_held: bool,
    _file: File,
}

/// What an attempt at the lock came to.
enum Attempt {
    Held(File),
    /// The file system has no locks.
    Without(File),
    /// Somebody else holds it.
    Taken,
}

impl FolderLock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// [`Error::Locked`] after `timeout`, [`Error::Cancelled`], or what the system says.
    pub(super) fn acquire(
        disk: &dyn Disk,
        folder: &Path,
        timeout: Duration,
        control: &Control,
    ) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        let start = Instant::now();
        loop {
            match try_lock(disk, &path)? {
                Attempt::Held(file) => return Ok(Self { path, is_held: true, _file: file }),
                Attempt::Without(file) => return Ok(Self { path, is_held: false, _file: file }),
                Attempt::Taken => {}
            }
            if control.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if start.elapsed() >= timeout {
                let holder = holder(&path);
                return Err(Error::Locked { path, holder, seconds: timeout.as_secs_f64() });
            }
            thread::sleep(POLL);
        }
    }

    /// Whether it keeps other saves out: not where the file system has no locks.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Removed while it is held: whoever waits for it sees that the name is gone. A lock file
        // that cannot be removed is an empty promise to nobody: the lock itself ends right after.
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes the lock if it is free; makes the file where there is none.
fn try_lock(disk: &dyn Disk, path: &Path) -> Result<Attempt> {
    let failed = |source| Error::save(path, None, "locking the folder", source);
    let mut file = open(path).map_err(failed)?;
    let is_held = loop {
        match disk.try_lock(&file) {
            Ok(()) if is_at(&file, path) => break true,
            Ok(()) | Err(TryLockError::WouldBlock) => return Ok(Attempt::Taken),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) if means_no_locks(&error) => break false,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    };
    // For messages only: on a full disk, or in a file of somebody else's, it is left out.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(if is_held { Attempt::Held(file) } else { Attempt::Without(file) })
}

/// Whether this is how a file system says that it has no locks. Anything else may be true of this
/// instant only, while another save holds the lock.
fn means_no_locks(error: &io::Error) -> bool {
    let codes = [libc::EOPNOTSUPP, libc::ENOTSUP, libc::ENOSYS, libc::EINVAL];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Makes the file, or opens the one that is there: for reading, if it is somebody else's.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    match options.read(true).write(true).create(true).truncate(false).open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            File::open(path).map_err(|_| error)
        }
        opened => opened,
    }
}

/// Whether an open file still has this name: the last holder may have removed it.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

/// Process that holds a lock, as it has written it down.
fn holder(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|f| f.take(MAX_HOLDER_LEN).read_to_string(&mut text));
    match read {
        Ok(_) if !text.trim().is_empty() => format!("process {}", text.trim()),
        _ => "another process".to_owned(),
    }
}
