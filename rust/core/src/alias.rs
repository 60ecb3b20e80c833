//! Tensors → which of them are the same memory, and how. Pure.
//!
//! Two names may be one tensor, a view of it (transposed, sliced, of another dtype), or two views
//! of memory that came to be shared in some other way. Addresses decide: tensors are in one group
//! when they are connected by sharing at least one byte of elements, whatever storage they call
//! their own. The storage only tells which of the others live in one piece of memory
//! ([`Aliases::disjoint`]).
//!
//! 1. A sweep over `n` spans of addresses, O(n log n), leaves the tensors whose spans touch.
//! 2. Of those, one sweep over the contiguous *runs* of each distinct footprint joins what shares a
//!    byte. Exact for any strides: even and odd rows of a matrix do not alias. Dimensions that all
//!    of them repeat alike are folded, and equal footprints counted once (see
//!    [`runs`](crate::runs)).
//!
//! The work is bounded: tensors that touch are followed into [`MAX_RUNS`] runs at most, and all
//! tensors of a call into [`MAX_RUNS_PER_CALL`]. A tensor beyond that is taken to fill its span:
//! the group may be too large, or be called `Overlapping` where more could be known, but no alias is
//! missed. Groups of equal footprints need no runs and are always exact.

use crate::runs::{Footprint, MAX_RUNS, Runs, View, fold};
use crate::spans::{Span, find_touching};
use indexmap::IndexMap;
use std::ops::Range;

/// Most runs that one call follows: about two seconds of sorting.
pub const MAX_RUNS_PER_CALL: u64 = 16 * MAX_RUNS;

/// What has to be known of a tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// In which memory its addresses count: one number for each device; `None` on the meta device.
    pub device: Option<u64>,
    /// Addresses of its storage: where it starts is its identity. Empty if that does not matter;
    /// then the tensor is never among the `disjoint`.
    pub storage: Range<u64>,
    /// Addresses of its elements.
    pub view: View,
    /// How bytes become values: a number for each dtype, conjugated and negated or not.
    pub kind: u64,
}

/// How the tensors of a group share their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same view of the same kind.
    Identical,
    /// Exactly the same bytes, seen otherwise: reshaped, transposed, expanded, of another kind.
    SameBytes,
    /// One covers all others.
    Nested,
    /// Anything else.
    Overlapping,
}

/// Tensors that share bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Positions, ascending.
    pub members: Vec<usize>,
    /// How they share their bytes.
    pub relation: Relation,
}

/// Positions of tensors, by what they share. A tensor that appears nowhere stands alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    /// Tensors that share bytes, in the order of their first.
    pub groups: Vec<Group>,
    /// Tensors of one storage (or of storages that overlap) that are not all in one group.
    pub disjoint: Vec<Vec<usize>>,
    /// Tensors without elements.
    pub empty: Vec<usize>,
    /// Tensors of the meta device.
    pub meta: Vec<usize>,
}

/// Finds the tensors that share bytes.
///
/// ```
/// use windlass_core::alias::{Relation, Tensor, find_aliases};
/// use windlass_core::runs::View;
/// let matrix = View { address: 64, shape: vec![2, 3], strides: vec![12, 4], element_bytes: 4 };
/// let transposed = View { shape: vec![3, 2], strides: vec![4, 12], ..matrix.clone() };
/// let tensors = [matrix, transposed]
///     .map(|view| Tensor { device: Some(0), storage: 64..88, view, kind: 0 });
/// let groups = find_aliases(&tensors).groups;
/// assert_eq!(groups[0].members, [0, 1]);
/// assert_eq!(groups[0].relation, Relation::SameBytes);
/// ```
#[must_use]
pub fn find_aliases(tensors: &[Tensor]) -> Aliases {
    let footprint = |tensor: &Tensor| tensor.device.and_then(|_| Footprint::of(&tensor.view));
    let footprints: Vec<Option<Footprint>> = tensors.iter().map(footprint).collect();
    let mut groups = find_groups(tensors, &footprints, MAX_RUNS_PER_CALL);
    groups.sort_unstable_by_key(|group| group.members[0]);
    let is_empty = |&i: &usize| tensors[i].device.is_some() && footprints[i].is_none();
    Aliases {
        disjoint: find_disjoint(tensors, &footprints, &groups),
        groups,
        empty: (0..tensors.len()).filter(is_empty).collect(),
        meta: (0..tensors.len()).filter(|&i| tensors[i].device.is_none()).collect(),
    }
}

fn find_groups(
    tensors: &[Tensor],
    footprints: &[Option<Footprint>],
    mut call_budget: u64,
) -> Vec<Group> {
    let spans = tensors
        .iter()
        .zip(footprints)
        .map(|(tensor, footprint)| span(tensor, footprint.as_ref().map_or(0..0, Footprint::span)));
    let mut groups = Vec::new();
    for cluster in find_touching(&spans.collect::<Vec<_>>()) {
        let mut budget = call_budget.min(MAX_RUNS);
        call_budget -= budget;
        groups.extend(split(&cluster, tensors, footprints, &mut budget));
        call_budget += budget;
    }
    groups
}

fn span(tensor: &Tensor, bytes: Range<u64>) -> Span {
    Span { space: tensor.device.unwrap_or_default(), bytes }
}

