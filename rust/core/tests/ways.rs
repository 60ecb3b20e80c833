//! Which way each shard is read and why, what is told of it, and what stays in the page cache.
//!
//! The kernel may let go of a cached page at any time, so nothing here counts on all of them.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]
#![cfg(target_os = "linux")]

mod builders;

use builders::{naive_read, sizes, write_checkpoint};
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use windlass_core::read::Reason;
use windlass_core::sys::file::disable_read_ahead;
use windlass_core::sys::file_system::FileSystem;
use windlass_core::sys::residency::{drop_cached, missing_ranges, resident_bytes};
use windlass_core::{BlockReader, Cache, Checkpoint, Control, Dest, Io, Job, Mapping, Place};
use windlass_core::{ReadOptions, ReadStats, Strictness, Way};

const EVERY_IO: [Io; 5] = [Io::Auto, Io::Mapped, Io::Buffered, Io::Direct, Io::Uring];
const MIB: usize = 1 << 20;

struct Fixture {
    folder: TempDir,
    checkpoint: Checkpoint,
}

impl Fixture {
    /// Shards `a`, `b`, … of one tensor each, nothing of which is in the page cache. `None` where
    /// files are nowhere else.
    fn cold(tensor_lens: &[usize]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c"];
        let shards =
            names.iter().zip(tensor_lens).map(|(&name, &len)| (name, sizes(name, 1, &[len])));
        let index = write_checkpoint(folder.path(), &shards.collect::<Vec<_>>());
        let checkpoint =
            Checkpoint::open_index(&index, Strictness::Strict, &Control::default()).unwrap();
        let fixture = Self { folder, checkpoint };
        let shards = &names[..tensor_lens.len()];
        if FileSystem::of(&fixture.open(shards[0])) == FileSystem::Memory {
            return None;
        }
        for _ in 0..10 {
            for shard in shards {
                let file = fixture.open(shard);
                file.sync_all().unwrap();
                drop_cached(&file, &(0..1 << 40));
            }
            if shards.iter().all(|shard| fixture.resident(shard) == 0) {
                return Some(fixture);
            }
        }
        panic!("the files stay in the page cache");
    }

    fn open(&self, shard: &str) -> File {
        File::open(self.folder.path().join(shard)).unwrap()
    }

    fn resident(&self, shard: &str) -> u64 {
        let file = self.open(shard);
        resident_bytes(&file, &(0..file.metadata().unwrap().len())).unwrap()
    }

    /// Reads a range of a file the plain way, and nothing around it.
    fn warm(&self, shard: &str, offset: u64, len: usize) {
        let file = self.open(shard);
        disable_read_ahead(&file);
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut vec![0; len], offset).unwrap();
    }

    /// Reads every tensor, and makes sure of its bytes.
    fn read(&self, options: &ReadOptions) -> ReadStats {
        let len = |tensor| {
            let range = &self.checkpoint.tensor(tensor).1.file_range;
            usize::try_from(range.end - range.start).unwrap()
        };
        let count = self.checkpoint.tensors().len();
        let mut memory: Vec<Vec<u8>> = (0..count).map(|tensor| vec![0; len(tensor)]).collect();
        let job =
            |(tensor, memory)| Job { tensor, start: 0, dest: Dest::from_slice(memory).into() };
        let jobs = memory.iter_mut().map(Vec::as_mut_slice).enumerate().map(job).collect();
        let stats = self.checkpoint.read_into(jobs, options, &Control::default()).unwrap();
        for ((name, tensor), bytes) in self.checkpoint.tensors().iter().zip(&memory) {
            let missing = missing_of(self, tensor.shard);
            let shard = &self.checkpoint.shards()[tensor.shard];
            assert!(naive_read(&shard.path)[name] == *bytes, "{name}, {options:?}");
            // Looking at the file has changed what the tests look at.
            for range in missing {
                drop_cached(&self.open(&shard.name), &range);
            }
        }
        stats
    }
}

/// What of a shard is not in the page cache.
fn missing_of(fixture: &Fixture, shard: usize) -> Vec<Range<u64>> {
    missing_ranges(&fixture.open(&fixture.checkpoint.shards()[shard].name), &(0..1 << 40)).unwrap()
}

