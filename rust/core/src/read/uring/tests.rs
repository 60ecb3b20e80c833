//! Reads through a queue, and what they do where there is none, where the disk fails, where the
//! file ends, and where somebody panics. Where the system refuses `io_uring` there is nothing to see.

use super::*;
use crate::plan::{PlanOptions, Want, plan_reads};
use crate::read::job::{Job, JobDest};
use crate::read::ledger::Ledger;
use crate::read::pool::Control;
use crate::read::route::{Portion, Route};
use crate::read::task::{Task, tasks};
use std::io::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

const CHUNKS: PlanOptions =
    PlanOptions { chunk_bytes: 8192, element_chunk_bytes: 8192, max_gap: 64, max_pieces: 3000 };

fn reader(file: File, direct: bool) -> Option<QueueFile> {
    let ring = new_ring(depth(DEFAULT_THREADS));
    ring.is_ok().then(|| QueueFile {
        plain: Plain::of(file, direct, true),
        direct,
        ring,
        rings: None,
    })
}

/// A file of so many bytes, and these.
fn file(len: usize) -> (File, Vec<u8>) {
    let mut file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
    file.write_all(&bytes).unwrap();
    (file, bytes)
}

/// Reads ranges of a file; `each` is asked for each read whether it is to be carried out. Returns
/// what was read, and how many bytes were told of.
fn read_each(
    reader: &mut QueueFile,
    ranges: &[Range<u64>],
    options: &PlanOptions,
    each: impl FnMut(&Task<'_>) -> bool,
) -> (Result<Vec<Vec<u8>>, FailedRead>, u64) {
    let wants: Vec<_> = ranges
        .iter()
        .map(|range| Want { shard: 0, range: range.clone(), element_bytes: None })
        .collect();
    let plan = plan_reads(&wants, options);
    let len = |range: &Range<u64>| usize::try_from(range.end - range.start).unwrap();
    let mut memory: Vec<Vec<u8>> = ranges.iter().map(|range| vec![0xEE; len(range)]).collect();
    let portion = Portion::of_reads(&plan.reads, options.max_gap);
    let route = Route::new(portion, Box::new(lone()), Reason::Asked, Cache::Keep);
    let dest = |memory| Job { tensor: 0, start: 0, dest: Dest::from_slice(memory).into() };
    let jobs: Vec<_> = memory.iter_mut().map(Vec::as_mut_slice).map(dest).collect();
    let ledger = Ledger::of(&jobs, |_| 0);
    let dests: Vec<(usize, JobDest<'_>)> =
        jobs.into_iter().map(|job| job.dest).enumerate().collect();
    let (control, mut scratch) = (Control::default(), Vec::new());
    let mut tasks = tasks(plan, dests).into_iter().take_while(each);
    let mut reads = Reads::new(&mut tasks, &route, Some(&ledger), &control, &mut scratch);
    let outcome = reader.read_all(&mut reads);
    assert_eq!(route.way().bytes, control.bytes());
    assert!(outcome.is_err() || is_told_of(&ledger, ranges, control.bytes()));
    (outcome.map(|()| memory), control.bytes())
}

/// Whether a ledger says of as many bytes as were delivered that they arrived: all of the
/// destinations, if that is all bytes.
fn is_told_of(ledger: &Ledger, ranges: &[Range<u64>], delivered: u64) -> bool {
    let len = |job: usize| ranges[job].end - ranges[job].start;
    let touched = ledger.touched();
    let whole: u64 = touched.iter().filter(|one| one.whole).map(|one| len(one.job)).sum();
    let begun: u64 = touched.iter().map(|one| len(one.job)).sum();
    whole <= delivered && delivered <= begun
}

fn read(reader: &mut QueueFile, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, FailedRead> {
    let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let (outcome, told) = read_each(reader, ranges, &CHUNKS, |_| true);
    assert!(outcome.is_err() || told == wanted);
    outcome
}

fn naive(bytes: &[u8], ranges: &[Range<u64>]) -> Vec<Vec<u8>> {
    let at = |offset| usize::try_from(offset).unwrap();
    ranges.iter().map(|range| bytes[at(range.start)..at(range.end)].to_vec()).collect()
}

/// Ragged, with gaps that are read over and gaps that are not, and more pieces than one call takes.
fn ragged() -> Vec<Range<u64>> {
    let small = (0..1500).map(|i| 200_000 + 5 * i..200_000 + 5 * i + 3 + i % 3);
    [1..4095, 4100..50_000, 50_000..50_001, 60_000..150_000].into_iter().chain(small).collect()
}

#[test]
fn what_all_threads_have_under_way_is_bounded() {
    let rows = [
        // threads → reads of each, length
        (1, (16, 512 << 10)),
        (4, (16, 512 << 10)),
        (16, (4, 512 << 10)),
        (64, (2, 256 << 10)),
        (1024, (2, 16 << 10)),
        (1 << 20, (1, 4096)),
    ];
    for (threads, expected) in rows {
        assert_eq!(depth(threads), expected, "{threads}");
        let chunk = fitting(&PlanOptions::default(), threads).chunk_bytes;
        assert_eq!(chunk, expected.1 as u64, "{threads}");
    }
}

#[test]
fn through_the_page_cache_and_past_it_the_bytes_are_those_of_the_file() {
    for direct in [false, true] {
        let (file, bytes) = file(300_000);
        let Some(mut reader) = reader(file, direct) else { return };
        let ranges = ragged();
        assert!(read(&mut reader, &ranges).unwrap() == naive(&bytes, &ranges), "{direct}");
    }
}

#[test]
fn a_chunk_that_is_too_long_for_the_queue_is_read_without_it() {
    let (file, bytes) = file(3 << 20);
    let Some(mut reader) = reader(file, true) else { return };
    let (ranges, long) = ([5..3 << 20], PlanOptions::default());
    let (memory, _) = read_each(&mut reader, &ranges, &long, |_| true);
    assert!(memory.unwrap() == naive(&bytes, &ranges));
}

#[test]
fn of_several_places_where_the_disk_fails_the_first_is_told() {
    let memory = vec![7; 100_000];
    let whole = memory.as_ptr() as u64..memory.as_ptr() as u64 + 100_000;
    // Nothing is ever mapped there.
    let (low, high) = (4096..90_000, 1 << 62..(1 << 62) + 90_000);
    // Memory as a file: what is not mapped cannot be read.
    let open = || reader(File::open("/proc/self/mem").unwrap(), false);
    let Some(mut reader) = open() else { return };
    assert!(read(&mut reader, std::slice::from_ref(&whole)).unwrap() == [memory.clone()]);
    let rows = [
        ([low.clone(), whole.clone()], low.start),
        ([whole, high.clone()], high.start),
        ([high, low.clone()], low.start),
    ];
    for (ranges, expected) in rows {
        let FailedRead { offset, error } = read(&mut reader, &ranges).unwrap_err();
        assert_eq!((offset, error.raw_os_error()), (expected, Some(libc::EIO)));
    }
    drop(memory);
}

#[test]
fn a_file_that_ends_early_says_so() {
    for direct in [false, true] {
        let (file, _) = file(50_000);
        let Some(mut reader) = reader(file, direct) else { return };
        for end in [50_001, 60_000, 90_000] {
            let failed = read(&mut reader, &[100..3000, 7000..end]).unwrap_err();
            assert_eq!(failed.error.kind(), io::ErrorKind::UnexpectedEof, "{direct}, {end}");
        }
    }
}

/// Files of `/proc` know no direct reads, on any kernel.
#[test]
fn where_direct_reads_are_refused_the_queue_goes_through_the_page_cache() {
    let path = "/proc/self/status";
    let expected = std::fs::read(path).unwrap();
    let Some(mut reader) = reader(File::open(path).unwrap(), true) else { return };
    assert_eq!(read(&mut reader, std::slice::from_ref(&(3..23))).unwrap(), [&expected[3..23]]);
    assert_eq!(reader.instead(), Some(("uring", Reason::Refused)));
}

#[test]
fn a_direct_read_that_the_disk_refuses_goes_on_through_the_page_cache() {
    let (file, bytes) = file(300_000);
    let Some(mut reader) = reader(file, true) else { return };
    if let Plain::Direct(direct) = &mut reader.plain {
        direct.block = Some(1); // What no disk takes.
    }
    let ranges = ragged();
    for _ in 0..2 {
        assert!(read(&mut reader, &ranges).unwrap() == naive(&bytes, &ranges));
    }
}

#[test]
fn without_a_queue_the_bytes_are_the_same_and_it_is_told_why() {
    for (direct, backend) in [(false, "buffered"), (true, "direct")] {
        let (file, bytes) = file(300_000);
        let (plain, ring) = (Plain::of(file, direct, true), Err(NoUring::Refused(libc::EPERM)));
        let mut reader = QueueFile { plain, direct, ring, rings: None };
        let ranges = ragged();
        assert!(read(&mut reader, &ranges).unwrap() == naive(&bytes, &ranges));
        let (found, reason) = reader.instead().unwrap();
        // A file system may refuse direct reads as well.
        assert!(found == backend || found == "buffered", "{found}");
        let text = "io_uring was refused: Operation not permitted (os error 1)";
        assert_eq!(reason.to_string(), text);
    }
}

#[test]
fn a_panic_while_reads_are_under_way_leaves_a_reader_that_works() {
    for direct in [false, true] {
        for at in [0, 1, 7, 16, 17, 25] {
            let (file, bytes) = file(300_000);
            let Some(mut reader) = reader(file, direct) else { return };
            let (ranges, mut count) = ([11..290_000], 0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                read_each(&mut reader, &ranges, &CHUNKS, |_| {
                    count += 1;
                    assert!(count <= at, "a bug");
                    true
                })
            }));
            assert!(outcome.is_err(), "{direct}, {at}");
            assert!(read(&mut reader, &ranges).unwrap() == naive(&bytes, &ranges));
        }
    }
}

#[test]
fn what_was_begun_before_the_end_is_delivered() {
    for direct in [false, true] {
        for count in [0, 1, 16, 20] {
            let (file, _) = file(300_000);
            let Some(mut reader) = reader(file, direct) else { return };
            let (mut left, range) = (count, 0..299_008);
            let each = |_: &Task<'_>| {
                left -= 1;
                left >= 0
            };
            let (outcome, told) = read_each(&mut reader, &[range], &CHUNKS, each);
            assert!(outcome.is_ok());
            assert_eq!(told, 8192 * u64::try_from(count).unwrap(), "{direct}");
        }
    }
}

#[test]
fn a_queue_is_used_again_by_the_next_reader() {
    let options = ReadOptions { threads: 4, ..ReadOptions::default() };
    let Ok(Uring { rings }) = Uring::start(&options) else { return };
    let idle = || rings.idle.lock().unwrap().len();
    assert_eq!(idle(), 1);
    for direct in [false, true] {
        let (file, bytes) = file(300_000);
        let (plain, ring) = (Plain::of(file, direct, true), rings.take(depth(4)));
        let mut reader = QueueFile { plain, direct, ring, rings: Some(Arc::clone(&rings)) };
        assert_eq!(idle(), 0);
        let ranges = ragged();
        assert!(read(&mut reader, &ranges).unwrap() == naive(&bytes, &ranges));
        drop(reader);
        assert_eq!(idle(), 1);
    }
    let other = rings.take(depth(64)).unwrap();
    assert_eq!((other.slots(), other.slot_bytes(), idle()), (2, 256 << 10, 1));
}
