//! Reads by `io_uring`: each thread has several under way, of the shard that it is at.
//!
//! Through the page cache they go straight to their destinations; what is cast, scattered or thrown
//! away, and all that is read past the page cache, goes to memory of the queue first. Whatever the
//! queue does not carry out is read again without it, and that also says what is wrong. Where there is
//! no queue to be had, all is read without one, and [`ReadStats`](super::ReadStats) says so.

mod run;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]
#[allow(clippy::single_range_in_vec_init, reason = "a list of ranges may have one")]
mod tests;

use super::choose::{NoUring, Reason};
use super::direct::DirectFile;
use super::positional::OpenFile;
use super::reads::{FailedRead, Reads};
use super::{Backend, Cache, DEFAULT_THREADS, Io, ReadOptions, ShardReader};
use crate::checkpoint::Shard;
use crate::error;
use crate::plan::PlanOptions;
use crate::sys::dest::Dest;
use crate::sys::direct::MOST_BLOCK_BYTES;
use crate::sys::file::{disable_read_ahead, reopen};
use crate::sys::uring::Ring;
use run::through_queue;
use std::fs::File;
use std::io;
use std::mem;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// What all threads together have under way, as for other backends.
const ALL_BYTES: usize = 32 << 20;

/// Most reads that one thread has under way.
const MOST_SLOTS: usize = 16;

/// Longest read.
const MOST_SLOT_BYTES: usize = 512 << 10;

/// Reads that one of so many threads has under way, and how long they are at most.
fn depth(threads: usize) -> (usize, usize) {
    let share = (ALL_BYTES / threads).max(MOST_BLOCK_BYTES);
    let slot_bytes = MOST_SLOT_BYTES.min(1 << (share / 2).max(MOST_BLOCK_BYTES).ilog2());
    ((share / slot_bytes).min(MOST_SLOTS), slot_bytes)
}

fn fitting(options: &PlanOptions, threads: usize) -> PlanOptions {
    options.in_blocks(MOST_BLOCK_BYTES as u64, depth(threads).1 as u64)
}

/// The queues of one load, for all of its calls.
#[derive(Clone, Debug)]
pub(super) struct Uring {
    rings: Arc<Rings>,
}

impl Uring {
    /// Makes a first queue, to see whether there are any.
    pub(super) fn start(options: &ReadOptions) -> Result<Self, NoUring> {
        let rings = Arc::new(Rings::default());
        rings.give_back(rings.take(depth(options.reader_threads()))?);
        Ok(Self { rings })
    }

    /// Chunks that reads past the page cache can take in one go.
    #[allow(clippy::unused_self, reason = "without queues there is nothing to fit")]
    pub(super) fn fitting(&self, options: &ReadOptions) -> PlanOptions {
        fitting(&options.plan, options.reader_threads())
    }

    /// The backend that reads past the page cache, or the one that does not.
    pub(super) fn backend(&self, io: Io, options: &ReadOptions) -> Box<dyn Backend + Send> {
        Box::new(ByQueue {
            direct: io == Io::Direct,
            read_ahead: options.cache == Cache::Keep,
            depth: depth(options.reader_threads()),
            rings: Some(Arc::clone(&self.rings)),
        })
    }
}

/// A backend that has no queues in store: each reader makes its own.
pub(super) fn lone() -> &'static dyn Backend {
    static LONE: LazyLock<ByQueue> = LazyLock::new(|| ByQueue {
        direct: false,
        read_ahead: true,
        depth: depth(DEFAULT_THREADS),
        rings: None,
    });
    &*LONE
}

/// Queues that no reader uses at the moment.
#[derive(Debug, Default)]
struct Rings {
    idle: Mutex<Vec<Ring>>,
}

impl Rings {
    /// A queue of that depth: calls of one load may differ in their threads.
    fn take(&self, depth: (usize, usize)) -> Result<Ring, NoUring> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |ring: &Ring| (ring.slots(), ring.slot_bytes()) == depth;
        let found = idle.iter().position(fits).map(|position| idle.swap_remove(position));
        drop(idle);
        found.map_or_else(|| new_ring(depth), Ok)
    }

    fn give_back(&self, ring: Ring) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(ring);
    }
}

