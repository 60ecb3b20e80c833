//! Carries out a [`ReadPlan`]: bytes of shards into memory of the caller.
//!
//! A [`Backend`] knows one way of getting bytes out of a file; everything else (threads, errors,
//! cancellation, progress) is the same for all and lives in [`pool`]. All backends give the same
//! bytes. Which one is best, [`choose`] says for each shard; which one it was and why, [`ReadStats`].
//! Elements that are cast or scattered are read into memory of the worker first.

mod agenda;
pub mod choose;
mod cuts;
mod direct;
mod job;
mod ledger;
mod look;
mod mapped;
mod means;
pub mod pool;
mod positional;
mod prefetch;
mod reads;
mod route;
mod rows;
mod spare;
mod stream;
mod task;
#[cfg(all(feature = "uring", target_os = "linux"))]
mod uring;
#[cfg(not(all(feature = "uring", target_os = "linux")))]
#[path = "no_uring.rs"]
mod uring;
mod worker;

pub use choose::{NoUring, Reason};
pub use cuts::{Cut, CutJob};
pub use job::{ElementsDest, Job, JobDest};
pub use ledger::{Ledger, Touched};
pub use look::Ways;
pub use pool::Control;
pub use prefetch::{Ahead, Prefetch};
pub use reads::{FailedRead, Reads};
pub use route::Way;
pub use rows::RowsDest;
pub use spare::Spare;
pub use stream::{BlockReader, Place};

use crate::checkpoint::{Checkpoint, Located, Shard};
use crate::error::Result;
use crate::plan::{PlanOptions, ReadPlan, Want, plan_reads};
use crate::sys::dest::Dest;
use crate::sys::huge_pages::HugePages;
use agenda::{Agenda, Group};
use means::Means;
use pool::Tasks;
use route::{Portion, Route};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use task::{STRETCH_BYTES, Task};
use worker::Worker;

/// Which way bytes are fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// What [`choose`](choose::choose) says of each shard.
    #[default]
    Auto,
    /// Copied out of a memory map.
    Mapped,
    /// Read at a position through the page cache.
    Buffered,
    /// Read around the page cache; where the system refuses, as [`Io::Buffered`].
    Direct,
    /// As [`choose`](choose::choose) says of each shard, but with several reads of each thread under
    /// way at a time (`io_uring`); where the system refuses that, as [`Io::Auto`].
    Uring,
}

/// What becomes of the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// It keeps what it likes of what was read.
    #[default]
    Keep,
    /// What was not in it before is taken out again.
    Drop,
}

/// How to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// Reader threads; 0 means [`DEFAULT_THREADS`].
    pub threads: usize,
    /// Which way.
    pub io: Io,
    /// What is left behind.
    pub cache: Cache,
    /// How to cut and merge.
    pub plan: PlanOptions,
    /// Whether the destinations were never touched: then they are had in huge pages, as far as the
    /// system has them at hand.
    ///
    /// 2.2 GB from the page cache into new tensors took 0.93 s without, and 0.50 s with huge pages
    /// (2 cores, medians of 8 rounds).
    pub fresh: bool,
}

impl ReadOptions {
    /// Most threads that will read.
    fn reader_threads(&self) -> usize {
        if self.threads == 0 { DEFAULT_THREADS } else { self.threads }
    }
}

/// Threads for reading when the caller names no number, whatever the number of cores: threads that
/// wait for the disk need none.
///
/// Measured on 2 cores with 2.2 GB, medians of 9 rounds: cold 2.4 s with 4 threads, 1.6 s with 8,
/// 1.4 s with 16, 1.3 s with 32; warm 0.40 s with 4, 0.35 s with 16.
pub const DEFAULT_THREADS: usize = 16;

/// What a read did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadStats {
    /// Bytes delivered.
    pub bytes: u64,
    /// Reads carried out.
    pub reads: usize,
    /// Threads that carried them out.
    pub threads: usize,
    /// The backend, if it was the same for all shards, or `"several"`.
    pub backend: &'static str,
    /// How each shard was read, and why.
    pub ways: Vec<Way>,
}

/// One way of getting bytes out of shard files.
pub trait Backend: Sync {
    /// The name that [`ReadStats`] gives.
    fn name(&self) -> &'static str;

    /// Opens a shard for one worker.
    ///
    /// # Errors
    /// Whatever opening meets, and [`Error::Replaced`](crate::Error::Replaced) when it is not the file
    /// whose header was read.
    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>>;
}

impl<B: Backend + ?Sized> Backend for &B {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>> {
        (**self).open(shard)
    }
}

