//! One conformance suite for every way of reading: the bytes are those of `naive_read`.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::{Sizes, naive_read, sizes, write_checkpoint};
use tempfile::TempDir;
use windlass_core::Way;
use windlass_core::plan::PlanOptions;
use windlass_core::read::{Reason, backend};
use windlass_core::{Checkpoint, Control, Dest, Error, Io, Job, Located, ReadOptions, Strictness};

const EVERY_IO: [Io; 5] = [Io::Auto, Io::Mapped, Io::Buffered, Io::Direct, Io::Uring];

/// A checkpoint and the bytes of its tensors.
struct Fixture {
    _folder: TempDir,
    checkpoint: Checkpoint,
    expected: Vec<Vec<u8>>,
}

/// Bytes wanted of one tensor.
#[derive(Clone, Debug)]
struct Wanted {
    tensor: usize,
    start: usize,
    len: usize,
}

fn fixture(shards: &[(&str, Sizes)]) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let index = write_checkpoint(folder.path(), shards);
    let checkpoint =
        Checkpoint::open_index(&index, Strictness::Strict, &Control::default()).unwrap();
    let shards: Vec<_> = checkpoint.shards().iter().map(|shard| naive_read(&shard.path)).collect();
    let naive = |(name, tensor): (&String, &Located)| shards[tensor.shard][name].clone();
    let expected = checkpoint.tensors().iter().map(naive).collect();
    Fixture { _folder: folder, checkpoint, expected }
}

fn every_fixture() -> [(&'static str, Fixture); 5] {
    [
        ("more neighbours than one call takes", fixture(&[("a", sizes("t", 2500, &[1, 3, 8]))])),
        ("tensors of many chunks", fixture(&[("a", sizes("t", 3, &[9, 50_003]))])),
        ("tensors without bytes", fixture(&[("a", sizes("t", 9, &[0, 5, 0, 0]))])),
        ("nothing but empty tensors", fixture(&[("a", sizes("t", 2, &[0]))])),
        (
            "shards in subfolders",
            fixture(&[
                ("a.safetensors", sizes("a", 40, &[100, 0, 4097])),
                ("deep/er/b.safetensors", sizes("bb", 7, &[70_000])),
                ("deep/c.safetensors", sizes("ccc", 1, &[1])),
            ]),
        ),
    ]
}

impl Fixture {
    /// Ways of asking: all, backwards, with gaps, twice, and parts that begin within tensors.
    fn every_selection(&self) -> [(&'static str, Vec<Wanted>); 5] {
        let whole =
            |(tensor, bytes): (usize, &Vec<u8>)| Wanted { tensor, start: 0, len: bytes.len() };
        let all: Vec<Wanted> = self.expected.iter().enumerate().map(whole).collect();
        let part = |wanted: &Wanted| {
            let (start, len) = (wanted.len / 3, wanted.len / 2);
            Wanted { start, len, ..*wanted }
        };
        [
            ("backwards", all.iter().rev().cloned().collect()),
            ("every third", all.iter().step_by(3).cloned().collect()),
            ("each twice", [all.clone(), all.clone()].concat()),
            ("parts", all.iter().map(part).collect()),
            ("all", all),
        ]
    }

    fn naive(&self, wanted: &[Wanted]) -> Vec<Vec<u8>> {
        let slice =
            |wanted: &Wanted| self.expected[wanted.tensor][wanted.start..][..wanted.len].to_vec();
        wanted.iter().map(slice).collect()
    }

    fn read(&self, wanted: &[Wanted], options: &ReadOptions) -> Result<Vec<Vec<u8>>, Error> {
        let mut memory: Vec<Vec<u8>> = wanted.iter().map(|wanted| vec![0xEE; wanted.len]).collect();
        let control = Control::default();
        let stats = self.checkpoint.read_into(jobs(wanted, &mut memory), options, &control)?;
        let bytes: usize = wanted.iter().map(|wanted| wanted.len).sum();
        assert_eq!(stats.bytes, bytes as u64);
        assert_eq!(control.bytes(), bytes as u64, "progress ends at the bytes delivered");
        let refused = |way: &Way| matches!(way.reason, Reason::NoUring(_));
        let is_refused = options.io == Io::Uring && stats.ways.iter().all(refused);
        assert!(is_refused || stats.backend == backend(options.io).name(), "{stats:?}");
        assert!(stats.threads <= stats.reads.max(1), "{stats:?}");
        Ok(memory)
    }
}

fn jobs<'a>(wanted: &[Wanted], memory: &'a mut [Vec<u8>]) -> Vec<Job<'a>> {
    let job = |(wanted, memory): (&Wanted, &'a mut Vec<u8>)| Job {
        tensor: wanted.tensor,
        start: wanted.start as u64,
        dest: Dest::from_slice(memory).into(),
    };
    wanted.iter().zip(memory).map(job).collect()
}

