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
mod ledger;
mod look;
mod mapped;
pub mod pool;
mod positional;
mod route;

pub use choose::Reason;
pub use cuts::{Cut, CutJob};
pub use job::{ElementsDest, Job, JobDest};
pub use ledger::{Ledger, Touched};
pub use pool::Control;
pub use route::Way;

use crate::checkpoint::{Checkpoint, Located, Shard};
use crate::error::{Error, Result};
use crate::plan::{Piece, PlanOptions, Read, ReadPlan, Target, Want, plan_reads};
use crate::sys::dest::Dest;
use crate::sys::memory::{check_room, grow};
use crate::sys::source::Source;
use route::{Route, portions};
use std::fs::File;
use std::io;
use std::sync::Arc;

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

    /// Whether the system refused to read this way, so that another one was taken.
    fn is_refused(&self) -> bool {
        false
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
        check_room(jobs.len().saturating_mul(PLAN_BYTES))
            .map_err(|error| Error::io(self.path(), "planning a read", error))?;
        let plan = match options.io {
            Io::Auto | Io::Direct => direct::fitting(&options.plan, options.reader_threads()),
            Io::Mapped | Io::Buffered => options.plan,
        };
        let plan = self.plan(&jobs, &plan)?;
        let portions = portions(&plan);
        let ways = look::choose_ways(self, &portions, options);
        let route = |(portion, (io, reason))| {
            Route::new(portion, backend_leaving(io, options.cache), reason)
        };
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
        let ledger = Arc::new(Ledger::of(&jobs));
        control.keep(Arc::clone(&ledger));
        let start = || Worker::new(self, &routes, &ledger);
        let stretch = (bytes / (2 * threads as u64)).min(STRETCH_BYTES);
        pool::run(threads, stretches(tasks(plan, jobs), stretch), control, start, Worker::run)?;
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

/// A thread reads this much of a file from front to back before it goes elsewhere, if that leaves
/// two such stretches to every thread: then the kernel sees it coming, and reads ahead in large
/// requests into large pages.
///
/// Measured on 2 cores with 2.2 GB, cold, 16 threads, medians of 5 rounds: 2.1 s where every read of
/// 2 MiB went to the next thread and read-ahead was off; with it, 2.1 s in stretches of 8 MiB, 1.4 s
/// of 16, 1.2 s of 32, 1.8 s of 64.
const STRETCH_BYTES: u64 = 32 << 20;

/// Groups neighbouring reads of a shard to stretches of at most about that many bytes.
fn stretches(tasks: Vec<Task<'_>>, most_bytes: u64) -> Vec<Vec<Task<'_>>> {
    let mut stretches: Vec<Vec<Task<'_>>> = Vec::new();
    for task in tasks {
        match stretches.last_mut() {
            Some(open)
                if open[0].shard == task.shard && task.offset - open[0].offset < most_bytes =>
            {
                open.push(task);
            }
            _ => stretches.push(vec![task]),
        }
    }
    stretches
}

/// Memory that a plan takes for each job, about.
const PLAN_BYTES: usize = 512;

/// A read together with the memory it fills.
struct Task<'a> {
    shard: usize,
    offset: u64,
    pieces: Vec<Place<'a>>,
}

/// Bytes of a read, and the job and the memory that they are for; none of a gap.
struct Place<'a> {
    len: usize,
    dest: Option<(usize, JobDest<'a>)>,
}

/// Deals the destinations out to the reads of the plan.
fn tasks(plan: ReadPlan, jobs: Vec<Job<'_>>) -> Vec<Task<'_>> {
    let mut dests: Vec<JobDest<'_>> = jobs.into_iter().map(|job| job.dest).collect();
    plan.reads.into_iter().map(|read| task(read, &mut dests)).collect()
}

fn task<'a>(read: Read, dests: &mut [JobDest<'a>]) -> Task<'a> {
    let deal = |piece: Piece| {
        let len = usize::try_from(piece.len).expect("no piece is longer than a chunk");
        let dest = match piece.target {
            Target::Gap => None,
            Target::Want(job) => Some((job, dests[job].split_off_front(len))),
        };
        Place { len, dest }
    };
    Task {
        shard: read.shard,
        offset: read.offset,
        pieces: read.pieces.into_iter().map(deal).collect(),
    }
}

