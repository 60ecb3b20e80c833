//! `alias::find_aliases` against an oracle that looks at single bytes, and by name what others get
//! wrong.

#![allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index as Choice, select};
use std::collections::BTreeMap;
use std::ops::Range;
use windlass_core::alias::{Aliases, Group, Relation, Tensor, find_aliases};
use windlass_core::runs::{MAX_RUNS, View};

/// A set of addresses below 256.
type Bytes = [u64; 4];

const NO_BYTES: Bytes = [0; 4];

fn bytes(tensor: &Tensor) -> Bytes {
    let View { address, shape, strides, element_bytes } = &tensor.view;
    let mut elements = vec![*address];
    for (&length, &stride) in shape.iter().zip(strides) {
        let step = |&element: &u64| (0..length).map(move |i| element + i * stride);
        elements = elements.iter().flat_map(step).collect();
    }
    let mut bytes = NO_BYTES;
    for byte in elements.iter().flat_map(|&element| element..element + element_bytes) {
        bytes[usize::try_from(byte / 64).unwrap()] |= 1 << (byte % 64);
    }
    bytes
}

fn both(one: Bytes, other: Bytes) -> Bytes {
    std::array::from_fn(|i| one[i] & other[i])
}

/// Groups positions by a relation between two of them, and by way of others.
fn connect(among: &[usize], related: impl Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
    let mut left = among.to_vec();
    let mut groups = Vec::new();
    while !left.is_empty() {
        let mut group = vec![left.remove(0)];
        while let Some(next) = left.iter().position(|&i| group.iter().any(|&j| related(i, j))) {
            group.push(left.remove(next));
        }
        group.sort_unstable();
        groups.push(group);
    }
    groups
}

fn naive_relation(members: &[usize], tensors: &[Tensor]) -> Relation {
    let all = |test: &dyn Fn(&Tensor) -> bool| members.iter().all(|&i| test(&tensors[i]));
    let first = &tensors[members[0]];
    let covers = |whole: &Tensor| all(&|part| both(bytes(whole), bytes(part)) == bytes(part));
    if all(&|tensor| tensor.view == first.view && tensor.kind == first.kind) {
        Relation::Identical
    } else if all(&|tensor| bytes(tensor) == bytes(first)) {
        Relation::SameBytes
    } else if members.iter().any(|&i| covers(&tensors[i])) {
        Relation::Nested
    } else {
        Relation::Overlapping
    }
}

fn naive_aliases(tensors: &[Tensor]) -> Aliases {
    let all_bytes: Vec<Bytes> = tensors.iter().map(bytes).collect();
    let is_meta = |&i: &usize| tensors[i].device.is_none();
    let (meta, real): (Vec<usize>, Vec<usize>) = (0..tensors.len()).partition(is_meta);
    let (empty, real): (Vec<usize>, Vec<usize>) =
        real.into_iter().partition(|&i| all_bytes[i] == NO_BYTES);
    let same_device = |i: usize, j: usize| tensors[i].device == tensors[j].device;
    let share_bytes =
        |i: usize, j: usize| same_device(i, j) && both(all_bytes[i], all_bytes[j]) != NO_BYTES;
    let share_storage = |i: usize, j: usize| {
        let (one, other) = (&tensors[i].storage, &tensors[j].storage);
        same_device(i, j) && one.start.max(other.start) < one.end.min(other.end)
    };
    let mut shared = connect(&real, share_bytes);
    let mut disjoint = connect(&real, share_storage);
    shared.retain(|members| members.len() > 1);
    let in_one = |storage: &[usize]| {
        shared.iter().any(|members| storage.iter().all(|member| members.contains(member)))
    };
    disjoint.retain(|storage| storage.len() > 1 && !in_one(storage));
    let relate = |members: Vec<usize>| {
        let relation = naive_relation(&members, tensors);
        Group { members, relation }
    };
    Aliases { groups: shared.into_iter().map(relate).collect(), disjoint, empty, meta }
}

/// Any strides: gaps, overlaps within the view, expanded dimensions (stride 0), no elements.
fn any_view() -> impl Strategy<Value = View> {
    let dims = vec((0..4_u64, 0..13_u64), 0..4);
    (0..40_u64, dims, 1..5_u64).prop_map(|(address, dims, element_bytes)| {
        let (shape, strides) = dims.into_iter().unzip();
        View { address, shape, strides, element_bytes }
    })
}

/// Some rows and columns of a matrix of 4 × 6 two-byte elements, each row or every other, perhaps
/// transposed or expanded.
fn view_of_a_matrix() -> impl Strategy<Value = View> {
    (0..3_u64, 1..5_u64, 1..3_u64, 0..5_u64, 1..7_u64, 0..3_u8).prop_map(
        |(row, rows, step, column, columns, kind)| {
            let (rows, columns) = (rows.min((4 - row).div_ceil(step)), columns.min(6 - column));
            let (shape, strides) = match kind {
                0 => (vec![rows, columns], vec![12 * step, 2]),
                1 => (vec![columns, rows], vec![2, 12 * step]),
                _ => (vec![3, rows, columns], vec![0, 12 * step, 2]),
            };
            View { address: row * 12 + column * 2, shape, strides, element_bytes: 2 }
        },
    )
}

