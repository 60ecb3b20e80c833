//! Every way of reading, with a fault at every read and a cancellation in every phase: the right
//! error, no hang, and nobody writes to the memory afterwards.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]
#![cfg(unix)]

mod builders;

use builders::{naive_read, open_new, sizes};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tempfile::TempDir;
use windlass_core::plan::PlanOptions;
use windlass_core::read::{Backend, ShardReader, backend};
use windlass_core::{Cache, Checkpoint, Control, Dest, Error, Io, Job, ReadOptions, Result, Shard};
use windlass_core::{ReadStats, Strictness};

const EVERY_IO: [Io; 5] = [Io::Auto, Io::Mapped, Io::Buffered, Io::Direct, Io::Uring];
const TENSOR_LEN: usize = 10_000;
const TENSORS: usize = 6;
const CHUNKS: PlanOptions =
    PlanOptions { chunk_bytes: 4096, element_chunk_bytes: 4096, max_gap: 0, max_pieces: 1024 };

/// Two shards of three tensors.
struct Opened {
    _folder: TempDir,
    checkpoint: Checkpoint,
}

impl Opened {
    fn new() -> Self {
        let shard = |name| (name, sizes(name, TENSORS / 2, &[TENSOR_LEN]));
        let (folder, checkpoint) = open_new(&["a", "b"].map(shard));
        Self { _folder: folder, checkpoint }
    }

    /// Reads all tensors; returns the memory also after an error.
    fn read(&self, backend: &dyn Backend, threads: usize, control: &Control) -> (Memory, Outcome) {
        let mut memory = vec![vec![0xEE; TENSOR_LEN]; TENSORS];
        let options = ReadOptions { threads, plan: CHUNKS, ..ReadOptions::default() };
        let outcome = self.checkpoint.read_with(backend, jobs(&mut memory), &options, control);
        (memory, outcome)
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.checkpoint.shards().iter().map(|shard| shard.path.clone()).collect()
    }

    /// Whether every byte is the file's, or was never touched.
    fn is_partly_filled(&self, memory: &Memory) -> bool {
        self.agrees(memory, |memory, file| memory == file || memory == 0xEE)
    }

    fn is_filled(&self, memory: &Memory) -> bool {
        self.agrees(memory, |memory, file| memory == file)
    }

    fn agrees(&self, memory: &Memory, check: impl Fn(u8, u8) -> bool) -> bool {
        let shards: Vec<_> = self.paths().iter().map(|path| naive_read(path)).collect();
        let mut tensors = self.checkpoint.tensors().iter().zip(memory);
        tensors.all(|((name, tensor), memory)| {
            let file = &shards[tensor.shard][name];
            memory.iter().zip(file).all(|(&memory, &file)| check(memory, file))
        })
    }
}

type Memory = Vec<Vec<u8>>;
type Outcome = Result<ReadStats>;

fn jobs(memory: &mut [Vec<u8>]) -> Vec<Job<'_>> {
    let job = |(tensor, memory)| Job { tensor, start: 0, dest: Dest::from_slice(memory).into() };
    memory.iter_mut().map(Vec::as_mut_slice).enumerate().map(job).collect()
}

/// A real way of reading, of which one read does something before it begins.
struct AtRead {
    inner: &'static dyn Backend,
    plan: Arc<Plan>,
}

struct Plan {
    at: usize,
    count: AtomicUsize,
    act: Box<dyn Fn() -> io::Result<()> + Send + Sync>,
}

impl AtRead {
    fn new(io: Io, at: usize, act: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Self {
        let (count, act) = (AtomicUsize::new(0), Box::new(act));
        Self { inner: backend(io), plan: Arc::new(Plan { at, count, act }) }
    }

    /// Whether the read came that was waited for.
    fn came(&self) -> bool {
        self.plan.count.load(Ordering::SeqCst) > self.plan.at
    }
}

impl Backend for AtRead {
    fn name(&self) -> &'static str {
        "at read"
    }

    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>> {
        Ok(Box::new(Reader { inner: self.inner.open(shard)?, plan: Arc::clone(&self.plan) }))
    }
}

struct Reader {
    inner: Box<dyn ShardReader>,
    plan: Arc<Plan>,
}

