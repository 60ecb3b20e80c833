//! Parts of tensors against elements that are picked one at a time; and what is read for them.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::{naive_read, sizes, write_checkpoint};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use windlass_core::plan::PlanOptions;
use windlass_core::read::{Backend, ShardReader, backend};
use windlass_core::{Cache, Checkpoint, Control, Cut, CutJob, Dest, Io, ReadOptions, Shard};
use windlass_core::{Error, Strictness};

/// Part of a tensor of elements of some size.
#[derive(Clone, Debug)]
struct Part {
    element_bytes: usize,
    dims: Vec<(usize, Cut)>,
}

impl Part {
    fn shape(&self) -> Vec<u64> {
        self.dims.iter().map(|&(len, _)| len as u64).collect()
    }

    fn cuts(&self) -> Vec<Cut> {
        self.dims.iter().map(|&(_, cut)| cut).collect()
    }

    fn tensor_len(&self) -> usize {
        self.dims.iter().map(|(len, _)| len).product::<usize>() * self.element_bytes
    }

    /// The wanted elements, by their bytes within the tensor.
    fn elements(&self) -> Vec<Range<usize>> {
        let mut starts = vec![0];
        for (len, cut) in &self.dims {
            let picked = |start: &usize| {
                let (start, cut) = (start * len, *cut);
                (0..cut.count)
                    .map(move |i| start + usize::try_from(cut.first + i * cut.step).unwrap())
            };
            starts = starts.iter().flat_map(picked).collect();
        }
        let size = self.element_bytes;
        starts.into_iter().map(|element| element * size..(element + 1) * size).collect()
    }
}

fn any_dim(lens: Range<usize>) -> impl Strategy<Value = (usize, Cut)> {
    let pick = (lens, 0..100_u64, 0..100_u64, prop_oneof![Just(1_u64), 1..5_u64, 1..60_u64]);
    pick.prop_map(|(len, first, count, step)| {
        let first = first % (len as u64 + 1);
        let most = (len as u64 - first).div_ceil(step);
        (len, Cut { first, count: count % (most + 1), step })
    })
}

fn any_part() -> impl Strategy<Value = Part> {
    let dims = prop_oneof![
        vec(any_dim(0..7), 0..4),
        (any_dim(1..90), any_dim(1..90)).prop_map(|(a, b)| vec![a, b]),
        (any_dim(1..9), any_dim(1..9), any_dim(1..300)).prop_map(|(a, b, c)| vec![a, b, c]),
    ];
    let element_bytes = select(&[1_usize, 2, 3, 4, 8, 16][..]);
    (element_bytes, dims).prop_map(|(element_bytes, dims)| Part { element_bytes, dims })
}

fn any_plan() -> impl Strategy<Value = PlanOptions> {
    let gap = prop_oneof![0..9_u64, 0..64_u64, 0..1000_u64];
    let plan = (1..600_u64, 1..600_u64, gap, 1..9_usize).prop_map(
        |(chunk_bytes, element_chunk_bytes, max_gap, max_pieces)| PlanOptions {
            chunk_bytes,
            element_chunk_bytes,
            max_gap,
            max_pieces,
        },
    );
    prop_oneof![plan, Just(PlanOptions::default())]
}

/// A file with a tensor for each part.
struct Fixture {
    folder: TempDir,
    checkpoint: Checkpoint,
}

impl Fixture {
    fn of(parts: &[Part]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lens: Vec<_> = parts.iter().map(Part::tensor_len).collect();
        let tensors = sizes("t", lens.len(), if lens.is_empty() { &[0] } else { &lens });
        let index = write_checkpoint(folder.path(), &[("a", tensors)]);
        let checkpoint =
            Checkpoint::open_index(&index, Strictness::Strict, &Control::default()).unwrap();
        Self { folder, checkpoint }
    }

    fn expected(&self, parts: &[Part]) -> Vec<Vec<u8>> {
        let naive = naive_read(&self.folder.path().join("a"));
        let picked = |(i, part): (usize, &Part)| {
            let bytes = &naive[&format!("t{i}")];
            part.elements().into_iter().flat_map(|element| &bytes[element]).copied().collect()
        };
        parts.iter().enumerate().map(picked).collect()
    }

