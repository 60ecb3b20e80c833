//! [`Claim`]: a folder's lock where the file system has none.

use super::lock::is_at;
use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// Name of the file by which a folder is claimed.
pub(super) const CLAIM_FILE: &str = ".windlass.claim";

/// Name that a claim gets for the instant in which it is taken over.
const OLD_CLAIM_FILE: &str = ".windlass.claim.old";

/// How often a holder writes to its claim.
const REFRESH: Duration = Duration::from_secs(5);

/// Age at which a claim is that of a process that has died: twelve chances to refresh it, and
/// longer than network file systems show an old time (NFS: 60 s, `acregmax` in nfs(5)).
const STALE: Duration = Duration::from_secs(90);

/// A file that one process at a time can make, removed when dropped.
///
/// A thread writes to it every five seconds. One that nobody has written to for 90 seconds is taken
/// over; whoever held it, a process that was stopped for so long, finds that out by
/// [`Claim::check`] before it changes anything that readers see.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    file: Arc<File>,
    /// Ends the thread when it is dropped.
    end: Option<Sender<()>>,
    refreshing: Option<JoinHandle<()>>,
}

impl Claim {
    /// Makes the claim; `None` while somebody else has one. `now` is by the clock of the file system.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn take(path: &Path, now: SystemTime) -> io::Result<Option<Self>> {
        let mut made = create(path)?;
        if made.is_none() && set_stale_aside(path, now)? {
            made = create(path)?;
        }
        let Some(file) = made.map(Arc::new) else { return Ok(None) };
        let (end, ended) = channel();
        let refreshed = Arc::clone(&file);
        let refresh = move || {
            while ended.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
                // One that cannot be refreshed is taken over in time, which `check` notices.
                let _ = write_holder(&refreshed);
            }
        };
        let spawned = thread::Builder::new().name("windlass-claim".to_owned()).spawn(refresh);
        let refreshing = spawned.inspect_err(|_| {
            // Nobody would refresh it; the error says why there is no claim.
            let _ = fs::remove_file(path);
        })?;
        let (end, refreshing) = (Some(end), Some(refreshing));
        Ok(Some(Self { path: path.to_owned(), file, end, refreshing }))
    }

    /// Makes sure that nobody has taken it over.
    ///
    /// # Errors
    /// [`Error::Save`] when somebody has.
    pub(super) fn check(&self) -> Result<()> {
        if is_at(&self.file, &self.path) {
            return Ok(());
        }
        let reason = "another save has taken the folder, as this one stood still for too long";
        Err(Error::save(&self.path, None, "keeping the lock", io::Error::other(reason)))
    }

    /// Removes it, unless it is somebody else's by now.
    pub(super) fn release(&mut self) {
        drop(self.end.take());
        if let Some(refreshing) = self.refreshing.take() {
            // It cannot panic, and there is nothing to be told.
            let _ = refreshing.join();
        }
        if is_at(&self.file, &self.path) {
            // One that stays is taken over when it is old enough.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

/// Makes the file; `None` when there is one.
fn create(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => {
            // For messages: a new file is young without it.
            let _ = write_holder(&file);
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes down whose it is, which makes it young by the clock of the file system.
fn write_holder(file: &File) -> io::Result<()> {
    file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)
}

/// Takes a stale claim out of the way; whether there is now room for a new one.
fn set_stale_aside(path: &Path, now: SystemTime) -> io::Result<bool> {
    let aside = path.with_file_name(OLD_CLAIM_FILE);
    let moved = is_stale(path, now)
        .and_then(|stale| if stale { fs::rename(path, &aside).map(|()| true) } else { Ok(false) });
    match moved {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Ok(false) => return Ok(false),
        moved => moved?,
    };
    if is_stale(&aside, now)? {
        return fs::remove_file(&aside).map(|()| true);
    }
    // Somebody has taken it over in between: it is theirs.
    fs::rename(&aside, path).map(|()| false)
}

/// Whether nobody has written to a claim for too long.
fn is_stale(path: &Path, now: SystemTime) -> io::Result<bool> {
    let changed = fs::metadata(path)?.modified()?;
    Ok(now.duration_since(changed).is_ok_and(|age| age >= STALE))
}
