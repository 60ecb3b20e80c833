//! [`Source`]: memory that bytes are written from, without ever forming a reference to it.

#[cfg(target_os = "linux")]
use super::residency::page_size;
use std::io;
use std::marker::PhantomData;

/// A range of readable memory that the caller owns.
///
/// The twin of [`Dest`](super::dest::Dest): pointer, length and lifetime, never `&[u8]`, because
/// Python may write to a tensor's memory at any time. The kernel reads from it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    start: *const u8,
    len: usize,
    memory: PhantomData<&'a [u8]>,
}

// SAFETY: a `Source` only hands its range to system calls and copies, and has no thread affinity.
unsafe impl Send for Source<'_> {}

// SAFETY: as for `Send`; nothing is reached through `&Source` but its two numbers.
unsafe impl Sync for Source<'_> {}

impl<'a> Source<'a> {
    /// The memory of a slice.
    #[must_use]
    pub fn from_slice(slice: &'a [u8]) -> Self {
        Self { start: slice.as_ptr(), len: slice.len(), memory: PhantomData }
    }

    /// The `len` bytes from `start` on.
    ///
    /// # Safety
    /// For the lifetime `'a`, the range must be within one live, initialised allocation and
    /// readable. Bytes that another thread writes meanwhile are written out in an unspecified
    /// state, as with any buffer handed to `write(2)`.
    #[must_use]
    pub unsafe fn from_raw(start: *const u8, len: usize) -> Self {
        Self { start, len, memory: PhantomData }
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Splits off the first `len` bytes.
    ///
    /// # Panics
    /// When `len` is more than there is.
    #[must_use]
    pub fn split_off_front(&mut self, len: usize) -> Self {
        assert!(len <= self.len, "cannot split {len} bytes off {}", self.len);
        let front = Self { start: self.start, len, memory: PhantomData };
        // SAFETY: `len <= self.len`, so the result is within, or one past, the allocation.
        self.start = unsafe { self.start.add(len) };
        self.len -= len;
        front
    }

    /// The `len` bytes from byte `start` on.
    ///
    /// # Panics
    /// When that is more than there is.
    pub(crate) fn part(&self, start: usize, len: usize) -> Self {
        let is_within = start <= self.len && len <= self.len - start;
        assert!(is_within, "{len} bytes from {start} on are not within {}", self.len);
        // SAFETY: within the memory, or one past it.
        let start = unsafe { self.start.add(start) };
        Self { start, len, memory: PhantomData }
    }

    /// Makes the bytes present, so that they can be touched without a fault: of a mapped file that was
    /// cut off, or of a disk that fails, that is an error here and SIGBUS there.
    ///
    /// Where the kernel does not know how (before Linux 5.14, other systems), nothing happens.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn populate(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            let skipped = self.start.addr() % page_size();
            let start = self.start.wrapping_sub(skipped).cast_mut().cast();
            // SAFETY: the call reads from pages that hold readable bytes, and changes none.
            let status =
                unsafe { libc::madvise(start, skipped + self.len, libc::MADV_POPULATE_READ) };
            let error = io::Error::last_os_error();
            let lost = [libc::EFAULT, libc::EHWPOISON];
            // Any other error says that pages were not made present, not that they cannot be.
            if status != 0 && error.raw_os_error().is_some_and(|code| lost.contains(&code)) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// CRC-32C of the bytes.
    #[must_use]
    pub fn crc32c(&self) -> u32 {
        // SAFETY: readable and initialised for `len` bytes (the contract of `from_raw`); the slice
        // lives only as long as this call. A concurrent write by Python is the caller's race, and
        // can at worst give the checksum of no state that the memory had.
        let bytes = unsafe { std::slice::from_raw_parts(self.start, self.len) };
        crc32c::crc32c(bytes)
    }

    /// Where the memory begins.
    pub(super) fn start(&self) -> *const u8 {
        self.start
    }

    /// The range as the kernel takes it.
    pub(super) fn as_iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.start.cast_mut().cast(), iov_len: self.len }
    }
}
