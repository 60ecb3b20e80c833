//! Saves: files are staged under names that nobody reads, and become visible whole or not at all.
//!
//! 1. [`Save::file`] or [`Save::folder`] checks everything that can be checked, and makes the
//!    staged files with their final size;
//! 2. [`Save::write`] brings the tensors' bytes, straight from the caller's memory or gathered and
//!    cast, on several threads, as often as needed;
//! 3. [`Save::commit`] writes the headers and renames (`steps.rs` says in which order).
//!
//! A [`Save`] that is dropped before its commit leaves nothing behind. What a crash leaves is
//! dealt with by the next save of the folder, or by [`recover`].

mod claim;
mod commit;
mod direct;
pub mod disk;
mod family;
mod file;
mod folder;
mod journal;
mod lock;
mod old;
mod part;
mod recover;
mod staged;
mod stamp;
mod steps;
mod task;
mod write;

pub use disk::{Disk, RealDisk};
pub use family::Family;
pub use lock::LOCK_FILE;
pub use part::{ElementsSource, Part, PartSource};
pub use recover::{Outcome, Recovered, recover};
pub use staged::{CHECKSUM_KEY, Contents, NewFile, without_checksums};
pub use write::DEFAULT_THREADS;

use crate::error::{Error, Result};
use crate::read::Control;
use crate::read::pool;
use crate::sys::output::free_bytes;
use file::FileTarget;
use folder::FolderTarget;
use staged::Staged;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use write::Writing;

/// Threads that write headers, and wait for the disk, at the end.
const FINISH_THREADS: usize = 8;

/// How to save.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// Wait until everything is on the disk, in an order that a loss of power cannot break.
    pub durable: bool,
    /// How long to wait for another save in the folder.
    pub lock_timeout: Duration,
    /// Part of the temporary names; no two saves should have the same.
    pub token: u64,
    /// What carries out the changes.
    pub disk: Arc<dyn Disk>,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            durable: false,
            lock_timeout: Duration::from_secs(600),
            token: new_token(),
            disk: Arc::new(RealDisk),
        }
    }
}

/// A number that no other save has: processes that were forked have the random keys of their parent.
fn new_token() -> u64 {
    RandomState::new().hash_one((std::process::id(), SystemTime::now()))
}

/// The text of an index, twice. A save of a folder needs both, of however many files: where the old
/// checkpoint has an index, a single file too is made visible by one.
#[derive(Clone, Debug, Default)]
pub struct IndexTexts {
    /// Files named as `{work folder}/{name}`; see [`Save::work_name`].
    pub interim: Vec<u8>,
    /// Files named as they stay.
    pub last: Vec<u8>,
}

/// A save that has been begun.
#[derive(Debug)]
pub struct Save {
    options: SaveOptions,
    files: Vec<Staged>,
    target: Target,
}

#[derive(Debug)]
enum Target {
    File(FileTarget),
    Folder(Box<FolderTarget>),
}

impl Target {
    /// The error with the name that the caller knows, where it has the temporary name of a file.
    fn name_in(&self, error: Error) -> Error {
        match self {
            Self::File(target) => target.name_in(error),
            Self::Folder(_) => error,
        }
    }
}

impl Save {
    /// Begins the save of one file, which replaces what is at `path`.
    ///
    /// # Errors
    /// [`Error::NotAFile`], [`Error::NoSpace`], or [`Error::Save`] with what the system says.
    pub fn file(path: &Path, new: NewFile, options: SaveOptions) -> Result<Self> {
        let (target, staged) = FileTarget::stage(path, new, &options)?;
        let target = Target::File(target);
        Ok(Self { options, files: vec![staged], target })
    }

    /// Begins the save of a checkpoint, which replaces the one of the same family in `folder`.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NoSpace`], or [`Error::Save`] with what the system says.
    pub fn folder(
        folder: &Path,
        family: Family,
        files: Vec<NewFile>,
        options: SaveOptions,
        control: &Control,
    ) -> Result<Self> {
        let (target, files) = FolderTarget::stage(folder, family, files, &options, control)?;
        Ok(Self { options, files, target: Target::Folder(Box::new(target)) })
    }

    /// Position of a tensor among those of a file.
    ///
    /// # Errors
    /// [`Error::TensorNotFound`].
    pub fn position(&self, file: usize, name: &str) -> Result<usize> {
        let staged = &self.files[file];
        let position = staged.header().and_then(|header| header.tensors.get_index_of(name));
        position.ok_or_else(|| Error::TensorNotFound {
            tensor: name.to_owned(),
            path: staged.path.clone(),
        })
    }

    /// Where a file is while it is staged.
    #[must_use]
    pub fn staged_path(&self, file: usize) -> &Path {
        &self.files[file].path
    }

    /// Name of the folder that staged files are in, as an interim index has to give it.
    #[must_use]
    pub fn work_name(&self) -> Option<String> {
        match &self.target {
            Target::File(_) => None,
            Target::Folder(target) => Some(target.work_name()),
        }
    }

    /// Writes parts of tensors; `threads` of 0 means [`DEFAULT_THREADS`], or 16 past the page
    /// cache.
    ///
    /// # Errors
    /// [`Error::RangeOutside`], [`Error::Cancelled`], or [`Error::Save`] with what the system says.
    pub fn write(&self, parts: Vec<Part<'_>>, threads: usize, control: &Control) -> Result<()> {
        let (disk, durable) = (&*self.options.disk, self.options.durable);
        let written = Writing { disk, files: &self.files, durable }.run(parts, threads, control);
        written.map_err(|error| self.target.name_in(error))
    }

    /// Makes the new files visible, all at once.
    ///
    /// After [`Error::AfterSave`] readers find the new files, and what is left to be tidied up is
    /// done by the next save, or by [`recover`]. After any other error the old checkpoint is whole.
    ///
    /// # Errors
    /// [`Error::Incomplete`] when bytes were not written; [`Error::Save`] with what the system
    /// says; [`Error::AfterSave`]; [`Error::Cancelled`].
    pub fn commit(mut self, index: &IndexTexts, control: &Control) -> Result<()> {
        let (disk, durable) = (&*self.options.disk, self.options.durable);
        let finish = |(): &mut (), staged: &mut Staged, _: &Control| staged.finish(disk, durable);
        pool::run(FINISH_THREADS, pool::singly(&mut self.files), control, || (), finish)
            .and_then(|()| self.files.iter().try_for_each(Staged::check_there))
            .map_err(|error| self.target.name_in(error))?;
        if control.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match &mut self.target {
            Target::File(target) => target.commit(&self.options),
            Target::Folder(target) => target.commit(index, &self.options),
        }
    }
}

impl Drop for Save {
    fn drop(&mut self) {
        match &self.target {
            // The name is another save's as soon as the file is closed, which ends the lock.
            Target::File(target) => target.discard(&*self.options.disk),
            Target::Folder(target) => {
                // NFS keeps a file that is removed while it is open, and its folder with it.
                self.files.clear();
                target.discard(&*self.options.disk);
            }
        }
    }
}

/// Refuses a save of `target` that cannot fit into `folder`, before the first byte.
fn check_space(target: &Path, folder: &Path, needed: u64) -> Result<()> {
    let failed = |error| Error::save(target, None, "looking for room", error);
    match free_bytes(folder).map_err(failed)? {
        Some(found) if needed > found => {
            Err(Error::NoSpace { path: target.to_owned(), needed, found })
        }
        _ => Ok(()),
    }
}

/// Permissions of a file that is to be replaced.
fn mode_of(path: &Path) -> Option<u32> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(metadata.permissions().mode() & 0o7777)
}