/// What was missing before is missing still.
fn assert_nothing_new(fixture: &Fixture, shard: usize, before: &[Range<u64>]) {
    let now = missing_of(fixture, shard);
    let is_missing =
        |range: &Range<u64>| now.iter().any(|now| now.start <= range.start && range.end <= now.end);
    assert!(before.iter().all(is_missing), "missing before: {before:?}, now: {now:?}");
}

fn by(io: Io, cache: Cache) -> ReadOptions {
    ReadOptions { io, cache, ..ReadOptions::default() }
}

fn way(shard: usize, backend: &'static str, reason: Reason, bytes: usize) -> Way {
    Way { shard, backend, reason, bytes: bytes as u64 }
}

#[test]
fn what_is_asked_for_is_done_and_told_for_each_shard() {
    let Some(fixture) = Fixture::cold(&[5000, 0, 77]) else { return };
    for (io, backend) in
        [(Io::Mapped, "mapped"), (Io::Buffered, "buffered"), (Io::Direct, "direct")]
    {
        let stats = fixture.read(&by(io, Cache::Keep));
        assert_eq!(stats.backend, backend);
        let asked = Reason::Asked;
        assert_eq!(stats.ways, [way(0, backend, asked, 5000), way(2, backend, asked, 77)]);
    }
}

#[test]
fn little_is_read_without_a_look() {
    let Some(fixture) = Fixture::cold(&[5 * MIB, 5 * MIB]) else { return };
    let stats = fixture.read(&by(Io::Auto, Cache::Keep));
    assert_eq!(stats.backend, "buffered");
    assert!(stats.ways.iter().all(|way| way.reason == Reason::Little));
}

#[test]
fn each_shard_is_read_by_what_is_seen_of_it() {
    let Some(fixture) = Fixture::cold(&[10 * MIB, 10 * MIB]) else { return };
    fixture.warm("a", 0, 6 * MIB);
    let stats = fixture.read(&by(Io::Auto, Cache::Keep));
    let reasons: Vec<_> = stats.ways.iter().map(|way| way.reason).collect();
    assert_eq!(reasons, [Reason::Resident, Reason::Fits]);
    assert_eq!(stats.backend, "buffered");
}

#[test]
fn a_cold_shard_is_read_past_the_page_cache_when_no_trace_is_wanted() {
    let Some(fixture) = Fixture::cold(&[10 * MIB, 10 * MIB + 1]) else { return };
    fixture.warm("b", 0, 10 * MIB);
    let before = missing_of(&fixture, 1);
    let stats = fixture.read(&by(Io::Auto, Cache::Drop));
    assert_eq!(
        stats.ways,
        [
            way(0, "direct", Reason::LeavesNoTrace, 10 * MIB),
            way(1, "buffered", Reason::Resident, 10 * MIB + 1)
        ]
    );
    assert_eq!(stats.backend, "several");
    assert_eq!(fixture.resident("a"), 0);
    assert_nothing_new(&fixture, 1, &before);
    assert!(fixture.resident("b") > 9 * MIB as u64, "what others had cached stays");
}

/// Whether the system refused `io_uring`, which sandboxes do: then there is nothing to see.
fn is_refused(stats: &ReadStats) -> bool {
    stats.ways.iter().all(|way| matches!(way.reason, Reason::NoUring(_)))
}

#[test]
fn a_queue_reads_each_shard_as_would_be_chosen_without_one() {
    let Some(fixture) = Fixture::cold(&[10 * MIB, 10 * MIB + 1]) else { return };
    fixture.warm("b", 0, 10 * MIB);
    let stats = fixture.read(&by(Io::Uring, Cache::Drop));
    if is_refused(&stats) {
        return;
    }
    let ways = [
        way(0, "uring-direct", Reason::LeavesNoTrace, 10 * MIB),
        way(1, "uring", Reason::Resident, 10 * MIB + 1),
    ];
    assert_eq!((stats.ways.as_slice(), stats.backend), (&ways[..], "several"));
    assert_eq!(fixture.resident("a"), 0);
    assert!(fixture.resident("b") > 9 * MIB as u64, "what others had cached stays");
}

#[test]
fn a_queue_reads_little_through_the_page_cache() {
    let Some(fixture) = Fixture::cold(&[5000, 0, 77]) else { return };
    let stats = fixture.read(&by(Io::Uring, Cache::Keep));
    let little = Reason::Little;
    let expected = [way(0, "uring", little, 5000), way(2, "uring", little, 77)];
    assert!(is_refused(&stats) || stats.ways == expected, "{stats:?}");
}

