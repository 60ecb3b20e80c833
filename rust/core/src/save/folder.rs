//! A checkpoint of one or many files in a folder: staged in a work folder, committed by its index.

use super::commit::{Commit, can_link, remove_work_folder};
use super::disk::Disk;
use super::family::Family;
use super::journal::{Journal, write_file};
use super::lock::FolderLock;
use super::recover::recover_locked;
use super::staged::{NewFile, Staged, file_name};
use super::stamp::Stamp;
use super::steps::{Existing, INTERIM_INDEX, LAST_INDEX, New, plan};
use super::{IndexTexts, SaveOptions, check_space, mode_of};
use crate::error::{Error, Result};
use crate::read::Control;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a checkpoint is being put together.
#[derive(Debug)]
pub(super) struct FolderTarget {
    folder: PathBuf,
    work: PathBuf,
    family: Family,
    existing: Existing,
    names: Vec<String>,
    _lock: FolderLock,
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
        let lock = FolderLock::acquire(folder, options.lock_timeout, control)?;
        recover_locked(disk, folder)?;
        let existing = list(folder, &family)?;
        refuse_folders(folder, &family, &files)?;
        check_space(folder, files.iter().map(NewFile::len).sum())?;
        let work = folder.join(family.work_folder(options.token));
        disk.create_folder(&work).map_err(|error| Error::save(&work, None, "creating", error))?;
        let names = files.iter().map(|file| file.name.clone()).collect();
        let folder = folder.to_owned();
        let target = Self { folder, work, family, existing, names, _lock: lock };
        match target.stage_files(disk, files) {
            Ok(staged) => Ok((target, staged)),
            Err(error) => {
                target.discard(disk);
                Err(error)
            }
        }
    }

    fn stage_files(&self, disk: &dyn Disk, files: Vec<NewFile>) -> Result<Vec<Staged>> {
        let any_old = self.old_files().find_map(|name| mode_of(&self.folder.join(name)));
        let stage = |file: NewFile| {
            let mode = mode_of(&self.folder.join(&file.name)).or(any_old);
            Staged::create(disk, self.work.join(&file.name), file, mode)
        };
        files.into_iter().map(stage).collect()
    }

    fn old_files(&self) -> impl Iterator<Item = String> {
        let single = self.existing.single.map(|_| self.family.single());
        single.into_iter().chain(self.existing.shards.iter().map(|(name, _)| name.clone()))
    }

    /// Name of the work folder within the folder.
    pub(super) fn work_name(&self) -> String {
        file_name(&self.work)
    }

    /// Makes the staged files the checkpoint.
    pub(super) fn commit(&self, index: &IndexTexts, options: &SaveOptions) -> Result<()> {
        let (disk, durable) = (&*options.disk, options.durable);
        let last_index = self.stage_indexes(index, options)?;
        let hard_links =
            self.names.first().is_none_or(|name| can_link(disk, &self.work.join(name)));
        let new = New {
            single: &self.family.single(),
            index: &self.family.index,
            files: &self.names,
            last_index,
        };
        let plan = plan(&new, &self.existing, hard_links);
        let index_before = self.existing.index;
        let journal = Journal { index: self.family.index.clone(), index_before, last_index, plan };
        journal.write(disk, &self.work, durable)?;
        if durable {
            for folder in [&self.work, &self.folder] {
                let failed = |error| Error::save(folder, None, "syncing", error);
                disk.sync_folder(folder).map_err(failed)?;
            }
        }
        let (folder, work) = (&*self.folder, &*self.work);
        Commit { disk, folder, work, durable }.run(&journal.plan)
    }

    /// Writes the index twice where readers will need one; gives the stamp of the second.
    fn stage_indexes(&self, index: &IndexTexts, options: &SaveOptions) -> Result<Option<Stamp>> {
        if self.names.len() <= 1 && self.existing.index.is_none() {
            return Ok(None);
        }
        let mode = mode_of(&self.folder.join(&self.family.index));
        for (name, text) in [(INTERIM_INDEX, &index.interim), (LAST_INDEX, &index.last)] {
            write_file(&*options.disk, &self.work.join(name), text, mode, options.durable)?;
        }
        Ok(Stamp::at(&self.work.join(LAST_INDEX)))
    }

    /// Whether readers can still find only the old checkpoint.
    pub(super) fn is_committed(&self) -> bool {
        let journal = Journal::read(&self.work);
        journal.is_some_and(|journal| {
            journal.progress(&self.folder, &self.work) != super::journal::Progress::NotCommitted
        })
    }

    /// Removes what was staged.
    pub(super) fn discard(&self, disk: &dyn Disk) {
        // What cannot be removed now is removed by the next save.
        let _ = remove_work_folder(disk, &self.work);
    }
}

/// Refuses folders (not links to folders) where files of the checkpoint have to go.
fn refuse_folders(folder: &Path, family: &Family, files: &[NewFile]) -> Result<()> {
    let single = family.single();
    let names = files.iter().map(|file| &*file.name).chain([&*single, &*family.index]);
    for path in names.map(|name| folder.join(name)) {
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(Error::NotAFile { path, kind: "folder" });
        }
    }
    Ok(())
}

/// What is there of the family.
fn list(folder: &Path, family: &Family) -> Result<Existing> {
    let failed = |error| Error::save(folder, None, "listing", error);
    let single = family.single();
    let mut existing = Existing::default();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(stamp) = Stamp::at(&path) else { continue };
        if path.is_dir() {
            if super::family::unmarked(name) == Some(&*family.prefix) {
                existing.work_folders.push(name.to_owned());
            }
        } else if name == single {
            existing.single = Some(stamp);
        } else if name == family.index {
            existing.index = Some(stamp);
        } else if family.owns_shard(name) {
            existing.shards.push((name.to_owned(), stamp));
        }
    }
    existing.shards.sort();
    existing.work_folders.sort();
    Ok(existing)
}
