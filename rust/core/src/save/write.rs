//! Memory → staged files: parts are merged, cut to chunks, and written by several threads.

use super::disk::{Disk, write_all};
use super::staged::Staged;
use crate::error::{Error, Result};
use crate::read::Control;
use crate::read::pool;
use crate::sys::file::MAX_BUFFERS;
use crate::sys::source::Source;

/// Bytes of one write.
const CHUNK_BYTES: usize = 8 << 20;

/// Threads for writing when the caller names no number.
pub const DEFAULT_THREADS: usize = 4;

/// Part of a tensor, and where its bytes are.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Position of the file among those of the save.
    pub file: usize,
    /// Position of the tensor in the file's header.
    pub tensor: usize,
    /// First byte within the tensor.
    pub start: u64,
    /// The bytes.
    pub source: Source<'a>,
}

/// One write.
struct Task<'a> {
    file: usize,
    offset: u64,
    len: usize,
    parts: Vec<Part<'a>>,
}

/// How parts are written.
pub(super) struct Writing<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) files: &'a [Staged],
    /// Ask for write-back at once: a later sync then has little left to wait for.
    pub(super) durable: bool,
}

impl Writing<'_> {
    /// Writes all parts.
    ///
    /// # Errors
    /// [`Error::RangeOutside`] when a part leaves its tensor; else the first error of any write.
    pub(super) fn run(
        &self,
        parts: Vec<Part<'_>>,
        threads: usize,
        control: &Control,
    ) -> Result<()> {
        for part in &parts {
            self.check(part)?;
        }
        let threads = if threads == 0 { DEFAULT_THREADS } else { threads };
        let work = |(): &mut (), task: Task<'_>, control: &Control| self.write(&task, control);
        pool::run(threads, pool::singly(self.tasks(parts)), control, || (), work)
    }

    fn check(&self, part: &Part<'_>) -> Result<()> {
        let (name, byte_len) = self.tensor(part.file, part.tensor);
        let end = part.start.saturating_add(part.source.len() as u64);
        if end > byte_len {
            let (tensor, start) = (name.to_owned(), part.start);
            return Err(Error::RangeOutside { tensor, start, end, byte_len });
        }
        Ok(())
    }

    fn tensor(&self, file: usize, tensor: usize) -> (&str, u64) {
        let entry = self.files[file].header().and_then(|header| header.tensors.get_index(tensor));
        entry.map_or(("", 0), |(name, info)| (name, info.range.end - info.range.start))
    }

    /// First byte of a part within its file.
    fn offset(&self, part: &Part<'_>) -> u64 {
        let header = self.files[part.file].header();
        header.map_or(0, |header| {
            header.data_start + header.tensors[part.tensor].range.start + part.start
        })
    }

    /// Merges neighbours, cuts at chunks, and deals the files out in turn: the kernel lets one
    /// thread at a time write to a file.
    fn tasks<'p>(&self, parts: Vec<Part<'p>>) -> Vec<Task<'p>> {
        let mut by_file: Vec<Vec<Part<'p>>> = self.files.iter().map(|_| Vec::new()).collect();
        for part in parts.into_iter().filter(|part| !part.source.is_empty()) {
            by_file[part.file].push(part);
        }
        let mut queues: Vec<_> =
            by_file.into_iter().map(|parts| self.tasks_of_file(parts).into_iter()).collect();
        let mut tasks = Vec::new();
        loop {
            let before = tasks.len();
            tasks.extend(queues.iter_mut().filter_map(Iterator::next));
            if tasks.len() == before {
                return tasks;
            }
        }
    }

    fn tasks_of_file<'p>(&self, mut parts: Vec<Part<'p>>) -> Vec<Task<'p>> {
        parts.sort_by_key(|part| self.offset(part));
        let mut tasks: Vec<Task<'p>> = Vec::new();
        for mut part in parts {
            while !part.source.is_empty() {
                let offset = self.offset(&part);
                let room = match tasks.last() {
                    Some(last) if last.offset + last.len as u64 == offset && last.has_room() => {
                        CHUNK_BYTES - last.len
                    }
                    _ => {
                        tasks.push(Task { file: part.file, offset, len: 0, parts: Vec::new() });
                        CHUNK_BYTES
                    }
                };
                let source = part.source.split_off_front(room.min(part.source.len()));
                if let Some(task) = tasks.last_mut() {
                    task.len += source.len();
                    task.parts.push(Part { source, ..part });
                }
                part.start += source.len() as u64;
            }
        }
        tasks
    }

    fn write(&self, task: &Task<'_>, control: &Control) -> Result<()> {
        let staged = &self.files[task.file];
        let sources = task.parts.iter().map(|part| part.source).collect();
        let file = staged.file().map_err(|error| self.failed(task, "opening", error))?;
        write_all(self.disk, &file, task.offset, sources)
            .map_err(|error| self.failed(task, "writing", error))?;
        staged.note_range(task.offset, task.len as u64);
        for part in &task.parts {
            staged.note_part(part.tensor, part.start, &part.source);
        }
        if self.durable {
            self.disk
                .start_write_back(&file, task.offset, task.len as u64)
                .map_err(|error| self.failed(task, "starting write-back", error))?;
        }
        control.add_bytes(task.len as u64);
        Ok(())
    }

    fn failed(&self, task: &Task<'_>, action: &'static str, source: std::io::Error) -> Error {
        let tensor = task.parts.first().map(|part| self.tensor(part.file, part.tensor).0);
        Error::save(&self.files[task.file].path, tensor, action, source)
    }
}

impl Task<'_> {
    fn has_room(&self) -> bool {
        self.len < CHUNK_BYTES && self.parts.len() < MAX_BUFFERS
    }
}