#[test]
fn all_calls_of_a_load_use_queues_and_its_blocks_too() {
    let Some(fixture) = Fixture::cold(&[10 * MIB, 10 * MIB]) else { return };
    let options = by(Io::Uring, Cache::Keep);
    let ways = fixture.checkpoint.look(&[0, 1], &options);
    let expected = |tensor| way(tensor, "uring", Reason::Fits, 10 * MIB);
    for (tensor, threads) in [(0, 16), (1, 3)] {
        let options = ReadOptions { threads, ..options };
        let mut memory = vec![0; 10 * MIB];
        let jobs = vec![Job { tensor, start: 0, dest: Dest::from_slice(&mut memory).into() }];
        let stats = fixture.checkpoint.read_by(&ways, jobs, &options, &Control::default()).unwrap();
        assert!(is_refused(&stats) || stats.ways == [expected(tensor)], "{stats:?}");
    }
    let Some(fixture) = Fixture::cold(&[10 * MIB, 10 * MIB]) else { return };
    let Fixture { folder: _folder, checkpoint } = fixture;
    let reader = BlockReader::start(Arc::new(checkpoint), &[0, 1], 1 << 30, &options);
    for tensor in [0, 1] {
        reader.begin(&[Place { tensor, start: 0 }], Mapping::anonymous(10 * MIB).unwrap());
        while reader.take(Duration::from_secs(60)).unwrap().is_none() {}
    }
    let stats = reader.close();
    assert!(is_refused(&stats) || stats.ways == [expected(0), expected(1)], "{stats:?}");
}

#[test]
fn dropping_leaves_the_page_cache_as_it_was() {
    for io in EVERY_IO {
        let Some(fixture) = Fixture::cold(&[3 * MIB + 5]) else { return };
        fixture.read(&by(io, Cache::Drop));
        assert_eq!(fixture.resident("a"), 0, "{io:?}");
        fixture.warm("a", 1 << 20, 1);
        fixture.warm("a", (2 << 20) - 10_000, 50_000);
        let before = missing_of(&fixture, 0);
        fixture.read(&by(io, Cache::Drop));
        assert_nothing_new(&fixture, 0, &before);
    }
}

#[test]
fn keeping_leaves_what_was_read_in_the_page_cache() {
    for io in [Io::Auto, Io::Mapped, Io::Buffered, Io::Uring] {
        let Some(fixture) = Fixture::cold(&[3 * MIB]) else { return };
        fixture.read(&by(io, Cache::Keep));
        assert!(fixture.resident("a") > 2 * MIB as u64, "{io:?}");
    }
}

#[test]
fn direct_reads_bring_nothing_into_the_page_cache() {
    let Some(fixture) = Fixture::cold(&[3 * MIB + 5]) else { return };
    let stats = fixture.read(&by(Io::Direct, Cache::Keep));
    if stats.backend == "direct" {
        assert_eq!(fixture.resident("a"), 0);
    }
}

#[test]
fn what_is_read_by_several_calls_is_judged_together() {
    let Some(fixture) = Fixture::cold(&[10 * MIB, 10 * MIB]) else { return };
    let options = by(Io::Auto, Cache::Keep);
    let ways = fixture.checkpoint.look(&[0, 1], &options);
    for tensor in [0, 1] {
        let mut memory = vec![0; 10 * MIB];
        let jobs = vec![Job { tensor, start: 0, dest: Dest::from_slice(&mut memory).into() }];
        let stats = fixture.checkpoint.read_by(&ways, jobs, &options, &Control::default()).unwrap();
        assert_eq!(stats.ways, [way(tensor, "buffered", Reason::Fits, 10 * MIB)]);
    }
}

#[test]
fn many_threads_do_not_make_short_parts_of_a_long_one() {
    let Some(fixture) = Fixture::cold(&[20 * MIB]) else { return };
    let options = ReadOptions { threads: 1000, ..by(Io::Auto, Cache::Drop) };
    let stats = fixture.read(&options);
    assert_eq!(stats.ways, [way(0, "direct", Reason::LeavesNoTrace, 20 * MIB)]);
}
