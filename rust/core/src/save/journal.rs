//! [`Journal`]: what a save was about to do, written down in its work folder before it does it.

use super::disk::{Disk, write_all};
use super::stamp::Stamp;
use super::steps::{Plan, Step};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::sys::source::Source;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

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
    pub(super) fn write(&self, disk: &dyn Disk, work: &Path, durable: bool) -> Result<()> {
        let text = serde_json::to_vec(self).expect("plain data, written to memory");
        let (path, draft) = (work.join(JOURNAL), work.join("journal.draft"));
        write_file(disk, &draft, &text, None, durable)?;
        let failed = |source| Error::save(&path, None, "writing the journal", source);
        disk.rename(&draft, &path).map_err(failed)
    }

    /// Reads the journal of a work folder; `None` when there is none, or none that was finished.
    pub(super) fn read(work: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(work.join(JOURNAL)).ok()?).ok()
    }

    /// Judges by what is in the folder.
    pub(super) fn progress(&self, folder: &Path, work: &Path) -> Progress {
        if let Some(Step::Move { from, .. }) = self.plan.steps.first()
            && work.join(from).exists()
        {
            return Progress::NotCommitted;
        }
        let index = folder.join(&self.index);
        let now = Stamp::at(&index);
        let ours = match now {
            None => self.index_before.is_none() || self.removes_index(),
            now => now == self.index_before || now == self.last_index || points_into(&index, work),
        };
        if ours { Progress::Committed } else { Progress::Superseded }
    }

    fn removes_index(&self) -> bool {
        let removes =
            |step: &Step| matches!(step, Step::Remove { name, .. } if *name == self.index);
        self.plan.steps.iter().any(removes)
    }
}

/// Whether an index names a file in the work folder.
pub(super) fn points_into(index: &Path, work: &Path) -> bool {
    let Some(name) = work.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let within =
        |shard: &String| shard.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    Index::read(index).is_ok_and(|index| index.shards.iter().any(within))
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
    let file = disk.create_file(path, mode).map_err(failed)?;
    write_all(disk, &file, 0, vec![Source::from_slice(bytes)]).map_err(failed)?;
    if durable { disk.sync(&file).map_err(failed) } else { Ok(()) }
}
