//! [`Task`]: one read of a plan together with the memory that it fills; and stretches of such.

use super::job::JobDest;
use crate::plan::{Piece, Read, ReadPlan, Target};
use crate::sys::source::Source;
use std::ops::Range;

/// A thread reads this much of a file from front to back before it goes elsewhere, if that leaves
/// two such stretches to every thread: then the kernel sees it coming, and reads ahead in large
/// requests into large pages.
///
/// Measured on 2 cores with 2.2 GB, cold, 16 threads, medians of 5 rounds: 2.1 s where every read of
/// 2 MiB went to the next thread and read-ahead was off; with it, 2.1 s in stretches of 8 MiB, 1.4 s
/// of 16, 1.2 s of 32, 1.8 s of 64.
pub(super) const STRETCH_BYTES: u64 = 32 << 20;

/// A read together with the memory it fills.
pub(super) struct Task<'a> {
    pub(super) shard: usize,
    pub(super) offset: u64,
    pub(super) pieces: Vec<Share<'a>>,
}

/// Bytes of a read, and the job and the memory that they are for; none of a gap.
pub(super) struct Share<'a> {
    pub(super) len: usize,
    pub(super) dest: Option<(usize, JobDest<'a>)>,
}

impl Task<'_> {
    /// Shard, and where in it the read begins.
    pub(super) fn place(&self) -> (usize, u64) {
        (self.shard, self.offset)
    }

    /// Bytes that are read.
    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(|share| share.len).sum()
    }

    /// Which bytes of the file are read.
    pub(super) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.len() as u64
    }

    /// Jobs that want something of it, and how many bytes.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (usize, u64)> {
        let dests = self.pieces.iter().filter_map(|share| share.dest.as_ref());
        dests.map(|(job, dest)| (*job, dest.delivered()))
    }

    /// First address and end of what each piece fills that fills one run of bytes.
    pub(super) fn dense_spans(&self) -> impl Iterator<Item = (usize, usize)> {
        self.pieces.iter().filter_map(|share| share.dest.as_ref()?.1.dense_span())
    }

    /// Hands out what was read elsewhere.
    pub(super) fn deliver(self, bytes: &[u8]) {
        let mut bytes = Source::from_slice(bytes);
        for Share { len, dest } in self.pieces {
            let piece = bytes.split_off_front(len);
            if let Some((_, dest)) = dest {
                dest.fill(piece);
            }
        }
    }

    /// Bytes that are not read into place.
    pub(super) fn scratch_len(&self) -> usize {
        let is_in_place = |share: &Share<'_>| matches!(share.dest, Some((_, JobDest::Bytes(_))));
        self.pieces.iter().filter(|share| !is_in_place(share)).map(|share| share.len).sum()
    }
}

/// Deals the destinations, each with its job, out to the reads of the plan.
pub(super) fn tasks(plan: ReadPlan, mut dests: Vec<(usize, JobDest<'_>)>) -> Vec<Task<'_>> {
    plan.reads.into_iter().map(|read| task(read, &mut dests)).collect()
}

fn task<'a>(read: Read, dests: &mut [(usize, JobDest<'a>)]) -> Task<'a> {
    let deal = |piece: Piece| {
        let len = usize::try_from(piece.len).expect("no piece is longer than a chunk");
        let dest = match piece.target {
            Target::Gap => None,
            Target::Want(position) => {
                let (job, dest) = &mut dests[position];
                Some((*job, dest.split_off_front(len)))
            }
        };
        Share { len, dest }
    };
    Task {
        shard: read.shard,
        offset: read.offset,
        pieces: read.pieces.into_iter().map(deal).collect(),
    }
}

/// Groups neighbouring reads of a shard, of which `place` says shard and offset, to stretches of at
/// most about that many bytes.
pub(super) fn stretches<T>(
    reads: Vec<T>,
    most_bytes: u64,
    place: impl Fn(&T) -> (usize, u64),
) -> Vec<Vec<T>> {
    let mut stretches: Vec<Vec<T>> = Vec::new();
    for read in reads {
        let (shard, offset) = place(&read);
        match stretches.last_mut() {
            Some(open) if joins(place(&open[0]), (shard, offset), most_bytes) => open.push(read),
            _ => stretches.push(vec![read]),
        }
    }
    stretches
}

fn joins(first: (usize, u64), next: (usize, u64), most_bytes: u64) -> bool {
    first.0 == next.0 && next.1 - first.1 < most_bytes
}
