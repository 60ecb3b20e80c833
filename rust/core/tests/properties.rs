//! Properties on generated inputs: headers survive being written and read, parsers never panic,
//! plans cover exactly what was asked, and the fast reader equals the naive one.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::{Sizes, naive_read, write_checkpoint};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index as Choice, select};
use windlass_core::ByName;
use windlass_core::header::{Header, Metadata, text_len};
use windlass_core::plan::{PlanOptions, Read, ReadPlan, Target, Want, plan_reads};
use windlass_core::tensor::byte_len;
use windlass_core::{Cache, Checkpoint, Control, Dest, Dtype, Index, Io, ReadOptions, Strictness};
use windlass_core::{Located, TensorInfo};

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Plain names, any Unicode, and what JSON must escape.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9.]{0,12}", any::<String>(), r#"["\\/\x00-\x1f\x7fé😀]{0,6}"#]
}

fn any_dtype_and_shape() -> impl Strategy<Value = (Dtype, Vec<u64>)> {
    let length = prop_oneof![0..5_u64, Just(1 << 20)];
    (select(Dtype::ALL), vec(length, 0..3)).prop_map(|(dtype, mut shape)| {
        if dtype.bits() < 8 {
            shape.push(4); // Four elements of 4 or 6 bits fill whole bytes.
        }
        (dtype, shape)
    })
}

fn any_header() -> impl Strategy<Value = Header> {
    let name = any_text().prop_filter("not a tensor's name", |name| name != "__metadata__");
    let tensors = vec((name, any_dtype_and_shape()), 0..8);
    let metadata = proptest::option::of(vec((any_text(), any_text()), 0..4));
    (tensors, metadata).prop_map(|(tensors, metadata)| {
        let mut header = Header { tensors: ByName::default(), metadata: None, data_start: 0 };
        header.metadata = metadata.map(Metadata::from_iter);
        let mut end = 0;
        for (name, (dtype, shape)) in tensors {
            if !header.tensors.contains_key(&name) {
                let start = end;
                end += byte_len(dtype, &shape).unwrap();
                header.tensors.insert(name, TensorInfo { dtype, shape, range: start..end });
            }
        }
        header
    })
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_header_that_is_written_reads_as_it_was(header in any_header()) {
        let bytes = header.encode();
        let data_start = bytes.len() as u64;
        let file_len = data_start + header.tensors.values().map(TensorInfo::byte_len).sum::<u64>();
        prop_assert_eq!(data_start % 8, 0);
        prop_assert_eq!(text_len(&bytes, file_len), Ok(data_start - 8));
        let read = Header::parse(&bytes[8..], file_len, Strictness::Strict).unwrap();
        prop_assert_eq!(&read, &Header { data_start, ..header.clone() });
        prop_assert!(read.tensors.values().is_sorted_by_key(|info| info.range.start));
        prop_assert!(read.metadata.iter().flatten().eq(header.metadata.iter().flatten()));
    }

    #[test]
    fn nothing_makes_a_parser_panic(
        text in prop_oneof![
            vec(any::<u8>(), 0..64),
            r#"([\[\]{}",:\\ud80-9]|"dtype"|"shape"|"data_offsets"|"U8"|"weight_map"){0,40}"#
                .prop_map(String::into_bytes),
        ],
        file_len in any::<u64>(),
    ) {
        let _ = text_len(&text, file_len);
        let _ = Header::parse(&text, file_len, Strictness::Strict);
        let _ = Index::parse(&text);
    }
}

fn any_plan_options() -> impl Strategy<Value = PlanOptions> {
    (1..600_u64, 1..600_u64, 0..64_u64, 1..9_usize).prop_map(
        |(chunk_bytes, element_chunk_bytes, max_gap, max_pieces)| PlanOptions {
            chunk_bytes,
            element_chunk_bytes,
            max_gap,
            max_pieces,
        },
    )
}

fn any_element_bytes() -> impl Strategy<Value = Option<u64>> {
    select(&[None, Some(1), Some(2), Some(4), Some(8)][..])
}