/// A shard opened by one worker.
pub trait ShardReader {
    /// Fills `dests`, one after another, from `offset` of the file on.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::UnexpectedEof`] when the file ends first.
    fn read(&mut self, offset: u64, dests: &mut [Dest<'_>]) -> io::Result<()>;

    /// The bytes of a range where the reader has them after reading: then they need not be copied to
    /// other memory before they are converted. `None` where [`ShardReader::read`] is to be asked.
    ///
    /// # Errors
    /// Those of [`ShardReader::read`].
    fn lend(&mut self, range: &Range<u64>) -> io::Result<Option<&[u8]>> {
        let _ = range;
        Ok(None)
    }

    /// Carries out reads until there are no more: one after another, unless the reader can have
    /// several under way.
    ///
    /// # Errors
    /// Those of [`ShardReader::read`], with the place of the read.
    fn read_all(&mut self, reads: &mut Reads<'_, '_>) -> Result<(), FailedRead> {
        reads.one_by_one(self)
    }

    /// The backend that was taken instead, and why, where the system refused to read this way.
    fn instead(&self) -> Option<(&'static str, Reason)> {
        None
    }

    /// The file, as far as there is one: afterwards it is asked whether anybody has written to it, and
    /// what reading it brought into the page cache may be taken out again.
    fn file(&self) -> Option<&File> {
        None
    }
}

/// The backend of that name; without a look at the file, [`Io::Auto`] is [`Io::Buffered`].
#[must_use]
pub fn backend(io: Io) -> &'static dyn Backend {
    match io {
        Io::Auto | Io::Buffered => &positional::Positional { read_ahead: true },
        Io::Mapped => &mapped::Mapped { read_ahead: true },
        Io::Direct => &direct::Direct,
        Io::Uring => uring::lone(),
    }
}

/// The backend for a way of reading that leaves this behind.
fn backend_leaving(io: Io, cache: Cache) -> &'static dyn Backend {
    match (io, cache) {
        (Io::Mapped, Cache::Drop) => &mapped::Mapped { read_ahead: false },
        (Io::Auto | Io::Buffered, Cache::Drop) => &positional::Positional { read_ahead: false },
        _ => backend(io),
    }
}

impl Checkpoint {
    /// Plans reading of every tensor.
    #[must_use]
    pub fn plan_all(&self, options: &PlanOptions) -> ReadPlan {
        plan_reads(&self.tensors().values().map(whole).collect::<Vec<_>>(), options)
    }

    /// Fills every job's destination.
    ///
    /// # Errors
    /// The first error any worker met; destinations then hold an unspecified part of the bytes.
    pub fn read_into(
        &self,
        jobs: Vec<Job<'_>>,
        options: &ReadOptions,
        control: &Control,
    ) -> Result<ReadStats> {
        let means = Means::of(options);
        let agenda = self.agenda(jobs, means.fitting(options))?;
        let ways = self.choose_ways(agenda.portions().cloned().collect(), means, options);
        let options = ReadOptions { io: ways.means().io, ..*options };
        self.carry_out(agenda, &ways.routes(&options), &options, control)
    }

    /// The same by ways that were chosen before; those of `options` are not looked at.
    ///
    /// # Errors
    /// Those of [`Checkpoint::read_into`].
    pub fn read_by(
        &self,
        ways: &Ways,
        jobs: Vec<Job<'_>>,
        options: &ReadOptions,
        control: &Control,
    ) -> Result<ReadStats> {
        let options = &ReadOptions { io: ways.means().io, ..*options };
        let agenda = self.agenda(jobs, ways.means().fitting(options))?;
        let route = |portion: &Portion| ways.route(portion.clone(), options);
        let routes: Vec<_> = agenda.portions().map(route).collect();
        self.carry_out(agenda, &routes, options, control)
    }

    /// Fills every job's destination by a backend of the caller's; `options.io` is not looked at.
    ///
    /// # Errors
    /// Those of [`Checkpoint::read_into`].
    pub fn read_with(
        &self,
        backend: &dyn Backend,
        jobs: Vec<Job<'_>>,
        options: &ReadOptions,
        control: &Control,
    ) -> Result<ReadStats> {
        let agenda = self.agenda(jobs, options.plan)?;
        let by = |portion| Route::new(portion, Box::new(backend), Reason::Asked, options.cache);
        let route = |portion: &Portion| by(portion.clone());
        let routes: Vec<_> = agenda.portions().map(route).collect();
        self.carry_out(agenda, &routes, options, control)
    }

    fn carry_out(
        &self,
        agenda: Agenda<'_>,
        routes: &[Route<'_>],
        options: &ReadOptions,
        control: &Control,
    ) -> Result<ReadStats> {
        let threads = options.reader_threads().min(agenda.read_count()).max(1);
        let ledger = agenda.ledger();
        let huge_pages = options.fresh.then(|| HugePages::ask(agenda.dense_spans())).flatten();
        control.keep(Arc::clone(&ledger));
        let (groups, reads) = (agenda.into_groups(threads, STRETCH_BYTES), AtomicUsize::new(0));
        let start = || Worker::new(self, routes, Some(&ledger));
        let begin = |task: &Task<'_>| {
            reads.fetch_add(1, Ordering::Relaxed);
            if let Some(huge_pages) = &huge_pages {
                task.dense_spans().for_each(|span| huge_pages.make(span));
            }
        };
        let work = |worker: &mut Worker<'_>, tasks: Tasks<'_, Group<'_>>, control: &Control| {
            worker.run(tasks.inspect(begin), control)
        };
        pool::run_groups(threads, groups, control, start, work)?;
        let ways: Vec<Way> = routes.iter().map(Route::way).collect();
        let bytes = ways.iter().map(|way| way.bytes).sum();
        let backend = common_backend(&ways, options.io);
        Ok(ReadStats { bytes, reads: reads.into_inner(), threads, backend, ways })
    }
}

/// The bytes of a whole tensor.
fn whole(tensor: &Located) -> Want {
    Want { shard: tensor.shard, range: tensor.file_range.clone(), element_bytes: None }
}

/// The backend of all ways; where nothing was read, the one that would have been.
fn common_backend(ways: &[Way], io: Io) -> &'static str {
    let first = ways.first().map_or_else(|| backend(io).name(), |way| way.backend);
    if ways.iter().all(|way| way.backend == first) { first } else { "several" }
}
