//! A single file: written beside its target, then renamed over it.

use super::disk::Disk;
use super::family::marked;
use super::lock::is_at;
use super::recover::remove_abandoned;
use super::staged::{NewFile, Staged, create, file_name};
use super::{SaveOptions, check_space, mode_of};
use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Part of the usual temporary name. As it is always the same, the next save finds what a crash has
/// left without a look at all the names in the folder.
const USUAL_TOKEN: u64 = 0;

/// Where a file is being put together.
#[derive(Debug)]
pub(super) struct FileTarget {
    target: PathBuf,
    temporary: PathBuf,
    /// The temporary file, whose lock tells other saves that it is no leftover.
    held: File,
    /// Readers find the new file.
    is_in_place: bool,
}

impl FileTarget {
    /// Checks the target and the room, and stages the file.
    ///
    /// A link is followed: the file that it leads to is replaced, and the link stays. A file with
    /// several names is replaced under this one only.
    pub(super) fn stage(
        path: &Path,
        new: NewFile,
        options: &SaveOptions,
    ) -> Result<(Self, Staged)> {
        let disk = &*options.disk;
        let target = resolve(path)?;
        let temporary = temporary_path(&target, USUAL_TOKEN);
        remove_abandoned(disk, &temporary)?;
        check_space(&target, folder_of(&target), new.len())?;
        let mode = mode_of(&target);
        let (temporary, file) = match create_held(disk, &temporary, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Another save of the file is going on, or has left what is not ours to remove.
                let own = temporary_path(&target, options.token);
                (own.clone(), create_held(disk, &own, mode))
            }
            created => (temporary, created),
        };
        let failed = |error| Error::save(&target, None, "creating a file beside it", error);
        let file = file.map_err(failed)?;
        let held = file.try_clone().map_err(|error| {
            // Nobody else knows of this file.
            let _ = disk.remove_file(&temporary);
            failed(error)
        })?;
        let staged = Staged::of(disk, temporary.clone(), file, new, mode);
        let target = Self { target, temporary, held, is_in_place: false };
        let staged = staged.map_err(|error| target.name_in(error))?;
        Ok((target, staged))
    }

    /// The error with the name of the target, where it has that of the temporary file.
    pub(super) fn name_in(&self, error: Error) -> Error {
        match error {
            Error::Save { path, tensor, action, source } if path == self.temporary => {
                Error::Save { path: self.target.clone(), tensor, action, source }
            }
            error => error,
        }
    }

    /// Puts the file in place.
    pub(super) fn commit(&mut self, options: &SaveOptions) -> Result<()> {
        let failed = |action, error| Error::save(&self.target, None, action, error);
        let renamed = options.disk.rename(&self.temporary, &self.target);
        self.is_in_place = renamed.is_ok() || is_at(&self.held, &self.target);
        let done = match renamed {
            Ok(()) if options.durable => {
                let synced = options.disk.sync_folder(folder_of(&self.target));
                synced.map_err(|error| failed("syncing the folder of", error))
            }
            renamed => renamed.map_err(|error| failed("renaming to", error)),
        };
        done.map_err(|error| if self.is_in_place { error.after_save(&self.target) } else { error })
    }

    /// Removes what was staged, unless it is in place.
    pub(super) fn discard(&self, disk: &dyn Disk) {
        if !self.is_in_place {
            // What cannot be removed now is removed by the next save.
            let _ = disk.remove_file(&self.temporary);
        }
    }
}

/// Where a file is put together: beside its target.
fn temporary_path(target: &Path, token: u64) -> PathBuf {
    target.with_file_name(marked(&format!(".{}", file_name(target)), token))
}

/// Makes the temporary file, and tells other saves that it is no leftover by holding its lock.
///
/// Another save may take it for one between the two: then it holds the lock for an instant, removes
/// the file, and a new one is made. Where the file system has no locks, nobody takes it for one.
fn create_held(disk: &dyn Disk, temporary: &Path, mode: Option<u32>) -> io::Result<File> {
    loop {
        let file = create(disk, temporary, mode)?;
        while file.lock().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
        if is_at(&file, temporary) {
            return Ok(file);
        }
    }
}

/// The folder of a file, which may be given by its name alone.
pub(super) fn folder_of(file: &Path) -> &Path {
    let named = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    named.unwrap_or(Path::new("."))
}

/// The file that a path means, through links.
fn resolve(path: &Path) -> Result<PathBuf> {
    let failed = |error| Error::save(path, None, "opening", error);
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path.to_owned()),
        metadata => metadata.map_err(failed)?,
    };
    let target = if metadata.is_symlink() {
        fs::canonicalize(path).map_err(|error| dangling(path, &error))?
    } else {
        path.to_owned()
    };
    let kind = crate::sys::file::kind_of(fs::metadata(&target).map_err(failed)?.file_type());
    kind.map_or(Ok(target), |kind| Err(Error::NotAFile { path: path.to_owned(), kind }))
}

fn dangling(path: &Path, error: &io::Error) -> Error {
    let target = fs::read_link(path).unwrap_or_default();
    let message = format!("it is a link to `{}`: {error}", target.display());
    Error::save(path, None, "following", io::Error::new(error.kind(), message))
}
