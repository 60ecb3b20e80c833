//! Copies out of a memory map. Each worker maps the shard it is at, and no other.
//!
//! Touching what a file has lost since it was mapped would end the process (SIGBUS). So a copy goes
//! by windows: each is made present by a call that gives an error instead, then copied, and after
//! it the size is looked at, because the end of a page that was cut off reads as zeros. What is
//! left is a file that shrinks during the copy of one window.

use super::{Backend, ShardReader};
use crate::checkpoint::Shard;
use crate::error::{Error, Result};
use crate::sys::dest::Dest;
use crate::sys::file::{begin_reading, read_at, reopen};
use crate::sys::mmap::Mapping;
use std::fs::File;
use std::io;

/// Bytes that are made present and copied at a time.
const WINDOW_BYTES: usize = 512 << 10;

/// Bytes that are read at a time where a window cannot be made present.
const PROBE_BYTES: usize = 4096;

pub(super) struct Mapped {
    /// Whether the kernel may fetch more than is copied, which is faster, and leaves more behind.
    pub(super) read_ahead: bool,
}

impl Backend for Mapped {
    fn name(&self) -> &'static str {
        "mapped"
    }

    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>> {
        let file = reopen(&shard.path, &shard.identity)?;
        let map = Mapping::of(&file).map_err(|error| Error::io(&shard.path, "mapping", error))?;
        if !self.read_ahead {
            map.disable_read_ahead();
        }
        Ok(Box::new(MappedFile { map, file, read_ahead: self.read_ahead }))
    }
}

/// The file stays open, to be asked for its size.
struct MappedFile {
    map: Mapping,
    file: File,
    read_ahead: bool,
}

impl MappedFile {
    /// Refuses what ends behind the file.
    fn check_len(&self, end: usize) -> io::Result<()> {
        let file_len = self.file.metadata()?.len().min(self.map.len() as u64);
        if end as u64 > file_len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// What the disk says about a window that cannot be made present: of a map it is always "bad
    /// address".
    fn explain(&self, offset: usize, len: usize, error: io::Error) -> io::Error {
        let mut scratch = [0; PROBE_BYTES];
        let read = |start: usize| {
            let len = PROBE_BYTES.min(offset + len - start);
            read_at(&self.file, start as u64, &mut [Dest::from_slice(&mut scratch[..len])])
        };
        let told = (offset..offset + len).step_by(PROBE_BYTES).map(read).find_map(io::Result::err);
        told.unwrap_or(error)
    }

    fn copy_window<'d, 'a>(
        &self,
        offset: usize,
        len: usize,
        dests: &'d mut [Dest<'a>],
    ) -> io::Result<&'d mut [Dest<'a>]> {
        let end = offset + len;
        if !self.read_ahead {
            begin_reading(&self.file, offset as u64, len as u64);
        }
        self.map.populate(offset, len).map_err(|error| {
            self.check_len(end).err().unwrap_or_else(|| self.explain(offset, len, error))
        })?;
        let rest = self.map.copy_to(offset, len, dests);
        self.check_len(end)?;
        Ok(rest)
    }
}

impl ShardReader for MappedFile {
    fn read(&mut self, offset: u64, dests: &mut [Dest<'_>]) -> io::Result<()> {
        let wanted: usize = dests.iter().map(Dest::len).sum();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(wanted).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.check_len(end)?;
        let (mut next, mut dests) = (start, dests);
        while next < end {
            let len = WINDOW_BYTES.min(end - next);
            dests = self.copy_window(next, len, dests)?;
            next += len;
        }
        // Each byte is copied once: pages that stay would only count as memory of the process.
        self.map.release(start, wanted);
        Ok(())
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }
}