fn new_ring((slots, slot_bytes): (usize, usize)) -> Result<Ring, NoUring> {
    let refused = |error: io::Error| NoUring::Refused(error.raw_os_error().unwrap_or(libc::ENOSYS));
    Ring::new(slots, slot_bytes).map_err(refused)
}

struct ByQueue {
    direct: bool,
    read_ahead: bool,
    depth: (usize, usize),
    rings: Option<Arc<Rings>>,
}

impl Backend for ByQueue {
    fn name(&self) -> &'static str {
        if self.direct { "uring-direct" } else { "uring" }
    }

    fn open(&self, shard: &Shard) -> error::Result<Box<dyn ShardReader>> {
        let file = reopen(&shard.path, &shard.identity)?;
        let ring = match &self.rings {
            Some(rings) => rings.take(self.depth),
            None => new_ring(self.depth),
        };
        let plain = Plain::of(file, self.direct, self.read_ahead);
        let (direct, rings) = (self.direct, self.rings.clone());
        Ok(Box::new(QueueFile { plain, direct, ring, rings }))
    }
}

/// The reader of one read at a time.
enum Plain {
    Buffered(OpenFile),
    Direct(DirectFile),
}

impl Plain {
    fn of(file: File, direct: bool, read_ahead: bool) -> Self {
        if direct {
            return Self::Direct(DirectFile::of(file));
        }
        if !read_ahead {
            disable_read_ahead(&file);
        }
        Self::Buffered(OpenFile(file))
    }

    fn file(&self) -> &File {
        match self {
            Self::Buffered(OpenFile(file)) => file,
            Self::Direct(reader) => &reader.file,
        }
    }

    /// Size of the blocks that are read past the page cache; `None`: it is not gone past.
    fn block(&self) -> Option<usize> {
        match self {
            Self::Buffered(_) => None,
            Self::Direct(reader) => reader.block,
        }
    }

    fn reader(&mut self) -> &mut dyn ShardReader {
        match self {
            Self::Buffered(reader) => reader,
            Self::Direct(reader) => reader,
        }
    }
}

/// An open file, and the queue that it is read by.
struct QueueFile {
    plain: Plain,
    /// Whether it was to be read past the page cache.
    direct: bool,
    ring: Result<Ring, NoUring>,
    rings: Option<Arc<Rings>>,
}

impl ShardReader for QueueFile {
    /// Without the queue: one read has nothing to be under way beside.
    fn read(&mut self, offset: u64, dests: &mut [Dest<'_>]) -> io::Result<()> {
        self.plain.reader().read(offset, dests)
    }

    fn read_all(&mut self, reads: &mut Reads<'_, '_>) -> Result<(), FailedRead> {
        let left = match &mut self.ring {
            Ok(ring) if ring.is_usable() => through_queue(ring, &mut self.plain, reads)?,
            _ => Vec::new(),
        };
        for left in left {
            left.carry_out(reads, self.plain.reader())?;
        }
        // None, if there was a queue.
        reads.one_by_one(self.plain.reader())
    }

    fn instead(&self) -> Option<(&'static str, Reason)> {
        let through_cache = self.direct && self.plain.block().is_none();
        match self.ring {
            Ok(_) => through_cache.then_some(("uring", Reason::Refused)),
            Err(refusal) => {
                let backend = if self.plain.block().is_some() { "direct" } else { "buffered" };
                Some((backend, Reason::NoUring(refusal)))
            }
        }
    }

    /// Also of direct reads: some file systems take the request, and cache.
    fn file(&self) -> Option<&File> {
        Some(self.plain.file())
    }
}

impl Drop for QueueFile {
    fn drop(&mut self) {
        let ring = mem::replace(&mut self.ring, Err(NoUring::NotBuilt));
        if let (Ok(ring), Some(rings)) = (ring, &self.rings)
            && ring.is_usable()
        {
            rings.give_back(ring);
        }
    }
}
