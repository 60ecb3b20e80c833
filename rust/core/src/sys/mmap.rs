//! Memory maps: of shard files, private and writable for zero-copy tensors; and of no file.

use super::dest::Dest;
use super::file::{FileIdentity, reopen};
use crate::error::{Error, Result};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::path::Path;

/// A private, copy-on-write map of a whole file, or memory of no file.
///
/// Writing to it changes memory and never the file. `MAP_NORESERVE` keeps the kernel from
/// charging the whole file against the commit limit.
///
/// The bytes are only ever reached through raw pointers: another process may change the file, so
/// no reference to them would be sound. If a file shrinks after it was mapped, touching the lost
/// part raises SIGBUS, on every platform and in every library that maps files; the size is checked
/// here, when the map is made, and again by [`Mapping::copy_to`].
#[derive(Debug)]
pub struct Mapping(MmapRaw);

impl Mapping {
    /// Maps a file whose header was read before.
    ///
    /// # Errors
    /// Those of opening, and [`Error::Replaced`] when it is no longer the same file.
    pub fn open(path: &Path, identity: &FileIdentity) -> Result<Self> {
        let file = reopen(path, identity)?;
        Self::of(&file).map_err(|error| Error::io(path, "mapping", error))
    }

    /// Maps an open file; the map outlives the descriptor.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(file: &File) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.no_reserve_swap();
        // SAFETY: the map becomes a `MmapRaw` at once, so no reference to bytes that another
        // process may change is ever formed.
        let map = unsafe { options.map_copy(file) }?;
        Ok(Self(MmapRaw::from(map)))
    }

    /// New memory of `len` bytes, at least one, all zero. The system has it back as soon as it is
    /// dropped, which an allocator does not promise.
    ///
    /// # Errors
    /// What the system says: no memory left, most of all.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        Ok(Self(MmapRaw::from(MmapOptions::new().len(len.max(1)).map_anon()?)))
    }

    /// First byte of the map.
    #[must_use]
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    /// Size of the map in bytes, never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Copies from `offset` on into `dests`, one after another.
    ///
    /// `file_len` is the size of the mapped file now.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file is now shorter than that. A file that
    /// shrinks during the copy itself still raises SIGBUS; positional reads do not.
    pub fn copy_to(
        &self,
        mut offset: u64,
        dests: &mut [Dest<'_>],
        file_len: u64,
    ) -> io::Result<()> {
        let wanted: usize = dests.iter().map(Dest::len).sum();
        let file_len = file_len.min(self.len() as u64);
        if offset.checked_add(wanted as u64).is_none_or(|end| end > file_len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for dest in dests {
            let position = usize::try_from(offset).map_err(io::Error::other)?;
            // SAFETY: `position` plus all lengths is within the map, as checked above.
            let source = unsafe { self.as_mut_ptr().add(position) };
            let len = dest.len();
            // SAFETY: `source` is readable for `len` bytes of the map; a `Dest` never covers a
            // map of ours that is being read, since its owner alone holds that memory.
            unsafe { dest.copy_from_raw(source, len) };
            offset += len as u64;
        }
        Ok(())
    }
}
