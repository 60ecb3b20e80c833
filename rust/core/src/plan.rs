//! Wanted byte ranges → [`ReadPlan`]: merged with their neighbours, cut into chunks. Pure.
//!
//! The plan is data: which bytes of which shard, in which order, into which destination. Readers
//! carry it out and decide nothing.

use std::ops::Range;

/// Bytes that a caller wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Position of the shard.
    pub shard: usize,
    /// Byte range within the shard's file.
    pub range: Range<u64>,
}

/// How to cut and merge.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Reads end at multiples of this many bytes of the file: the unit of work and of
    /// cancellation.
    pub chunk_bytes: u64,
    /// Two ranges this near to each other become one read; the bytes between are thrown away.
    pub max_gap: u64,
    /// Most pieces in one read.
    pub max_pieces: usize,
}

impl Default for PlanOptions {
    /// Chunks of 2 MiB: large enough that the call does not matter, small enough that what
    /// sixteen threads have in flight (32 MiB) is read soon after Ctrl-C.
    fn default() -> Self {
        Self { chunk_bytes: 2 << 20, max_gap: 4096, max_pieces: crate::sys::file::MAX_BUFFERS }
    }
}

impl PlanOptions {
    /// The same with chunks of whole blocks, for reads that can take nothing else: `most_bytes` is
    /// the longest of them. The blocks that one read touches are then within one chunk, and
    /// neighbouring reads have at most one block in common.
    #[must_use]
    pub fn in_blocks(&self, block_bytes: u64, most_bytes: u64) -> Self {
        let most_blocks = (most_bytes / block_bytes).max(1);
        let blocks = self.chunk_bytes.div_ceil(block_bytes).clamp(1, most_blocks);
        Self { chunk_bytes: blocks * block_bytes, ..*self }
    }
}

/// Where a piece of a read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The next bytes of the want at this position.
    Want(usize),
    /// Nowhere: bytes between two wanted ranges.
    Gap,
}

/// Part of a read that goes to one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it goes.
    pub target: Target,
    /// How many bytes.
    pub len: u64,
}

/// One contiguous read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Position of the shard.
    pub shard: usize,
    /// Where it begins within the shard's file.
    pub offset: u64,
    /// What it fills, in order; never empty.
    pub pieces: Vec<Piece>,
}

impl Read {
    /// Number of bytes read.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len).sum()
    }

    /// Whether there is nothing to read; never so in a plan.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// All reads, by shard and offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadPlan {
    /// The reads.
    pub reads: Vec<Read>,
    /// Wanted bytes (gaps not counted).
    pub bytes: u64,
}

/// Plans the reading of `wants`. The pieces of one want appear in the order of its bytes.
///
/// # Panics
/// When `chunk_bytes` is 0.
///
/// ```
/// use windlass_core::plan::{PlanOptions, Want, plan_reads};
/// let wants = [Want { shard: 0, range: 8..12 }, Want { shard: 0, range: 0..8 }];
/// let plan = plan_reads(&wants, &PlanOptions::default());
/// assert_eq!(plan.reads.len(), 1);
/// assert_eq!(plan.bytes, 12);
/// ```
#[must_use]
pub fn plan_reads(wants: &[Want], options: &PlanOptions) -> ReadPlan {
    let mut order: Vec<usize> = (0..wants.len()).filter(|&i| !wants[i].range.is_empty()).collect();
    order.sort_by_key(|&i| (wants[i].shard, wants[i].range.start, i));
    let mut planner = Planner { options, reads: Vec::new(), end: 0 };
    let mut bytes = 0;
    for i in order {
        planner.add(i, &wants[i]);
        bytes += wants[i].range.end - wants[i].range.start;
    }
    // Wants that overlap leave reads out of order. No read leaves its chunk and a want has one
    // piece per chunk, so sorting keeps the pieces of a want in order.
    planner.reads.sort_by_key(|read| (read.shard, read.offset));
    ReadPlan { reads: planner.reads, bytes }
}

struct Planner<'a> {
    options: &'a PlanOptions,
    reads: Vec<Read>,
    /// End of the last read within its file.
    end: u64,
}

impl Planner<'_> {
    fn add(&mut self, position: usize, want: &Want) {
        let mut offset = want.range.start;
        while offset < want.range.end {
            let chunk_end = self.chunk_end(offset);
            let len = want.range.end.min(chunk_end) - offset;
            self.place(want.shard, offset, Piece { target: Target::Want(position), len });
            offset += len;
        }
    }

    /// End of the chunk that holds `offset`.
    fn chunk_end(&self, offset: u64) -> u64 {
        (offset / self.options.chunk_bytes + 1).saturating_mul(self.options.chunk_bytes)
    }

    fn place(&mut self, shard: usize, offset: u64, piece: Piece) {
        match self.gap_to(shard, offset, piece.len) {
            Some(gap) => self.extend(gap, piece),
            None => self.reads.push(Read { shard, offset, pieces: vec![piece] }),
        }
        self.end = offset + piece.len;
    }

    /// Bytes between the open read and `offset`, if a piece of that length may join it.
    fn gap_to(&self, shard: usize, offset: u64, len: u64) -> Option<u64> {
        let open = self.reads.last()?;
        let gap = offset.checked_sub(self.end)?;
        let joins = open.shard == shard
            && gap <= self.options.max_gap
            && offset + len <= self.chunk_end(open.offset)
            && open.pieces.len() + 2 <= self.options.max_pieces;
        joins.then_some(gap)
    }

    fn extend(&mut self, gap: u64, piece: Piece) {
        let Some(open) = self.reads.last_mut() else { return };
        if gap > 0 {
            open.pieces.push(Piece { target: Target::Gap, len: gap });
        }
        open.pieces.push(piece);
    }
}
