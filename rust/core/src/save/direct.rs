//! Writes past the page cache: whole blocks go from aligned memory straight to the disk, what is left
//! at both ends goes through the page cache.
//!
//! Both may be under way in one file at the same time, from several threads. No byte is written twice,
//! and no page both ways by one write; where two writes meet within a page, both write their ends
//! through the page cache. The file systems that are taken (ext4, XFS, Btrfs) let one cached write at
//! a time into a file, and bring pages of the range to the disk before a direct one, and drop them
//! after it: see the notes on `O_DIRECT` of `open(2)`.

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
    pub(super) fn write(&self, offset: u64, mut bytes: Source<'_>) -> io::Result<()> {
        let block = self.block as u64;
        let end = offset + bytes.len() as u64;
        let first = offset.next_multiple_of(block).min(end);
        let last = (end / block * block).max(first);
        let len = |range: u64| usize::try_from(range).expect("a length of memory");
        let head = bytes.split_off_front(len(first - offset));
        let body = bytes.split_off_front(len(last - first));
        self.write_cached(offset, head)?;
        self.write_blocks(first, body)?;
        self.write_cached(last, bytes)
    }

    /// Goes on through the page cache where the system refuses, or writes less than whole blocks.
    fn write_blocks(&self, mut offset: u64, mut blocks: Source<'_>) -> io::Result<()> {
        while !blocks.is_empty() && blocks.len().is_multiple_of(self.block) {
            match self.disk.write_some(self.direct, offset, &[blocks]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => offset += blocks.split_off_front(count).len() as u64,
                Err(error) if is_refusal(&error) => break,
                Err(error) => return Err(error),
            }
        }
        self.write_cached(offset, blocks)
    }

    fn write_cached(&self, offset: u64, bytes: Source<'_>) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        write_all(self.disk, self.cached, offset, vec![bytes])?;
        self.disk.start_write_back(self.cached, offset, bytes.len() as u64)
    }
}
