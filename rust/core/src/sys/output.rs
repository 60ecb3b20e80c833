//! System calls of writing: at a position, room in advance, write-back, closing, free space.

use super::file::MAX_BUFFERS;
use super::source::Source;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Writes from `sources`, one after another, at `offset`; returns how many bytes were written.
///
/// # Errors
/// What the system says.
pub fn write_some(file: &File, offset: u64, sources: &[Source<'_>]) -> io::Result<usize> {
    let buffers: Vec<_> = sources.iter().take(MAX_BUFFERS).map(Source::as_iovec).collect();
    let buffer_count = libc::c_int::try_from(buffers.len()).map_err(io::Error::other)?;
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    loop {
        // SAFETY: `buffers` describes `Source`s, each readable for its length (the contract of
        // `Source::from_raw`); the descriptor is open as long as `file` lives.
        let count =
            unsafe { libc::pwritev(file.as_raw_fd(), buffers.as_ptr(), buffer_count, offset) };
        if let Ok(count) = usize::try_from(count) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Gives a new file its size, and reserves its room where the file system can.
///
/// # Errors
/// What the system says: no room left, most of all.
pub fn allocate(file: &File, len: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if len > 0 {
        let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
        let unsupported = [libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL];
        loop {
            // SAFETY: no memory is involved; the descriptor is open as long as `file` lives.
            if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error().is_some_and(|code| unsupported.contains(&code)) {
                break;
            }
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
    file.set_len(len)
}

/// Closes a file, and says what the system says: some file systems (NFS, FUSE) tell only then that
/// written bytes found no room or no way to the disk.
///
/// # Errors
/// What the system says; the file is closed all the same.
pub fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor was owned by `file`, which has given it up: nobody else closes it.
    if unsafe { libc::close(file.into_raw_fd()) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Asks the kernel to begin writing a range to the disk, without waiting for it.
///
/// # Errors
/// What the system says.
pub fn start_write_back(file: &File, offset: u64, len: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let offset = libc::off64_t::try_from(offset).map_err(io::Error::other)?;
        let len = libc::off64_t::try_from(len).map_err(io::Error::other)?;
        let flags = libc::SYNC_FILE_RANGE_WRITE;
        // SAFETY: no memory is involved; the descriptor is open as long as `file` lives.
        if unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) } != 0 {
            let error = io::Error::last_os_error();
            // Some file systems do not know the call; the sync at the end does it all then.
            let unknown = [libc::EINVAL, libc::ENOSYS, libc::EOPNOTSUPP, libc::ESPIPE];
            if !error.raw_os_error().is_some_and(|code| unknown.contains(&code)) {
                return Err(error);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, len);
    Ok(())
}

/// Bytes that an unprivileged user may still write to the file system of `path`; `None` where the
/// file system does not say how large it is.
///
/// # Errors
/// What the system says.
pub fn free_bytes(path: &Path) -> io::Result<Option<u64>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut facts = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with NUL, `facts` has room for what is written to it.
    if unsafe { libc::statvfs(path.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled `facts`.
    let facts = unsafe { facts.assume_init() };
    #[allow(clippy::useless_conversion, reason = "the types differ between platforms")]
    let free = u64::from(facts.f_bavail).saturating_mul(u64::from(facts.f_frsize));
    Ok((facts.f_blocks > 0).then_some(free))
}
