//! [`FolderLock`]: one save at a time in a folder.

use super::claim::{CLAIM_FILE, Claim};
use super::disk::Disk;
use crate::error::{Error, Result};
use crate::read::Control;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Name of the lock file; it is gone when nobody saves.
pub const LOCK_FILE: &str = ".windlass.lock";

/// How often a waiting save looks whether the lock is free.
const POLL: Duration = Duration::from_millis(20);

/// Longest holder's name that is read.
const MAX_HOLDER_LEN: u64 = 64;

/// An exclusive lock on a folder, released and removed when dropped.
///
/// It is the kernel's lock on an open file (`flock`), so it ends with the process that holds it: a
/// lock file left by a crash holds nobody up. Where the file system has no such locks, it is a
/// [`Claim`].
#[derive(Debug)]
pub(super) struct FolderLock {
    path: PathBuf,
    hold: Hold,
}

/// What keeps others out.
#[derive(Debug)]
enum Hold {
    Kernel { _file: File },
    Claim(Claim),
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
            if let Some(hold) = try_lock(disk, &path)? {
                return Ok(Self { path, hold });
            }
            if control.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if start.elapsed() >= timeout {
                let claim = folder.join(CLAIM_FILE);
                let path = if claim.exists() { claim } else { path };
                let holder = holder(&path);
                return Err(Error::Locked { path, holder, seconds: timeout.as_secs_f64() });
            }
            thread::sleep(POLL);
        }
    }

    /// Makes sure that nobody else has taken the folder meanwhile.
    ///
    /// # Errors
    /// [`Error::Save`] when another save has.
    pub(super) fn check(&self) -> Result<()> {
        match &self.hold {
            Hold::Kernel { .. } => Ok(()),
            Hold::Claim(claim) => claim.check(),
        }
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // First, as whoever waits for it makes the other file again.
        if let Hold::Claim(claim) = &mut self.hold {
            claim.release();
        }
        // Removed while it is held: whoever waits for it sees that the name is gone. A lock file
        // that cannot be removed is an empty promise to nobody: the lock itself ends right after.
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes the lock if it is free; makes the file where there is none.
fn try_lock(disk: &dyn Disk, path: &Path) -> Result<Option<Hold>> {
    let failed = |source| Error::save(path, None, "locking the folder", source);
    let mut file = open(path).map_err(failed)?;
    let is_held = loop {
        match disk.try_lock(&file) {
            Ok(()) if is_at(&file, path) => break true,
            Ok(()) | Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) if means_no_locks(&error) => break false,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    };
    // For messages only: on a full disk, or in a file of somebody else's, it is left out.
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    if is_held {
        return Ok(Some(Hold::Kernel { _file: file }));
    }
    let now = written.and_then(|()| file.metadata()?.modified());
    let now = now.unwrap_or_else(|_| SystemTime::now());
    let claim = Claim::take(&path.with_file_name(CLAIM_FILE), now).map_err(failed)?;
    Ok(claim.map(Hold::Claim))
}

/// Whether this is how a file system says that it has no locks (NFS without a lock service says
/// ENOLCK). Anything else may be true of this instant only, while another save holds the lock.
pub(super) fn means_no_locks(error: &io::Error) -> bool {
    let codes = [libc::EOPNOTSUPP, libc::ENOTSUP, libc::ENOSYS, libc::EINVAL, libc::ENOLCK];
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
