//! The route of a shard: which backend reads it and why, what came of it, and what it leaves in
//! the page cache.

use super::choose::Reason;
use super::{Backend, Cache, ShardReader};
use crate::checkpoint::Shard;
use crate::error::Result;
use crate::plan::Read;
use crate::sys::file::reopen;
use crate::sys::residency::{drop_cached, missing_ranges, page_bytes};
use std::fs::File;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// What is wanted of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Portion {
    pub(super) shard: usize,
    /// Bytes that are read.
    pub(super) read_bytes: u64,
    /// Parts of the file that are apart from each other; how they are cut into reads does not
    /// matter.
    pub(super) parts: u64,
    /// From the first byte to the last.
    pub(super) range: Range<u64>,
}

impl Portion {
    /// Nothing of a shard.
    pub(super) fn new(shard: usize) -> Self {
        Self { shard, read_bytes: 0, parts: 0, range: Range { start: u64::MAX, end: 0 } }
    }

    /// Reads of one shard, as [`Portion::add_reads`] takes them.
    pub(super) fn of_reads(reads: &[Read], max_gap: u64) -> Self {
        let mut portion = Self::new(reads[0].shard);
        portion.add_reads(reads, max_gap);
        portion
    }

    /// Adds reads in the order of the file; those that are no more than `max_gap` apart are one part.
    pub(super) fn add_reads(&mut self, reads: &[Read], max_gap: u64) {
        let mut reached: Option<u64> = None;
        for read in reads {
            let end = read.offset + read.len();
            self.read_bytes += read.len();
            let is_near = |reached: u64| read.offset <= reached.saturating_add(max_gap);
            self.parts += u64::from(!reached.is_some_and(is_near));
            reached = reached.max(Some(end));
            self.reach(&(read.offset..end));
        }
    }

    /// Adds rows that are far apart.
    pub(super) fn add_rows(&mut self, range: &Range<u64>, count: usize, row_bytes: usize) {
        self.parts += count as u64;
        self.read_bytes += count as u64 * row_bytes as u64;
        self.reach(range);
    }

    fn reach(&mut self, range: &Range<u64>) {
        self.range = self.range.start.min(range.start)..self.range.end.max(range.end);
    }
}

/// How one shard is being read.
pub(super) struct Route<'a> {
    backend: Box<dyn Backend + Send + 'a>,
    portion: Portion,
    reason: Reason,
    cache: Cache,
    /// The backend that was taken where the system refused this one, and why.
    instead: OnceLock<(&'static str, Reason)>,
    delivered: AtomicU64,
    /// What was not in the page cache before, and is to be taken out again; in ascending order.
    not_kept: OnceLock<Vec<Range<u64>>>,
}

impl<'a> Route<'a> {
    pub(super) fn new(
        portion: Portion,
        backend: Box<dyn Backend + Send + 'a>,
        reason: Reason,
        cache: Cache,
    ) -> Self {
        let (instead, delivered) = (OnceLock::new(), AtomicU64::new(0));
        Self { backend, portion, reason, cache, instead, delivered, not_kept: OnceLock::new() }
    }

    pub(super) fn shard(&self) -> usize {
        self.portion.shard
    }

    /// Opens the shard for one worker. The first one notes what the page cache has then, if all else
    /// that reading brings there is to be taken out again.
    pub(super) fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>> {
        if self.cache == Cache::Drop {
            let file = reopen(&shard.path, &shard.identity)?;
            // Where the system does not say, all that is read is taken out again.
            let missing = || missing_ranges(&file, &self.portion.range);
            let all = |_| vec![self.portion.range.clone()];
            self.not_kept.get_or_init(|| missing().unwrap_or_else(all));
        }
        self.backend.open(shard)
    }

    /// After reads by a reader, also failed ones: whether it was refused.
    pub(super) fn note(&self, reader: &(impl ShardReader + ?Sized)) {
        if let Some(instead) = reader.instead() {
            self.instead.get_or_init(|| instead);
        }
    }

    /// Takes what a read brought into the page cache out again, if it is to be left as it was.
    pub(super) fn drop_read(&self, file: &File, read: &Range<u64>) {
        let not_kept = self.not_kept.get().map_or(&[][..], Vec::as_slice);
        pages_within(not_kept, read).for_each(|pages| drop_cached(file, &pages));
    }

    /// After bytes have reached their destinations.
    pub(super) fn add_delivered(&self, bytes: u64) {
        self.delivered.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn way(&self) -> Way {
        let asked = (self.backend.name(), self.reason);
        let (backend, reason) = self.instead.get().copied().unwrap_or(asked);
        let bytes = self.delivered.load(Ordering::Relaxed);
        Way { shard: self.shard(), backend, reason, bytes }
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
    fn parts_are_what_is_apart_however_it_is_cut_into_reads() {
        let want = |range| Want { shard: 2, range, element_bytes: None };
        let wants = [want(0..5), want(9..10), want(9000..19_010), want(30_000..30_001)];
        for (chunk_bytes, max_pieces) in [(1 << 20, 9), (100, 9), (1 << 20, 1)] {
            let options = PlanOptions { chunk_bytes, max_pieces, ..PlanOptions::default() };
            let plan = plan_reads(&wants, &options);
            let mut portion = Portion::new(2);
            portion.add_reads(&plan.reads, options.max_gap);
            assert_eq!((portion.parts, portion.range.clone()), (3, 0..30_001), "{options:?}");
            assert!((10_017..=10_021).contains(&portion.read_bytes), "{portion:?}");
        }
    }

    #[test]
    fn rows_that_are_far_apart_are_parts_of_their_own() {
        let mut portion = Portion::new(0);
        portion.add_rows(&(50..1000), 10, 5);
        portion.add_rows(&(20..60), 1, 40);
        let Portion { read_bytes, parts, range, .. } = portion;
        assert_eq!((read_bytes, parts, range), (90, 11, 20..1000));
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
