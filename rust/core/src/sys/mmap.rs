//! Memory maps: of shard files, private and writable for zero-copy tensors; and of no file.

use super::dest::{Dest, fill_front_from_raw};
use super::file::{FileIdentity, check_unchanged, reopen};
use super::source::Source;
use crate::error::{Error, Result};
use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A private, copy-on-write map of a whole file, or memory of no file.
///
/// Writing to it changes memory and never the file. `MAP_NORESERVE` keeps the kernel from
/// charging the whole file against the commit limit.
///
/// The bytes are only ever reached through raw pointers: another process may change the file, so
/// no reference to them would be sound. If a file shrinks after it was mapped, touching the lost
/// part raises SIGBUS, on every platform and in every library that maps files; the size is checked
/// here, when the map is made. [`Mapping::populate`] finds out without the signal.
#[derive(Debug)]
pub struct Mapping {
    memory: MmapRaw,
    /// The file, where it is known by a path.
    file: Option<(PathBuf, FileIdentity)>,
}

impl Mapping {
    /// Maps a file whose header was read before.
    ///
    /// # Errors
    /// Those of opening, and [`Error::Replaced`] when it is no longer the same file.
    pub fn open(path: &Path, identity: &FileIdentity) -> Result<Self> {
        let file = reopen(path, identity)?;
        let map = Self::of(&file).map_err(|error| Error::io(path, "mapping", error))?;
        Ok(Self { file: Some((path.to_owned(), *identity)), ..map })
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
        Ok(Self { memory: MmapRaw::from(map), file: None })
    }

    /// New memory of `len` bytes, at least one, all zero. The system has it back as soon as it is
    /// dropped, which an allocator does not promise.
    ///
    /// # Errors
    /// What the system says: no memory left, most of all.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let memory = MmapRaw::from(MmapOptions::new().len(len.max(1)).map_anon()?);
        Ok(Self { memory, file: None })
    }

    /// Asks for huge pages, of which it takes fewer to make large memory present.
    pub(crate) fn prefer_huge_pages(&self) {
        // Advice: small pages do as well.
        #[cfg(target_os = "linux")]
        drop(self.memory.advise(memmap2::Advice::HugePage));
    }

    /// First byte of the map.
    #[must_use]
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.memory.as_mut_ptr()
    }

    /// Size of the map in bytes, never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// All of it, to be read. What another process has cut off a file raises SIGBUS.
    #[must_use]
    pub fn source(&self) -> Source<'_> {
        // SAFETY: the map is one allocation, readable and initialised as long as `self` lives.
        unsafe { Source::from_raw(self.as_mut_ptr(), self.len()) }
    }

    /// Has the kernel read no more than the pages that are touched.
    pub(crate) fn disable_read_ahead(&self) {
        // Advice: the bytes are the same without.
        drop(self.memory.advise(memmap2::Advice::Random));
    }

    /// Opens the file once more; `None` where there is none, or it is not the same any more.
    pub(crate) fn reopen(&self) -> Option<File> {
        self.file.as_ref().and_then(|(path, identity)| reopen(path, identity).ok())
    }

    /// Makes sure that nobody has written to the file, as far as it is known by a path.
    pub(crate) fn check_unchanged(&self, file: &File) -> io::Result<()> {
        let Some((path, identity)) = &self.file else { return Ok(()) };
        check_unchanged(file, path, identity).map_err(io::Error::other)
    }

    /// Asks the kernel to begin reading part of the map into the page cache, and nothing around it.
    pub(crate) fn begin_reading(&self, offset: usize, len: usize) {
        // Advice: the bytes are the same without.
        drop(self.memory.advise_range(memmap2::Advice::WillNeed, offset, len));
    }

    /// Makes part of the map present, so that it can be touched without a fault; what is not
    /// there any more is an error here, where touching it would be SIGBUS.
    ///
    /// Where the kernel does not know how (before Linux 5.14, other systems), nothing happens.
    ///
    /// # Errors
    /// What the system says: a file that was cut off, or a disk that failed.
    pub fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let outcome = self.memory.advise_range(memmap2::Advice::PopulateRead, offset, len);
            let lost = [libc::EFAULT, libc::EHWPOISON];
            match outcome {
                Err(error) if error.raw_os_error().is_some_and(|code| lost.contains(&code)) => {
                    Err(error)
                }
                // Anything else says that the pages were not made present, not that they cannot be.
                _ => Ok(()),
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (offset, len);
            Ok(())
        }
    }

    /// Lets go of the pages of part of the map, which nobody may have written to: they count as
    /// memory of this process no more, and come from the file when they are touched again.
    pub(crate) fn release(&self, offset: usize, len: usize) {
        // SAFETY: the range is made of pages of a private map of a file. Only raw pointers lead
        // there, and the bytes that are seen through them afterwards are the file's again.
        let outcome =
            unsafe { self.memory.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len) };
        // Whatever is not let go of now goes with the map.
        drop(outcome);
    }

    /// Copies `len` bytes from `offset` on into `dests`, one after another; returns those with
    /// room left. What is not in the file any more raises SIGBUS.
    ///
    /// # Panics
    /// When the range is not within the map, or `dests` have less room.
    pub(crate) fn copy_to<'d, 'a>(
        &self,
        offset: usize,
        len: usize,
        dests: &'d mut [Dest<'a>],
    ) -> &'d mut [Dest<'a>] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len()), "beyond the map");
        // SAFETY: `offset <= self.len()`, as just checked.
        let source = unsafe { self.as_mut_ptr().add(offset) };
        // SAFETY: `source` is readable for `len` bytes of the map; a `Dest` never covers a map of
        // ours that is being read, since its owner alone holds that memory.
        unsafe { fill_front_from_raw(dests, source, len) }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_a_file_has_lost_cannot_be_made_present() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 100_000]).unwrap();
        let map = Mapping::of(&file).unwrap();
        map.populate(5000, 90_000).unwrap();
        file.set_len(50_000).unwrap();
        map.populate(0, 50_000).unwrap();
        // A kernel before 5.14 populates nothing, and sees no loss.
        if let Err(error) = map.populate(60_000, 1) {
            assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        }
    }

    #[test]
    fn pages_that_were_let_go_of_come_from_the_file_again() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(20_000).collect();
        file.write_all(&bytes).unwrap();
        let map = Mapping::of(&file).unwrap();
        for _ in 0..2 {
            let mut memory = vec![0; 9000];
            let (first, second) = memory.split_at_mut(1234);
            let mut dests = [Dest::from_slice(first), Dest::from_slice(second)];
            assert!(map.copy_to(5001, 9000, &mut dests).is_empty());
            assert!(memory == bytes[5001..14_001]);
            map.release(5001, 9000);
        }
    }
}