/// Views that repeat alike: some columns of a matrix of three rows, with gaps.
fn columns_of_a_matrix() -> impl Strategy<Value = View> {
    (0..16_u64, 1..4_u64, 1..6_u64, any::<bool>()).prop_map(|(address, columns, step, in_front)| {
        let mut dims = vec![(3, 20), (columns, step)];
        dims.rotate_left(usize::from(in_front));
        let (shape, strides) = dims.into_iter().unzip();
        View { address, shape, strides, element_bytes: 1 }
    })
}

/// Tensors over a few of the views, so that the same view comes back; storages are what they like.
fn tensors(view: impl Strategy<Value = View>) -> impl Strategy<Value = Vec<Tensor>> {
    let device = select(vec![Some(0), Some(0), Some(0), Some(0), Some(1), None]);
    let storage =
        (0..4_u64, 0..3_u64).prop_map(|(start, length)| start * 10..(start + length) * 10);
    let one = (device, storage, any::<Choice>(), 0..2_u64);
    (vec(view, 1..7), vec(one, 0..9)).prop_map(|(views, all)| {
        all.into_iter()
            .map(|(device, storage, view, kind)| Tensor {
                device,
                storage,
                view: view.get(&views).clone(),
                kind,
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn arbitrary_views_alias_as_their_bytes_do(tensors in tensors(any_view())) {
        prop_assert_eq!(find_aliases(&tensors), naive_aliases(&tensors));
    }

    #[test]
    fn views_of_one_matrix_alias_as_their_bytes_do(tensors in tensors(view_of_a_matrix())) {
        prop_assert_eq!(find_aliases(&tensors), naive_aliases(&tensors));
    }

    #[test]
    fn columns_of_one_matrix_alias_as_their_bytes_do(tensors in tensors(columns_of_a_matrix())) {
        prop_assert_eq!(find_aliases(&tensors), naive_aliases(&tensors));
    }
}

fn view(address: u64, dims: &[(u64, u64)]) -> View {
    let (shape, strides) = dims.iter().copied().unzip();
    View { address, shape, strides, element_bytes: 1 }
}

/// A tensor of one storage, which all others are of too.
fn tensor(address: u64, dims: &[(u64, u64)]) -> Tensor {
    Tensor { device: Some(0), storage: 0..1 << 40, view: view(address, dims), kind: 0 }
}

/// Groups as relation → members; each relation at most once.
fn by_relation(tensors: &[Tensor]) -> BTreeMap<String, Vec<usize>> {
    let groups = find_aliases(tensors).groups.into_iter();
    groups.map(|group| (format!("{:?}", group.relation), group.members)).collect()
}

#[test]
fn two_tensors_are_related_as_the_table_says() {
    let matrix = || tensor(0, &[(4, 6), (6, 1)]);
    let conjugated = Tensor { kind: 1, ..matrix() };
    let on_another_device = Tensor { device: Some(1), ..matrix() };
    let elsewhere = Tensor { storage: 1 << 41..1 << 42, ..matrix() };
    let table = [
        ("the same tensor", matrix(), "Identical"),
        ("the same memory by another storage", elsewhere, "Identical"),
        ("conjugated or of another dtype", conjugated, "SameBytes"),
        ("transposed", tensor(0, &[(6, 1), (4, 6)]), "SameBytes"),
        ("reshaped", tensor(0, &[(24, 1)]), "SameBytes"),
        ("expanded", tensor(0, &[(9, 0), (4, 6), (6, 1)]), "SameBytes"),
        ("windows that overlap", tensor(0, &[(19, 1), (6, 1)]), "SameBytes"),
        ("first rows", tensor(0, &[(2, 6), (6, 1)]), "Nested"),
        ("columns", tensor(2, &[(4, 6), (3, 1)]), "Nested"),
        ("one element", tensor(23, &[]), "Nested"),
        ("the matrix and more", tensor(0, &[(30, 1)]), "Nested"),
        ("last rows and more", tensor(12, &[(4, 6), (6, 1)]), "Overlapping"),
        ("what follows it", tensor(24, &[(4, 6), (6, 1)]), ""),
        ("the same addresses of another device", on_another_device, ""),
        ("nothing within it", tensor(6, &[(0, 6), (6, 1)]), ""),
    ];
    for (case, other, expected) in table {
        let found = by_relation(&[matrix(), other]);
        let relations: Vec<&String> = found.keys().collect();
        assert_eq!(relations, Vec::from_iter((!expected.is_empty()).then_some(expected)), "{case}");
    }
}

#[test]
fn interleaved_views_are_disjoint() {
    let (even, odd) = (tensor(0, &[(4, 12), (6, 1)]), tensor(6, &[(4, 12), (6, 1)]));
    let found = find_aliases(&[even, odd]);
    assert_eq!(found, Aliases { disjoint: vec![vec![0, 1]], ..Aliases::default() });
}

#[test]
fn views_connected_by_way_of_another_are_one_overlapping_group() {
    let chain = [0, 8, 4].map(|address| tensor(address, &[(6, 1)]));
    assert_eq!(by_relation(&chain), BTreeMap::from([("Overlapping".into(), vec![0, 1, 2])]));
}

#[test]
fn a_lone_view_of_a_larger_storage_is_nothing_to_mention() {
    assert_eq!(find_aliases(&[tensor(100, &[(6, 1)])]), Aliases::default());
}

#[test]
fn empty_and_meta_tensors_are_aliases_of_nothing() {
    let empty = tensor(0, &[(0, 1)]);
    let meta = Tensor { device: None, ..tensor(0, &[(6, 1)]) };
    let found = find_aliases(&[empty.clone(), meta.clone(), empty, meta]);
    assert_eq!(found, Aliases { empty: vec![0, 2], meta: vec![1, 3], ..Aliases::default() });
}

#[test]
fn a_meta_tensor_may_be_larger_than_any_memory() {
    let meta = Tensor { device: None, ..tensor(0, &[(1 << 62, 1 << 62)]) };
    assert_eq!(find_aliases(&[meta]).meta, [0]);
}

#[test]
fn columns_of_a_matrix_of_any_length_are_told_apart() {
    let columns = [0, 5].map(|address| tensor(address, &[(1 << 30, 10), (5, 1)]));
    assert!(find_aliases(&columns).groups.is_empty());
}

#[test]
fn views_of_too_many_pieces_are_taken_for_aliases() {
    let even = tensor(0, &[(MAX_RUNS + 1, 2)]);
    let odd = tensor(1, &[(MAX_RUNS + 2, 2)]);
    assert_eq!(by_relation(&[even, odd]), BTreeMap::from([("Overlapping".into(), vec![0, 1])]));
}

#[test]
fn the_limit_itself_is_still_exact() {
    let (even, odd) = (tensor(0, &[(MAX_RUNS / 2, 2)]), tensor(1, &[(MAX_RUNS / 2 - 1, 2)]));
    assert!(find_aliases(&[even, odd]).groups.is_empty());
}

#[test]
fn views_of_too_many_pieces_are_known_to_lie_in_what_covers_their_span() {
    let whole = tensor(0, &[(2 * MAX_RUNS + 9, 1)]);
    let scattered = tensor(2, &[(MAX_RUNS + 1, 2)]);
    assert_eq!(by_relation(&[scattered, whole]), BTreeMap::from([("Nested".into(), vec![0, 1])]));
}

#[test]
fn equal_footprints_of_too_many_pieces_stay_exact() {
    let scattered = tensor(0, &[(MAX_RUNS + 1, 9), (2, 2)]);
    let transposed = tensor(0, &[(2, 2), (MAX_RUNS + 1, 9)]);
    let tied = [scattered.clone(), scattered.clone()];
    assert_eq!(by_relation(&tied), BTreeMap::from([("Identical".into(), vec![0, 1])]));
    let seen_otherwise = [scattered, transposed];
    assert_eq!(by_relation(&seen_otherwise), BTreeMap::from([("SameBytes".into(), vec![0, 1])]));
}

#[test]
fn what_one_cluster_takes_is_not_what_the_next_may_take() {
    let near = |address| {
        let even = tensor(address, &[(MAX_RUNS / 2, 2)]);
        [even, tensor(address + 1, &[(MAX_RUNS / 2 - 1, 2)])]
    };
    let clusters: Vec<Tensor> = [0, 1 << 30].into_iter().flat_map(near).collect();
    assert!(find_aliases(&clusters).groups.is_empty());
}

fn million(step: u64, length: u64) -> Vec<Tensor> {
    (0..1_000_000).map(|i| tensor(i * step, &[(length, 1)])).collect()
}

#[test]
fn a_million_tensors_apart_are_a_million_tensors_apart() {
    let found = find_aliases(&million(8, 8));
    assert!(found.groups.is_empty());
    assert_eq!(found.disjoint.len(), 1);
}

#[test]
fn a_million_tensors_in_a_chain_are_one_group() {
    let groups = find_aliases(&million(8, 9)).groups;
    assert_eq!(groups.len(), 1);
    assert_eq!((groups[0].members.len(), groups[0].relation), (1_000_000, Relation::Overlapping));
}

#[test]
fn storages_are_ranges_and_those_that_overlap_are_one() {
    let of = |address, storage: Range<u64>| Tensor { storage, ..tensor(address, &[(4, 1)]) };
    let buffers = [of(0, 0..10), of(8, 8..20), of(40, 40..44), of(16, 0..0)];
    assert_eq!(find_aliases(&buffers).disjoint, [[0, 1]]);
}