impl ShardReader for Reader {
    fn read(&mut self, offset: u64, dests: &mut [Dest<'_>]) -> io::Result<()> {
        if self.plan.count.fetch_add(1, Ordering::SeqCst) == self.plan.at {
            (self.plan.act)()?;
        }
        self.inner.read(offset, dests)
    }
}

/// Every way, with one thread and with several, and something that happens at every read.
fn at_every_read(check: impl Fn(&Opened, Io, usize, usize) -> bool) {
    let opened = Opened::new();
    for io in EVERY_IO {
        for threads in [1, 3] {
            let reads = (0..1000).take_while(|&at| check(&opened, io, threads, at)).count();
            assert!((TENSORS..1000).contains(&reads), "{io:?}: {reads} reads");
        }
    }
}

#[test]
fn a_disk_that_fails_at_any_read_is_named_with_file_and_tensor() {
    at_every_read(|opened, io, threads, at| {
        let failing = AtRead::new(io, at, || Err(io::Error::from_raw_os_error(libc::EIO)));
        let (memory, outcome) = opened.read(&failing, threads, &Control::default());
        assert!(opened.is_partly_filled(&memory), "{io:?}, {at}");
        if !failing.came() {
            assert!(outcome.is_ok());
            return false;
        }
        let Error::Io { path, tensor, action, source } = outcome.unwrap_err() else {
            panic!("{io:?}, {at}: another error");
        };
        let shard = path.file_name().unwrap().to_str().unwrap();
        assert!(opened.paths().contains(&path));
        assert!(tensor.is_some_and(|tensor| tensor.starts_with(shard)), "{io:?}, {at}");
        assert_eq!((action, source.raw_os_error()), ("reading", Some(libc::EIO)));
        true
    });
}

#[test]
fn a_thread_that_panics_at_any_read_is_an_error() {
    at_every_read(|opened, io, threads, at| {
        let panicking = AtRead::new(io, at, || panic!("a bug"));
        let (memory, outcome) = opened.read(&panicking, threads, &Control::default());
        assert!(opened.is_partly_filled(&memory), "{io:?}, {at}");
        if panicking.came() {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::Panicked { message } if message == "a bug"));
        } else {
            assert!(outcome.is_ok());
        }
        panicking.came()
    });
}

#[test]
fn a_load_that_is_cancelled_at_any_read_begins_no_other() {
    at_every_read(|opened, io, threads, at| {
        let control = Arc::new(Control::default());
        let cancelled = Arc::clone(&control);
        let cancelling = AtRead::new(io, at, move || {
            cancelled.cancel();
            Ok(())
        });
        let (memory, outcome) = opened.read(&cancelling, threads, &control);
        assert!(opened.is_partly_filled(&memory), "{io:?}, {at}");
        let begun = cancelling.plan.count.load(Ordering::SeqCst);
        assert!(begun <= at + threads.max(1), "{io:?}: {begun} reads, cancelled at {at}");
        // Cancelled at its last read, a load may be complete.
        let is_cancelled = matches!(outcome, Err(Error::Cancelled));
        assert!(is_cancelled || opened.is_filled(&memory), "{io:?}, {at}");
        cancelling.came()
    });
}

/// One tensor, which has bytes to read and no blocks on the disk.
fn hole(len: usize) -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let header = format!(r#"{{"x":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
    std::fs::write(&path, builders::file_bytes(&header, &[])).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len((8 + header.len() + len) as u64).unwrap();
    let checkpoint = Checkpoint::open_file(&path, Strictness::Reference).unwrap();
    (folder, checkpoint)
}

#[test]
fn a_load_that_is_cancelled_in_any_phase_ends_and_leaves_the_memory_alone() {
    const LEN: usize = 20 << 20;
    let (_folder, checkpoint) = hole(LEN);
    let untouched = vec![vec![0xEE; LEN]];
    let mut memory = untouched.clone();
    for io in EVERY_IO {
        for cache in [Cache::Keep, Cache::Drop] {
            for after in [0, 1, LEN as u64 / 2, LEN as u64 - 1] {
                let (control, options) =
                    (Control::default(), ReadOptions { io, cache, ..ReadOptions::default() });
                let outcome = thread::scope(|scope| {
                    scope.spawn(|| {
                        while control.bytes() < after {
                            thread::yield_now();
                        }
                        control.cancel();
                    });
                    checkpoint.read_into(jobs(&mut memory), &options, &control)
                });
                match outcome {
                    Ok(stats) => assert_eq!(stats.bytes, LEN as u64),
                    Err(error) => assert!(matches!(error, Error::Cancelled), "{io:?}: {error}"),
                }
                // Whoever still wrote zeros here would be seen.
                memory[0].fill(0xEE);
                assert!(memory == untouched, "{io:?}, {cache:?}, {after}");
            }
        }
    }
}