fn every_way() -> impl Iterator<Item = ReadOptions> {
    let plans = [
        PlanOptions::default(),
        PlanOptions { max_pieces: usize::MAX, ..PlanOptions::default() },
        PlanOptions { chunk_bytes: 4096, max_gap: 0, max_pieces: 2, ..PlanOptions::default() },
        PlanOptions { chunk_bytes: 1000, max_gap: 8, max_pieces: 3, ..PlanOptions::default() },
    ];
    let ways = EVERY_IO.into_iter().flat_map(|io| [0, 1, 3].map(|threads| (io, threads)));
    ways.flat_map(move |(io, threads)| {
        plans.map(|plan| ReadOptions { threads, io, plan, ..ReadOptions::default() })
    })
}

#[test]
fn every_way_of_reading_gives_the_bytes_of_the_naive_reader() {
    for (name, fixture) in every_fixture() {
        for (selection, wanted) in fixture.every_selection() {
            for options in every_way() {
                let read = fixture.read(&wanted, &options).unwrap();
                let equal = read == fixture.naive(&wanted);
                assert!(equal, "{name}, {selection}, {options:?}");
            }
        }
    }
}

#[test]
fn tensors_larger_than_a_default_chunk_are_whole() {
    let fixture = fixture(&[("a", sizes("t", 2, &[1, (4 << 20) + 3]))]);
    for (selection, wanted) in fixture.every_selection() {
        for io in EVERY_IO {
            let read =
                fixture.read(&wanted, &ReadOptions { io, ..ReadOptions::default() }).unwrap();
            assert!(read == fixture.naive(&wanted), "{selection}, {io:?}");
        }
    }
}

#[test]
fn nothing_wanted_is_nothing_read() {
    let fixture = fixture(&[("a", sizes("t", 3, &[4]))]);
    for options in every_way() {
        assert_eq!(fixture.read(&[], &options).unwrap(), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn a_single_file_reads_as_an_index_of_one_shard_does() {
    let fixture = fixture(&[("a", sizes("t", 30, &[7, 0, 900]))]);
    let path = &fixture.checkpoint.shards()[0].path;
    let single = Checkpoint::open_file(path, Strictness::Strict).unwrap();
    assert_eq!(single.shards()[0].name, "a");
    assert_eq!(single.tensors().len(), 30);
    for (name, bytes) in fixture.checkpoint.tensors().keys().zip(&fixture.expected) {
        let mut memory = vec![0; bytes.len()];
        let jobs = single.jobs(&[name], vec![Dest::from_slice(&mut memory)], None).unwrap();
        single.read_into(jobs, &ReadOptions::default(), &Control::default()).unwrap();
        assert_eq!(&memory, bytes, "{name}");
    }
}

#[test]
fn a_range_beyond_its_tensor_is_refused_with_its_numbers() {
    let fixture = fixture(&[("a", sizes("t", 3, &[8]))]);
    for (start, len, expected_end) in [(0, 9, 9), (8, 1, 9), (1, 8, 9), (usize::MAX, 8, u64::MAX)] {
        for options in every_way() {
            let error = fixture.read(&[Wanted { tensor: 1, start, len }], &options).unwrap_err();
            let Error::RangeOutside { tensor, start: found, end, byte_len: 8 } = error else {
                panic!("{error}");
            };
            assert_eq!((tensor.as_str(), found, end), ("t1", start as u64, expected_end));
        }
    }
}

#[test]
fn jobs_that_do_not_pair_up_are_refused() {
    let fixture = fixture(&[("a", sizes("t", 3, &[8]))]);
    let mut memory = [0; 16];
    let mut try_jobs = |names: &[&str], dest_len: usize, starts: Option<&[u64]>| {
        let dest = Dest::from_slice(&mut memory[..dest_len]);
        fixture.checkpoint.jobs(names, vec![dest], starts).map(|jobs| jobs.len())
    };
    assert_eq!(try_jobs(&["t1"], 8, None).unwrap(), 1);
    assert_eq!(try_jobs(&["t1"], 3, Some(&[5])).unwrap(), 1);
    let error = try_jobs(&["t1"], 9, None).unwrap_err();
    assert_eq!(error.to_string(), "tensor `t1`: destination should have 8 bytes, has 9");
    let error = try_jobs(&["nowhere"], 8, None).unwrap_err();
    assert!(matches!(error, Error::TensorNotFound { tensor, .. } if tensor == "nowhere"));
    let error = try_jobs(&["t1", "t2"], 8, None).unwrap_err();
    assert!(matches!(error, Error::UnequalLists { names: 2, dests: 1, starts: None }));
    let error = try_jobs(&["t1"], 8, Some(&[])).unwrap_err();
    assert!(matches!(error, Error::UnequalLists { names: 1, dests: 1, starts: Some(0) }));
}

#[test]
fn a_cancelled_read_touches_nothing() {
    let fixture = fixture(&[("a", sizes("t", 3, &[8]))]);
    let control = Control::default();
    control.cancel();
    for options in every_way() {
        let mut memory = vec![vec![0xEE; 8]];
        let jobs = jobs(&[Wanted { tensor: 0, start: 0, len: 8 }], &mut memory);
        let error = fixture.checkpoint.read_into(jobs, &options, &control).unwrap_err();
        assert!(matches!(error, Error::Cancelled));
        assert_eq!(memory, [[0xEE; 8]]);
    }
    assert_eq!(control.bytes(), 0);
}