/// Splits tensors whose spans touch into groups that share bytes.
fn split(
    cluster: &[usize],
    tensors: &[Tensor],
    footprints: &[Option<Footprint>],
    budget: &mut u64,
) -> Vec<Group> {
    let (mut distinct, sharers) = gather(cluster, footprints);
    fold(&mut distinct);
    let runs: Vec<Runs> = distinct.iter().map(|footprint| Runs::of(footprint, budget)).collect();
    let group = |connected: Vec<usize>| {
        let mut members: Vec<usize> =
            connected.iter().flat_map(|&i| &sharers[i]).copied().collect();
        members.sort_unstable();
        let runs: Vec<&Runs> = connected.iter().map(|&i| &runs[i]).collect();
        let relation = relate(&members, tensors, &runs);
        (members.len() > 1).then_some(Group { members, relation })
    };
    connect(&runs).into_iter().filter_map(group).collect()
}

/// The distinct footprints, and who has each.
fn gather(
    cluster: &[usize],
    footprints: &[Option<Footprint>],
) -> (Vec<Footprint>, Vec<Vec<usize>>) {
    let mut sharers: IndexMap<Footprint, Vec<usize>> = IndexMap::new();
    for &i in cluster {
        if let Some(footprint) = &footprints[i] {
            sharers.entry(footprint.clone()).or_default().push(i);
        }
    }
    sharers.into_iter().unzip()
}

/// Groups positions of runs that share a byte, directly or by way of others.
///
/// A sweep over all ranges that remembers which one reaches farthest. All ranges that are open at
/// some byte are connected, so to meet one of them, the farthest, is to meet them all.
fn connect(runs: &[Runs]) -> Vec<Vec<usize>> {
    let mut ranges: Vec<(u64, u64, usize)> = Vec::new();
    for (i, runs) in runs.iter().enumerate() {
        ranges.extend(runs.ranges.iter().map(|range| (range.start, range.end, i)));
    }
    ranges.sort_unstable();
    let mut parents: Vec<usize> = (0..runs.len()).collect();
    let (mut reach, mut farthest) = (0, 0);
    for (start, end, i) in ranges {
        if start < reach {
            join(&mut parents, farthest, i);
        }
        if end > reach {
            (reach, farthest) = (end, i);
        }
    }
    let mut groups: IndexMap<usize, Vec<usize>> = IndexMap::new();
    for i in 0..runs.len() {
        groups.entry(root(&mut parents, i)).or_default().push(i);
    }
    groups.into_values().collect()
}

fn join(parents: &mut [usize], one: usize, other: usize) {
    let (one, other) = (root(parents, one), root(parents, other));
    parents[one.max(other)] = one.min(other);
}

/// Finds the root, and halves the way to it for the next time.
fn root(parents: &mut [usize], mut i: usize) -> usize {
    while parents[i] != i {
        parents[i] = parents[parents[i]];
        i = parents[i];
    }
    i
}

/// Says how connected tensors share their bytes, given the runs of their distinct footprints.
fn relate(members: &[usize], tensors: &[Tensor], runs: &[&Runs]) -> Relation {
    let first = &tensors[members[0]];
    let is_first = |&i: &usize| tensors[i].view == first.view && tensors[i].kind == first.kind;
    let is_same = |other: &&Runs| other.exact && other.ranges == runs[0].ranges;
    if members.iter().all(is_first) {
        Relation::Identical
    } else if runs.len() == 1 || runs.iter().all(is_same) {
        Relation::SameBytes
    } else if one_covers_all(runs) {
        Relation::Nested
    } else {
        Relation::Overlapping
    }
}

fn one_covers_all(runs: &[&Runs]) -> bool {
    let exact = runs.iter().filter(|runs| runs.exact);
    let largest = exact.max_by_key(|runs| runs.byte_count());
    largest.is_some_and(|largest| runs.iter().all(|part| largest.cover(part)))
}

fn find_disjoint(
    tensors: &[Tensor],
    footprints: &[Option<Footprint>],
    groups: &[Group],
) -> Vec<Vec<usize>> {
    let mut group_of = vec![None; tensors.len()];
    for (number, group) in groups.iter().enumerate() {
        for &member in &group.members {
            group_of[member] = Some(number);
        }
    }
    let storages = tensors.iter().zip(footprints).map(|(tensor, footprint)| {
        span(tensor, footprint.as_ref().map_or(0..0, |_| tensor.storage.clone()))
    });
    let mut shared = find_touching(&storages.collect::<Vec<_>>());
    let in_one_group = |storage: &[usize]| {
        let group = group_of[storage[0]];
        group.is_some() && storage.iter().all(|&i| group_of[i] == group)
    };
    shared.retain(|storage| !in_one_group(storage));
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clusters_of_a_call_share_its_budget() {
        let view = |address, length| View {
            address,
            shape: vec![length],
            strides: vec![2],
            element_bytes: 1,
        };
        let tensors = [view(0, 4), view(1, 3), view(100, 4), view(101, 3)].map(|view| Tensor {
            device: Some(0),
            storage: 0..0,
            view,
            kind: 0,
        });
        let footprints: Vec<_> = tensors.iter().map(|one| Footprint::of(&one.view)).collect();
        assert!(find_groups(&tensors, &footprints, 14).is_empty());
        assert_eq!(find_groups(&tensors, &footprints, 13)[0].members, [2, 3]);
    }
}
