//! [`BlockReader`]: blocks of tensors, read one after another into memory by threads that go on
//! to the next block while the last one is not done yet.

use super::job::JobDest;
use super::pool::{Control, caught, start_free_thread};
use super::route::{Route, Way};
use super::spare::Spare;
use super::task::{STRETCH_BYTES, Share, Task, stretches};
use super::worker::Worker;
use super::{Io, ReadOptions, ReadStats, common_backend};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::plan::{PlanOptions, Read, Target, Want, plan_reads};
use crate::sys::block::{Filling, Part};
use crate::sys::mmap::Mapping;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Reads blocks until it is dropped, which ends what is being read.
pub struct BlockReader {
    shared: Arc<Shared>,
    spare: Arc<Spare>,
    threads: Vec<JoinHandle<()>>,
    thread_count: usize,
    io: Io,
}

/// A tensor of a block: its position in the checkpoint, and where it begins in the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Position of the tensor.
    pub tensor: usize,
    /// First byte within the memory of the block.
    pub start: usize,
}

struct Shared {
    checkpoint: Arc<Checkpoint>,
    routes: Vec<Route<'static>>,
    plan: PlanOptions,
    stretch_bytes: u64,
    control: Control,
    reads: AtomicUsize,
    queue: Mutex<Queue>,
    /// Something was added to the queue, or it was closed.
    begun: Condvar,
    /// The last stretch of a block was read, or one of them failed.
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    stretches: VecDeque<Stretch>,
    /// Blocks that were begun and not taken, by number.
    blocks: VecDeque<Block>,
    /// Number of the first of them.
    first: usize,
    is_closed: bool,
}

struct Block {
    memory: Filling,
    /// Stretches that are not read yet.
    left: usize,
    failure: Option<Error>,
}

/// Neighbouring reads of a block that one thread carries out.
struct Stretch {
    block: usize,
    reads: Vec<OwnedRead>,
}

/// A read, and the memory that it fills; `None` stands for a gap.
struct OwnedRead {
    shard: usize,
    offset: u64,
    pieces: Vec<(usize, Option<Part>)>,
}

impl BlockReader {
    /// A reader for these tensors, which are judged together: the way that they are read, and what
    /// they leave in the page cache. What is read at a time is no more than half of `most_bytes`,
    /// unless a block is larger.
    #[must_use]
    pub fn start(
        checkpoint: Arc<Checkpoint>,
        tensors: &[usize],
        most_bytes: u64,
        options: &ReadOptions,
    ) -> Self {
        let ways = checkpoint.look(tensors, options);
        let (plan, bytes) = (ways.means().fitting(options), ways.read_bytes());
        let reads = usize::try_from(bytes.div_ceil(plan.chunk_bytes)).unwrap_or(usize::MAX);
        let threads = options.reader_threads().min(reads);
        let stretch_bytes =
            (bytes.min(most_bytes) / (2 * threads.max(1) as u64)).min(STRETCH_BYTES);
        let shared = Arc::new(Shared {
            routes: ways.routes(options),
            checkpoint,
            plan,
            stretch_bytes,
            control: Control::default(),
            reads: AtomicUsize::new(0),
            queue: Mutex::default(),
            begun: Condvar::new(),
            done: Condvar::new(),
        });
        let start = |_| {
            let shared = Arc::clone(&shared);
            start_free_thread(move || shared.work())
        };
        let threads: Vec<_> = (0..threads).map_while(start).collect();
        let thread_count = threads.len().max(1);
        let spare = Arc::new(Spare::new(most_bytes));
        Self { shared, spare, threads, thread_count, io: ways.means().io }
    }

    /// Memory for a block, which may have been that of another one.
    ///
    /// # Errors
    /// What the system says.
    pub fn memory(&self, len: usize) -> io::Result<Mapping> {
        self.spare.take(len)
    }

    /// Where the memory of a block is given back to when nobody looks into it any more.
    #[must_use]
    pub fn spare(&self) -> &Arc<Spare> {
        &self.spare
    }

    /// Has a block read into memory of its own, after those that were begun before.
    ///
    /// # Panics
    /// When the places are not in the order of the memory, apart from each other, or not within it;
    /// or a tensor is none that the reader was started for.
    pub fn begin(&self, places: &[Place], memory: Mapping) {
        memory.prefer_huge_pages();
        let (memory, reads) = self.shared.plan_block(places, Part::whole(memory));
        let mut queue = self.shared.lock();
        let block = queue.first + queue.blocks.len();
        let place = |read: &OwnedRead| (read.shard, read.offset);
        let stretches = stretches(reads, self.shared.stretch_bytes, place);
        queue.blocks.push_back(Block { memory, left: stretches.len(), failure: None });
        queue.stretches.extend(stretches.into_iter().map(|reads| Stretch { block, reads }));
        self.shared.begun.notify_all();
    }

    /// The memory of the block that was begun first of those not taken yet; `None` when it is not
    /// read before so much time has passed, or there is none.
    ///
    /// # Errors
    /// The first error that one of its reads met.
    pub fn take(&self, patience: Duration) -> Result<Option<Mapping>> {
        if self.threads.is_empty() {
            self.shared.drain(); // The system had no thread left.
        }
        let is_open = |queue: &mut Queue| queue.blocks.front().is_some_and(Block::is_open);
        let queue = self.shared.lock();
        let waited = self.shared.done.wait_timeout_while(queue, patience, is_open);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if is_open(&mut queue) {
            return Ok(None);
        }
        let Some(block) = queue.blocks.pop_front() else { return Ok(None) };
        queue.first += 1;
        drop(queue);
        match block.failure {
            Some(failure) => Err(failure),
            None => Ok(block.memory.into_filled()), // All stretches are read, and gone.
        }
    }

