//! Memory → staged files: parts are merged, cut to chunks, and written by several threads.

use super::disk::{Disk, write_all};
use super::part::{Part, PartSource, bytes_of};
use super::staged::Staged;
use crate::error::{Error, Result};
use crate::read::Control;
use crate::read::pool;
use crate::sys::file::MAX_BUFFERS;
use crate::sys::memory::grow;

/// Bytes of one write.
const CHUNK_BYTES: usize = 8 << 20;

/// Bytes that a thread gathers, at most, before it writes them.
const GATHER_BYTES: usize = 2 << 20;

/// Threads for writing when the caller names no number.
pub const DEFAULT_THREADS: usize = 4;

/// One write.
struct Task<'a> {
    file: usize,
    offset: u64,
    len: usize,
    /// Bytes that have to be gathered first.
    gathered_len: usize,
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
        let work = |scratch: &mut Vec<u8>, task: Task<'_>, control: &Control| {
            self.write(&task, scratch, control)
        };
        pool::run(threads, pool::singly(self.tasks(parts)), control, Vec::new, work)
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
                let is_next = |last: &Task<'_>| {
                    last.offset + last.len as u64 == offset && last.room(&part.source) > 0
                };
                if !tasks.last().is_some_and(is_next) {
                    tasks.push(Task::new(part.file, offset));
                }
                if let Some(task) = tasks.last_mut() {
                    task.take(&mut part);
                }
            }
        }
        tasks
    }

    fn write(&self, task: &Task<'_>, scratch: &mut Vec<u8>, control: &Control) -> Result<()> {
        let staged = &self.files[task.file];
        grow(scratch, task.gathered_len).map_err(|error| self.failed(task, "gathering", error))?;
        let sources = bytes_of(&task.parts, scratch);
        let file = staged.file().map_err(|error| self.failed(task, "opening", error))?;
        write_all(self.disk, &file, task.offset, sources.clone())
            .map_err(|error| self.failed(task, "writing", error))?;
        staged.note_range(task.offset, task.len as u64);
        for (part, source) in task.parts.iter().zip(&sources) {
            staged.note_part(part.tensor, part.start, source);
        }
        if self.durable {
            self.disk
                .start_write_back(&file, task.offset, task.len as u64)
                .map_err(|error| self.failed(task, "starting write-back", error))?;
        }
        let given_back = staged.give_back(self.disk, file);
        given_back.map_err(|error| self.failed(task, "closing", error))?;
        control.add_bytes(task.len as u64);
        Ok(())
    }

    fn failed(&self, task: &Task<'_>, action: &'static str, source: std::io::Error) -> Error {
        let tensor = task.parts.first().map(|part| self.tensor(part.file, part.tensor).0);
        Error::save(&self.files[task.file].path, tensor, action, source)
    }
}

impl<'a> Task<'a> {
    fn new(file: usize, offset: u64) -> Self {
        Self { file, offset, len: 0, gathered_len: 0, parts: Vec::new() }
    }

    /// How many bytes of a source can be added.
    fn room(&self, source: &PartSource<'_>) -> usize {
        if self.parts.len() == MAX_BUFFERS {
            return 0;
        }
        let left = CHUNK_BYTES - self.len;
        match source {
            PartSource::Bytes(_) => left,
            PartSource::Elements(_) => {
                let left = left.min(GATHER_BYTES - self.gathered_len);
                left / source.unit() * source.unit()
            }
        }
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
