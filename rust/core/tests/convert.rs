//! Casts against torch's results, strided walks against one element at a time.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

mod builders;

use builders::strided::{
    PAIRS, Tensor, byte_size, gather_each, noise, pairs, random_bits, run, scatter_each, tensors,
};
use proptest::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use windlass_core::convert::{Layout, StridedDest, StridedSource, cast, gather, scatter};
use windlass_core::{Dest, Dtype, Source};

/// What torch makes of the inputs; `data/make_casts.py` says what they are.
const GOLDEN: &str = include_str!("data/casts.txt");
/// Number of 16-bit patterns.
const HALF: u64 = 65536;

fn integer(bits: u64, position: u64) -> u64 {
    let number = random_bits(bits, position) >> (64 - bits) >> (position % bits);
    let is_negative = (position / bits) % 2 == 1;
    if is_negative { number.wrapping_neg() } else { number }
}

fn single(position: u64) -> u64 {
    const BACKS: [u64; 8] = [0, 1, 0x1000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF];
    let random = random_bits(32, position.saturating_sub(8 * HALF));
    match position / HALF {
        block @ 0..8 => {
            let back = BACKS[usize::try_from(block).unwrap()];
            (position % HALF) << 16 | back
        }
        8 => random & 0xFFFF_FFFF,
        _ => random & 0x807F_F000 | (100 + (random >> 40) % 48) << 23,
    }
}

fn double(position: u64) -> u64 {
    if position >= 2 * HALF {
        return random_bits(64, position - 2 * HALF);
    }
    let single = single(5 * position);
    let exponent = if position.is_multiple_of(1024) { 2047 } else { (single >> 23 & 0xFF) + 896 };
    let widened = single >> 31 << 63 | exponent << 52 | (single & 0x7F_FFFF) << 29;
    let moved = [0, 1, 0x1000_0001][usize::try_from(position % 3).unwrap()];
    widened.wrapping_add(moved)
}

fn input(dtype: Dtype, position: u64) -> u64 {
    match dtype {
        Dtype::F32 => single(position),
        Dtype::F64 => double(position),
        _ if dtype.bits() <= 16 => position,
        _ => integer(dtype.bits(), position),
    }
}

fn inputs(dtype: Dtype) -> Vec<u8> {
    let count = match dtype {
        Dtype::F32 => 10 * HALF,
        Dtype::F64 => 3 * HALF,
        _ if dtype.bits() <= 16 => 1 << dtype.bits(),
        _ => HALF,
    };
    let element =
        |position| input(dtype, position).to_le_bytes().into_iter().take(byte_size(dtype));
    (0..count).flat_map(element).collect()
}

fn is_float(dtype: Dtype) -> bool {
    dtype.name().contains('F')
}

/// The values that torch converts to an integer dtype by rule.
fn limits(dtype: Dtype) -> Option<Range<f64>> {
    let dtype = if dtype == Dtype::U8 { Dtype::I64 } else { dtype };
    let bits = i32::try_from(dtype.bits()).unwrap();
    match dtype.name().as_bytes()[0] {
        b'U' => Some(0.0..2_f64.powi(bits)),
        b'I' => Some(-2_f64.powi(bits - 1)..2_f64.powi(bits - 1)),
        _ => None,
    }
}

/// Replaces what an integer dtype does not hold by 0.
fn keep_defined(elements: &mut [u8], from: Dtype, to: Dtype) {
    let Some(limits) = limits(to).filter(|_| is_float(from)) else { return };
    let values = run(&cast(from, Dtype::F64).unwrap(), elements);
    let values = values.chunks_exact(8).map(|value| f64::from_le_bytes(value.try_into().unwrap()));
    for (element, value) in elements.chunks_exact_mut(byte_size(from)).zip(values) {
        if !limits.contains(&value) {
            element.fill(0);
        }
    }
}

fn little_endian(element: &[u8]) -> u64 {
    element.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte))
}

fn digest(elements: &[u8], size: usize) -> u64 {
    let bits = elements.chunks_exact(size).map(little_endian);
    let term = |(i, bits): (u64, u64)| bits.wrapping_add(1).wrapping_mul(random_bits(0, i) | 1);
    (0..).zip(bits).map(term).fold(0, u64::wrapping_add)
}

#[test]
fn every_cast_gives_the_bits_that_torch_gives() {
    let mut known = HashMap::new();
    let mut failures = Vec::new();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let [from, to, count, expected] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let (from, to) = (Dtype::from_name(from).unwrap(), Dtype::from_name(to).unwrap());
        let bytes = count.parse::<usize>().unwrap() * byte_size(from);
        let elements = known.entry(from).or_insert_with(|| inputs(from));
        let mut elements = elements[..bytes].to_vec();
        keep_defined(&mut elements, from, to);
        let result = run(&cast(from, to).unwrap(), &elements);
        if format!("{:016x}", digest(&result, byte_size(to))) != expected {
            failures.push(format!("{from} to {to}"));
        }
    }
    assert!(failures.is_empty(), "{} pairs differ: {failures:#?}", failures.len());
}