fn any_wants() -> impl Strategy<Value = Vec<Want>> {
    let want = (0..3_usize, 0..3000_u64, 0..90_u64, any_element_bytes()).prop_map(
        |(shard, start, len, element_bytes)| {
            let end = start + len * element_bytes.unwrap_or(8);
            Want { shard, range: start..end, element_bytes }
        },
    );
    vec(want, 0..24)
}

/// Wants that do not overlap, in the order of their bytes.
fn separate_wants() -> impl Strategy<Value = Vec<Want>> {
    vec((0..80_u64, 1..40_u64, any_element_bytes()), 0..24).prop_map(|gaps_and_lens| {
        let mut end = 0;
        let mut want = |(gap, len, element_bytes): (_, _, Option<u64>)| {
            let start = end + gap;
            end = start + len * element_bytes.unwrap_or(8);
            Want { shard: 0, range: start..end, element_bytes }
        };
        gaps_and_lens.into_iter().map(&mut want).collect()
    })
}

/// What each want gets, in the order of the plan: file offset and length of its pieces.
fn pieces_of_wants(plan: &ReadPlan, wants: &[Want]) -> Vec<Vec<(u64, u64)>> {
    let mut pieces = vec![Vec::new(); wants.len()];
    for read in &plan.reads {
        let mut offset = read.offset;
        for piece in &read.pieces {
            if let Target::Want(position) = piece.target {
                assert_eq!(read.shard, wants[position].shard);
                pieces[position].push((offset, piece.len));
            }
            offset += piece.len;
        }
    }
    pieces
}

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn a_plan_covers_exactly_what_was_asked(wants in any_wants(), options in any_plan_options()) {
        let plan = plan_reads(&wants, &options);
        for (want, pieces) in wants.iter().zip(pieces_of_wants(&plan, &wants)) {
            let mut next = want.range.start;
            for (offset, len) in pieces {
                prop_assert_eq!(offset, next);
                next += len;
            }
            prop_assert_eq!(next, want.range.end);
        }
        let wanted: u64 = wants.iter().map(|want| want.range.end - want.range.start).sum();
        prop_assert_eq!(plan.bytes, wanted);
    }

    #[test]
    fn a_plan_keeps_its_limits(wants in any_wants(), options in any_plan_options()) {
        let plan = plan_reads(&wants, &options);
        prop_assert!(plan.reads.is_sorted_by_key(|read| (read.shard, read.offset)));
        for read in &plan.reads {
            prop_assert!((1..=options.max_pieces).contains(&read.pieces.len()));
            prop_assert!(read.pieces.iter().all(|piece| piece.len > 0));
            let mut offset = read.offset;
            for piece in &read.pieces {
                if let Target::Want(position) = piece.target {
                    let want = &wants[position];
                    let element = want.element_bytes.unwrap_or(1);
                    let chunk = |offset| offset / chunk_bytes(want, &options);
                    prop_assert_eq!(chunk(offset), chunk(read.offset));
                    prop_assert_eq!(chunk(offset), chunk(offset + piece.len - element));
                    prop_assert_eq!((offset - want.range.start) % element, 0);
                    prop_assert_eq!(piece.len % element, 0);
                }
                offset += piece.len;
            }
            let gaps: Vec<bool> = read.pieces.iter().map(|p| p.target == Target::Gap).collect();
            prop_assert!(!gaps[0] && !gaps[gaps.len() - 1]);
            prop_assert!(!gaps.windows(2).any(|pair| pair == [true, true]));
            let gap = read.pieces.iter().filter(|piece| piece.target == Target::Gap);
            prop_assert!(gap.map(|piece| piece.len).all(|len| len <= options.max_gap));
        }
    }

    #[test]
    fn neighbours_share_a_read(wants in separate_wants(), options in any_plan_options()) {
        let options = PlanOptions { max_pieces: usize::MAX, ..options };
        let plan = plan_reads(&wants, &options);
        for pair in plan.reads.windows(2) {
            let end = pair[0].offset + pair[0].len();
            let far = pair[1].offset - end > options.max_gap;
            let Target::Want(position) = pair[1].pieces[0].target else { panic!("{pair:?}") };
            let chunk = |offset| offset / chunk_bytes(&wants[position], &options);
            prop_assert!(far || chunk(pair[0].offset) != chunk(pair[1].offset), "{pair:?}");
        }
    }
}

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn reads_of_bytes_in_blocks_stay_in_their_chunk_and_share_one_block_at_most(
        mut wants in separate_wants(),
        options in any_plan_options(),
        block in select(&[1_u64, 8, 64, 512][..]),
        most in 1..5000_u64,
    ) {
        for want in &mut wants {
            want.element_bytes = None;
        }
        let in_blocks = options.in_blocks(block, most);
        prop_assert_eq!(in_blocks.chunk_bytes % block, 0);
        prop_assert!(in_blocks.chunk_bytes <= most.max(block));
        prop_assert!(in_blocks.chunk_bytes >= options.chunk_bytes.min(most) / block * block);
        let plan = plan_reads(&wants, &in_blocks);
        let blocks = |read: &Read| (read.offset / block, (read.offset + read.len()).div_ceil(block));
        for read in &plan.reads {
            let (first, end) = blocks(read);
            prop_assert!((end - first) * block <= in_blocks.chunk_bytes);
        }
        for pair in plan.reads.windows(2) {
            prop_assert!(blocks(&pair[0]).1 <= blocks(&pair[1]).0 + 1, "{pair:?}");
        }
    }
}

