//! [`FaultyDisk`]: a real disk that counts what it is asked to do, and fails at one point.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use windlass_core::Source;
use windlass_core::save::{Disk, RealDisk};

/// What happens at the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused, once.
    Refused,
    /// It is carried out, and still said to have failed.
    DoneAndRefused,
    /// The process dies: it and all that follow do nothing. (Until then, all was done.)
    Death,
}

/// Counts operations from 0 on; at the `at`th one, `fault` happens.
pub(crate) struct FaultyDisk {
    pub(crate) at: usize,
    pub(crate) fault: Fault,
    /// Whether a file can have two names.
    pub(crate) links: bool,
    /// Most bytes of one write.
    pub(crate) write_limit: usize,
    /// Length of the blocks that are said to go past the page cache; `None`: those of the disk.
    pub(crate) block: Option<usize>,
    /// Called before every operation.
    pub(crate) before_each: Box<dyn Fn() + Send + Sync>,
    count: AtomicUsize,
}

impl FaultyDisk {
    /// A disk on which nothing fails.
    pub(crate) fn faultless(links: bool) -> Self {
        Self::failing(usize::MAX, Fault::Refused, links)
    }

    pub(crate) fn failing(at: usize, fault: Fault, links: bool) -> Self {
        let (count, before_each) = (AtomicUsize::new(0), Box::new(|| ()));
        Self { at, fault, links, write_limit: usize::MAX, block: None, before_each, count }
    }

    /// Whether the chosen operation was asked for.
    pub(crate) fn has_failed(&self) -> bool {
        self.count.load(Ordering::SeqCst) > self.at
    }

    fn run<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        (self.before_each)();
        let now = self.count.fetch_add(1, Ordering::SeqCst);
        if now < self.at || (now > self.at && self.fault != Fault::Death) {
            return work();
        }
        if self.fault == Fault::DoneAndRefused {
            work()?;
        }
        let no_room = self.at.is_multiple_of(2);
        Err(if no_room { io::ErrorKind::StorageFull.into() } else { input_output_error() })
    }
}

fn input_output_error() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at operation {}", self.fault, self.at)
    }
}

impl Disk for FaultyDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.run(|| RealDisk.create_folder(path))
    }

    fn create_file(&self, path: &Path, mode: u32) -> io::Result<File> {
        self.run(|| RealDisk.create_file(path, mode))
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        self.run(|| RealDisk.set_mode(file, mode))
    }

    fn close(&self, file: File) -> io::Result<()> {
        self.run(|| RealDisk.close(file))
    }

    fn allocate(&self, file: &File, len: u64) -> io::Result<()> {
        self.run(|| RealDisk.allocate(file, len))
    }

    fn write_some(&self, file: &File, offset: u64, sources: &[Source<'_>]) -> io::Result<usize> {
        let Some(mut first) = sources.iter().find(|source| !source.is_empty()).copied() else {
            return Ok(0);
        };
        if first.len() <= self.write_limit {
            return self.run(|| RealDisk.write_some(file, offset, sources));
        }
        let part = first.split_off_front(self.write_limit);
        self.run(|| RealDisk.write_some(file, offset, &[part]))
    }

    fn open_direct(&self, file: &File) -> Option<(File, usize)> {
        let Some(block) = self.block else { return RealDisk.open_direct(file) };
        Some((file.try_clone().ok()?, block))
    }

    fn start_write_back(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        self.run(|| RealDisk.start_write_back(file, offset, len))
    }

    /// Counts only: the tests never cut the power, and have many files.
    fn sync(&self, _: &File) -> io::Result<()> {
        self.run(|| Ok(()))
    }

    /// As for [`FaultyDisk::sync`].
    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        self.run(|| Ok(()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(|| RealDisk.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let unsupported = || Err(io::ErrorKind::Unsupported.into());
        self.run(|| if self.links { RealDisk.link(from, to) } else { unsupported() })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.run(|| RealDisk.remove_file(path))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.run(|| RealDisk.remove_folder(path))
    }
}
