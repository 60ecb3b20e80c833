//! Positional reads (`preadv`) through the page cache: the portable backend.

use super::{Backend, ShardReader};
use crate::checkpoint::Shard;
use crate::error::Result;
use crate::sys::dest::Dest;
use crate::sys::file::{disable_read_ahead, read_at, reopen};
use std::fs::File;
use std::io;

pub(super) struct Positional {
    /// Whether the kernel may read what was not asked for yet.
    pub(super) read_ahead: bool,
}

impl Backend for Positional {
    fn name(&self) -> &'static str {
        "buffered"
    }

    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>> {
        let file = reopen(&shard.path, &shard.identity)?;
        if !self.read_ahead {
            disable_read_ahead(&file);
        }
        Ok(Box::new(OpenFile(file)))
    }
}

pub(super) struct OpenFile(pub(super) File);

impl ShardReader for OpenFile {
    fn read(&mut self, offset: u64, dests: &mut [Dest<'_>]) -> io::Result<()> {
        read_at(&self.0, offset, dests)
    }

    fn file(&self) -> Option<&File> {
        Some(&self.0)
    }
}
