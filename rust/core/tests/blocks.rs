//! Blocks that are read one after another by threads that stay: the bytes are those of the naive
//! reader, in the order in which blocks were begun.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::{Sizes, naive_read, sizes, write_checkpoint};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use windlass_core::plan::PlanOptions;
use windlass_core::{BlockReader, Cache, Checkpoint, Control, Error, Io, Mapping, Place};
use windlass_core::{ReadOptions, Source, Strictness};

const LONG: Duration = Duration::from_secs(60);

struct Fixture {
    folder: TempDir,
    checkpoint: Arc<Checkpoint>,
    expected: Vec<Vec<u8>>,
}

fn fixture(shards: &[(&str, Sizes)]) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let index = write_checkpoint(folder.path(), shards);
    let checkpoint =
        Checkpoint::open_index(&index, Strictness::Strict, &Control::default()).unwrap();
    let naive: Vec<_> = checkpoint.shards().iter().map(|shard| naive_read(&shard.path)).collect();
    let tensors = checkpoint.tensors().iter();
    let expected = tensors.map(|(name, tensor)| naive[tensor.shard][name].clone()).collect();
    Fixture { folder, checkpoint: Arc::new(checkpoint), expected }
}

impl Fixture {
    /// Tensors one after another, each so many bytes behind the last.
    fn begin(&self, reader: &BlockReader, tensors: &[usize], apart: usize) {
        let (mut places, mut end) = (Vec::new(), 0);
        for &tensor in tensors {
            places.push(Place { tensor, start: end });
            end += self.expected[tensor].len() + apart;
        }
        reader.begin(&places, Mapping::anonymous(end).unwrap());
    }

    fn assert_filled(&self, memory: &Mapping, tensors: &[usize], apart: usize) {
        let mut rest = memory.source();
        for &tensor in tensors {
            let expected = &self.expected[tensor];
            let found = rest.split_off_front(expected.len());
            assert_eq!(found.crc32c(), Source::from_slice(expected).crc32c(), "tensor {tensor}");
            let _ = rest.split_off_front(apart);
        }
    }
}

fn any_shards() -> impl Strategy<Value = Vec<Vec<usize>>> {
    vec(vec(prop_oneof![0..9_usize, 0..3000_usize], 1..12), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_come_in_order_with_the_bytes_of_the_naive_reader(
        lens in any_shards(),
        picks in vec(vec(any::<prop::sample::Index>(), 0..6), 0..8),
        chunk_bytes in 1..2000_u64,
        most_bytes in select(&[1_u64, 1000, 1 << 30][..]),
        io in select(&[Io::Auto, Io::Mapped, Io::Buffered, Io::Direct, Io::Uring][..]),
        cache in select(&[Cache::Keep, Cache::Drop][..]),
        threads in 0..5_usize,
        apart in 0..70_usize,
    ) {
        let names = ["a", "b", "c"];
        let shards = lens.iter().zip(names).map(|(lens, name)| (name, sizes(name, lens.len(), lens)));
        let fixture = fixture(&shards.collect::<Vec<_>>());
        let count = fixture.expected.len();
        let blocks: Vec<Vec<usize>> =
            picks.iter().map(|block| block.iter().map(|pick| pick.index(count)).collect()).collect();
        let plan = PlanOptions { chunk_bytes, ..PlanOptions::default() };
        let options = ReadOptions { threads, io, cache, plan, fresh: false };
        let checkpoint = Arc::clone(&fixture.checkpoint);
        let reader = BlockReader::start(checkpoint, &blocks.concat(), most_bytes, &options);
        let (first, rest) = blocks.split_at(blocks.len() / 2);
        for block in first {
            fixture.begin(&reader, block, apart);
        }
        for (position, block) in blocks.iter().enumerate() {
            if let Some(next) = rest.get(position) {
                fixture.begin(&reader, next, apart);
            }
            let memory = reader.take(LONG).unwrap().unwrap();
            fixture.assert_filled(&memory, block, apart);
        }
        let bytes: usize = blocks.concat().iter().map(|&tensor| fixture.expected[tensor].len()).sum();
        let stats = reader.close();
        prop_assert_eq!(stats.bytes, bytes as u64);
        prop_assert_eq!(stats.ways.iter().map(|way| way.bytes).sum::<u64>(), stats.bytes);
    }
}

#[test]
fn nothing_is_taken_where_nothing_was_begun() {
    let fixture = fixture(&[("a", sizes("t", 1, &[5]))]);
    let checkpoint = Arc::clone(&fixture.checkpoint);
    let reader = BlockReader::start(checkpoint, &[0], 1 << 20, &ReadOptions::default());
    assert!(reader.take(LONG).unwrap().is_none());
}

#[test]
fn an_error_belongs_to_its_block_and_those_before_are_whole() {
    let fixture = fixture(&[("a", sizes("t", 2, &[5000])), ("b", sizes("u", 1, &[5000]))]);
    let path = fixture.folder.path().join("b");
    fs::write(&path, fs::read(&path).unwrap()).unwrap();
    let checkpoint = Arc::clone(&fixture.checkpoint);
    let reader = BlockReader::start(checkpoint, &[0, 1, 2], 1 << 20, &ReadOptions::default());
    for block in [[0], [2], [1]] {
        fixture.begin(&reader, &block, 0);
    }
    fixture.assert_filled(&reader.take(LONG).unwrap().unwrap(), &[0], 0);
    assert!(matches!(reader.take(LONG), Err(Error::Replaced { path: found, .. }) if found == path));
    fixture.assert_filled(&reader.take(LONG).unwrap().unwrap(), &[1], 0);
}

#[test]
fn a_reader_that_is_dropped_leaves_what_it_had_begun() {
    let fixture = fixture(&[("a", sizes("t", 40, &[100_000]))]);
    let tensors: Vec<usize> = (0..40).collect();
    let checkpoint = Arc::clone(&fixture.checkpoint);
    let reader = BlockReader::start(checkpoint, &tensors, 1 << 20, &ReadOptions::default());
    fixture.begin(&reader, &tensors, 0);
    drop(reader);
    assert_eq!(Arc::strong_count(&fixture.checkpoint), 1, "threads are gone");
}
