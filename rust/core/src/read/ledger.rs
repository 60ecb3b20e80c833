//! [`Ledger`]: how much of each destination is filled, for a read that ends before its end.

use super::job::Job;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a read has done to each of its destinations so far.
#[derive(Debug)]
pub struct Ledger {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    shard: usize,
    begun: AtomicBool,
    /// Bytes of the file that are still to come.
    left: AtomicU64,
}

/// A destination whose memory may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Position of its job.
    pub job: usize,
    /// It has all that it was to get.
    pub whole: bool,
}

impl Ledger {
    /// `shard_of` says where a job's tensor is, by its position in the checkpoint.
    pub(super) fn of(jobs: &[Job<'_>], shard_of: impl Fn(usize) -> usize) -> Self {
        let entry = |job: &Job<'_>| Entry {
            shard: shard_of(job.tensor),
            begun: AtomicBool::new(false),
            left: AtomicU64::new(job.dest.delivered()),
        };
        Self { entries: jobs.iter().map(entry).collect() }
    }

    /// Takes note of destinations that are about to change.
    pub(super) fn begin(&self, wanted: impl Iterator<Item = (usize, u64)>) {
        for (job, _) in wanted {
            self.entries[job].begun.store(true, Ordering::Relaxed);
        }
    }

    /// Takes note of bytes of the file that have arrived: how many, for which job.
    pub(super) fn fill(&self, arrived: &[(usize, u64)]) {
        for (job, len) in arrived {
            self.entries[*job].left.fetch_sub(*len, Ordering::Relaxed);
        }
    }

    /// Takes note that what has come of a shard may be neither its old bytes nor its new ones.
    pub(super) fn distrust(&self, shard: usize) {
        for entry in self.entries.iter().filter(|entry| entry.shard == shard) {
            entry.left.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every destination that has been written to, or may have been, in the order of the jobs.
    #[must_use]
    pub fn touched(&self) -> Vec<Touched> {
        let begun = |(_, entry): &(usize, &Entry)| entry.begun.load(Ordering::Relaxed);
        let touched = |(job, entry): (usize, &Entry)| Touched {
            job,
            whole: entry.left.load(Ordering::Relaxed) == 0,
        };
        self.entries.iter().enumerate().filter(begun).map(touched).collect()
    }
}
