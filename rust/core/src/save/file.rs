//! A single file: written beside its target, then renamed over it.

use super::disk::Disk;
use super::family::marked;
use super::lock::is_at;
use super::recover::{abandoned, remove_abandoned};
use super::staged::{NewFile, Staged, file_name};
use super::{SaveOptions, check_space, mode_of};
use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where a file is being put together.
#[derive(Debug)]
pub(super) struct FileTarget {
    target: PathBuf,
    temporary: PathBuf,
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
        let name = format!(".{}", file_name(&target));
        let leftovers = abandoned(&target, &name);
        for leftover in leftovers {
            remove_abandoned(disk, &leftover)?;
        }
        check_space(folder_of(&target), new.len())?;
        let temporary = target.with_file_name(marked(&name, options.token));
        let file = create_held(disk, &temporary, mode_of(&target))?;
        let staged = Staged::of(disk, temporary.clone(), file, new)?;
        Ok((Self { target, temporary }, staged))
    }

    /// Puts the file in place.
    pub(super) fn commit(&self, options: &SaveOptions) -> Result<()> {
        let failed = |action| move |error| Error::save(&self.target, None, action, error);
        options.disk.rename(&self.temporary, &self.target).map_err(failed("renaming to"))?;
        if !options.durable {
            return Ok(());
        }
        let synced = options.disk.sync_folder(folder_of(&self.target));
        synced.map_err(failed("syncing the folder of"))
    }

    /// Removes what was staged.
    pub(super) fn discard(&self, disk: &dyn Disk) {
        // What cannot be removed now is removed by the next save.
        let _ = disk.remove_file(&self.temporary);
    }
}

/// Makes the temporary file, and tells other saves that it is no leftover by holding its lock.
///
/// Another save may take it for one between the two: then it holds the lock for an instant, removes
/// the file, and a new one is made. Where the file system has no locks, nobody takes it for one.
fn create_held(disk: &dyn Disk, temporary: &Path, mode: Option<u32>) -> Result<File> {
    let failed = |error| Error::save(temporary, None, "creating", error);
    loop {
        let file = disk.create_file(temporary, mode).map_err(failed)?;
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