fn chunk_bytes(want: &Want, options: &PlanOptions) -> u64 {
    match want.element_bytes {
        None => options.chunk_bytes,
        Some(_) => options.element_chunk_bytes,
    }
}

/// One to three shards of tensors of all kinds of sizes.
fn any_shards() -> impl Strategy<Value = Vec<(&'static str, Sizes)>> {
    vec(vec(prop_oneof![0..9_usize, 0..3000_usize], 1..12), 1..4).prop_map(|shards| {
        let name = |shard: usize, tensors: Vec<usize>| {
            let tensors = tensors.into_iter().enumerate();
            tensors.map(|(i, len)| (format!("s{shard}.t{i}"), len)).collect()
        };
        let names = ["c.safetensors", "a.safetensors", "b/d.safetensors"];
        shards.into_iter().zip(names).enumerate().map(|(i, (t, n))| (n, name(i, t))).collect()
    })
}

proptest! {
    #![proptest_config(cases(192))]

    #[test]
    fn the_fast_reader_equals_the_naive_one(
        shards in any_shards(),
        picks in vec((any::<Choice>(), 0..=8_usize, 0..=8_usize), 0..30),
        plan in any_plan_options(),
        io in select(&[Io::Auto, Io::Mapped, Io::Buffered, Io::Direct, Io::Uring][..]),
        cache in select(&[Cache::Keep, Cache::Drop][..]),
        threads in 0..5_usize,
        fresh in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let index = write_checkpoint(folder.path(), &shards);
        let checkpoint =
            Checkpoint::open_index(&index, Strictness::Strict, &Control::default()).unwrap();
        let naive: Vec<_> = checkpoint.shards().iter().map(|s| naive_read(&s.path)).collect();

        let (mut names, mut starts, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (choice, from, to) in picks {
            let (name, Located { shard, .. }) = choice.get(&entries(&checkpoint)).to_owned();
            let bytes = &naive[*shard][name];
            let part = bytes.len() * from.min(to) / 8..bytes.len() * from.max(to) / 8;
            names.push(name);
            starts.push(part.start as u64);
            expected.push(bytes[part].to_vec());
        }
        let mut memory: Vec<Vec<u8>> = expected.iter().map(|bytes| vec![0; bytes.len()]).collect();
        let dests = memory.iter_mut().map(|bytes| Dest::from_slice(bytes)).collect();
        let jobs = checkpoint.jobs(&names, dests, Some(&starts)).unwrap();
        let options = ReadOptions { threads, io, cache, plan, fresh };
        checkpoint.read_into(jobs, &options, &Control::default()).unwrap();
        prop_assert_eq!(memory, expected);
    }
}

fn entries(checkpoint: &Checkpoint) -> Vec<(&String, &Located)> {
    checkpoint.tensors().iter().collect()
}
