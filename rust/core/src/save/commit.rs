//! Carries out the steps of a [`Plan`]; every one of them can be done again after a crash.

use super::disk::Disk;
use super::journal::Journal;
use super::stamp::Stamp;
use super::steps::{Plan, Step};
use crate::error::{Error, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Second name that a file has for an instant in the work folder.
const SECOND_NAME: &str = "second.link";

/// The folders of a commit.
pub(super) struct Commit<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) folder: &'a Path,
    pub(super) work: &'a Path,
    /// Wait for the disk wherever the order of two changes matters.
    pub(super) durable: bool,
    /// It goes on with what a crash has cut short.
    pub(super) resumed: bool,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All steps are done.
    Done,
    /// A resumed commit met what it must not change: readers find all that they need where it is.
    Stopped,
}

impl Commit<'_> {
    /// Does all the steps, and removes the work folder unless it is to stay.
    pub(super) fn run(&self, plan: &Plan) -> Result<Ending> {
        for step in &plan.steps {
            if self.step(step)? == Ending::Stopped {
                return Ok(Ending::Stopped);
            }
        }
        if plan.keep_work_folder {
            Journal::remove(self.disk, self.work)?;
        } else {
            remove_work_folder(self.disk, self.work, self.durable)?;
        }
        Ok(Ending::Done)
    }

    fn step(&self, step: &Step) -> Result<Ending> {
        match step {
            Step::Move { from, to } => self.move_out(from, to)?,
            Step::Link { name, over } if self.may_link(name, *over)? => self.link(name)?,
            Step::Remove { name, stamp } => self.remove(name, *stamp)?,
            Step::RemoveIndex { name, stamp } if self.may_remove(name, *stamp)? => {
                self.remove(name, *stamp)?;
            }
            Step::Link { .. } | Step::RemoveIndex { .. } => return Ok(Ending::Stopped),
            Step::RemoveFolder { name } => {
                remove_work_folder(self.disk, &self.folder.join(name), self.durable)?;
            }
            Step::Sync => self.sync_folder()?,
        }
        Ok(Ending::Done)
    }

    fn move_out(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.work.join(from), self.folder.join(to));
        match self.disk.rename(&from, &to) {
            Err(error)
                if self.resumed && error.kind() == io::ErrorKind::NotFound && !from.exists() =>
            {
                Ok(())
            }
            other => other.map_err(|error| Error::save(&to, None, "renaming to", error)),
        }
    }

    /// After a crash somebody else may have put a file of that name there, or the folder may have
    /// been copied to where files cannot have two names.
    fn may_link(&self, name: &str, over: Option<Stamp>) -> Result<bool> {
        if !self.resumed {
            return Ok(true);
        }
        let from = self.work.join(name);
        let (there, ours) = (Stamp::at(&self.folder.join(name))?, Stamp::at(&from)?);
        Ok(ours.is_some() && (there == over || there == ours) && can_link(self.disk, &from)?)
    }

    /// After a crash somebody else may have saved there, and made an index of their own.
    fn may_remove(&self, name: &str, stamp: Stamp) -> Result<bool> {
        let there = Stamp::at(&self.folder.join(name))?;
        Ok(!self.resumed || there.is_none_or(|there| there == stamp))
    }

    fn link(&self, name: &str) -> Result<()> {
        let (from, to) = (self.work.join(name), self.folder.join(name));
        let second = second_name(&from);
        let failed = |error| Error::save(&to, None, "linking to", error);
        remove_if_there(self.disk, &second).map_err(failed)?;
        self.disk.link(&from, &second).map_err(failed)?;
        // A link cannot replace, a rename can. (Between two names of one file a rename does
        // nothing: then the second name goes with the work folder.)
        self.disk.rename(&second, &to).map_err(failed)
    }

    fn remove(&self, name: &str, stamp: Stamp) -> Result<()> {
        let path = self.folder.join(name);
        if Stamp::at(&path)? != Some(stamp) {
            return Ok(());
        }
        remove_if_there(self.disk, &path)
            .map_err(|error| Error::save(&path, None, "removing", error))
    }

    fn sync_folder(&self) -> Result<()> {
        if !self.durable {
            return Ok(());
        }
        self.disk
            .sync_folder(self.folder)
            .map_err(|error| Error::save(self.folder, None, "syncing", error))
    }
}

/// Whether files in a folder can have two names.
///
/// # Errors
/// Whatever says nothing about links, such as that there is no such file: a commit without links
/// would remove the old files and put nothing in their place.
pub(super) fn can_link(disk: &dyn Disk, file: &Path) -> Result<bool> {
    let second = second_name(file);
    // One that an earlier attempt left, or this one leaves, goes with the work folder.
    let _ = remove_if_there(disk, &second);
    let linked = disk.link(file, &second);
    let _ = remove_if_there(disk, &second);
    match linked {
        Ok(()) => Ok(true),
        Err(error) if means_no_links(&error) => Ok(false),
        Err(error) => Err(Error::save(file, None, "giving a second name to", error)),
    }
}

/// Whether this is how a file system says that its files have one name each.
fn means_no_links(error: &io::Error) -> bool {
    let codes = [libc::EPERM, libc::EOPNOTSUPP, libc::ENOTSUP, libc::ENOSYS];
    let codes = codes.into_iter().chain([libc::EMLINK, libc::EXDEV]);
    error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error().is_some_and(|code| codes.into_iter().any(|one| one == code))
}

/// Path that a file has for an instant, beside its own, in the work folder: one at a time.
fn second_name(file: &Path) -> PathBuf {
    file.with_file_name(SECOND_NAME)
}

/// Removes a work folder and what is in it.
///
/// The journal goes first: half a work folder with a journal would look like a commit to go on
/// with.
pub(super) fn remove_work_folder(disk: &dyn Disk, work: &Path, durable: bool) -> Result<()> {
    let failed = |error| Error::save(work, None, "removing", error);
    let entries = match fs::read_dir(work) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    Journal::remove(disk, work)?;
    if durable {
        disk.sync_folder(work).map_err(failed)?;
    }
    for entry in entries {
        remove_if_there(disk, &entry.map_err(failed)?.path()).map_err(failed)?;
    }
    disk.remove_folder(work).map_err(failed)
}

/// Removes a file, unless somebody has done so before.
pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
