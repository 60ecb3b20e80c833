//! Memory → staged files: parts are merged, cut to chunks, and written by several threads.

use super::direct::TwoWays;
use super::disk::{Disk, write_all};
use super::part::{Part, bytes_of, copies_of};
use super::staged::Staged;
use super::task::{Cut, Task, Way, tasks_of_file};
use crate::error::{Error, Result};
use crate::read::Control;
use crate::read::pool;
use crate::sys::bounce::Bounce;
use crate::sys::memory::grow;
use crate::sys::source::Source;
use std::fs::File;
use std::io;

/// Threads for writing when the caller names no number.
pub const DEFAULT_THREADS: usize = 4;

/// Threads for writing past the page cache, at most: more would only wait for the disk, and each
/// has memory of its own.
const MOST_DIRECT_THREADS: usize = 16;

/// How parts are written.
pub(super) struct Writing<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) files: &'a [Staged],
    /// Bring the bytes to the disk at once: a later sync then has little left to wait for.
    pub(super) durable: bool,
}

/// Memory of one thread.
#[derive(Default)]
struct Scratch {
    gathered: Vec<u8>,
    bounce: Option<Bounce>,
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
        let way = self.way(&parts);
        let threads = match (way, threads) {
            (Way::Cached, 0) => DEFAULT_THREADS,
            (Way::Cached, threads) => threads,
            (Way::Direct, 0) => MOST_DIRECT_THREADS,
            (Way::Direct, threads) => threads.min(MOST_DIRECT_THREADS),
        };
        let work = |scratch: &mut Scratch, task: Task<'_>, control: &Control| {
            self.write(&task, way, scratch, control)
        };
        pool::run(
            threads,
            pool::singly(self.tasks(parts, Cut::new(way, threads))),
            control,
            Scratch::default,
            work,
        )
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

    /// Past the page cache, where it is the disk that is waited for in the end: that takes no memory,
    /// and no second way through it. All files are on one file system.
    fn way(&self, parts: &[Part<'_>]) -> Way {
        let Some(part) = parts.first().filter(|_| self.durable) else { return Way::Cached };
        let file = self.files[part.file].file().ok();
        match file.and_then(|file| self.disk.open_direct(&file)) {
            Some(_) => Way::Direct,
            None => Way::Cached,
        }
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

    /// Deals the files out in turn: the kernel lets one thread at a time write to a file through the
    /// page cache.
    fn tasks<'p>(&self, parts: Vec<Part<'p>>, cut: Cut) -> Vec<Task<'p>> {
        let mut by_file: Vec<Vec<Part<'p>>> = self.files.iter().map(|_| Vec::new()).collect();
        for part in parts.into_iter().filter(|part| !part.source.is_empty()) {
            by_file[part.file].push(part);
        }
        let tasks = |parts| tasks_of_file(parts, cut, |part| self.offset(part)).into_iter();
        let mut queues: Vec<_> = by_file.into_iter().map(tasks).collect();
        let mut tasks = Vec::new();
        loop {
            let before = tasks.len();
            tasks.extend(queues.iter_mut().filter_map(Iterator::next));
            if tasks.len() == before {
                return tasks;
            }
        }
    }

    fn write(
        &self,
        task: &Task<'_>,
        way: Way,
        scratch: &mut Scratch,
        control: &Control,
    ) -> Result<()> {
        let failed = |action| move |error| self.failed(task, action, error);
        let staged = &self.files[task.file];
        let file = staged.file().map_err(failed("opening"))?;
        let direct = if way == Way::Direct { self.disk.open_direct(&file) } else { None };
        let sources = match &direct {
            Some((direct, block)) => {
                let ways = TwoWays { disk: self.disk, direct, block: *block, cached: &file };
                self.write_direct(task, &ways, scratch)
            }
            None => self.write_cached(task, &file, scratch),
        }?;
        staged.note_range(task.offset, task.len as u64);
        for (part, source) in task.parts.iter().zip(&sources) {
            staged.note_part(part.tensor, part.start, source);
        }
        staged.give_back(self.disk, file).map_err(failed("closing"))?;
        control.add_bytes(task.len as u64);
        Ok(())
    }

    fn write_direct<'s>(
        &self,
        task: &Task<'s>,
        ways: &TwoWays<'_>,
        scratch: &'s mut Scratch,
    ) -> Result<Vec<Source<'s>>> {
        let failed = |action| move |error| self.failed(task, action, error);
        let bytes = scratch.copies(task, ways.block).map_err(failed("gathering"))?;
        ways.write(task.offset, bytes).map_err(failed("writing"))?;
        Ok(task.split(bytes))
    }

    fn write_cached<'s>(
        &self,
        task: &Task<'s>,
        file: &File,
        scratch: &'s mut Scratch,
    ) -> Result<Vec<Source<'s>>> {
        let failed = |action| move |error| self.failed(task, action, error);
        let sources = scratch.gathered(task).map_err(failed("gathering"))?;
        let written = write_all(self.disk, file, task.offset, sources.clone());
        written.map_err(failed("writing"))?;
        if self.durable {
            let started = self.disk.start_write_back(file, task.offset, task.len as u64);
            started.map_err(failed("starting write-back"))?;
        }
        Ok(sources)
    }

    fn failed(&self, task: &Task<'_>, action: &'static str, source: io::Error) -> Error {
        let tensor = task.parts.first().map(|part| self.tensor(part.file, part.tensor).0);
        Error::save(&self.files[task.file].path, tensor, action, source)
    }
}

impl Scratch {
    /// The bytes of the parts of a task, from where they are if they need not be gathered.
    fn gathered<'s>(&'s mut self, task: &Task<'s>) -> io::Result<Vec<Source<'s>>> {
        grow(&mut self.gathered, task.gathered_len)?;
        Ok(bytes_of(&task.parts, &mut self.gathered))
    }

    /// The bytes of a task, which lie in memory as they will in blocks of the file.
    fn copies(&mut self, task: &Task<'_>, block: usize) -> io::Result<Source<'_>> {
        let skipped = usize::try_from(task.offset % block as u64).expect("less than a block");
        let memory = Bounce::with_room(&mut self.bounce, skipped + task.len)?;
        copies_of(&task.parts, &mut memory[skipped..])
    }
}
