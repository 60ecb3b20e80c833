//! Several reads under way at a time, in a queue that is shared with the kernel (`io_uring`).
//!
//! The kernel writes into the memory that a request names after the call that handed the request
//! over. So requests are made within [`Ring::scope`] only, which neither returns nor unwinds before
//! the kernel is done with all of them. Until then that memory is the ring's own, or that of
//! [`Dest`]s which the [`Flight`] holds; and the `Flight` is on the stack of `scope`, where nobody
//! can forget it.

use super::dest::Dest;
use super::file::MAX_BUFFERS;
use io_uring::squeue::{Entry, Flags};
use io_uring::{EnterFlags, IoUring, opcode, types};
use memmap2::{Advice, MmapMut, MmapRaw};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::slice;
use std::thread;
use std::time::Duration;

/// Pause before the kernel is asked again for what it could not say.
const PAUSE: Duration = Duration::from_millis(1);

/// A huge page, on most machines.
const HUGE_PAGE: usize = 2 << 20;

/// A queue of reads, and memory of its own for all that it can have under way.
pub(crate) struct Ring {
    queue: IoUring,
    slots: usize,
    slot_bytes: usize,
    /// Mapped when it is first read into.
    memory: Option<Memory>,
    /// Whether the queue has a place to register a file at.
    takes_files: bool,
    /// Whether it still holds requests that must never reach the kernel.
    is_broken: bool,
}

impl Ring {
    /// A queue of so many reads, each of which may be into so much memory of the ring's own.
    ///
    /// # Errors
    /// What the system says: that it knows no `io_uring`, that a sandbox does not let it through, that
    /// there is no memory or descriptor left.
    pub(crate) fn new(slots: usize, slot_bytes: usize) -> io::Result<Self> {
        let entries = u32::try_from(slots).map_err(io::Error::other)?.next_power_of_two();
        let queue = IoUring::builder().dontfork().build(entries)?;
        let takes_files = queue.submitter().register_files(&[-1]).is_ok();
        let (memory, is_broken) = (None, false);
        let mut ring = Self { queue, slots, slot_bytes, memory, takes_files, is_broken };
        ring.try_out()?;
        Ok(ring)
    }

    /// Has the kernel do nothing, once: a sandbox may let a queue be made, and not be used.
    fn try_out(&mut self) -> io::Result<()> {
        let nothing = opcode::Nop::new().build();
        // SAFETY: the request names no memory.
        unsafe { self.queue.submission().push(&nothing) }.map_err(io::Error::other)?;
        let outcome = loop {
            match self.queue.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        outcome?;
        let done = self.queue.completion().next();
        done.map(drop).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// How many reads can be under way.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Length of the ring's own memory for each of them.
    pub(crate) fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Whether it can be used again.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_broken
    }

    /// Lets `work` read from a file. All reads are over when this returns or unwinds.
    ///
    /// # Panics
    /// When the ring is not usable any more.
    pub(crate) fn scope<'a, T>(
        &mut self,
        file: &File,
        work: impl FnOnce(&mut Flight<'_, 'a>) -> T,
    ) -> T {
        assert!(self.is_usable(), "requests were left in the queue");
        let (fd, submitter) = (file.as_raw_fd(), self.queue.submitter());
        let is_registered =
            self.takes_files && matches!(submitter.register_files_update(0, &[fd]), Ok(1));
        let (fd, flags) = if is_registered { (0, Flags::FIXED_FILE) } else { (fd, Flags::empty()) };
        let under_way = (0..self.slots).map(|_| None).collect();
        let mut flight = Flight { ring: self, fd: types::Fd(fd), flags, under_way, requests: 0 };
        work(&mut flight)
    }

    /// The ring's own memory.
    fn memory(&mut self) -> io::Result<&Memory> {
        let memory = match self.memory.take() {
            Some(memory) => memory,
            None => Memory::new(self.slots * self.slot_bytes, &self.queue)?,
        };
        Ok(self.memory.insert(memory))
    }

    /// Requests that the kernel has not taken out of the queue.
    fn not_taken(&mut self) -> usize {
        self.queue.submission().len()
    }