/// One thread's state: the shard it has open, and memory for what is not read into place.
struct Worker<'a> {
    checkpoint: &'a Checkpoint,
    routes: &'a [Route<'a>],
    ledger: &'a Ledger,
    open: Option<(&'a Route<'a>, Box<dyn ShardReader>)>,
    scratch: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(checkpoint: &'a Checkpoint, routes: &'a [Route<'a>], ledger: &'a Ledger) -> Self {
        Self { checkpoint, routes, ledger, open: None, scratch: Vec::new() }
    }

    fn run(&mut self, task: Task<'_>, control: &Control) -> Result<()> {
        let (route, reader) = match &mut self.open {
            Some(open) if open.0.shard() == task.shard => open,
            open => open.insert(open_shard(self.checkpoint, self.routes, task.shard)?),
        };
        let (offset, wanted) = (task.offset, task.wanted());
        grow(&mut self.scratch, task.scratch_len())
            .map_err(|error| self.checkpoint.read_error(task.shard, offset, error))?;
        self.ledger.begin(&wanted);
        let (mut dests, held) = destinations(task.pieces, &mut self.scratch);
        let len = dests.iter().map(|dest| dest.len() as u64).sum::<u64>();
        let outcome = reader.read(offset, &mut dests);
        route.after(reader.as_ref(), offset..offset + len);
        outcome.map_err(|error| self.checkpoint.read_error(task.shard, offset, error))?;
        pass_on(held, &self.scratch);
        self.ledger.fill(&wanted);
        control.add_bytes(wanted.iter().map(|(_, len)| *len as u64).sum());
        Ok(())
    }
}

fn open_shard<'a>(
    checkpoint: &Checkpoint,
    routes: &'a [Route<'a>],
    shard: usize,
) -> Result<(&'a Route<'a>, Box<dyn ShardReader>)> {
    let route = routes.binary_search_by_key(&shard, Route::shard);
    let route = &routes[route.expect("a route for each shard of the plan")];
    Ok((route, route.backend.open(&checkpoint.shards()[shard])?))
}

impl Task<'_> {
    /// Jobs that want something of it, and how many bytes.
    fn wanted(&self) -> Vec<(usize, usize)> {
        let wanted = |place: &Place<'_>| place.dest.as_ref().map(|(job, _)| (*job, place.len));
        self.pieces.iter().filter_map(wanted).collect()
    }

    /// Bytes that are not read into place.
    fn scratch_len(&self) -> usize {
        let is_in_place = |place: &Place<'_>| matches!(place.dest, Some((_, JobDest::Bytes(_))));
        self.pieces.iter().filter(|place| !is_in_place(place)).map(|place| place.len).sum()
    }
}

/// Bytes that are read into scratch memory, and the elements that they become; none from a gap.
type Held<'a> = (usize, Option<ElementsDest<'a>>);

/// Where pieces are read to: into place, or one after another into `scratch`.
fn destinations<'a, 's>(
    pieces: Vec<Place<'a>>,
    scratch: &'s mut [u8],
) -> (Vec<Dest<'s>>, Vec<Held<'a>>)
where
    'a: 's,
{
    let (mut scratch, mut held) = (Dest::from_slice(scratch), Vec::new());
    let mut put_aside = |len, elements| {
        held.push((len, elements));
        scratch.split_off_front(len)
    };
    let place = |Place { len, dest }| match dest {
        Some((_, JobDest::Bytes(dest))) => dest,
        Some((_, JobDest::Elements(elements))) => put_aside(len, Some(elements)),
        None => put_aside(len, None),
    };
    let dests = pieces.into_iter().map(place).collect();
    (dests, held)
}

/// Converts what was read into scratch memory.
fn pass_on(held: Vec<Held<'_>>, scratch: &[u8]) {
    let mut scratch = Source::from_slice(scratch);
    for (len, elements) in held {
        let bytes = scratch.split_off_front(len);
        if let Some(elements) = elements {
            elements.fill(bytes);
        }
    }
}
