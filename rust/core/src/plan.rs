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
    /// Size of an element, if they are converted on their way; pieces then end between elements.
    /// `None` when the bytes go straight to their place.
    pub element_bytes: Option<u64>,
}

/// How to cut and merge.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Reads end at multiples of this many bytes of the file: the unit of work and of
    /// cancellation.
    pub chunk_bytes: u64,
    /// The same for elements that are converted, but that the element which begins before such a
    /// multiple and ends behind it is read whole.
    pub element_chunk_bytes: u64,
    /// Two ranges this near to each other become one read; the bytes between are thrown away.
    pub max_gap: u64,
    /// Most pieces in one read.
    pub max_pieces: usize,
}

impl Default for PlanOptions {
    /// Chunks of 2 MiB: large enough that the call does not matter, small enough that what
    /// sixteen threads have in flight (32 MiB) is read soon after Ctrl-C. Those of elements are in
    /// the cache when they are converted, and long enough for a transposed destination to be written
    /// line by line: the first 60 tensors of TinyLlama-1.1B took 0.12 s in chunks of 1 MiB, 0.17 s of
    /// 512 KiB, 0.27 s of 256 KiB.
    fn default() -> Self {
        Self {
            chunk_bytes: 2 << 20,
            element_chunk_bytes: 1 << 20,
            max_gap: 4096,
            max_pieces: crate::sys::file::MAX_BUFFERS,
        }
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
        let chunk_bytes = blocks * block_bytes;
        // An element that begins before the end of a chunk is read whole.
        let element_chunk_bytes = self.element_chunk_bytes.min((chunk_bytes / 2).max(block_bytes));
        Self { chunk_bytes, element_chunk_bytes, ..*self }
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
/// When a size of chunks or elements is 0.
///
/// ```
/// use windlass_core::plan::{PlanOptions, Want, plan_reads};
/// let wants = [8..12, 0..8].map(|range| Want { shard: 0, range, element_bytes: None });
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
    // Wants that overlap leave reads out of order. A piece begins in the same chunk (of its want's
    // size) as its read, and a want has one piece per chunk, so sorting keeps the pieces of a want
    // in order.
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
            let len = self.piece_end(want, offset) - offset;
            self.place(want, offset, Piece { target: Target::Want(position), len });
            offset += len;
        }
    }

    /// End of the piece of a want that begins at `offset`.
    fn piece_end(&self, want: &Want, offset: u64) -> u64 {
        let len = self.chunk_end(want, offset) - offset;
        let len = want.element_bytes.map_or(len, |bytes| len.div_ceil(bytes).saturating_mul(bytes));
        want.range.end.min(offset.saturating_add(len))
    }

    /// End of the chunk that holds `offset`, of the size that the want has.
    fn chunk_end(&self, want: &Want, offset: u64) -> u64 {
        let size = match want.element_bytes {
            None => self.options.chunk_bytes,
            Some(_) => self.options.element_chunk_bytes,
        };
        (offset / size + 1).saturating_mul(size)
    }

    fn place(&mut self, want: &Want, offset: u64, piece: Piece) {
        match self.gap_to(want, offset) {
            Some(gap) => self.extend(gap, piece),
            None => self.reads.push(Read { shard: want.shard, offset, pieces: vec![piece] }),
        }
        self.end = offset + piece.len;
    }

    /// Bytes between the open read and `offset`, if a piece of the want may join it there.
    fn gap_to(&self, want: &Want, offset: u64) -> Option<u64> {
        let open = self.reads.last()?;
        let gap = offset.checked_sub(self.end)?;
        let joins = open.shard == want.shard
            && gap <= self.options.max_gap
            && offset < self.chunk_end(want, open.offset)
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