#[test]
fn the_golden_results_cover_every_pair_that_is_cast() {
    let is_cast = |from, to| cast(from, to).is_some();
    let pairs = Dtype::ALL.iter().flat_map(|&from| Dtype::ALL.iter().map(move |&to| (from, to)));
    for (from, to) in pairs.filter(|&(from, to)| is_cast(from, to)) {
        let start = format!("{from} {to} ");
        assert!(GOLDEN.lines().any(|line| line.starts_with(&start)), "{from} to {to}");
    }
}

#[test]
fn packed_and_complex_dtypes_are_not_cast() {
    for dtype in [Dtype::F4, Dtype::F6E2M3, Dtype::F6E3M2, Dtype::C64] {
        assert!(cast(dtype, Dtype::F32).is_none() && cast(Dtype::F32, dtype).is_none(), "{dtype}");
    }
}

fn check_gather(tensor: &Tensor, range: Range<usize>, from: Dtype, to: Dtype) {
    let cast = cast(from, to).unwrap();
    let memory = noise(tensor.memory * byte_size(from));
    let first = tensor.first * byte_size(from);
    let mut source = StridedSource::from_slice(&memory, first, tensor.layout(from)).unwrap();
    let _ = source.split_off_front(range.start);
    let source = source.split_off_front(range.len());
    let mut found = vec![0; range.len() * byte_size(to)];
    gather(&source, &cast, Dest::from_slice(&mut found));
    assert_eq!(found, gather_each(tensor, &memory, range, &cast));
}

fn check_scatter(tensor: &Tensor, range: Range<usize>, from: Dtype, to: Dtype) {
    let cast = cast(from, to).unwrap();
    let elements = noise(range.len() * byte_size(from));
    let mut expected = vec![0xA5; tensor.memory * byte_size(to)];
    let mut found = expected.clone();
    scatter_each(tensor, &elements, &cast, &mut expected, range.start);
    let first = tensor.first * byte_size(to);
    let mut dest = StridedDest::from_slice(&mut found, first, tensor.layout(to)).unwrap();
    let _ = dest.split_off_front(range.start);
    let dest = dest.split_off_front(range.len());
    scatter(Source::from_slice(&elements), &cast, dest);
    assert_eq!(found, expected);
}

/// A tensor with a range of its elements.
fn ranges(tensor: impl Strategy<Value = Tensor>) -> impl Strategy<Value = (Tensor, Range<usize>)> {
    tensor.prop_flat_map(|tensor| {
        let len = tensor.len();
        let range = prop_oneof![
            1 => Just((0, len)),
            3 => (0..=len, 0..=len).prop_map(|(a, b)| (a.min(b), a.max(b))),
        ];
        range.prop_map(move |(start, end)| (tensor.clone(), start..end))
    })
}

proptest! {
    #[test]
    fn gathering_is_gathering_each((tensor, range) in ranges(tensors(0..6, 0..7, 0.2)), pair in pairs()) {
        check_gather(&tensor, range, pair.0, pair.1);
    }

    #[test]
    fn scattering_is_scattering_each((tensor, range) in ranges(tensors(0..6, 0..7, 0.0)), pair in pairs()) {
        check_scatter(&tensor, range, pair.0, pair.1);
    }

    #[test]
    fn large_dimensions_are_gathered_in_tiles((tensor, range) in ranges(tensors(1..3, 1..400, 0.1)), pair in pairs()) {
        check_gather(&tensor, range, pair.0, pair.1);
    }

    #[test]
    fn large_dimensions_are_scattered_in_tiles((tensor, range) in ranges(tensors(1..3, 1..400, 0.0)), pair in pairs()) {
        check_scatter(&tensor, range, pair.0, pair.1);
    }
}

#[test]
fn no_range_of_a_small_tensor_is_special() {
    let tensor =
        Tensor::new(&[(3, 0, false, false), (2, 1, true, false), (4, 0, false, false)], &[1, 2, 0]);
    for start in 0..=tensor.len() {
        for end in start..=tensor.len() {
            check_gather(&tensor, start..end, Dtype::Bf16, Dtype::F32);
            check_scatter(&tensor, start..end, Dtype::F32, Dtype::Bf16);
        }
    }
}

