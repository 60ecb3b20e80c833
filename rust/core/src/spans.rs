//! Address ranges → those that touch: the few tensors that need a closer look. Pure.

use std::ops::Range;

/// A range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// In which memory the addresses count: one number for each device.
    pub space: u64,
    /// First address, and the one after the last; where there is none between, the span touches
    /// nothing.
    pub bytes: Range<u64>,
}

/// Groups spans that share an address, directly or by way of others: positions in ascending order,
/// groups of two and more in the order of their first. A sort and one pass over it.
///
/// ```
/// use windlass_core::spans::{Span, find_touching};
/// let spans = [4..8, 20..30, 0..5, 8..9, 25..26].map(|bytes| Span { space: 0, bytes });
/// assert_eq!(find_touching(&spans), [vec![0, 2], vec![1, 4]]);
/// ```
#[must_use]
pub fn find_touching(spans: &[Span]) -> Vec<Vec<usize>> {
    let mut sorted: Vec<(u64, u64, u64, usize)> = spans
        .iter()
        .enumerate()
        .filter(|(_, span)| !span.bytes.is_empty())
        .map(|(i, span)| (span.space, span.bytes.start, span.bytes.end, i))
        .collect();
    sorted.sort_unstable();
    let mut reach = 0;
    let clusters = sorted.chunk_by(|&(space, _, end, _), &(next_space, next_start, _, _)| {
        reach = end.max(reach);
        let touch = space == next_space && next_start < reach;
        if !touch {
            reach = 0;
        }
        touch
    });
    let clusters = clusters.filter(|cluster| cluster.len() > 1);
    let mut groups: Vec<Vec<usize>> = clusters.map(positions).collect();
    groups.sort_unstable_by_key(|group| group[0]);
    groups
}

fn positions(cluster: &[(u64, u64, u64, usize)]) -> Vec<usize> {
    let mut positions: Vec<usize> = cluster.iter().map(|&(_, _, _, i)| i).collect();
    positions.sort_unstable();
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans<const N: usize>(spans: [(u64, Range<u64>); N]) -> [Span; N] {
        spans.map(|(space, bytes)| Span { space, bytes })
    }

    #[test]
    fn ranges_that_only_meet_do_not_touch() {
        assert!(find_touching(&spans([(0, 0..4), (0, 4..8)])).is_empty());
    }

    #[test]
    fn a_long_range_holds_on_to_all_that_start_before_its_end() {
        let spans = spans([(0, 0..100), (0, 1..2), (0, 50..51), (0, 99..120), (0, 110..111)]);
        assert_eq!(find_touching(&spans), [[0, 1, 2, 3, 4]]);
    }

    #[test]
    fn equal_addresses_of_two_spaces_do_not_touch() {
        assert!(find_touching(&spans([(0, 0..8), (1, 0..8), (2, 4..6)])).is_empty());
    }

    #[test]
    fn an_empty_range_touches_nothing() {
        assert!(find_touching(&spans([(0, 0..8), (0, 4..4), (0, 4..4)])).is_empty());
    }

    #[test]
    fn the_reach_of_one_group_does_not_carry_over_to_the_next() {
        let spans = spans([(0, 0..90), (0, 5..6), (1, 1..2), (1, 3..4), (1, 3..5)]);
        assert_eq!(find_touching(&spans), [[0, 1], [3, 4]]);
    }
}
