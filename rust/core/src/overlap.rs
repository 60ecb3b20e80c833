//! Views of shared memory → who writes which bytes, and what is covered without being written. Pure.
//!
//! Models tie parameters: two names for one tensor, or a view of it (transposed, reshaped,
//! sliced). Given every view of one piece of memory, in model order, and which of the names a
//! checkpoint holds, [`resolve`] answers for each name: is it loaded whole, is it overwritten by a
//! later name, or, if the checkpoint lacks it, do the others cover its memory anyway?
//!
//! Exact to the byte for any strides, in O(runs log runs), where a view's *runs* are the
//! contiguous pieces of its memory (see [`runs`](crate::runs)). A view that takes the total over
//! [`MAX_RUNS`] runs is known only from its first to its last byte; every answer that it touches
//! errs to the safe side: `Missing` rather than `Covered`, `PartlyOverwritten` rather than
//! `Overwritten`.

use crate::runs::{MAX_RUNS, Runs, View};
use std::collections::BTreeSet;

/// What becomes of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Present, and no later name writes to its memory.
    Kept,
    /// Present, and later names write to part of its memory; `by` is the last of them.
    PartlyOverwritten {
        /// Position of the later name.
        by: usize,
    },
    /// Present, and later names write to all of its memory.
    Overwritten {
        /// Position of the last name that writes to it.
        by: usize,
    },
    /// Absent, and present names write to all of its memory.
    Covered,
    /// Absent, and some of its memory is written by nobody.
    Missing,
}

/// Decides for each view, in model order, given which names are present in the checkpoint.
///
/// ```
/// use windlass_core::overlap::{Outcome, resolve};
/// use windlass_core::runs::View;
/// let matrix = View { address: 64, shape: vec![2, 3], strides: vec![12, 4], element_bytes: 4 };
/// let transposed = View { shape: vec![3, 2], strides: vec![4, 12], ..matrix.clone() };
/// let outcomes = resolve(&[(matrix, true), (transposed, false)]);
/// assert_eq!(outcomes, [Outcome::Kept, Outcome::Covered]);
/// ```
#[must_use]
pub fn resolve(views: &[(View, bool)]) -> Vec<Outcome> {
    let mut budget = MAX_RUNS;
    let runs: Vec<Runs> = views.iter().map(|(view, _)| Runs::of_view(view, &mut budget)).collect();
    let painted = paint(views, &runs);
    (0..views.len()).map(|i| outcome(i, views, &summarize(i, &runs, &painted))).collect()
}

fn outcome(i: usize, views: &[(View, bool)], summary: &Summary) -> Outcome {
    let (view, present) = &views[i];
    // The same view under another name needs no bytes to be sure of.
    let same = |(other, is_present): &(View, bool)| *is_present && other == view;
    let twin = if summary.unsure { views.iter().rposition(same) } else { None };
    match (present, twin) {
        (true, Some(twin)) if twin > i => {
            Outcome::Overwritten { by: summary.other.map_or(twin, |other| other.max(twin)) }
        }
        (true, _) => summary.if_present(),
        (false, Some(_)) => Outcome::Covered,
        (false, None) => summary.if_absent(),
    }
}

/// Who wrote last, sorted by start of range; ranges reach to the next start, `None` means nobody.
type Painted = Vec<(u64, Option<usize>)>;

/// Lets every present view write its runs, in order: a sweep over all starts and ends that keeps
/// the set of views open at each point; the latest of them is the last to write.
fn paint(views: &[(View, bool)], runs: &[Runs]) -> Painted {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (i, runs) in runs.iter().enumerate().filter(|&(i, _)| views[i].1) {
        for range in &runs.ranges {
            events.push((range.start, true, i));
            events.push((range.end, false, i));
        }
    }
    events.sort_unstable();
    let mut open = BTreeSet::new();
    let mut painted = Painted::new();
    for (at, opens, i) in events {
        if opens {
            open.insert(i);
        } else {
            open.remove(&i);
        }
        let writer = open.last().copied();
        match painted.last_mut() {
            Some(last) if last.0 == at => last.1 = writer,
            _ => painted.push((at, writer)),
        }
    }
    painted
}

