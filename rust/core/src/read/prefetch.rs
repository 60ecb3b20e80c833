//! Maps made present in the background, so that whoever looks into them need not wait for the disk.
//!
//! A map that is touched page by page asks the disk for little at a time, on one thread. Here
//! many threads read stretches, front to back, and make their pages present. They hold no map
//! alive: when nobody looks into one any more, its rest is left out.
//!
//! Threads read from the file and throw away what they get: only then the kernel reads ahead in
//! large requests into large pages. Asked by `MADV_WILLNEED`, it takes pages one by one.

use crate::sys::dest::Dest;
use crate::sys::file::read_at;
use crate::sys::mmap::Mapping;
use crate::sys::residency::resident_bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};

/// Part of a map that will be looked into.
#[derive(Debug)]
pub struct Ahead<'a> {
    /// The map.
    pub map: &'a Arc<Mapping>,
    /// Bytes of it; what is not within it is left out.
    pub range: Range<usize>,
}

/// A thread reads this much from front to back before it goes elsewhere.
const STRETCH_BYTES: usize = 32 << 20;

/// What is made present by one call, during which nobody else can change the process's maps.
const WINDOW_BYTES: usize = 2 << 20;

/// Parts of a map this near to each other are made present as one.
const GAP_BYTES: usize = 64 << 10;

/// What is read of a window at a time: it stays in the cache of a core.
const SCRATCH_BYTES: usize = 128 << 10;

/// They wait for the disk, mostly; see [`DEFAULT_THREADS`](super::DEFAULT_THREADS).
const THREADS: usize = super::DEFAULT_THREADS;

/// Threads that make maps present. They go on when this is dropped, and end with the process at
/// the latest.
#[derive(Debug)]
pub struct Prefetch {
    work: Arc<Work>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Work {
    stretches: Vec<(Weak<Mapping>, Range<usize>)>,
    next: AtomicUsize,
    stopped: AtomicBool,
    bytes: AtomicU64,
}

impl Prefetch {
    /// Begins with the first part, and goes on in their order until so many bytes are present.
    ///
    /// What cannot be made present (a file that was cut off, a disk that fails) ends the prefetch
    /// of that stretch and is told to `report`; the maps are what they were.
    pub fn start(
        parts: &[Ahead<'_>],
        budget: u64,
        report: impl Fn(&io::Error) + Clone + Send + 'static,
    ) -> Self {
        let ranges: Vec<_> =
            parts.iter().map(|part| (Arc::as_ptr(part.map).addr(), part.range.clone())).collect();
        let stretches = plan_stretches(&ranges, budget);
        let stretch = |(part, range): (usize, _)| (Arc::downgrade(parts[part].map), range);
        let work = Arc::new(Work {
            stretches: stretches.into_iter().map(stretch).collect(),
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
        });
        let threads = THREADS.min(work.stretches.len());
        let threads = (0..threads).map_while(|_| start_thread(&work, report.clone())).collect();
        Self { work, threads: Mutex::new(threads) }
    }

    /// Ends it soon: after the windows that the threads are at.
    pub fn stop(&self) {
        self.work.stopped.store(true, Ordering::Relaxed);
    }

    /// Waits until all is present that will be.
    pub fn wait(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A thread that panicked has made nothing present any more, as if it had stopped.
            drop(thread.join());
        }
    }

    /// Bytes made present so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.work.bytes.load(Ordering::Relaxed)
    }
}

/// Starts a thread; `None` when the system has none left: those that run do all the work, and
/// without any the maps are read as they are touched.
fn start_thread(
    work: &Arc<Work>,
    report: impl Fn(&io::Error) + Send + 'static,
) -> Option<JoinHandle<()>> {
    let work = Arc::clone(work);
    let run = move || work.run(&report);
    Builder::new().name("windlass ahead".to_owned()).spawn(run).ok()
}

