//! A checkpoint of one or many files in a folder: staged in a work folder, committed by its index.

use super::commit::{Commit, can_link, remove_work_folder};
use super::disk::Disk;
use super::family::{Family, unmarked};
use super::journal::{Journal, Progress, index_at, points_into, write_file};
use super::lock::FolderLock;
use super::old;
use super::recover::{is_named_by_an_index, recover_locked};
use super::staged::{NewFile, Staged, file_name};
use super::stamp::Stamp;
use super::steps::{Existing, INTERIM_INDEX, LAST_INDEX, New, plan};
use super::{IndexTexts, SaveOptions, check_space, mode_of};
use crate::error::{Error, Result};
use crate::read::Control;
use crate::sys::file::{kind_of, most_open_files};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Most staged files that are kept open, where the process may have four times as many.
const MOST_OPEN: usize = 128;

/// Where a checkpoint is being put together.
#[derive(Debug)]
pub(super) struct FolderTarget {
    folder: PathBuf,
    work: PathBuf,
    family: Family,
    existing: Existing,
    names: Vec<String>,
    /// Nobody knows of the work folder, or it is not this save's any more.
    is_over: bool,
    lock: FolderLock,
    /// Closed after the lock is released.
    _old: Vec<File>,
}

impl FolderTarget {
    /// Locks the folder, deals with leftovers, checks the room, and stages the files.
    pub(super) fn stage(
        folder: &Path,
        family: Family,
        files: Vec<NewFile>,
        options: &SaveOptions,
        control: &Control,
    ) -> Result<(Self, Vec<Staged>)> {
        let disk = &*options.disk;
        let lock = FolderLock::acquire(disk, folder, options.lock_timeout, control)?;
        recover_locked(disk, folder)?;
        let existing = list(folder, &family)?;
        let single = family.single();
        for name in files.iter().map(|file| &file.name).chain([&family.index, &single]) {
            check_replaceable(&folder.join(name))?;
        }
        check_space(folder, folder, files.iter().map(NewFile::len).fold(0, u64::saturating_add))?;
        let work = folder.join(family.work_folder(options.token));
        disk.create_folder(&work).map_err(|error| Error::save(&work, None, "creating", error))?;
        let names = files.iter().map(|file| file.name.clone()).collect();
        let folder = folder.to_owned();
        let old = old::let_go(&folder, old_names(&existing, &single));
        let is_over = false;
        let target = Self { folder, work, family, existing, names, is_over, lock, _old: old };
        match target.open_to_readers().and_then(|()| target.stage_files(disk, files)) {
            Ok(staged) => Ok((target, staged)),
            Err(error) => {
                target.discard(disk);
                Err(error)
            }
        }
    }

    /// Lets into the work folder whoever is let into the folder: readers are led there for an
    /// instant, or for good. The group of new files, too, is the same in both.
    fn open_to_readers(&self) -> Result<()> {
        let mode_of = |path| fs::metadata(path).map(|found| found.permissions().mode() & 0o7777);
        let set = mode_of(&self.folder).and_then(|mode| {
            let mode = mode | 0o700;
            // Where a file system keeps no permissions, they are the same, and cannot be set.
            if mode_of(&self.work)? == mode {
                return Ok(());
            }
            fs::set_permissions(&self.work, Permissions::from_mode(mode))
        });
        set.map_err(|error| Error::save(&self.work, None, "setting permissions of", error))
    }

    fn stage_files(&self, disk: &dyn Disk, files: Vec<NewFile>) -> Result<Vec<Staged>> {
        let any_old = self.mode_of_any_old_file();
        let most_open = most_open_files().map_or(MOST_OPEN, |most| MOST_OPEN.min(most / 4));
        let stage = |(position, file): (usize, NewFile)| {
            let mode = mode_of(&self.folder.join(&file.name)).or(any_old);
            let complete = self.work.join(&file.name);
            let mut staged = Staged::create(disk, complete, position, file, mode)?;
            if position >= most_open {
                staged.close();
            }
            Ok(staged)
        };
        files.into_iter().enumerate().map(stage).collect()
    }

    fn mode_of_any_old_file(&self) -> Option<u32> {
        let single = self.family.single();
        old_names(&self.existing, &single).find_map(|name| mode_of(&self.folder.join(name)))
    }

    /// Name of the work folder within the folder.
    pub(super) fn work_name(&self) -> String {
        file_name(&self.work)
    }

