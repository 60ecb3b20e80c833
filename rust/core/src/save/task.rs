//! [`Task`]: parts of tensors that lie side by side in a file, and are written at once.

use super::part::{Part, PartSource};
use crate::sys::bounce::BOUNCE_BYTES;
use crate::sys::file::MAX_BUFFERS;
use crate::sys::source::Source;

/// Bytes of one write through the page cache.
const CHUNK_BYTES: usize = 8 << 20;

/// Bytes that a thread gathers, at most, before it writes them.
const GATHER_BYTES: usize = 2 << 20;

/// Bytes that all threads together gather, at most.
const ALL_GATHER_BYTES: usize = 32 << 20;

/// How bytes get to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Through the page cache.
    Cached,
    /// Past it, in whole blocks.
    Direct,
}

/// How parts are cut into writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    way: Way,
    gather_bytes: usize,
}

impl Cut {
    pub(super) fn new(way: Way, threads: usize) -> Self {
        let gather_bytes = (ALL_GATHER_BYTES / threads.max(1)).clamp(1, GATHER_BYTES);
        Self { way, gather_bytes }
    }

    /// Bytes of a write that begins at `offset`. Writes past the page cache end at windows, which are
    /// whole blocks, unless the last element of one reaches into the next.
    fn room_at(self, offset: u64) -> usize {
        match self.way {
            Way::Cached => CHUNK_BYTES,
            Way::Direct => {
                let window = BOUNCE_BYTES as u64;
                usize::try_from(window - offset % window).expect("less than a window")
            }
        }
    }
}

/// One write.
pub(super) struct Task<'a> {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) len: usize,
    /// Bytes that have to be gathered first.
    pub(super) gathered_len: usize,
    pub(super) parts: Vec<Part<'a>>,
    most_bytes: usize,
    most_gathered: usize,
    most_parts: usize,
}

/// Merges neighbours of one file, and cuts them into writes; `offset` tells where in the file a part
/// begins.
pub(super) fn tasks_of_file<'a>(
    mut parts: Vec<Part<'a>>,
    cut: Cut,
    offset: impl Fn(&Part<'_>) -> u64,
) -> Vec<Task<'a>> {
    parts.sort_by_key(&offset);
    let mut tasks: Vec<Task<'a>> = Vec::new();
    for mut part in parts {
        while !part.source.is_empty() {
            let start = offset(&part);
            let is_next = |last: &Task<'_>| {
                last.offset + last.len as u64 == start && last.room(&part.source) > 0
            };
            if !tasks.last().is_some_and(is_next) {
                tasks.push(Task::new(part.file, start, cut));
            }
            if let Some(task) = tasks.last_mut() {
                task.take(&mut part);
            }
        }
    }
    tasks
}

impl<'a> Task<'a> {
    fn new(file: usize, offset: u64, cut: Cut) -> Self {
        Self {
            file,
            offset,
            len: 0,
            gathered_len: 0,
            parts: Vec::new(),
            most_bytes: cut.room_at(offset),
            most_gathered: cut.gather_bytes,
            // What is put together first is handed over as one.
            most_parts: if cut.way == Way::Direct { usize::MAX } else { MAX_BUFFERS },
        }
    }

    /// How many bytes of a source can be added: up to the limits, and to the end of the element that
    /// reaches over them.
    fn room(&self, source: &PartSource<'_>) -> usize {
        if self.parts.len() == self.most_parts {
            return 0;
        }
        let left = self.most_bytes.saturating_sub(self.len);
        match source {
            PartSource::Bytes(_) => left,
            PartSource::Elements(_) => {
                let left = left.min(self.most_gathered.saturating_sub(self.gathered_len));
                left.next_multiple_of(source.unit())
            }
        }
    }

    /// What of `bytes`, all that is written, is of each part.
    pub(super) fn split<'m>(&self, mut bytes: Source<'m>) -> Vec<Source<'m>> {
        self.parts.iter().map(|part| bytes.split_off_front(part.source.len())).collect()
    }

    /// Takes as much of the front of a part as there is room for.
    fn take(&mut self, part: &mut Part<'a>) {
        let len = self.room(&part.source).min(part.source.len());
        let source = part.source.split_off_front(len);
        self.len += len;
        self.gathered_len += source.gathered_len();
        self.parts.push(Part { source, ..*part });
        part.start += len as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(way: Way, starts: &[u64], bytes: &[u8]) -> Vec<(u64, usize)> {
        let source = Source::from_slice(bytes);
        let part = |&start| Part { file: 0, tensor: 0, start, source: source.into() };
        let parts = starts.iter().map(part).collect();
        let tasks = tasks_of_file(parts, Cut::new(way, 4), |part| part.start);
        tasks.iter().map(|task| (task.offset, task.len)).collect()
    }

    #[test]
    fn direct_writes_end_at_blocks_wherever_parts_begin() {
        let (bytes, window) = (vec![0; 3 << 20], BOUNCE_BYTES);
        let (next, second) = (100 + bytes.len() as u64, 2 * window as u64);
        let expected = [
            (100, window - 100),
            (window as u64, window),
            (second, window),
            (3 * window as u64, 100),
        ];
        assert_eq!(cut(Way::Direct, &[next, 100], &bytes), expected);
        assert_eq!(cut(Way::Cached, &[next, 100], &bytes), [(100, 2 * bytes.len())]);
        assert_eq!(cut(Way::Direct, &[second], &bytes[..7]), [(second, 7)]);
    }

    #[test]
    fn what_does_not_touch_is_written_by_itself() {
        for way in [Way::Cached, Way::Direct] {
            assert_eq!(cut(way, &[20, 0, 10], &[0; 10]), [(0, 30)]);
            assert_eq!(cut(way, &[21, 0, 10], &[0; 10]), [(0, 20), (21, 10)]);
        }
    }
}