    /// Waits for a request to be done, without handing over any. Returns early when interrupted.
    fn wait_for_any(&self) {
        let (to_submit, least, flags) = (0, 1, EnterFlags::GETEVENTS.bits());
        // SAFETY: no request is handed over, and there is no argument that the kernel would read.
        let outcome = unsafe {
            self.queue.submitter().enter::<libc::sigset_t>(to_submit, least, flags, None)
        };
        if outcome.is_err() {
            // Whatever it was, requests that the kernel has end by themselves.
            thread::sleep(PAUSE);
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slots, slot_bytes, .. } = self;
        f.debug_struct("Ring")
            .field("slots", slots)
            .field("slot_bytes", slot_bytes)
            .finish_non_exhaustive()
    }
}

/// Memory that the kernel reads into by whole blocks: of huge pages where there are any.
struct Memory {
    map: MmapRaw,
    start: usize,
    len: usize,
    /// Whether the kernel holds on to its pages, so that it need not look them up for each read.
    is_registered: bool,
}

impl Memory {
    fn new(len: usize, queue: &IoUring) -> io::Result<Self> {
        let map = MmapRaw::from(MmapMut::map_anon(len + HUGE_PAGE)?);
        let start = map.as_ptr().align_offset(HUGE_PAGE);
        let advice = if len < HUGE_PAGE { Advice::NoHugePage } else { Advice::HugePage };
        // Advice: where there are no huge pages, small ones do.
        drop(map.advise(advice));
        drop(map.advise(Advice::DontFork));
        let mut memory = Self { map, start, len, is_registered: false };
        let buffer = libc::iovec { iov_base: memory.at(0).cast(), iov_len: len };
        // SAFETY: the memory is mapped until the ring is dropped, which closes the queue first; and
        // the kernel holds on to the pages for as long as it may write to them.
        let outcome = unsafe { queue.submitter().register_buffers(&[buffer]) };
        // Without (the limit of locked memory, most of all) each read looks the pages up.
        memory.is_registered = outcome.is_ok();
        Ok(memory)
    }

    /// The address of byte `offset`.
    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.len, "byte {offset} is not within {}", self.len);
        // SAFETY: the map is `HUGE_PAGE` longer than `len`, and `start` is less than that.
        unsafe { self.map.as_mut_ptr().add(self.start + offset) }
    }
}

/// Reads of one file that are under way; each has a slot.
pub(crate) struct Flight<'r, 'a> {
    ring: &'r mut Ring,
    fd: types::Fd,
    flags: Flags,
    /// What the request of each slot names.
    under_way: Vec<Option<Named<'a>>>,
    /// Requests that were put into the queue and have not come back.
    requests: usize,
}

/// Memory that a request names, beside the ring's own.
struct Named<'a> {
    dests: Vec<Dest<'a>>,
    /// The kernel may look at this list until the request is done.
    _buffers: Vec<libc::iovec>,
}

/// A read that is over.
pub(crate) struct Done<'a> {
    /// Its slot, which is free again.
    pub(crate) slot: usize,
    /// How many bytes were read; fewer than asked for at the end of the file, and when the kernel
    /// likes.
    pub(crate) outcome: io::Result<usize>,
    /// What it filled, from the front on, if it was not the ring's own memory.
    pub(crate) dests: Vec<Dest<'a>>,
}

