//! Huge pages for memory that was never touched, as long as the machine has them at hand.
//!
//! Making memory takes longer than filling it. But a virtual machine may have handed its free memory
//! back to its host, in just such large blocks: then huge pages take longest, and small ones, which
//! come of what it has kept, do better. So memory is made part by part, and timed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Of most machines.
const HUGE_PAGE: usize = 2 << 20;

/// Whatever its address, memory of this length has a whole huge page in it.
const LARGE_BYTES: usize = 2 * HUGE_PAGE;

/// Less is made when it is touched.
const WORTH_BYTES: usize = 64 << 10;

/// Pages are judged by as many bytes as this: a few are slow on any machine.
const WINDOW_BYTES: u64 = 24 << 20;

/// A machine that has its memory makes a window in 3 to 6 ms of a processor's time, one that has to
/// ask its host for it in 35 (0.7 GB/s).
const SLOW: Duration = Duration::from_millis(12);

/// First address and end of memory that was never touched, and that nobody else uses.
type Span = (usize, usize);

/// Memory that is had in huge pages until they turn out to be slow.
#[derive(Debug, Default)]
pub(crate) struct HugePages {
    are_slow: AtomicBool,
    window: Mutex<Window>,
}

/// Memory that was made, and the time that it took.
#[derive(Debug, Default)]
struct Window {
    bytes: u64,
    time: Duration,
}

impl HugePages {
    /// Asks for them where memory is large; `None` where there are none. Only whole pages within
    /// memory are asked for, so it takes no more than before, and keeps what is in it.
    pub(crate) fn ask(memory: impl Iterator<Item = Span>) -> Option<Self> {
        let large = memory.filter(|(start, end)| end - start >= LARGE_BYTES);
        let asked = large.map(|span| advise(span, Advice::Huge)).filter(|&taken| taken).count();
        (asked > 0).then(Self::default)
    }

    /// Makes memory that will be written to next, unless it is too little to matter.
    pub(crate) fn make(&self, (start, end): Span) {
        if end - start < WORTH_BYTES {
            return;
        }
        if self.are_slow.load(Ordering::Relaxed) {
            advise((start, end), Advice::Small);
            return;
        }
        let begun = processor_time();
        advise((start, end), Advice::Make);
        self.note((end - start) as u64, processor_time().saturating_sub(begun));
    }

    fn note(&self, bytes: u64, time: Duration) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.bytes += bytes;
        window.time += time;
        if window.time >= SLOW {
            self.are_slow.store(true, Ordering::Relaxed);
        }
        if window.bytes >= WINDOW_BYTES {
            *window = Window::default();
        }
    }
}

/// How memory is to be had.
#[derive(Clone, Copy)]
enum Advice {
    /// In huge pages, when it is touched.
    Huge,
    /// In small ones.
    Small,
    /// Now. (Does nothing before Linux 5.14.)
    Make,
}

/// Time that this thread has had a processor for: there may be more threads than processors.
#[cfg(target_os = "linux")]
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written to, and nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
fn processor_time() -> Duration {
    Duration::ZERO
}

/// Gives advice for the whole pages within memory; whether it was taken.
#[cfg(target_os = "linux")]
fn advise((start, end): Span, advice: Advice) -> bool {
    let page = super::residency::page_size();
    let (start, end) = (start.next_multiple_of(page), end / page * page);
    let advice = match advice {
        Advice::Huge => libc::MADV_HUGEPAGE,
        Advice::Small => libc::MADV_NOHUGEPAGE,
        Advice::Make => libc::MADV_POPULATE_WRITE,
    };
    let first = std::ptr::without_provenance_mut(start);
    // SAFETY: no advice of these changes what is in memory, whosever it is, and what has none at
    // that address is refused. A refusal has no effect.
    start < end && unsafe { libc::madvise(first, end - start, advice) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn advise(_: Span, _: Advice) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "what cannot be set up fails its test")]
mod tests {
    use super::*;
    use crate::sys::dest::Dest;
    use crate::sys::mmap::Mapping;
    use crate::sys::residency::page_size;
    use crate::sys::source::Source;
    use std::fs::read_to_string;
    use std::path::Path;

    const LEN: usize = 8 << 20;

    /// Whether the map that begins at an address is marked so: `hg` for huge pages, `nh` for none.
    fn is_marked(start: usize, mark: &str) -> bool {
        let maps = read_to_string("/proc/self/smaps").unwrap();
        let of_map = maps.split_once(&format!("\n{start:x}-")).unwrap().1;
        let flags = of_map.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
        flags.split(' ').any(|flag| flag == mark)
    }

    fn there_are_huge_pages() -> bool {
        Path::new("/sys/kernel/mm/transparent_hugepage").exists()
    }

    #[test]
    fn whole_pages_are_asked_for_and_keep_what_is_in_them() {
        let map = Mapping::anonymous(LEN).unwrap();
        let start = map.as_mut_ptr() as usize;
        // SAFETY: the map, of which this is the only handle.
        let mut map_memory = unsafe { Dest::from_raw(map.as_mut_ptr(), LEN) };
        let mut memory = map_memory.part(1, LEN - 2);
        memory.copy_from(Source::from_slice(b"kept"));
        let asked = HugePages::ask([memory.span()].into_iter());
        assert_eq!(asked.is_some(), there_are_huge_pages());
        if let Some(asked) = asked {
            asked.make(memory.span());
            assert!(!is_marked(start, "hg"), "half of the first page is another's");
            assert!(is_marked(start + page_size(), "hg"));
        }
        let mut bytes = [0; 4];
        Dest::from_slice(&mut bytes).copy_from(map.source().part(1, 4));
        assert_eq!(&bytes, b"kept");
    }

    #[test]
    fn small_memory_is_not_asked_for() {
        let map = Mapping::anonymous(LARGE_BYTES - 1).unwrap();
        let start = map.as_mut_ptr() as usize;
        assert!(HugePages::ask([(start, start + map.len())].into_iter()).is_none());
        assert!(!is_marked(start, "hg"));
    }

    #[test]
    fn when_huge_pages_are_slow_the_rest_comes_in_small_ones() {
        let map = Mapping::anonymous(LEN).unwrap();
        let (start, half) = (map.as_mut_ptr() as usize, LEN / 2);
        let Some(asked) = HugePages::ask([(start, start + LEN)].into_iter()) else {
            return assert!(!there_are_huge_pages());
        };
        asked.note(WINDOW_BYTES - 1, SLOW);
        asked.make((start + half, start + LEN));
        assert!(is_marked(start, "hg") && is_marked(start + half, "nh"));
    }
}
