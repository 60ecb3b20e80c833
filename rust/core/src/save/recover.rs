//! What a crash left in a folder: unfinished saves are undone, committed ones completed.

use super::commit::{Commit, Ending, remove_work_folder};
use super::disk::Disk;
use super::family::unmarked;
use super::journal::{Journal, Progress, points_into};
use super::lock::{FolderLock, is_at, means_no_locks};
use crate::error::{Error, Result};
use crate::read::Control;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Age at which a temporary file is nobody's, where the file system has no locks to tell.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

/// What was done about something that was left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What no reader could find was removed: a save before its commit, or what was left of one
    /// to tidy up.
    Undone,
    /// A save that readers could see was carried to its end.
    Completed,
    /// A committed save, over which somebody else has saved since, was removed.
    Superseded,
}

/// A leftover that was dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Name of the work folder or temporary file.
    pub name: String,
    /// What was done.
    pub outcome: Outcome,
}

/// Deals with whatever interrupted saves left in a folder.
///
/// # Errors
/// [`Error::Locked`] when a save is going on and does not end within `timeout`; what the system
/// says.
pub fn recover(
    disk: &dyn Disk,
    folder: &Path,
    timeout: Duration,
    control: &Control,
) -> Result<Vec<Recovered>> {
    let _lock = FolderLock::acquire(disk, folder, timeout, control)?;
    recover_locked(disk, folder)
}

/// The same, for who has waited for the lock.
pub(super) fn recover_locked(disk: &dyn Disk, folder: &Path) -> Result<Vec<Recovered>> {
    let mut recovered = Vec::new();
    for name in leftovers(folder)? {
        let path = folder.join(&name);
        // A link by such a name is nobody's leftover, and leads who knows where.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let outcome = if metadata.is_dir() {
            match recover_work_folder(disk, folder, &path) {
                // Another user's: what readers find is whole, and its owner can tidy it up.
                Err(error) if is_denied(&error) => None,
                outcome => outcome?,
            }
        } else {
            (metadata.is_file() && remove_abandoned(disk, &path)?).then_some(Outcome::Undone)
        };
        recovered.extend(outcome.map(|outcome| Recovered { name, outcome }));
    }
    Ok(recovered)
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::Save { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
}

/// Names in the folder that only unfinished saves give, in order.
fn leftovers(folder: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::save(folder, None, "listing", error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.to_str().filter(|name| unmarked(name).is_some()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// `None` when the folder has to stay: readers find part of a checkpoint in it.
fn recover_work_folder(disk: &dyn Disk, folder: &Path, work: &Path) -> Result<Option<Outcome>> {
    let Some(journal) = Journal::read(work)? else {
        return remove_unless_named(disk, folder, work, false, Outcome::Undone);
    };
    let durable = journal.durable;
    let removed_as = match journal.progress(folder, work)? {
        Progress::NotCommitted => Outcome::Undone,
        Progress::Superseded => Outcome::Superseded,
        Progress::Committed => {
            let commit = Commit { disk, folder, work, durable, resumed: true };
            if commit.run(&journal.plan)? == Ending::Done {
                return Ok(Some(Outcome::Completed));
            }
            Outcome::Superseded
        }
    };
    remove_unless_named(disk, folder, work, durable, removed_as)
}

fn remove_unless_named(
    disk: &dyn Disk,
    folder: &Path,
    work: &Path,
    durable: bool,
    removed_as: Outcome,
) -> Result<Option<Outcome>> {
    if is_named_by_an_index(folder, work)? {
        return Ok(None);
    }
    remove_work_folder(disk, work, durable).map(|()| Some(removed_as))
}

/// Whether any index in the folder, of whatever name, points into a work folder.
pub(super) fn is_named_by_an_index(folder: &Path, work: &Path) -> Result<bool> {
    let failed = |error| Error::save(folder, None, "listing", error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "json") && points_into(&path, work)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether nobody has written to a file for so long that no save can be at it.
fn is_old(file: &File) -> bool {
    let changed = file.metadata().and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age >= ABANDONED_AFTER))
}

/// Removes a temporary file unless a living save holds it, or another user's, who will.
pub(super) fn remove_abandoned(disk: &dyn Disk, path: &Path) -> Result<bool> {
    let failed = |error| Error::save(path, None, "removing", error);
    let file = match File::open(path) {
        Err(error)
            if [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied]
                .contains(&error.kind()) =>
        {
            return Ok(false);
        }
        file => file.map_err(failed)?,
    };
    let is_abandoned = match disk.try_lock(&file) {
        Ok(()) => true,
        Err(TryLockError::Error(error)) if means_no_locks(&error) => is_old(&file),
        Err(_) => false,
    };
    if !is_abandoned || !is_at(&file, path) {
        return Ok(false);
    }
    match disk.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        removed => removed.map(|()| true).map_err(failed),
    }
}