/// What a view finds in its own memory.
#[derive(Default)]
struct Summary {
    /// Some byte was last written by the view itself.
    own: bool,
    /// Some byte was written by nobody, or there is no byte.
    unwritten: bool,
    /// The view, or one that wrote to it, is not known to the byte.
    unsure: bool,
    /// The latest other view that wrote last to some byte.
    other: Option<usize>,
}

fn summarize(i: usize, runs: &[Runs], painted: &[(u64, Option<usize>)]) -> Summary {
    let Runs { ranges, exact } = &runs[i];
    let mut summary =
        Summary { unwritten: ranges.is_empty(), unsure: !exact, ..Summary::default() };
    for range in ranges {
        let first = painted.partition_point(|&(start, _)| start <= range.start);
        let before = first.checked_sub(1).and_then(|i| painted[i].1);
        let within = painted[first..].iter().take_while(|(start, _)| *start < range.end);
        for writer in std::iter::once(before).chain(within.map(|&(_, writer)| writer)) {
            match writer {
                None => summary.unwritten = true,
                Some(writer) if writer == i => summary.own = true,
                Some(writer) => {
                    summary.other = summary.other.max(Some(writer));
                    summary.unsure |= !runs[writer].exact;
                }
            }
        }
    }
    summary
}

impl Summary {
    fn if_present(&self) -> Outcome {
        match self.other {
            None => Outcome::Kept,
            Some(by) if self.own || self.unsure => Outcome::PartlyOverwritten { by },
            Some(by) => Outcome::Overwritten { by },
        }
    }

    fn if_absent(&self) -> Outcome {
        if self.unwritten || self.unsure { Outcome::Missing } else { Outcome::Covered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(address: u64, dims: &[(u64, u64)]) -> View {
        let (shape, strides) = dims.iter().copied().unzip();
        View { address, shape, strides, element_bytes: 1 }
    }

    #[test]
    fn the_same_view_twice_goes_to_the_later_name() {
        let row = view(10, &[(4, 1)]);
        let outcomes = resolve(&[(row.clone(), true), (row, true)]);
        assert_eq!(outcomes, [Outcome::Overwritten { by: 1 }, Outcome::Kept]);
    }

    #[test]
    fn two_halves_cover_the_whole() {
        let (left, right) = (view(0, &[(8, 4), (2, 1)]), view(2, &[(8, 4), (2, 1)]));
        let whole = view(0, &[(8, 4), (4, 1)]);
        let all = [(left.clone(), true), (right, true), (whole.clone(), false)];
        assert_eq!(resolve(&all)[2], Outcome::Covered);
        assert_eq!(resolve(&[(left, true), (whole, false)])[1], Outcome::Missing);
    }

    #[test]
    fn an_empty_view_is_missing_when_absent_and_kept_when_present() {
        let empty = view(0, &[(0, 1)]);
        let around = view(0, &[(4, 1)]);
        let outcomes = resolve(&[(around, true), (empty.clone(), false), (empty, true)]);
        assert_eq!(outcomes[1..], [Outcome::Missing, Outcome::Kept]);
    }

    #[test]
    fn a_view_of_too_many_pieces_errs_to_the_safe_side() {
        let scattered = view(0, &[(MAX_RUNS + 1, 2)]);
        let between = view(1, &[(1, 1)]);
        let also_between = view(3, &[(1, 1)]);
        let views = [(between, true), (scattered, true), (also_between, false)];
        let outcomes = resolve(&views);
        assert_eq!(outcomes[0], Outcome::PartlyOverwritten { by: 1 });
        assert_eq!(outcomes[2], Outcome::Missing);
    }

    #[test]
    fn the_same_scattered_view_under_two_names_needs_no_bytes() {
        let scattered = view(0, &[(MAX_RUNS + 1, 2)]);
        let absent = [(scattered.clone(), true), (scattered.clone(), false)];
        assert_eq!(resolve(&absent), [Outcome::Kept, Outcome::Covered]);
        let present = [(scattered.clone(), true), (scattered, true)];
        assert_eq!(resolve(&present), [Outcome::Overwritten { by: 1 }, Outcome::Kept]);
    }
}
