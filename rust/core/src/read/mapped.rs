//! Copies out of a memory map. Each worker maps the shard it is at, and no other.

use super::{Backend, ShardReader};
use crate::checkpoint::Shard;
use crate::error::{Error, Result};
use crate::sys::dest::Dest;
use crate::sys::file::reopen;
use crate::sys::mmap::Mapping;
use std::fs::File;
use std::io;

pub(super) struct Mapped;

impl Backend for Mapped {
    fn name(&self) -> &'static str {
        "mapped"
    }

    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>> {
        let file = reopen(&shard.path, &shard.identity)?;
        let map = Mapping::of(&file).map_err(|error| Error::io(&shard.path, "mapping", error))?;
        Ok(Box::new(MappedFile { map, file }))
    }
}

/// The file stays open, to be asked for its size before each copy.
struct MappedFile {
    map: Mapping,
    file: File,
}

impl ShardReader for MappedFile {
    fn read(&mut self, offset: u64, dests: &mut [Dest<'_>]) -> io::Result<()> {
        self.map.copy_to(offset, dests, self.file.metadata()?.len())
    }
}
