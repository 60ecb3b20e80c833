//! The route of a shard: which backend reads it and why, what came of it, and what it leaves in
//! the page cache.

use super::choose::Reason;
use super::{Backend, ShardReader};
use crate::checkpoint::Shard;
use crate::plan::{Read, ReadPlan, Target};
use crate::sys::file::reopen;
use crate::sys::residency::{drop_cached, missing_ranges, page_bytes};
use std::fs::File;
use std::ops::Range;
use std::sync::OnceLock;

/// How one shard was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Position of the shard.
    pub shard: usize,
    /// The backend: `"mapped"`, `"buffered"` or `"direct"`; by `io_uring` `"uring"` through the page
    /// cache and `"uring-direct"` past it.
    pub backend: &'static str,
    /// Why this one.
    pub reason: Reason,
    /// Bytes delivered of this shard.
    pub bytes: u64,
}

/// What a plan wants of one shard.
pub(super) struct Portion {
    pub(super) shard: usize,
    pub(super) wanted: u64,
    pub(super) reads: u64,
    /// From the first wanted byte to the last.
    pub(super) range: Range<u64>,
}

impl Portion {
    /// Of reads of one shard.
    fn of(reads: &[Read]) -> Self {
        let pieces = reads.iter().flat_map(|read| &read.pieces);
        let wanted = pieces.filter(|piece| piece.target != Target::Gap).map(|piece| piece.len);
        let end = reads.iter().map(|read| read.offset + read.len()).max();
        Self {
            shard: reads[0].shard,
            wanted: wanted.sum(),
            reads: reads.len() as u64,
            range: reads[0].offset..end.unwrap_or_default(),
        }
    }
}

/// The portions of a plan, by shard.
pub(super) fn portions(plan: &ReadPlan) -> Vec<Portion> {
    plan.reads.chunk_by(|a, b| a.shard == b.shard).map(Portion::of).collect()
}

/// How one shard is being read.
pub(super) struct Route<'a> {
    pub(super) backend: &'a dyn Backend,
    portion: Portion,
    reason: Reason,
    /// The backend that was taken where the system refused this one, and why.
    instead: OnceLock<(&'static str, Reason)>,
    /// What was not in the page cache before, and is to be taken out again; in ascending order.
    not_kept: Vec<Range<u64>>,
}

impl<'a> Route<'a> {
    pub(super) fn new(portion: Portion, backend: &'a dyn Backend, reason: Reason) -> Self {
        Self { backend, portion, reason, instead: OnceLock::new(), not_kept: Vec::new() }
    }

    pub(super) fn shard(&self) -> usize {
        self.portion.shard
    }

    /// Notes what the page cache has now, so that all else that reading brings there is taken out
    /// again.
    pub(super) fn leave_no_trace(&mut self, shard: &Shard) {
        // A shard that cannot be opened cannot be read either, and then the reader will say so.
        let Ok(file) = reopen(&shard.path, &shard.identity) else { return };
        // Where the system does not say, all that is read is taken out again.
        self.not_kept = missing_ranges(&file, &self.portion.range)
            .unwrap_or_else(|_| vec![self.portion.range.clone()]);
    }

    /// After reads by a reader, also failed ones: whether it was refused.
    pub(super) fn note(&self, reader: &(impl ShardReader + ?Sized)) {
        if let Some(instead) = reader.instead() {
            self.instead.get_or_init(|| instead);
        }
    }

    /// Takes what a read brought into the page cache out again, if it is to be left as it was.
    pub(super) fn drop_read(&self, file: &File, read: &Range<u64>) {
        pages_within(&self.not_kept, read).for_each(|pages| drop_cached(file, &pages));
    }

    pub(super) fn into_way(self) -> Way {
        let Portion { shard, wanted, .. } = self.portion;
        let asked = (self.backend.name(), self.reason);
        let (backend, reason) = self.instead.into_inner().unwrap_or(asked);
        Way { shard, backend, reason, bytes: wanted }
    }
}

/// The pages of some ranges, given in ascending order, that a read touched.
fn pages_within(ranges: &[Range<u64>], read: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let page = page_bytes();
    let (start, end) = (read.start - read.start % page, read.end.next_multiple_of(page));
    let first = ranges.partition_point(|range| range.end <= start);
    let touched = ranges[first..].iter().take_while(move |range| range.start < end);
    touched.map(move |range| range.start.max(start)..range.end.min(end))
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of ranges may have one")]
mod tests {
    use super::*;
    use crate::plan::{PlanOptions, Want, plan_reads};

    #[test]
    fn shares_count_what_is_wanted_and_not_what_lies_between() {
        let want = |shard, range| Want { shard, range, element_bytes: None };
        let wants = [want(0, 8..12), want(2, 0..5), want(2, 9..10), want(2, 9000..9010)];
        let portions = portions(&plan_reads(&wants, &PlanOptions::default()));
        let facts = |portion: &Portion| {
            (portion.shard, portion.wanted, portion.reads, portion.range.clone())
        };
        assert_eq!(
            portions.iter().map(facts).collect::<Vec<_>>(),
            [(0, 4, 1, 8..12), (2, 16, 2, 0..9010)]
        );
    }

    #[test]
    fn only_pages_that_a_read_touched_are_within_it() {
        let page = page_bytes();
        let ranges = [0..page * 2, page * 4..page * 9, page * 20..page * 21];
        let within = |read: Range<u64>| pages_within(&ranges, &read).collect::<Vec<_>>();
        assert_eq!(within(1..2), [0..page]);
        assert_eq!(within(page - 1..page + 1), [0..page * 2]);
        assert_eq!(within(page..page * 5 + 1), [page..page * 2, page * 4..page * 6]);
        assert_eq!(within(page * 2..page * 4), []);
        assert_eq!(within(page * 8..page * 30), [page * 8..page * 9, page * 20..page * 21]);
    }
}