impl Work {
    fn run(&self, report: &impl Fn(&io::Error)) {
        let mut scratch = vec![0; SCRATCH_BYTES];
        while let Some((map, range)) = self.stretches.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            if let Err(error) = self.make_present(map, range.clone(), &mut scratch) {
                report(&error);
            }
        }
    }

    /// Window after window, as long as somebody wants it.
    fn make_present(
        &self,
        map: &Weak<Mapping>,
        range: Range<usize>,
        scratch: &mut [u8],
    ) -> io::Result<()> {
        let file = map.upgrade().and_then(|map| map.reopen());
        for start in range.clone().step_by(WINDOW_BYTES) {
            let len = WINDOW_BYTES.min(range.end - start);
            let Some(map) = map.upgrade().filter(|_| !self.stopped.load(Ordering::Relaxed)) else {
                return Ok(());
            };
            match &file {
                Some(file) => cache(file, start as u64..(start + len) as u64, scratch)?,
                None => map.begin_reading(start, len),
            }
            map.populate(start, len)?;
            file.as_ref().map_or(Ok(()), |file| map.check_unchanged(file))?;
            self.bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Reads what is not in the page cache, so that it is.
fn cache(file: &File, range: Range<u64>, scratch: &mut [u8]) -> io::Result<()> {
    if resident_bytes(file, &range).is_some_and(|bytes| bytes == range.end - range.start) {
        return Ok(());
    }
    for start in range.clone().step_by(SCRATCH_BYTES) {
        let len = SCRATCH_BYTES.min(usize::try_from(range.end - start).unwrap_or(usize::MAX));
        read_at(file, start, &mut [Dest::from_slice(&mut scratch[..len])])?;
    }
    Ok(())
}

/// Parts of maps, given by a number of the map and a range → stretches, by the position of a part
/// of the same map and a range: neighbours joined, cut to size, and no more than the budget. Pure.
fn plan_stretches(parts: &[(usize, Range<usize>)], budget: u64) -> Vec<(usize, Range<usize>)> {
    let mut joined: Vec<(usize, Range<usize>)> = Vec::new();
    for (position, (map, range)) in parts.iter().enumerate() {
        match joined.last_mut() {
            Some((open, before))
                if parts[*open].0 == *map
                    && before.start <= range.start
                    && range.start <= before.end.saturating_add(GAP_BYTES) =>
            {
                before.end = before.end.max(range.end);
            }
            _ => joined.push((position, range.clone())),
        }
    }
    let mut left = usize::try_from(budget).unwrap_or(usize::MAX);
    let mut stretches = Vec::new();
    for (position, range) in joined {
        for start in range.clone().step_by(STRETCH_BYTES) {
            let len = STRETCH_BYTES.min(range.end - start).min(left);
            if len > 0 {
                stretches.push((position, start..start + len));
            }
            left -= len;
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::sync::mpsc::channel;

    const MIB: usize = 1 << 20;

    fn map_of(len: usize) -> (File, Arc<Mapping>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; len]).unwrap();
        let map = Arc::new(Mapping::of(&file).unwrap());
        (file, map)
    }

    fn ignore(_: &io::Error) {}

    #[test]
    fn neighbours_are_joined_and_cut_to_stretches_within_the_budget() {
        let all = u64::MAX;
        let parts = [(1, 100..200), (1, 300..40 * MIB), (1, 60 * MIB..61 * MIB), (2, 0..50)];
        let expected = [
            (0, 100..100 + 32 * MIB),
            (0, 100 + 32 * MIB..40 * MIB),
            (2, 60 * MIB..61 * MIB),
            (3, 0..50),
        ];
        assert_eq!(plan_stretches(&parts, all), expected);
        assert_eq!(plan_stretches(&parts, 1000), [(0, 100..1100)]);
        let two = plan_stretches(&parts, 32 * MIB as u64 + 5);
        assert_eq!(two, [(0, 100..100 + 32 * MIB), (0, 100 + 32 * MIB..105 + 32 * MIB)]);
        assert_eq!(plan_stretches(&parts, 0), []);
        assert_eq!(plan_stretches(&[(1, 0..0)], all), []);
    }

    #[test]
    fn ranges_that_go_back_are_not_joined() {
        let parts = [(1, 500..600), (1, 100..200), (2, 200..300), (1, 250..300)];
        let expected = [(0, 500..600), (1, 100..200), (2, 200..300), (3, 250..300)];
        assert_eq!(plan_stretches(&parts, u64::MAX), expected);
    }

    #[test]
    fn as_much_is_made_present_as_the_budget_allows() {
        let (_file, map) = map_of(40 * MIB);
        for (budget, expected) in [(u64::MAX, 40 * MIB), (5_000_000, 5_000_000), (0, 0)] {
            let part = Ahead { map: &map, range: 0..40 * MIB };
            let prefetch = Prefetch::start(&[part], budget, ignore);
            prefetch.wait();
            assert_eq!(prefetch.bytes(), expected as u64);
        }
    }

    #[test]
    fn a_map_that_nobody_looks_into_is_let_go_of() {
        let (_file, map) = map_of(MIB);
        let watch = Arc::downgrade(&map);
        let prefetch = Prefetch::start(&[Ahead { map: &map, range: 0..MIB }], u64::MAX, ignore);
        drop(map);
        prefetch.wait();
        assert!(watch.upgrade().is_none());
    }

    #[test]
    fn a_stopped_prefetch_ends() {
        let (_file, map) = map_of(MIB);
        let work = Work {
            stretches: vec![(Arc::downgrade(&map), 0..MIB)],
            next: AtomicUsize::new(0),
            stopped: AtomicBool::new(true),
            bytes: AtomicU64::new(0),
        };
        work.run(&ignore);
        assert_eq!(work.bytes.into_inner(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_file_has_lost_is_told_and_nothing_else_happens() {
        let (file, map) = map_of(4 * MIB);
        file.set_len(MIB as u64).unwrap();
        let (tell, told) = channel();
        let report = move |error: &io::Error| tell.send(error.raw_os_error()).unwrap();
        let part = Ahead { map: &map, range: 0..4 * MIB };
        Prefetch::start(&[part], u64::MAX, report).wait();
        // A kernel before 5.14 populates nothing, and sees no loss.
        assert!(told.iter().all(|code| code == Some(libc::EFAULT)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_not_cached_is_read_from_the_file() {
        let (file, map) = map_of(4 * MIB);
        drop(map);
        file.sync_all().unwrap();
        let all = 0..4 * MIB as u64;
        crate::sys::residency::drop_cached(&file, &all);
        let is_cached = || resident_bytes(&file, &all) == Some(4 * MIB as u64);
        let stayed = is_cached(); // On tmpfs.
        let mut scratch = vec![0; SCRATCH_BYTES];
        cache(&file, all.clone(), &mut scratch).unwrap();
        assert!(stayed || scratch.iter().all(|&byte| byte == 7));
        assert!(resident_bytes(&file, &all).is_none() || is_cached());
    }
}