impl<'a> Flight<'_, 'a> {
    /// Length of the ring's own memory for each slot.
    pub(crate) fn slot_bytes(&self) -> usize {
        self.ring.slot_bytes()
    }

    /// How many reads are under way.
    pub(crate) fn len(&self) -> usize {
        self.requests
    }

    /// Asks for a read into `dests`, one after another, of which at most [`MAX_BUFFERS`] count.
    ///
    /// # Panics
    /// When the slot is not free, or no file is as long as `offset`.
    pub(crate) fn read(&mut self, slot: usize, offset: u64, dests: Vec<Dest<'a>>) {
        let buffers = dests.iter().take(MAX_BUFFERS).map(Dest::as_iovec).collect();
        self.read_buffers(slot, offset, dests, buffers);
    }

    /// Asks for a read into a range of the slot's own memory.
    ///
    /// # Errors
    /// When there is no memory.
    ///
    /// # Panics
    /// When the slot is not free or not that long, or no file is as long as `offset`.
    pub(crate) fn read_own(
        &mut self,
        slot: usize,
        offset: u64,
        range: &Range<usize>,
    ) -> io::Result<()> {
        assert!(range.start < range.end && range.end <= self.slot_bytes(), "within the slot");
        let first = slot * self.slot_bytes() + range.start;
        let memory = self.ring.memory()?;
        let (start, is_registered) = (memory.at(first), memory.is_registered);
        if is_registered {
            let len = u32::try_from(range.len()).expect("a slot is not that long");
            let entry = opcode::ReadFixed::new(self.fd, start, len, 0).offset(offset).build();
            self.hand_over(slot, offset, entry, Named { dests: Vec::new(), _buffers: Vec::new() });
        } else {
            let buffer = libc::iovec { iov_base: start.cast(), iov_len: range.len() };
            self.read_buffers(slot, offset, Vec::new(), vec![buffer]);
        }
        Ok(())
    }

    /// Asks for a read into `buffers`: those of `dests`, or the slot's own memory.
    fn read_buffers(
        &mut self,
        slot: usize,
        offset: u64,
        dests: Vec<Dest<'a>>,
        buffers: Vec<libc::iovec>,
    ) {
        let count = u32::try_from(buffers.len()).expect("at most MAX_BUFFERS");
        let entry = opcode::Readv::new(self.fd, buffers.as_ptr(), count).offset(offset).build();
        self.hand_over(slot, offset, entry, Named { dests, _buffers: buffers });
    }

    /// Puts a request for `named`, or else the slot's own memory, into the queue.
    fn hand_over(&mut self, slot: usize, offset: u64, entry: Entry, named: Named<'a>) {
        assert!(self.under_way[slot].is_none(), "slot {slot} is not free");
        assert!(i64::try_from(offset).is_ok(), "no file is as long as {offset}");
        let entry = entry.flags(self.flags).user_data(slot as u64);
        self.under_way[slot] = Some(named);
        // SAFETY: the request names a list of buffers, held here until it is done, and their
        // memory: that of `Dest`s, each writable for `'a` and held by us alone (the contract of
        // `Dest::from_raw`), which are held here as well; or a part of the ring's memory that is
        // this slot's alone, and stays mapped as long as the ring. `'a` outlives the `scope` that
        // `self` belongs to, and `Drop` below ends that scope only when the request is done. The
        // file is open for as long as the scope.
        let pushed = unsafe { self.ring.queue.submission().push(&entry) };
        pushed.expect("the queue has an entry for each slot");
        self.requests += 1;
    }

    /// Hands over to the kernel what was asked for, and waits until a read is over.
    ///
    /// # Errors
    /// What the system says, other than that it was interrupted. What is under way stays so.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        const PATIENCE: usize = 1000;
        for _ in 0..PATIENCE {
            match self.ring.queue.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                // No memory for a request just now, or too many answers that nobody has taken.
                Err(error) if is_temporary(&error) => thread::sleep(PAUSE),
                outcome => return outcome.map(drop),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// Takes a read that is over; `None`: none is, for now.
    pub(crate) fn take_done(&mut self) -> Option<Done<'a>> {
        let entry = self.ring.queue.completion().next()?;
        self.requests -= 1;
        let slot = usize::try_from(entry.user_data()).expect("the number of a slot");
        let named = self.under_way[slot].take().expect("a request of this slot");
        let refused = || io::Error::from_raw_os_error(entry.result().saturating_neg());
        let outcome = usize::try_from(entry.result()).map_err(|_| refused());
        Some(Done { slot, outcome, dests: named.dests })
    }

    /// The slot's own memory.
    ///
    /// # Panics
    /// When the slot is not free, or the range not within it.
    pub(crate) fn own(&self, slot: usize, range: Range<usize>) -> &[u8] {
        assert!(self.under_way[slot].is_none(), "slot {slot} is not free");
        assert!(range.start <= range.end && range.end <= self.slot_bytes(), "within the slot");
        let Some(memory) = &self.ring.memory else { return &[] };
        let start = memory.at(slot * self.slot_bytes() + range.start);
        // SAFETY: mapped, of zeros at first; this part of it is the slot's alone, whose request is
        // done, and `&self` keeps another one from being made.
        unsafe { slice::from_raw_parts(start, range.len()) }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    [Some(libc::EAGAIN), Some(libc::EBUSY)].contains(&error.raw_os_error())
}

