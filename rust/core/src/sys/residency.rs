//! The page cache: how much of a file is in it, what is not, and how to take it out again.

use super::mmap::Mapping;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

/// Pages that are asked about at a time.
const WINDOW_PAGES: usize = 1 << 16;

/// Bytes of a range of a file that are in the page cache, in whole pages but never more than the
/// range has. `None` where the system does not say.
#[must_use]
pub fn resident_bytes(file: &File, range: &Range<u64>) -> Option<u64> {
    let len = range.end.checked_sub(range.start)?;
    let resident = match count_cached(file, range) {
        Some(count) => count,
        None => len.saturating_sub(missing_ranges(file, range).ok()?.iter().map(byte_len).sum()),
    };
    Some(resident.min(len))
}

fn byte_len(range: &Range<u64>) -> u64 {
    range.end - range.start
}

/// Whether all that is cached of a file is on its disk; `None` where the system does not say.
#[must_use]
pub fn is_written_back(file: &File) -> Option<bool> {
    let found = cache_stat(file, &(0..u64::MAX))?;
    Some(found.dirty == 0 && found.under_write_back == 0)
}

fn count_cached(file: &File, range: &Range<u64>) -> Option<u64> {
    if range.is_empty() {
        return Some(0); // A length of 0 would mean the rest of the file.
    }
    cache_stat(file, range).map(|found| found.cached.saturating_mul(page_bytes()))
}

/// Numbers of pages.
#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    under_write_back: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// `cachestat`, of Linux 6.5: no map, and no page is visited.
#[cfg(target_os = "linux")]
fn cache_stat(file: &File, range: &Range<u64>) -> Option<CacheStat> {
    /// The number is the same on every architecture that Linux 6.5 added the call to at once.
    const SYS_CACHESTAT: libc::c_long = 451;

    #[repr(C)]
    struct CacheStatRange {
        offset: u64,
        len: u64,
    }

    let asked = CacheStatRange { offset: range.start, len: byte_len(range) };
    let mut found = CacheStat::default();
    let flags: libc::c_uint = 0;
    // SAFETY: both structs have the layout of linux/mman.h and live through the call, which reads
    // the first and writes the second; the descriptor is open as long as `file` lives.
    let status = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const asked, &raw mut found, flags)
    };
    (status == 0).then_some(found)
}

#[cfg(not(target_os = "linux"))]
fn cache_stat(_: &File, _: &Range<u64>) -> Option<CacheStat> {
    None
}

/// The parts of a range that are not in the page cache, as ranges of whole pages.
///
/// # Errors
/// What the system says; [`io::ErrorKind::PermissionDenied`] for a file that the user does not own
/// and may not write to: of such a file the system would pretend that all of it is.
pub fn missing_ranges(file: &File, range: &Range<u64>) -> io::Result<Vec<Range<u64>>> {
    if !is_told_the_truth(file)? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let page = page_bytes();
    let map = Mapping::of(file)?;
    let end = range.end.min(map.len() as u64).div_ceil(page);
    let mut missing: Vec<Range<u64>> = Vec::new();
    let mut first = range.start / page;
    while first < end {
        let count = usize::try_from(end - first).map_or(WINDOW_PAGES, |n| n.min(WINDOW_PAGES));
        for (position, cached) in (first..).zip(map.cached_pages(first * page, count)?) {
            match missing.last_mut() {
                _ if cached => {}
                Some(last) if last.end == position * page => last.end += page,
                _ => missing.push(position * page..(position + 1) * page),
            }
        }
        first += count as u64;
    }
    Ok(missing)
}

/// Whether `mincore` tells this user about a file: its owner, and who may write to it.
fn is_told_the_truth(file: &File) -> io::Result<bool> {
    // SAFETY: the call has no arguments and cannot fail.
    let user = unsafe { libc::geteuid() };
    if user == 0 || file.metadata()?.uid() == user {
        return Ok(true);
    }
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: `path` ends with NUL and lives through the call.
    let status =
        unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK, libc::AT_EACCESS) };
    Ok(status == 0)
}

impl Mapping {
    /// Of each of so many pages, whether it is in the page cache.
    fn cached_pages(&self, offset: u64, count: usize) -> io::Result<impl Iterator<Item = bool>> {
        let position = usize::try_from(offset).map_err(io::Error::other)?;
        let len = (self.len() - position).min(count.saturating_mul(page_size()));
        let mut states = vec![0_u8; count];
        assert!(len.div_ceil(page_size()) == count, "pages within the map");
        // SAFETY: `position` is a page within the map, since there are `count` pages from there.
        let start = unsafe { self.as_mut_ptr().add(position) };
        // SAFETY: the `len` bytes from `start` on are mapped; `states` has a byte for each page.
        if unsafe { libc::mincore(start.cast(), len, states.as_mut_ptr().cast()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(states.into_iter().map(|state| state & 1 == 1))
    }
}

/// Whether a byte of a file can be had without waiting for the disk: then its page is in the page
/// cache. Whoever may read a file is told, also where `mincore` is silent. What is not there the kernel
/// may begin to read, with as much behind it as the descriptor's read-ahead says.
///
/// `None` where the system does not say. The kernel is asked by number, as glibc has a function for it
/// only since 2.26, and without that symbol the library loads where Rust's own programs do (2.17).
#[cfg(target_os = "linux")]
#[must_use]
pub fn is_at_hand(file: &File, offset: u64) -> Option<bool> {
    let mut byte = 0_u8;
    let buffer = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let (buffers, high_offset): (libc::c_ulong, libc::c_ulong) = (1, 0);
    let low_offset = libc::c_long::try_from(offset).ok()?; // So nothing is left for the high one.
    let descriptor = libc::c_long::from(file.as_raw_fd());
    // SAFETY: the arguments are those of `preadv2`, each as wide as the kernel takes it. `buffer`
    // describes one byte that lives through the call; the descriptor is open as long as `file` lives.
    let count = unsafe {
        libc::syscall(
            libc::SYS_preadv2,
            descriptor,
            &raw const buffer,
            buffers,
            low_offset,
            high_offset,
            libc::RWF_NOWAIT,
        )
    };
    match count {
        1 => Some(true),
        -1 if io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN) => Some(false),
        _ => None,
    }
}

/// As on Linux: nobody says.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn is_at_hand(_: &File, _: u64) -> Option<bool> {
    None
}

