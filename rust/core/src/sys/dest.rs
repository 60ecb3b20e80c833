//! [`Dest`]: memory that bytes are read into, without ever forming a reference to it.

use super::source::Source;
use std::marker::PhantomData;
use std::ptr;

/// A range of writable memory that the caller owns.
///
/// It is pointer, length and lifetime, and never becomes `&mut [u8]`: the memory may be
/// uninitialised (`torch.empty`) or visible to Python at the same time. The kernel or a plain copy
/// writes into it.
#[derive(Debug)]
pub struct Dest<'a> {
    start: *mut u8,
    len: usize,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: a `Dest` is the only handle to its range (see `from_raw`) and has no thread affinity.
unsafe impl Send for Dest<'_> {}

impl<'a> Dest<'a> {
    /// The memory of a slice.
    #[must_use]
    pub fn from_slice(slice: &'a mut [u8]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), memory: PhantomData }
    }

    /// The `len` bytes from `start` on.
    ///
    /// # Safety
    /// For the lifetime `'a`, the range must be within one live allocation and writable, no other
    /// `Dest` may cover any of it, and no Rust reference to it may be used. Contents may be
    /// uninitialised. What another thread that touches the memory meanwhile sees is unspecified
    /// bytes, as with any buffer handed to `read(2)`.
    #[must_use]
    pub unsafe fn from_raw(start: *mut u8, len: usize) -> Self {
        Self { start, len, memory: PhantomData }
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to fill.
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
    pub(crate) fn part(&mut self, start: usize, len: usize) -> Dest<'_> {
        let is_within = start <= self.len && len <= self.len - start;
        assert!(is_within, "{len} bytes from {start} on are not within {}", self.len);
        // SAFETY: within the memory, or one past it.
        let start = unsafe { self.start.add(start) };
        Dest { start, len, memory: PhantomData }
    }

    /// Copies `len` bytes from `source` to the front.
    ///
    /// # Safety
    /// `source` must be readable for `len` bytes and not overlap this memory.
    ///
    /// # Panics
    /// When `len` is more than there is.
    pub(crate) unsafe fn copy_from_raw(&mut self, source: *const u8, len: usize) {
        assert!(len <= self.len, "cannot copy {len} bytes into {}", self.len);
        // SAFETY: the caller vouches for `source`; `start` is writable for `self.len >= len`.
        unsafe { ptr::copy_nonoverlapping(source, self.start, len) };
    }

    /// Copies all of `source`, which may overlap this memory, to the front.
    ///
    /// # Panics
    /// When that is more than there is.
    pub(crate) fn copy_from(&mut self, source: Source<'_>) {
        assert!(source.len() <= self.len, "cannot copy {} bytes into {}", source.len(), self.len);
        // SAFETY: `source` is readable for its length, `start` is writable for no less.
        unsafe { ptr::copy(source.start(), self.start, source.len()) };
    }

    /// Where the memory begins.
    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }

    /// First address and end of the memory, for telling destinations apart.
    pub(crate) fn span(&self) -> (usize, usize) {
        (self.start as usize, self.start as usize + self.len)
    }

    /// The range as the kernel takes it.
    pub(super) fn as_iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.start.cast(), iov_len: self.len }
    }
}

/// Copies `source` into `dests`, one after another, and returns those with room left.
///
/// # Panics
/// When there is less room.
pub(crate) fn fill_front<'d, 'a>(dests: &'d mut [Dest<'a>], source: &[u8]) -> &'d mut [Dest<'a>] {
    // SAFETY: the slice is readable for its length, and no reference covers memory of a `Dest`
    // (the contract of `Dest::from_raw`), so the two do not overlap.
    unsafe { fill_front_from_raw(dests, source.as_ptr(), source.len()) }
}

/// As [`fill_front`], from memory that no reference may be formed to.
///
/// # Safety
/// `source` must be readable for `len` bytes, and overlap none of `dests`.
///
/// # Panics
/// When there is less room.
pub(crate) unsafe fn fill_front_from_raw<'d, 'a>(
    dests: &'d mut [Dest<'a>],
    source: *const u8,
    len: usize,
) -> &'d mut [Dest<'a>] {
    let (mut first, mut done) = (0, 0);
    while done < len {
        let dest = &mut dests[first];
        let count = dest.len().min(len - done);
        // SAFETY: `done < len`, so this is within the source.
        let rest = unsafe { source.add(done) };
        // SAFETY: `rest` is readable for `len - done >= count` bytes; the caller vouches that it
        // does not overlap.
        unsafe { dest.split_off_front(count).copy_from_raw(rest, count) };
        done += count;
        first += usize::from(dest.is_empty());
    }
    &mut dests[first..]
}