    fn jobs<'a>(&self, parts: &[Part], memory: &'a mut [Vec<u8>]) -> Vec<CutJob<'a>> {
        let job = |((i, part), memory): ((usize, &Part), &'a mut Vec<u8>)| CutJob {
            tensor: self.checkpoint.position(&format!("t{i}")).unwrap(),
            shape: part.shape(),
            cuts: part.cuts(),
            dest: Dest::from_slice(memory),
        };
        parts.iter().enumerate().zip(memory).map(job).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parts_are_elements_that_are_picked_one_by_one(
        parts in vec(any_part(), 0..4),
        plan in any_plan(),
        io in select(&[Io::Auto, Io::Mapped, Io::Buffered, Io::Direct, Io::Uring][..]),
        cache in select(&[Cache::Keep, Cache::Drop][..]),
        threads in 0..5_usize,
        fresh in any::<bool>(),
    ) {
        let fixture = Fixture::of(&parts);
        let expected = fixture.expected(&parts);
        let mut memory: Vec<_> = expected.iter().map(|bytes| vec![0xEE; bytes.len()]).collect();
        let jobs = fixture.checkpoint.cut_jobs(fixture.jobs(&parts, &mut memory)).unwrap();
        let options = ReadOptions { threads, io, cache, plan, fresh };
        let control = Control::default();
        let stats = fixture.checkpoint.read_into(jobs, &options, &control).unwrap();
        let bytes = expected.iter().map(Vec::len).sum::<usize>() as u64;
        prop_assert_eq!(memory, expected);
        prop_assert_eq!((stats.bytes, control.bytes()), (bytes, bytes));
    }

    #[test]
    fn no_byte_is_read_twice_and_none_beyond_the_merge_gap(
        part in any_part(),
        plan in any_plan(),
        threads in 1..4_usize,
    ) {
        let parts = [part];
        let fixture = Fixture::of(&parts);
        let mut memory = fixture.expected(&parts);
        let jobs = fixture.checkpoint.cut_jobs(fixture.jobs(&parts, &mut memory)).unwrap();
        let watch = Watch::default();
        let options = ReadOptions { threads, plan, ..ReadOptions::default() };
        let stats =
            fixture.checkpoint.read_with(&watch, jobs, &options, &Control::default()).unwrap();

        let mut reads = watch.0.lock().unwrap().clone();
        prop_assert_eq!(stats.reads, reads.len());
        reads.sort_by_key(|read| read.start);
        prop_assert!(reads.windows(2).all(|pair| pair[0].end <= pair[1].start), "{:?}", reads);
        let wanted = wanted_ranges(&fixture.checkpoint, &parts[0]);
        for pair in wanted.windows(2) {
            let gap = pair[0].end..pair[1].start;
            let is_near = gap.end - gap.start <= plan.max_gap;
            let touched = reads.iter().any(|read| read.start < gap.end && gap.start < read.end);
            prop_assert!(is_near || !touched, "{gap:?} of {reads:?}");
        }
        let ends = |ranges: &[Range<u64>]| {
            ranges.first().map(|first| (first.start, ranges[ranges.len() - 1].end))
        };
        prop_assert_eq!(ends(&reads), ends(&wanted));
    }
}

/// The wanted bytes of a part of tensor `t0` within the file: runs, merged where they meet.
fn wanted_ranges(checkpoint: &Checkpoint, part: &Part) -> Vec<Range<u64>> {
    let start = checkpoint.tensor(checkpoint.position("t0").unwrap()).1.file_range.start;
    let mut wanted: Vec<Range<u64>> = Vec::new();
    for element in part.elements() {
        let range = start + element.start as u64..start + element.end as u64;
        match wanted.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => wanted.push(range),
        }
    }
    wanted
}

/// Which bytes of the file were read.
#[derive(Default)]
struct Watch(Arc<Mutex<Vec<Range<u64>>>>);

struct WatchedFile {
    file: Box<dyn ShardReader>,
    reads: Arc<Mutex<Vec<Range<u64>>>>,
}

impl Backend for Watch {
    fn name(&self) -> &'static str {
        "watched"
    }

    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>, Error> {
        let file = backend(Io::Buffered).open(shard)?;
        Ok(Box::new(WatchedFile { file, reads: Arc::clone(&self.0) }))
    }
}

impl ShardReader for WatchedFile {
    fn read(&mut self, offset: u64, dests: &mut [Dest<'_>]) -> io::Result<()> {
        let len: usize = dests.iter().map(Dest::len).sum();
        self.reads.lock().unwrap().push(offset..offset + len as u64);
        self.file.read(offset, dests)
    }
}

#[test]
fn rows_that_are_far_apart_are_one_read_each_and_near_ones_are_read_together() {
    let cut = |first, count, step| Cut { first, count, step };
    let rows = [
        // Columns of a wide matrix, of a narrow one, and of both: blocks of near rows, far apart.
        (vec![(30, cut(0, 30, 1)), (9000, cut(7, 5, 1))], 4096, 30),
        (vec![(3000, cut(0, 3000, 1)), (2, cut(1, 1, 1))], 4096, 1),
        (vec![(5, cut(0, 5, 1)), (50, cut(0, 10, 1)), (900, cut(3, 9, 1))], 4096, 5),
    ];
    for (dims, max_gap, reads) in rows {
        let parts = [Part { element_bytes: 1, dims }];
        let fixture = Fixture::of(&parts);
        let expected = fixture.expected(&parts);
        let mut memory = vec![vec![0; expected[0].len()]];
        let jobs = fixture.checkpoint.cut_jobs(fixture.jobs(&parts, &mut memory)).unwrap();
        let plan = PlanOptions { max_gap, ..PlanOptions::default() };
        let options = ReadOptions { plan, ..ReadOptions::default() };
        let stats = fixture.checkpoint.read_into(jobs, &options, &Control::default()).unwrap();
        assert_eq!((stats.reads, &memory), (reads, &expected), "{parts:?}");
    }
}