    /// What it reads from.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.shared.checkpoint
    }

    /// Ends what is being read, and says what was.
    #[must_use]
    pub fn close(mut self) -> ReadStats {
        self.stop();
        let ways = self.shared.routes.iter().map(Route::way);
        let ways: Vec<Way> = ways.filter(|way| way.bytes > 0).collect();
        ReadStats {
            bytes: self.shared.control.bytes(),
            reads: self.shared.reads.load(Ordering::Relaxed),
            threads: self.thread_count,
            backend: common_backend(&ways, self.io),
            ways,
        }
    }

    fn stop(&mut self) {
        self.shared.control.cancel();
        {
            let mut queue = self.shared.lock();
            queue.is_closed = true;
            queue.stretches.clear();
        }
        self.shared.begun.notify_all();
        for thread in self.threads.drain(..) {
            // What a thread panics with has been made an error of its block.
            drop(thread.join());
        }
    }
}

impl Drop for BlockReader {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan_block(&self, places: &[Place], mut rest: Part) -> (Filling, Vec<OwnedRead>) {
        let memory = rest.memory();
        let (mut wants, mut parts, mut end) = (Vec::new(), Vec::new(), 0);
        for place in places {
            let tensor = self.checkpoint.tensor(place.tensor).1;
            let range = tensor.file_range.clone();
            let len = usize::try_from(range.end - range.start).expect("less than the memory");
            let gap = place.start.checked_sub(end).expect("places in the order of the memory");
            drop(rest.split_off_front(gap));
            parts.push(rest.split_off_front(len));
            end = place.start + len;
            wants.push(Want { shard: tensor.shard, range, element_bytes: None });
        }
        drop(rest);
        let own = |read: Read| {
            let pieces = read.pieces.into_iter().map(|piece| {
                let len = usize::try_from(piece.len).expect("no piece is longer than a chunk");
                match piece.target {
                    Target::Gap => (len, None),
                    Target::Want(position) => (len, Some(parts[position].split_off_front(len))),
                }
            });
            OwnedRead { shard: read.shard, offset: read.offset, pieces: pieces.collect() }
        };
        (memory, plan_reads(&wants, &self.plan).reads.into_iter().map(own).collect())
    }

    /// Reads stretches until the queue is closed.
    fn work(&self) {
        let mut worker = Worker::new(&self.checkpoint, &self.routes, None);
        while let Some(stretch) = self.wait_for_stretch() {
            self.read(&mut worker, stretch);
        }
    }

    /// Reads all stretches that are there.
    fn drain(&self) {
        let mut worker = Worker::new(&self.checkpoint, &self.routes, None);
        loop {
            let Some(stretch) = self.lock().stretches.pop_front() else { return };
            self.read(&mut worker, stretch);
        }
    }

    fn wait_for_stretch(&self) -> Option<Stretch> {
        let is_idle = |queue: &mut Queue| queue.stretches.is_empty() && !queue.is_closed;
        let waited = self.begun.wait_while(self.lock(), is_idle);
        waited.unwrap_or_else(PoisonError::into_inner).stretches.pop_front()
    }

    fn read<'a>(&'a self, worker: &mut Worker<'a>, stretch: Stretch) {
        let Stretch { block, reads } = stretch;
        worker.check_shard();
        let is_over = || self.control.is_cancelled() || self.lock().has_failed(block);
        let read_all = || {
            let mut reads = reads; // What is read into is gone when this ends, and not before.
            let tasks = reads.iter_mut().take_while(|_| !is_over()).map(|read| {
                self.reads.fetch_add(1, Ordering::Relaxed);
                read.task()
            });
            worker.run(tasks, &self.control)
        };
        let outcome = caught(read_all);
        self.lock().finish(block, outcome);
        self.done.notify_all();
    }
}

impl Queue {
    /// `None` when it was taken.
    fn block(&mut self, number: usize) -> Option<&mut Block> {
        self.blocks.get_mut(number.checked_sub(self.first)?)
    }

    fn has_failed(&mut self, number: usize) -> bool {
        self.block(number).is_none_or(|block| block.failure.is_some())
    }

    fn finish(&mut self, number: usize, outcome: Result<()>) {
        if let Some(block) = self.block(number) {
            block.left -= 1;
            block.failure = block.failure.take().or(outcome.err());
        }
    }
}

impl Block {
    fn is_open(&self) -> bool {
        self.left > 0 && self.failure.is_none()
    }
}

impl OwnedRead {
    fn task(&mut self) -> Task<'_> {
        let pieces = self.pieces.iter_mut().map(|(len, part)| {
            // Nobody asks which part of a block was filled: memory of a failed one is let go.
            Share { len: *len, dest: part.as_mut().map(|part| (0, JobDest::from(part.dest()))) }
        });
        Task { shard: self.shard, offset: self.offset, pieces: pieces.collect() }
    }
}