/// Takes whole pages of a file out of the page cache. Those that were changed, or that somebody
/// has mapped, stay.
pub fn drop_cached(file: &File, range: &Range<u64>) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let as_offset = |bytes| libc::off_t::try_from(bytes);
        let (Ok(start), Ok(len)) = (as_offset(range.start), as_offset(byte_len(range))) else {
            return;
        };
        // SAFETY: no memory is involved; the descriptor is open as long as `file` lives.
        let status =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), start, len, libc::POSIX_FADV_DONTNEED) };
        // A file system may refuse advice; the bytes are the same.
        let _ = status;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, range);
}

/// Size of a page.
#[must_use]
pub fn page_bytes() -> u64 {
    page_size() as u64
}

pub(super) fn page_size() -> usize {
    // SAFETY: no memory is involved.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("every system has pages")
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]
#[allow(clippy::single_range_in_vec_init, reason = "a list of ranges may have one")]
mod tests {
    use super::*;
    use crate::sys::file_system::FileSystem;
    use std::os::unix::fs::FileExt;

    /// A file of ten and a half pages, of which nothing is in the page cache.
    fn cold_file() -> (File, u64) {
        let file = tempfile::tempfile().unwrap();
        let page = page_bytes();
        file.write_all_at(&vec![1; page_size() * 21 / 2], 0).unwrap();
        file.sync_all().unwrap();
        drop_cached(&file, &(0..page * 11));
        crate::sys::file::disable_read_ahead(&file);
        (file, page)
    }

    /// Holds if it does so for one of ten cold files: the kernel may let go of a page at any time.
    /// A file system in memory has no cold files, and nothing to check.
    fn holds(check: impl Fn(&File, u64) -> bool) -> bool {
        (0..10).any(|_| {
            let (file, page) = cold_file();
            let is_cold = || resident_bytes(&file, &(0..page * 11)) == Some(0);
            FileSystem::of(&file) == FileSystem::Memory || is_cold() && check(&file, page)
        })
    }

    fn touch(file: &File, pages: &[u64]) {
        for page in pages {
            file.read_exact_at(&mut [0; 7], page * page_bytes()).unwrap();
        }
    }

    #[test]
    fn all_of_a_cold_file_is_missing() {
        let all = |page| 0..page * 21 / 2;
        assert!(holds(|file, page| missing_ranges(file, &all(page)).unwrap() == [0..page * 11]));
    }

    #[test]
    fn what_was_read_is_resident() {
        assert!(holds(|file, page| {
            touch(file, &[0, 3, 4, 10]);
            resident_bytes(file, &(0..page * 21 / 2)) == Some(page * 4)
                && resident_bytes(file, &(page * 3 + 5..page * 4)) == Some(page - 5)
                && resident_bytes(file, &(page..page * 2)) == Some(0)
        }));
    }

    #[test]
    fn what_was_not_read_is_missing() {
        assert!(holds(|file, page| {
            touch(file, &[0, 3, 4, 10]);
            let missing = |range: Range<u64>| missing_ranges(file, &range).unwrap();
            missing(0..page * 21 / 2) == [page..page * 3, page * 5..page * 10]
                && missing(page * 2 + 1..page * 6) == [page * 2..page * 3, page * 5..page * 6]
        }));
    }

    #[test]
    fn what_is_dropped_is_gone_and_the_rest_stays() {
        assert!(holds(|file, page| {
            touch(file, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
            drop_cached(file, &(page * 2..page * 5));
            missing_ranges(file, &(0..page * 10)).unwrap() == [page * 2..page * 5]
        }));
    }

    #[test]
    fn what_is_at_hand_is_told_without_asking_for_the_cache() {
        assert!(holds(|file, page| {
            touch(file, &[3]);
            let at_hand = |at: u64| is_at_hand(file, page * at);
            at_hand(3).is_none() || (at_hand(3), at_hand(7)) == (Some(true), Some(false))
        }));
    }

    #[test]
    fn nothing_of_an_empty_range_is_resident_or_missing() {
        let (file, page) = cold_file();
        assert_eq!(resident_bytes(&file, &(page..page)), Some(0));
        assert_eq!(missing_ranges(&file, &(page..page)).unwrap(), []);
        assert_eq!(missing_ranges(&file, &(page * 99..page * 100)).unwrap(), []);
    }
}
