//! Carries out the steps of a [`Plan`]; every one of them can be done again after a crash.

use super::disk::Disk;
use super::stamp::Stamp;
use super::steps::{Plan, Step};
use crate::error::{Error, Result};
use std::fs;
use std::io;
use std::mem::{Discriminant, discriminant};
use std::path::Path;

/// Ending of the second name that a file has for an instant in the work folder.
const LINK_ENDING: &str = "link";

/// The folders of a commit.
pub(super) struct Commit<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) folder: &'a Path,
    pub(super) work: &'a Path,
    /// Wait for the disk wherever the order of two changes matters.
    pub(super) durable: bool,
}

impl Commit<'_> {
    /// Does all the steps, and removes the work folder unless it is to stay.
    pub(super) fn run(&self, plan: &Plan) -> Result<()> {
        let mut previous: Option<Discriminant<Step>> = None;
        for step in &plan.steps {
            // Steps of one kind in a row may reach the disk in any order.
            if previous.is_some_and(|previous| previous != discriminant(step)) {
                self.sync_folder()?;
            }
            self.step(step)?;
            previous = Some(discriminant(step));
        }
        self.sync_folder()?;
        if plan.keep_work_folder {
            return Ok(());
        }
        remove_work_folder(self.disk, self.work)
    }

    fn step(&self, step: &Step) -> Result<()> {
        match step {
            Step::Move { from, to } => self.move_out(from, to),
            Step::Link { name } => self.link(name),
            Step::Remove { name, stamp } => self.remove(name, *stamp),
            Step::RemoveFolder { name } => remove_work_folder(self.disk, &self.folder.join(name)),
        }
    }

    fn move_out(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.work.join(from), self.folder.join(to));
        match self.disk.rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => Ok(()),
            other => other.map_err(|error| Error::save(&to, None, "renaming to", error)),
        }
    }

    fn link(&self, name: &str) -> Result<()> {
        let (from, to) = (self.work.join(name), self.folder.join(name));
        let second = self.work.join(format!("{name}.{LINK_ENDING}"));
        let failed = |error| Error::save(&to, None, "linking to", error);
        remove_if_there(self.disk, &second).map_err(failed)?;
        self.disk.link(&from, &second).map_err(failed)?;
        // A link cannot replace, a rename can. (Between two names of one file a rename does
        // nothing: then the second name goes with the work folder.)
        self.disk.rename(&second, &to).map_err(failed)
    }

    fn remove(&self, name: &str, stamp: Stamp) -> Result<()> {
        let path = self.folder.join(name);
        if Stamp::at(&path) != Some(stamp) {
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
pub(super) fn can_link(disk: &dyn Disk, file: &Path) -> bool {
    let second = file.with_extension(LINK_ENDING);
    let linked = disk.link(file, &second).is_ok();
    // What stays behind here goes with the work folder.
    let _ = disk.remove_file(&second);
    linked
}

/// Removes a work folder and what is in it.
pub(super) fn remove_work_folder(disk: &dyn Disk, work: &Path) -> Result<()> {
    let failed = |error| Error::save(work, None, "removing", error);
    let entries = match fs::read_dir(work) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        remove_if_there(disk, &entry.map_err(failed)?.path()).map_err(failed)?;
    }
    disk.remove_folder(work).map_err(failed)
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
