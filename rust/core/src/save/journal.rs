//! [`Journal`]: what a save was about to do, written down in its work folder before it does it.

use super::commit::remove_if_there;
use super::disk::{Disk, write_all};
use super::staged::{create, finish};
use super::stamp::Stamp;
use super::steps::{Plan, Step};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::sys::source::Source;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

const JOURNAL: &str = "journal.json";

/// A planned commit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    /// Name of the index.
    pub(super) index: String,
    /// What the index was before the save.
    pub(super) index_before: Option<Stamp>,
    /// What the index is after it was replaced for the last time.
    pub(super) last_index: Option<Stamp>,
    /// Whether the save waits for the disk.
    pub(super) durable: bool,
    pub(super) plan: Plan,
}

/// How far a save came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing of it can be seen by a reader.
    NotCommitted,
    /// Readers may find the new checkpoint; what is left to do can be done again.
    Committed,
    /// Somebody else has saved since.
    Superseded,
}

impl Journal {
    /// Writes the journal, whole or not at all.
    pub(super) fn write(&self, disk: &dyn Disk, work: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).expect("plain data, written to memory");
        let (path, draft) = (work.join(JOURNAL), work.join("journal.draft"));
        write_file(disk, &draft, &text, None, self.durable)?;
        let failed = |source| Error::save(&path, None, "writing the journal", source);
        disk.rename(&draft, &path).map_err(failed)
    }

    /// Reads the journal of a work folder; `None` when there is none, or none that a save wrote:
    /// a folder may come from anywhere, and no journal may reach out of it.
    pub(super) fn read(work: &Path) -> Result<Option<Self>> {
        let path = work.join(JOURNAL);
        match fs::read(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::save(&path, None, "reading the journal", error)),
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let journal: Self = serde_json::from_slice(text).ok()?;
        let mut names = journal.plan.steps.iter().flat_map(Step::names).chain([&*journal.index]);
        let are_file_names = names.all(is_file_name);
        drop(names);
        are_file_names.then_some(journal)
    }

    /// Removes the journal of a work folder: then there is nothing to go on with.
    pub(super) fn remove(disk: &dyn Disk, work: &Path) -> Result<()> {
        let path = work.join(JOURNAL);
        remove_if_there(disk, &path).map_err(|error| Error::save(&path, None, "removing", error))
    }

    /// Judges by what is in the folder.
    pub(super) fn progress(&self, folder: &Path, work: &Path) -> Result<Progress> {
        if let Some(Step::Move { from, .. }) = self.plan.steps.first()
            && Stamp::at(&work.join(from))?.is_some()
        {
            return Ok(Progress::NotCommitted);
        }
        let index = folder.join(&self.index);
        let ours = match Stamp::at(&index)? {
            None => !self.leaves_an_index(),
            now if now == self.last_index || points_into(&index, work)? => true,
            now => now == self.index_before && !self.begins_with_index(),
        };
        Ok(if ours { Progress::Committed } else { Progress::Superseded })
    }

    fn begins_with_index(&self) -> bool {
        matches!(self.plan.steps.first(), Some(Step::Move { to, .. }) if *to == self.index)
    }

    fn leaves_an_index(&self) -> bool {
        let is_about_index = |step: &&Step| step.names().contains(&&*self.index);
        matches!(self.plan.steps.iter().rfind(is_about_index), Some(Step::Move { .. }))
    }
}

/// Whether a name is one of a file right in a folder.
fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

/// The index at a path; `None` when nothing is there, or what is no index.
///
/// # Errors
/// Whatever else keeps it from being read: then nobody can tell what it names.
pub(super) fn index_at(path: &Path) -> Result<Option<Index>> {
    let failed = |source| Err(Error::save(path, None, "reading the index", source));
    match Index::read(path) {
        Ok(index) => Ok(Some(index)),
        Err(Error::PermissionDenied { source, .. } | Error::Io { source, .. }) => failed(source),
        Err(_) => Ok(None),
    }
}

/// Whether an index names a file in the work folder.
///
/// # Errors
/// Those of [`index_at`].
pub(super) fn points_into(index: &Path, work: &Path) -> Result<bool> {
    let Some(name) = work.file_name().and_then(|name| name.to_str()) else {
        return Ok(false);
    };
    let within =
        |shard: &String| shard.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    Ok(index_at(index)?.is_some_and(|index| index.shards.iter().any(within)))
}

/// Makes a small file.
pub(super) fn write_file(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
    mode: Option<u32>,
    durable: bool,
) -> Result<()> {
    let failed = |source| Error::save(path, None, "writing", source);
    let file = create(disk, path, mode).map_err(failed)?;
    write_all(disk, &file, 0, vec![Source::from_slice(bytes)]).map_err(failed)?;
    finish(disk, path, Arc::new(file), mode, durable)
}