impl Drop for Flight<'_, '_> {
    /// Waits until the kernel has done all that it has taken out of the queue. What it has not
    /// taken it never will: nothing is handed over here, and a ring with such requests is not used
    /// again.
    fn drop(&mut self) {
        let not_taken = self.ring.not_taken();
        self.ring.is_broken |= not_taken > 0;
        while self.requests > not_taken {
            let done = self.ring.queue.completion().count();
            self.requests -= done;
            if done == 0 {
                self.ring.wait_for_any();
            }
        }
        if self.flags.contains(Flags::FIXED_FILE) {
            // A file that stays registered stays open, until the ring is gone or reads another.
            drop(self.ring.queue.submitter().register_files_update(0, &[-1]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeWriter, Write};
    use std::os::fd::OwnedFd;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;

    /// A ring of four slots, unless the system refuses.
    fn ring() -> Option<Ring> {
        Ring::new(4, 4096).ok()
    }

    /// A file that has nothing to read until somebody writes to the other end.
    fn pipe() -> (File, PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        (File::from(OwnedFd::from(reader)), writer)
    }

    /// Memory that the kernel may still write to when `leave` ends the scope: what is in it right
    /// after.
    fn left_while_under_way(leave: fn()) -> Option<(Vec<u8>, Ring)> {
        let (mut ring, (file, mut pipe)) = (ring()?, pipe());
        let mut memory = vec![0; 5];
        let (go, wait) = mpsc::channel();
        let writer = thread::spawn(move || {
            wait.recv().unwrap();
            pipe.write_all(b"heave").unwrap();
        });
        let dest = Dest::from_slice(&mut memory);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            ring.scope(&file, |flight| {
                flight.read(0, 0, vec![dest]);
                flight.ring.queue.submit().unwrap();
                go.send(()).unwrap();
                leave();
            });
        }));
        drop(outcome);
        let seen = memory.clone();
        writer.join().unwrap();
        Some((seen, ring))
    }

    #[test]
    fn a_scope_ends_when_the_kernel_is_done_with_its_memory() {
        let Some((memory, ring)) = left_while_under_way(|| ()) else { return };
        assert_eq!(memory, b"heave");
        assert!(ring.is_usable());
    }

    #[test]
    fn a_scope_unwinds_when_the_kernel_is_done_with_its_memory() {
        let Some((memory, ring)) = left_while_under_way(|| panic!("a bug")) else { return };
        assert_eq!(memory, b"heave");
        assert!(ring.is_usable());
    }

    #[test]
    fn what_the_kernel_has_not_seen_it_never_sees() {
        let Some(mut ring) = ring() else { return };
        let (file, mut pipe) = pipe();
        pipe.write_all(b"heave").unwrap();
        let mut memory = vec![0; 5];
        let dest = Dest::from_slice(&mut memory);
        ring.scope(&file, |flight| flight.read(0, 0, vec![dest]));
        assert!(!ring.is_usable());
        assert_eq!(memory, [0; 5]);
    }

    #[test]
    #[should_panic(expected = "requests were left in the queue")]
    fn a_ring_with_requests_that_were_left_is_not_used_again() {
        let Some(mut ring) = ring() else { panic!("requests were left in the queue") };
        let (file, _pipe) = pipe();
        let mut memory = vec![0; 5];
        let dest = Dest::from_slice(&mut memory);
        ring.scope(&file, |flight| flight.read(0, 0, vec![dest]));
        ring.scope(&file, |_| ());
    }

    #[test]
    fn a_file_is_not_held_open_after_the_scope() {
        let Some(mut ring) = ring() else { return };
        let (file, mut pipe) = pipe();
        ring.scope(&file, |_| ());
        drop(file);
        // The last reader is gone; a kernel may let go of it a little later.
        let mut is_closed =
            || pipe.write(b"x").is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
        assert!((0..10_000).any(|_| is_closed() || (thread::yield_now(), false).1));
    }

    #[test]
    fn each_slot_has_memory_of_its_own() {
        let Some(mut ring) = ring() else { return };
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(4 * 4096).collect();
        file.write_all(&bytes).unwrap();
        ring.scope(&file, |flight| {
            for slot in 0..4 {
                flight.read_own(slot, 4096 * slot as u64, &(1..4096)).unwrap();
            }
            while flight.len() > 0 {
                flight.wait().unwrap();
                while let Some(done) = flight.take_done() {
                    assert_eq!(done.outcome.unwrap(), 4095);
                    let found = flight.own(done.slot, 1..4096);
                    assert!(*found == bytes[4096 * done.slot..][..4095]);
                }
            }
        });
    }

    #[test]
    #[should_panic(expected = "slot 1 is not free")]
    fn memory_under_way_is_not_shown() {
        let Some(mut ring) = ring() else { panic!("slot 1 is not free") };
        let file = tempfile::tempfile().unwrap();
        ring.scope(&file, |flight| {
            flight.read_own(1, 0, &(0..4096)).unwrap();
            assert!(flight.own(1, 0..1).is_empty());
        });
    }
}
