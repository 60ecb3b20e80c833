//! Carries out a [`ReadPlan`]: bytes of shards into memory of the caller.
//!
//! A [`Backend`] knows one way of getting bytes out of a file; everything else (threads, errors,
//! cancellation, progress) is the same for all and lives in [`pool`]. All backends give the same
//! bytes. Which one is best, [`choose`] says for each shard; which one it was and why, [`ReadStats`].
//! Elements that are cast or scattered are read into memory of the worker first.

pub mod choose;
mod cuts;
mod direct;
mod job;
mod look;
mod mapped;
pub mod pool;
mod positional;
mod reads;
mod route;
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
pub use pool::Control;
pub use reads::{FailedRead, Reads};
pub use route::Way;

use crate::checkpoint::{Checkpoint, Located, Shard};
use crate::error::{Error, Result};
use crate::plan::{PlanOptions, ReadPlan, Want, plan_reads};
use crate::sys::dest::Dest;
use pool::Tasks;
use route::{Route, portions};
use std::fs::File;
use std::io;
use task::{stretches, tasks};
use uring::Uring;
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
    /// Whatever opening meets, and [`Error::Replaced`] when it is not the file whose header was read.
    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>>;
}

/// A shard opened by one worker.
pub trait ShardReader {
    /// Fills `dests`, one after another, from `offset` of the file on.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::UnexpectedEof`] when the file ends first.
    fn read(&mut self, offset: u64, dests: &mut [Dest<'_>]) -> io::Result<()>;

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

    /// The file, if reading it left its pages in the page cache.
    fn cached_file(&self) -> Option<&File> {
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
    /// Pairs names with destinations. Without `starts`, every destination takes its whole tensor
    /// and must have that size; with them, each takes its own length from that byte on.
    ///
    /// # Errors
    /// [`Error::TensorNotFound`], [`Error::DestinationSize`], [`Error::UnequalLists`], or
    /// [`Error::DestinationsOverlap`].
    pub fn jobs<'a>(
        &self,
        names: &[impl AsRef<str>],
        dests: Vec<impl Into<JobDest<'a>>>,
        starts: Option<&[u64]>,
    ) -> Result<Vec<Job<'a>>> {
        if names.len() != dests.len() || starts.is_some_and(|starts| starts.len() != names.len()) {
            let starts = starts.map(<[u64]>::len);
            return Err(Error::UnequalLists { names: names.len(), dests: dests.len(), starts });
        }
        let pair = |(i, (name, dest)): (usize, (_, _))| {
            let (name, dest): (&str, JobDest<'a>) = (AsRef::as_ref(name), Into::into(dest));
            let tensor = self.position(name)?;
            if starts.is_none() {
                check_whole(name, self.tensor(tensor).1, &dest)?;
            }
            Ok(Job { tensor, start: starts.map_or(0, |starts| starts[i]), dest })
        };
        let jobs: Vec<_> = names.iter().zip(dests).enumerate().map(pair).collect::<Result<_>>()?;
        self.refuse_overlap(jobs.iter().map(|job| (job.dest.span(), job.tensor)).collect())?;
        Ok(jobs)
    }

    /// Several threads fill the destinations, so no two may share memory: `spans` are first address
    /// and end of each, with the tensor. Strided tensors that lie in one another's gaps are refused
    /// as well; whoever has such fills them in turn.
    fn refuse_overlap(&self, mut spans: Vec<((usize, usize), usize)>) -> Result<()> {
        spans.retain(|((start, end), _)| start < end);
        spans.sort_unstable();
        let name = |tensor| self.tensor(tensor).0.to_owned();
        match spans.windows(2).find(|pair| pair[1].0.0 < pair[0].0.1) {
            None => Ok(()),
            Some(pair) => {
                Err(Error::DestinationsOverlap { first: name(pair[0].1), second: name(pair[1].1) })
            }
        }
    }

    /// Plans reading of every tensor.
    #[must_use]
    pub fn plan_all(&self, options: &PlanOptions) -> ReadPlan {
        let want = |tensor: &Located| Want {
            shard: tensor.shard,
            range: tensor.file_range.clone(),
            element_bytes: None,
        };
        plan_reads(&self.tensors().values().map(want).collect::<Vec<_>>(), options)
    }

    /// Plans reading of these jobs.
    ///
    /// # Errors
    /// [`Error::RangeOutside`] when a job wants more than its tensor has.
    pub fn plan(&self, jobs: &[Job<'_>], options: &PlanOptions) -> Result<ReadPlan> {
        let wants: Vec<Want> = jobs.iter().map(|job| self.want(job)).collect::<Result<_>>()?;
        Ok(plan_reads(&wants, options))
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
        let start = || Uring::start(options.reader_threads(), options.cache);
        match (options.io == Io::Uring).then(start).transpose() {
            Ok(uring) => self.read_as_chosen(uring.as_ref(), jobs, options, control),
            Err(refusal) => {
                let options = ReadOptions { io: Io::Auto, ..*options };
                let mut stats = self.read_as_chosen(None, jobs, &options, control)?;
                stats.ways.iter_mut().for_each(|way| way.reason = Reason::NoUring(refusal));
                Ok(stats)
            }
        }
    }

    fn read_as_chosen(
        &self,
        uring: Option<&Uring>,
        jobs: Vec<Job<'_>>,
        options: &ReadOptions,
        control: &Control,
    ) -> Result<ReadStats> {
        let plan = match options.io {
            Io::Auto | Io::Direct => direct::fitting(&options.plan, options.reader_threads()),
            Io::Uring => uring::fitting(&options.plan, options.reader_threads()),
            Io::Mapped | Io::Buffered => options.plan,
        };
        let plan = self.plan(&jobs, &plan)?;
        let portions = portions(&plan);
        let ways = look::choose_ways(self, &portions, options);
        let backend = |io| match uring {
            Some(uring) => uring.backend(io),
            None => backend_leaving(io, options.cache),
        };
        let route = |(portion, (io, reason))| Route::new(portion, backend(io), reason);
        let routes = portions.into_iter().zip(ways).map(route).collect();
        self.carry_out(plan, jobs, routes, options, control)
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
        let plan = self.plan(&jobs, &options.plan)?;
        let route = |portion| Route::new(portion, backend, Reason::Asked);
        let routes = portions(&plan).into_iter().map(route).collect();
        self.carry_out(plan, jobs, routes, options, control)
    }

    fn carry_out(
        &self,
        plan: ReadPlan,
        jobs: Vec<Job<'_>>,
        mut routes: Vec<Route<'_>>,
        options: &ReadOptions,
        control: &Control,
    ) -> Result<ReadStats> {
        if options.cache == Cache::Drop {
            for route in &mut routes {
                route.leave_no_trace(&self.shards()[route.shard()]);
            }
        }
        let (bytes, reads) = (plan.bytes, plan.reads.len());
        let threads = options.reader_threads().min(reads).max(1);
        let start = || Worker::new(self, &routes);
        let stretches = stretches(tasks(plan, jobs), bytes, threads);
        let work =
            |worker: &mut Worker<'_>, tasks: Tasks<'_, _>, control: &_| worker.run(tasks, control);
        pool::run_groups(threads, stretches, control, start, work)?;
        let ways: Vec<Way> = routes.into_iter().map(Route::into_way).collect();
        Ok(ReadStats { bytes, reads, threads, backend: common_backend(&ways, options.io), ways })
    }

    fn want(&self, job: &Job<'_>) -> Result<Want> {
        let (name, tensor) = self.tensor(job.tensor);
        let byte_len = tensor.file_range.end - tensor.file_range.start;
        let end = job.start.saturating_add(job.dest.len() as u64);
        if end > byte_len {
            let (tensor, start) = (name.to_owned(), job.start);
            return Err(Error::RangeOutside { tensor, start, end, byte_len });
        }
        let start = tensor.file_range.start;
        let range = start + job.start..start + end;
        let element_bytes = job.dest.element_bytes().map(|bytes| bytes as u64);
        Ok(Want { shard: tensor.shard, range, element_bytes })
    }
}

/// The backend of all ways; where nothing was read, the one that would have been.
fn common_backend(ways: &[Way], io: Io) -> &'static str {
    let first = ways.first().map_or_else(|| backend(io).name(), |way| way.backend);
    if ways.iter().all(|way| way.backend == first) { first } else { "several" }
}

fn check_whole(name: &str, tensor: &Located, dest: &JobDest<'_>) -> Result<()> {
    let expected = tensor.file_range.end - tensor.file_range.start;
    let found = dest.len() as u64;
    if expected == found {
        return Ok(());
    }
    Err(Error::DestinationSize { tensor: name.to_owned(), expected, found })
}
