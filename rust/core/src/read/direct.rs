//! Direct reads (`O_DIRECT`): from the disk into memory of our own, past the page cache, and from
//! there to the destinations.
//!
//! The disk reads whole blocks into aligned memory, and tensors begin anywhere. So each reader has
//! bounce memory of fixed size: the blocks that a read touches are read into it, and what is wanted
//! of them is copied out. Where the system refuses, reads go on through the page cache.

use super::{Backend, Reason, ShardReader};
use crate::checkpoint::Shard;
use crate::error::Result;
use crate::plan::PlanOptions;
use crate::sys::bounce::{BOUNCE_BYTES, Bounce};
use crate::sys::dest::{Dest, fill_front};
use crate::sys::direct::{MOST_BLOCK_BYTES, is_refusal, start_direct, stop_direct};
use crate::sys::file::{disable_read_ahead, read_at, reopen};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bounce memory that all readers together touch.
const ALL_BOUNCE_BYTES: u64 = 32 << 20;

/// Chunks that direct reads can take in one go: whole blocks, and no more than the bounce memory
/// of so many readers.
pub(super) fn fitting(options: &PlanOptions, readers: usize) -> PlanOptions {
    let most = (ALL_BOUNCE_BYTES / readers as u64).clamp(1, BOUNCE_BYTES as u64);
    options.in_blocks(MOST_BLOCK_BYTES as u64, 1 << most.ilog2())
}

pub(super) struct Direct;

impl Backend for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn open(&self, shard: &Shard) -> Result<Box<dyn ShardReader>> {
        let file = reopen(&shard.path, &shard.identity)?;
        Ok(Box::new(DirectFile::of(file)))
    }
}

/// An open file, the size of its blocks (`None`: direct reads were refused), and bounce memory
/// once something is read.
pub(super) struct DirectFile {
    pub(super) file: File,
    pub(super) block: Option<usize>,
    bounce: Option<Bounce>,
}

impl DirectFile {
    pub(super) fn of(file: File) -> Self {
        disable_read_ahead(&file);
        let block = start_direct(&file);
        Self { file, block, bounce: None }
    }

    /// Goes on through the page cache.
    fn give_up(&mut self) -> io::Result<()> {
        self.block = None;
        stop_direct(&self.file)
    }

    /// Reads the blocks of a window; whether it did: not when the system refuses, or the file ends
    /// before.
    fn fetch(&mut self, window: &Window, block: usize) -> io::Result<bool> {
        let bounce = Bounce::with_room(&mut self.bounce, window.len)?;
        let mut have = 0;
        while have < window.wanted_end {
            let got = match self.file.read_at(&mut bounce[have..], window.start + have as u64) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_refusal(&error) => return Ok(false),
                count => have + count?,
            };
            if got >= window.wanted_end {
                break;
            }
            // A read can only go on at a block, so a block that came in part comes again.
            let whole = got - got % block;
            if whole == have {
                return Ok(false);
            }
            have = whole;
        }
        Ok(true)
    }

    /// What is wanted of the window that was read last.
    fn fetched(&mut self, window: &Window) -> &[u8] {
        let bounce = self.bounce.as_mut().expect("a window was read");
        &bounce.front(window.len)[window.wanted_start..window.wanted_end]
    }
}

