//! Copies out of a memory map. Each worker maps the shard it is at, and no other.

use super::{Backend, ShardReader};
use crate::checkpoint::Shard;
use crate::error::Result;
use crate::sys::dest::Dest;
use crate::sys::mmap::Mapping;
use std::io;

pub(super) struct Mapped;

impl Backend for Mapped {
    fn name(&self) -> &'static str {
        "mapped"
    }

    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>> {
        Ok(Box::new(Mapping::open(&shard.path, &shard.identity)?))
    }
}

impl ShardReader for Mapping {
    fn read(&mut self, offset: u64, dests: &mut [Dest<'_>]) -> io::Result<()> {
        self.copy_to(offset, dests)
    }
}
