//! Writes past the page cache: parts are put together in aligned memory, and whole blocks of it go
//! straight to the disk. What is left at both ends goes through the page cache.

use super::disk::{Disk, write_all};
use crate::sys::direct::is_refusal;
use crate::sys::source::Source;
use std::fs::File;
use std::io;

/// A file that is open twice.
pub(super) struct TwoWays<'a> {
    pub(super) disk: &'a dyn Disk,
    /// For whole blocks past the page cache.
    pub(super) direct: &'a File,
    /// Their length.
    pub(super) block: usize,
    /// For everything else.
    pub(super) cached: &'a File,
}

impl TwoWays<'_> {
    /// Writes `bytes`, which lie in memory as they do in blocks: the first byte is as far behind a
    /// multiple of the block as `offset` is.
    pub(super) fn write(&self, offset: u64, bytes: Source<'_>) -> io::Result<()> {
        let block = self.block as u64;
        let end = offset + bytes.len() as u64;
        let (first, last) = (offset.next_multiple_of(block), end / block * block);
        if first >= last {
            return self.write_cached(offset, bytes);
        }
        let mut rest = bytes;
        let mut front = |len: u64| rest.split_off_front(usize::try_from(len).expect("in memory"));
        let (head, body) = (front(first - offset), front(last - first));
        self.write_blocks(first, body)?;
        self.write_cached(offset, head)?;
        self.write_cached(last, rest)
    }

    /// Goes on through the page cache where the system refuses, or writes less than whole blocks.
    fn write_blocks(&self, mut offset: u64, mut blocks: Source<'_>) -> io::Result<()> {
        while !blocks.is_empty() && blocks.len().is_multiple_of(self.block) {
            match self.disk.write_some(self.direct, offset, &[blocks]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += blocks.split_off_front(count).len() as u64;
                }
                Err(error) if is_refusal(&error) => break,
                Err(error) => return Err(error),
            }
        }
        self.write_cached(offset, blocks)
    }

    fn write_cached(&self, offset: u64, bytes: Source<'_>) -> io::Result<()> {
        let len = bytes.len() as u64;
        write_all(self.disk, self.cached, offset, vec![bytes])?;
        if len > 0 { self.disk.start_write_back(self.cached, offset, len) } else { Ok(()) }
    }
}