    /// Makes the staged files the checkpoint.
    pub(super) fn commit(&mut self, index: &IndexTexts, options: &SaveOptions) -> Result<()> {
        self.lock.check()?;
        // Somebody may have put files there by other means since the save began.
        self.existing = list(&self.folder, &self.family)?;
        let journal = self.journal(index, options)?;
        self.write_journal(&journal, options)?;
        let (disk, durable) = (&*options.disk, options.durable);
        let (folder, work) = (&*self.folder, &*self.work);
        let Err(error) =
            (Commit { disk, folder, work, durable, resumed: false }).run(&journal.plan)
        else {
            self.is_over = true;
            return Ok(());
        };
        let progress = journal.progress(folder, work);
        // Where nobody can tell, all has to stay as it is.
        self.is_over = !matches!(progress, Ok(Progress::NotCommitted));
        let is_seen = matches!(progress, Ok(Progress::Committed));
        Err(if is_seen { error.after_save(folder) } else { error })
    }

    fn write_journal(&self, journal: &Journal, options: &SaveOptions) -> Result<()> {
        let (disk, durable) = (&*options.disk, options.durable);
        journal.write(disk, &self.work)?;
        if durable {
            for folder in [&self.work, &self.folder] {
                let failed = |error| Error::save(folder, None, "syncing", error);
                disk.sync_folder(folder).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Plans the commit, and writes the index twice where readers will need one.
    fn journal(&self, index: &IndexTexts, options: &SaveOptions) -> Result<Journal> {
        let disk = &*options.disk;
        let single = self.family.single();
        let new = New { single: &single, index: &self.family.index, files: &self.names };
        let mut last_index = None;
        if new.needs_index(&self.existing) {
            self.stage_indexes(index, options)?;
            last_index = Stamp::at(&self.work.join(LAST_INDEX))?;
        }
        let hard_links = match self.names.first() {
            Some(name) => can_link(disk, &self.work.join(name))?,
            None => true,
        };
        let plan = plan(&new, &self.existing, last_index, hard_links);
        let (index, index_before) = (self.family.index.clone(), self.existing.index);
        Ok(Journal { index, index_before, last_index, durable: options.durable, plan })
    }

    fn stage_indexes(&self, index: &IndexTexts, options: &SaveOptions) -> Result<()> {
        let mode_of_index = mode_of(&self.folder.join(&self.family.index));
        let mode = mode_of_index.or_else(|| self.mode_of_any_old_file());
        for (name, text) in [(INTERIM_INDEX, &index.interim), (LAST_INDEX, &index.last)] {
            let path = self.work.join(name);
            if text.is_empty() {
                let missing = io::Error::new(io::ErrorKind::InvalidInput, "its text is missing");
                return Err(Error::save(&path, None, "writing", missing));
            }
            write_file(&*options.disk, &path, text, mode, options.durable)?;
        }
        Ok(())
    }

    /// Removes what was staged, unless readers find it.
    pub(super) fn discard(&self, disk: &dyn Disk) {
        if !self.is_over && !is_named_by_an_index(&self.folder, &self.work).unwrap_or(true) {
            // What cannot be removed now is removed by the next save.
            let _ = remove_work_folder(disk, &self.work, false);
        }
    }
}

/// Names of the weights files that are there.
fn old_names<'a>(existing: &'a Existing, single: &'a str) -> impl Iterator<Item = &'a str> {
    let single = existing.single.map(|_| single);
    single.into_iter().chain(existing.shards.iter().map(|(name, _)| &**name))
}

/// Refuses to put a file where something else is. (A link is replaced.)
fn check_replaceable(path: &Path) -> Result<()> {
    let file_type = fs::symlink_metadata(path).map(|metadata| metadata.file_type());
    match file_type.ok().filter(|kind| !kind.is_symlink()).and_then(kind_of) {
        Some(kind) => Err(Error::NotAFile { path: path.to_owned(), kind }),
        None => Ok(()),
    }
}

/// What is there of the family.
fn list(folder: &Path, family: &Family) -> Result<Existing> {
    let failed = |error| Error::save(folder, None, "listing", error);
    let (single, index) = (family.single(), folder.join(&family.index));
    let mut existing = Existing::default();
    for name in family.foreign_index.iter().chain([&family.index]) {
        let index = index_at(&folder.join(name))?;
        existing.index_names_single |= index.is_some_and(|index| index.shards.contains(&single));
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(stamp) = Stamp::at(&path)? else { continue };
        if path.is_dir() {
            if unmarked(name).is_some() && points_into(&index, &path)? {
                existing.work_folders.push(name.to_owned());
            }
        } else if name == single {
            existing.single = Some(stamp);
        } else if name == family.index {
            existing.index = Some(stamp);
        } else if family.foreign_index.as_deref() == Some(name) {
            existing.foreign_index = Some((name.to_owned(), stamp));
        } else if family.owns_shard(name) {
            existing.shards.push((name.to_owned(), stamp));
        }
    }
    existing.shards.sort();
    existing.work_folders.sort();
    Ok(existing)
}
