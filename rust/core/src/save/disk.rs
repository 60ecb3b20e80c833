//! [`Disk`]: every change that a save makes to the file system, so that each can be made to fail.

use crate::sys::direct::open_direct;
use crate::sys::output;
use crate::sys::source::Source;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The file system, as a save changes it. The methods do what they say; tests override them to
/// fail at any of them. Errors are what the system says.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Disk: Debug + Send + Sync {
    /// Makes a folder.
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    /// Makes a file that must not be there yet; the umask takes from `mode`.
    fn create_file(&self, path: &Path, mode: u32) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
    }

    /// Says who may read and write a file.
    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(mode))
    }

    /// Closes a file that was written to.
    fn close(&self, file: File) -> io::Result<()> {
        output::close(file)
    }

    /// Takes the lock of a file, if nobody has it.
    fn try_lock(&self, file: &File) -> Result<(), TryLockError> {
        file.try_lock()
    }

    /// Gives a new file its size.
    fn allocate(&self, file: &File, len: u64) -> io::Result<()> {
        output::allocate(file, len)
    }

    /// Writes some of `sources` at `offset`; returns how many bytes.
    fn write_some(&self, file: &File, offset: u64, sources: &[Source<'_>]) -> io::Result<usize> {
        output::write_some(file, offset, sources)
    }

    /// Opens a file once more, for writes of whole blocks past the page cache, and says how long a
    /// block is; `None` where there are no such writes.
    fn open_direct(&self, file: &File) -> Option<(File, usize)> {
        open_direct(file)
    }

    /// Asks for a range to be written back soon.
    fn start_write_back(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        output::start_write_back(file, offset, len)
    }

    /// Waits until a file is on the disk.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Waits until a folder's entries are on the disk.
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Moves a file, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Gives a file a second name, which must not be taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Removes an empty folder.
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }
}

/// The file system itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {}

/// Writes all of `sources`, one after another, from `offset` on.
pub(super) fn write_all(
    disk: &dyn Disk,
    file: &File,
    mut offset: u64,
    mut sources: Vec<Source<'_>>,
) -> io::Result<()> {
    let mut first = skip_written(&mut sources, 0, 0);
    while first < sources.len() {
        let count = disk.write_some(file, offset, &sources[first..])?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        offset += count as u64;
        first = skip_written(&mut sources, first, count);
    }
    Ok(())
}

/// Takes `count` written bytes off the front; returns the first source with bytes left.
fn skip_written(sources: &mut [Source<'_>], mut first: usize, mut count: usize) -> usize {
    while let Some(source) = sources.get_mut(first) {
        count -= source.split_off_front(count.min(source.len())).len();
        if !source.is_empty() {
            break;
        }
        first += 1;
    }
    first
}