impl ShardReader for DirectFile {
    fn read(&mut self, mut offset: u64, dests: &mut [Dest<'_>]) -> io::Result<()> {
        let wanted: u64 = dests.iter().map(|dest| dest.len() as u64).sum();
        let end = offset.checked_add(wanted).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut dests = dests;
        while offset < end {
            let Some(block) = self.block else { return read_at(&self.file, offset, dests) };
            let window = Window::of(offset, end, block, BOUNCE_BYTES);
            if self.fetch(&window, block)? {
                let bytes = self.fetched(&window);
                dests = fill_front(dests, bytes);
                offset += bytes.len() as u64;
            } else {
                self.give_up()?;
            }
        }
        Ok(())
    }

    fn lend(&mut self, range: &Range<u64>) -> io::Result<Option<&[u8]>> {
        let Some(block) = self.block else { return Ok(None) };
        let window = Window::of(range.start, range.end, block, BOUNCE_BYTES);
        if (window.wanted_end - window.wanted_start) as u64 != range.end - range.start {
            return Ok(None); // Longer than the bounce memory.
        }
        if self.fetch(&window, block)? {
            return Ok(Some(self.fetched(&window)));
        }
        self.give_up()?;
        Ok(None)
    }

    fn instead(&self) -> Option<(&'static str, Reason)> {
        self.block.is_none().then_some(("buffered", Reason::Refused))
    }

    /// Also where the system did not refuse: some file systems take the request, and cache.
    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

/// Blocks that fit the bounce memory, and which bytes of them are wanted.
#[derive(Debug, PartialEq)]
pub(super) struct Window {
    pub(super) start: u64,
    pub(super) len: usize,
    pub(super) wanted_start: usize,
    pub(super) wanted_end: usize,
}

impl Window {
    /// As much of `offset..end` as fits, with the rest of its first and last block.
    pub(super) fn of(offset: u64, end: u64, block: usize, most_bytes: usize) -> Self {
        let small = |bytes: u64| usize::try_from(bytes).expect("less than the bounce memory");
        let start = offset - offset % block as u64;
        let wanted_end = small((end - start).min(most_bytes as u64));
        Self {
            start,
            len: wanted_end.next_multiple_of(block),
            wanted_start: small(offset - start),
            wanted_end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_whole_blocks_and_fits() {
        let full = BOUNCE_BYTES as u64;
        let rows = [
            // offset, end → start, len, wanted
            (0, 4096, (0, 4096, 0..4096)),
            (4095, 4097, (0, 8192, 4095..4097)),
            (4096, 4097, (4096, 4096, 0..1)),
            (5000, 5000 + full, (4096, BOUNCE_BYTES, 904..BOUNCE_BYTES)),
            (8192, 8192 + full, (8192, BOUNCE_BYTES, 0..BOUNCE_BYTES)),
        ];
        for (offset, end, (start, len, wanted)) in rows {
            let (wanted_start, wanted_end) = (wanted.start, wanted.end);
            let expected = Window { start, len, wanted_start, wanted_end };
            assert_eq!(Window::of(offset, end, 4096, BOUNCE_BYTES), expected, "{offset}..{end}");
        }
    }

    /// A file of so many numbers, and its bytes.
    #[cfg(target_os = "linux")]
    fn numbered(count: u32) -> (DirectFile, Vec<u8>) {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..count).flat_map(u32::to_le_bytes).collect();
        io::Write::write_all(&mut file, &bytes).unwrap();
        (DirectFile::of(file), bytes)
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_fits_the_bounce_memory_is_lent() {
        let (mut reader, bytes) = numbered(1_000_000);
        let refused = reader.block.is_none();
        for (range, fits) in [(13..1_048_600, true), (0..BOUNCE_BYTES, true), (9..3_000_000, false)]
        {
            let lent = reader.lend(&(range.start as u64..range.end as u64)).unwrap();
            assert_eq!(lent, (fits && !refused).then_some(&bytes[range]));
        }
    }

    #[test]
    fn chunks_fit_the_bounce_memory_of_all_readers() {
        let rows = [
            // chunk, readers → chunk
            (2 << 20, 16, 2 << 20),
            (2 << 20, 1, 2 << 20),
            (64 << 20, 1, 2 << 20),
            (2 << 20, 17, 1 << 20),
            (2 << 20, 33, 512 << 10),
            (2 << 20, 1024, 32 << 10),
            (2 << 20, 1 << 20, 4096),
            (1000, 16, 4096),
            (10_000, 16, 12_288),
        ];
        for (chunk_bytes, readers, expected) in rows {
            let options = PlanOptions { chunk_bytes, ..PlanOptions::default() };
            let found = fitting(&options, readers).chunk_bytes;
            assert_eq!(found, expected, "{chunk_bytes} by {readers}");
        }
    }

    /// Files of `/proc` know no direct reads, on any kernel.
    #[cfg(target_os = "linux")]
    #[test]
    fn where_direct_reads_are_refused_the_page_cache_serves() {
        let path = "/proc/self/status";
        let expected = std::fs::read(path).unwrap();
        let mut reader = DirectFile::of(File::open(path).unwrap());
        let mut memory = vec![0; 20];
        reader.read(3, &mut [Dest::from_slice(&mut memory)]).unwrap();
        assert_eq!(memory, expected[3..23]);
        assert_eq!(reader.instead(), Some(("buffered", Reason::Refused)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_read_that_the_disk_refuses_goes_on_through_the_page_cache() {
        let (mut reader, bytes) = numbered(100_000);
        reader.block = Some(1); // What no disk takes.
        let mut memory = vec![0; 300_001];
        let mut dests = Vec::new();
        let (first, second) = memory.split_at_mut(77);
        dests.push(Dest::from_slice(first));
        dests.push(Dest::from_slice(second));
        reader.read(13, &mut dests).unwrap();
        assert!(memory == bytes[13..300_014]);
    }
}