#[test]
fn parts_of_a_tensor_are_scattered_at_the_same_time() {
    let tensor = Tensor::new(&[(300, 0, false, false), (200, 3, false, false)], &[0, 1]);
    let cast = cast(Dtype::F32, Dtype::F32).unwrap();
    let elements = noise(tensor.len() * 4);
    let (mut expected, mut found) = (vec![0; tensor.memory * 4], vec![0; tensor.memory * 4]);
    scatter_each(&tensor, &elements, &cast, &mut expected, 0);
    let mut dest = StridedDest::from_slice(&mut found, 0, tensor.layout(Dtype::F32)).unwrap();
    std::thread::scope(|scope| {
        for part in elements.chunks(7777 * 4) {
            let dest = dest.split_off_front(part.len() / 4);
            scope.spawn(move || scatter(Source::from_slice(part), &cast, dest));
        }
    });
    assert_eq!(found, expected);
}

#[test]
fn nan_keeps_what_torch_keeps_of_it() {
    let narrowed = |to, bits: u32| run(&cast(Dtype::F32, to).unwrap(), &bits.to_le_bytes());
    assert_eq!(narrowed(Dtype::Bf16, 0x7FC0_0000), [0xFF, 0xFF]);
    assert_eq!(narrowed(Dtype::F16, 0xFF80_2001), [0x01, 0xFE]);
    assert_eq!(narrowed(Dtype::F8E4M3, 0xFF80_0001), [0xFF]);
    let half = run(&cast(Dtype::F16, Dtype::Bf16).unwrap(), &0xFE01_u16.to_le_bytes());
    assert_eq!(half, [0xC0, 0x7F]);
}

#[test]
fn what_no_integer_holds_is_cut_to_size() {
    let cut = |to, value: f32| run(&cast(Dtype::F32, to).unwrap(), &value.to_le_bytes());
    assert_eq!(cut(Dtype::I8, 300.7), [44]);
    assert_eq!(cut(Dtype::U16, -1.0), [0xFF; 2]);
    assert_eq!(cut(Dtype::U64, -1.0), [0xFF; 8]);
    assert_eq!(cut(Dtype::I32, f32::INFINITY), i32::MAX.to_le_bytes());
    assert_eq!(cut(Dtype::I64, f32::NEG_INFINITY), i64::MIN.to_le_bytes());
    assert_eq!(cut(Dtype::I64, f32::NAN), [0; 8]);
}

#[test]
fn blocks_of_a_long_cast_meet() {
    for count in [0, 1, 511, 512, 513, 1025] {
        let elements = noise(count * 2);
        let cast = cast(Dtype::F16, Dtype::Bf16).unwrap();
        let each: Vec<u8> = elements.chunks(2).flat_map(|element| run(&cast, element)).collect();
        assert_eq!(run(&cast, &elements), each);
    }
}

#[test]
fn addresses_need_no_alignment() {
    let elements = noise(1 + 999 * 4);
    for (from, to) in PAIRS {
        let cast = cast(from, to).unwrap();
        let elements = &elements[1..=999 * 4];
        let elements = &elements[..elements.len() / cast.from_bytes() * cast.from_bytes()];
        let mut found = vec![0; 1 + elements.len() / cast.from_bytes() * cast.to_bytes()];
        cast.run(Source::from_slice(elements), Dest::from_slice(&mut found[1..]));
        assert_eq!(found[1..], run(&cast, elements));
    }
}

#[test]
fn a_tensor_that_leaves_its_slice_is_refused() {
    let layout = |stride| Layout::new(2, &[3], &[stride]).unwrap();
    let fits = |first, stride| StridedSource::from_slice(&[0; 12], first, layout(stride)).is_some();
    assert!(fits(0, 2) && fits(2, 2) && fits(8, -2) && fits(4, -1));
    assert!(!fits(3, 2) && !fits(7, -2) && !fits(12, 0) && !fits(usize::MAX, 1));
}

#[test]
fn an_expanded_tensor_is_not_written() {
    let layout = Layout::new(1, &[2, 3], &[0, 1]).unwrap();
    assert!(StridedDest::from_slice(&mut [0; 3], 0, layout).is_none());
}

#[test]
#[should_panic(expected = "bytes of all elements")]
fn gathering_fills_the_whole_destination() {
    let source = StridedSource::from_slice(&[0; 4], 0, Layout::new(1, &[4], &[1]).unwrap());
    let cast = cast(Dtype::U8, Dtype::U8).unwrap();
    gather(&source.unwrap(), &cast, Dest::from_slice(&mut [0; 3]));
}

#[test]
#[should_panic(expected = "as many elements are read as written")]
fn a_cast_writes_as_many_elements_as_it_reads() {
    let cast = cast(Dtype::F32, Dtype::Bf16).unwrap();
    cast.run(Source::from_slice(&[0; 12]), Dest::from_slice(&mut [0; 4]));
}
