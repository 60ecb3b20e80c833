//! Reads and writes that go around the page cache (`O_DIRECT`): turned on for an open file, and off
//! again.

#[cfg(target_os = "linux")]
use super::file_system::FileSystem;
use std::fs::File;
use std::io;

/// Blocks are at most this long, and the memory that they are read into begins at a multiple of
/// it: the smallest page there is.
pub const MOST_BLOCK_BYTES: usize = 4096;

/// Turns direct reads and writes on, and returns the block size: offsets, lengths and addresses have
/// to be multiples of it. `None` when the file system refuses, or asks for larger blocks than
/// [`MOST_BLOCK_BYTES`].
#[must_use]
pub fn start_direct(file: &File) -> Option<usize> {
    #[cfg(target_os = "linux")]
    {
        let block = linux::block_bytes(file)?;
        let known = block.is_power_of_two() && block <= MOST_BLOCK_BYTES;
        (known && linux::set_direct(file, true).is_ok()).then_some(block)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        None
    }
}

/// Opens a file that is open for writing once more, for direct writes, and returns the block size
/// too: at least a page, so that no page is written both ways. `None` but on the file systems of
/// [`FileSystem::Local`], which keep direct writes and the page cache in agreement, and where the
/// system refuses.
#[must_use]
pub fn open_direct(file: &File) -> Option<(File, usize)> {
    #[cfg(target_os = "linux")]
    {
        if FileSystem::of(file) != FileSystem::Local {
            return None;
        }
        let direct = linux::open_again(file).ok()?;
        let block = start_direct(&direct)?;
        Some((direct, block.max(MOST_BLOCK_BYTES)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        None
    }
}

/// Turns direct reads and writes off: any offset and length will do again.
///
/// # Errors
/// What the system says.
pub fn stop_direct(file: &File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return linux::set_direct(file, false);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        Ok(())
    }
}

/// Whether an error says that a read or write is not aligned as the file system wants it, or that it
/// knows no direct ones after all.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

#[cfg(target_os = "linux")]
mod linux {
    use super::MOST_BLOCK_BYTES;
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;

    /// What `statx` says (Linux 6.1); where it says nothing, blocks that do for every file system
    /// that is known. `None`: no direct reads of this file.
    pub(super) fn block_bytes(file: &File) -> Option<usize> {
        let Some(facts) = statx(file) else { return Some(MOST_BLOCK_BYTES) };
        if facts.stx_mask & libc::STATX_DIOALIGN == 0 {
            return Some(MOST_BLOCK_BYTES);
        }
        let block = facts.stx_dio_offset_align.max(facts.stx_dio_mem_align);
        let supported = facts.stx_dio_offset_align > 0;
        supported.then(|| usize::try_from(block).ok()).flatten()
    }

    fn statx(file: &File) -> Option<libc::statx> {
        let mut facts = MaybeUninit::<libc::statx>::uninit();
        // SAFETY: the path is an empty C string, `facts` has room for what is written to it, and
        // the descriptor is open as long as `file` lives.
        let status = unsafe {
            libc::statx(
                file.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                libc::STATX_DIOALIGN,
                facts.as_mut_ptr(),
            )
        };
        // SAFETY: the call succeeded, so it filled `facts`.
        (status == 0).then(|| unsafe { facts.assume_init() })
    }

    /// The very file, whatever has its name now.
    pub(super) fn open_again(file: &File) -> io::Result<File> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        OpenOptions::new().write(true).open(path)
    }

    pub(super) fn set_direct(file: &File, direct: bool) -> io::Result<()> {
        // SAFETY: no memory is involved; the descriptor is open as long as `file` lives.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
        if flags < 0 {
            return Err(io::Error::last_os_error());
        }
        let others = flags & !libc::O_DIRECT;
        let flags = if direct { others | libc::O_DIRECT } else { others };
        // SAFETY: no memory is involved; the descriptor is open as long as `file` lives.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
