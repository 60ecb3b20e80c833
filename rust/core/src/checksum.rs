//! CRC-32C of the tensors of an opened checkpoint.

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::read::{Backend, Control, Io, ShardReader, backend, pool};
use crate::sys::dest::Dest;
use crate::sys::memory::grow;
use std::sync::{Mutex, PoisonError};

/// Bytes that are read and summed at a time.
const CHUNK_BYTES: u64 = 2 << 20;

/// Threads that read and sum when the caller names no number.
const DEFAULT_THREADS: usize = 8;

/// A piece of a tensor: position of the tensor, first byte in the file, length.
type Chunk = (usize, u64, usize);

impl Checkpoint {
    /// Reads every tensor, and gives the CRC-32C of each, in the order of the table.
    ///
    /// # Errors
    /// The first error that reading meets, or [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn crc32c(&self, threads: usize, control: &Control) -> Result<Vec<u32>> {
        let threads = if threads == 0 { DEFAULT_THREADS } else { threads };
        let sums = Mutex::new(Vec::new());
        let start = || Summer { checkpoint: self, open: None, buffer: Vec::new() };
        let work = |summer: &mut Summer<'_>, chunk: Chunk, control: &Control| {
            let crc = summer.crc32c(chunk)?;
            sums.lock().unwrap_or_else(PoisonError::into_inner).push((chunk, crc));
            control.add_bytes(chunk.2 as u64);
            Ok(())
        };
        pool::run(threads, pool::singly(self.chunks()), control, start, work)?;
        let mut sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        sums.sort_unstable();
        let mut joined = vec![0; self.tensors().len()];
        for ((tensor, _, len), crc) in sums {
            joined[tensor] = crc32c::crc32c_combine(joined[tensor], crc, len);
        }
        Ok(joined)
    }

    fn chunks(&self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        for (tensor, located) in self.tensors().values().enumerate() {
            let mut start = located.file_range.start;
            while start < located.file_range.end {
                let len = CHUNK_BYTES.min(located.file_range.end - start);
                chunks.push((tensor, start, usize::try_from(len).expect("at most a chunk")));
                start += len;
            }
        }
        chunks
    }
}

/// One thread's state: the shard it has open, and memory for a chunk.
struct Summer<'a> {
    checkpoint: &'a Checkpoint,
    open: Option<(usize, Box<dyn ShardReader>)>,
    buffer: Vec<u8>,
}

impl Summer<'_> {
    fn crc32c(&mut self, (tensor, offset, len): Chunk) -> Result<u32> {
        let shard = self.checkpoint.tensor(tensor).1.shard;
        let backend: &dyn Backend = backend(Io::Auto);
        let reader = match &mut self.open {
            Some((position, reader)) if *position == shard => reader,
            open => {
                let reader = backend.open(&self.checkpoint.shards()[shard])?;
                &mut open.insert((shard, reader)).1
            }
        };
        let read = grow(&mut self.buffer, len)
            .and_then(|()| reader.read(offset, &mut [Dest::from_slice(&mut self.buffer[..len])]));
        read.map_err(|error| self.checkpoint.read_error(shard, offset, error))?;
        Ok(crc32c::crc32c(&self.buffer[..len]))
    }
}
