//! A stretch on its way through a queue: which read has which slot, and what becomes of each.

use super::Plain;
use crate::read::ShardReader;
use crate::read::direct::Window;
use crate::read::job::JobDest;
use crate::read::reads::{FailedRead, Reads};
use crate::read::task::{Share, Task};
use crate::sys::dest::Dest;
use crate::sys::direct::{is_refusal, stop_direct};
use crate::sys::file::skip_filled;
use crate::sys::uring::{Done, Flight, Ring};
use std::fs::File;
use std::io;
use std::ops::Range;

/// Reads a stretch, and returns what the queue did not carry out.
///
/// After a failure nothing new is begun; of those that were under way the first by place is told.
pub(super) fn through_queue<'a>(
    ring: &mut Ring,
    plain: &mut Plain,
    reads: &mut Reads<'_, 'a>,
) -> Result<Vec<Left<'a>>, FailedRead> {
    let (file, block) = (plain.file(), plain.block());
    let under_way = (0..ring.slots()).map(|_| None).collect();
    let mut run = Run { file, block, under_way, left: Vec::new(), failed: None };
    ring.scope(file, |flight| run.carry_out(flight, reads));
    let Run { block, left, failed, .. } = run;
    if let Plain::Direct(reader) = plain {
        reader.block = block;
    }
    failed.map_or(Ok(left), Err)
}

/// A stretch on its way through the queue.
struct Run<'f, 'a> {
    file: &'f File,
    /// Size of the blocks that are read past the page cache; `None`: it is not gone past.
    block: Option<usize>,
    under_way: Vec<Option<UnderWay<'a>>>,
    left: Vec<Left<'a>>,
    failed: Option<FailedRead>,
}

/// A read that the queue has.
enum UnderWay<'a> {
    /// Straight to where the bytes belong; those from `next` on are still to come.
    InPlace { place: Place, next: u64 },
    /// To the slot's own memory, where so many bytes of the window are already.
    Own { task: Task<'a>, window: Window, have: usize },
}

impl UnderWay<'_> {
    fn offset(&self) -> u64 {
        match self {
            Self::InPlace { place, .. } => place.whole.start,
            Self::Own { task, .. } => task.offset,
        }
    }
}

/// What of a file is read, and which jobs want it: how many bytes.
pub(super) struct Place {
    whole: Range<u64>,
    wanted: Vec<(usize, u64)>,
}

impl Place {
    fn of(task: &Task<'_>) -> Self {
        Self { whole: task.range(), wanted: task.wanted().collect() }
    }
}

/// A read, or the rest of one, that the queue did not carry out.
pub(super) enum Left<'a> {
    InPlace { place: Place, next: u64, dests: Vec<Dest<'a>> },
    Own(Task<'a>),
}

impl Left<'_> {
    pub(super) fn carry_out(
        self,
        reads: &mut Reads<'_, '_>,
        reader: &mut dyn ShardReader,
    ) -> Result<(), FailedRead> {
        match self {
            Self::Own(task) => reads.carry_out(task, reader),
            Self::InPlace { place: Place { whole, wanted }, next, mut dests } => {
                let outcome = reader.read(next, &mut dests);
                reads.settle(reader.file(), &whole, &wanted, outcome)
            }
        }
    }
}

impl<'a> Task<'a> {
    /// The memory that takes the bytes as they are, or the task again if some go elsewhere.
    fn into_dests(self) -> Result<Vec<Dest<'a>>, Self> {
        if self.scratch_len() > 0 {
            return Err(self);
        }
        let in_place = |Share { dest, .. }| match dest {
            Some((_, JobDest::Bytes(dest))) => Some(dest),
            _ => None,
        };
        Ok(self.pieces.into_iter().filter_map(in_place).collect())
    }
}

impl<'a> Run<'_, 'a> {
    fn carry_out(&mut self, flight: &mut Flight<'_, 'a>, reads: &mut Reads<'_, 'a>) {
        loop {
            self.fill(flight, reads);
            if flight.len() == 0 {
                return;
            }
            if let Err(error) = flight.wait() {
                let first = self.under_way.iter().flatten().map(UnderWay::offset).min();
                return self.fail(FailedRead { offset: first.unwrap_or_default(), error });
            }
            while let Some(done) = flight.take_done() {
                self.take(done, flight, reads);
            }
        }
    }

    /// Begins reads until every slot has one.
    fn fill(&mut self, flight: &mut Flight<'_, 'a>, reads: &mut Reads<'_, 'a>) {
        for slot in 0..self.under_way.len() {
            while self.under_way[slot].is_none() && self.failed.is_none() {
                let Some(task) = reads.next() else { return };
                self.begin(slot, task, flight);
            }
        }
    }

    fn begin(&mut self, slot: usize, task: Task<'a>, flight: &mut Flight<'_, 'a>) {
        let place = Place::of(&task);
        let in_place = if self.block.is_none() { task.into_dests() } else { Err(task) };
        match in_place {
            Ok(dests) => {
                let next = place.whole.start;
                flight.read(slot, next, dests);
                self.under_way[slot] = Some(UnderWay::InPlace { place, next });
            }
            Err(task) => {
                let (whole, block) = (place.whole, self.block.unwrap_or(1));
                let window = Window::of(whole.start, whole.end, block, flight.slot_bytes());
                if window.wanted_end - window.wanted_start == task.len() {
                    self.read_own(slot, task, window, 0, flight);
                } else {
                    self.left.push(Left::Own(task)); // Longer than what was planned for us.
                }
            }
        }
    }

    fn read_own(
        &mut self,
        slot: usize,
        task: Task<'a>,
        window: Window,
        have: usize,
        flight: &mut Flight<'_, 'a>,
    ) {
        match flight.read_own(slot, window.start + have as u64, &(have..window.len)) {
            Ok(()) => self.under_way[slot] = Some(UnderWay::Own { task, window, have }),
            Err(_) => self.left.push(Left::Own(task)),
        }
    }

    /// What became of a read.
    fn take(&mut self, done: Done<'a>, flight: &mut Flight<'_, 'a>, reads: &Reads<'_, 'a>) {
        match self.under_way[done.slot].take() {
            Some(UnderWay::InPlace { place, next }) => {
                self.take_in_place(done, place, next, flight, reads);
            }
            Some(UnderWay::Own { task, window, have }) => {
                let Done { slot, outcome, .. } = done;
                self.take_own(slot, outcome, (task, window, have), flight, reads);
            }
            None => {}
        }
    }

    fn take_in_place(
        &mut self,
        done: Done<'a>,
        place: Place,
        next: u64,
        flight: &mut Flight<'_, 'a>,
        reads: &Reads<'_, 'a>,
    ) {
        let Done { slot, outcome, mut dests } = done;
        match outcome {
            Ok(count) if count > 0 => {
                let next = next + count as u64;
                let full = skip_filled(&mut dests, 0, count);
                dests.drain(..full);
                if next == place.whole.end {
                    return self.settle(&place, Ok(()), reads);
                }
                self.under_way[slot] = Some(UnderWay::InPlace { place, next });
                flight.read(slot, next, dests);
            }
            Err(error) if !is_of_the_queue(&error) => {
                self.settle(&place, Err(error), reads);
            }
            // The end of the file, or what can be done without the queue.
            _ => self.left.push(Left::InPlace { place, next, dests }),
        }
    }

    fn take_own(
        &mut self,
        slot: usize,
        outcome: io::Result<usize>,
        (task, window, have): (Task<'a>, Window, usize),
        flight: &mut Flight<'_, 'a>,
        reads: &Reads<'_, 'a>,
    ) {
        match outcome {
            Ok(count) if have + count >= window.wanted_end => {
                let place = Place::of(&task);
                task.deliver(flight.own(slot, window.wanted_start..window.wanted_end));
                self.settle(&place, Ok(()), reads);
            }
            Ok(count) => {
                // A read can only go on at a block, so a block that came in part comes again.
                let block = self.block.unwrap_or(1);
                let whole = (have + count) / block * block;
                if whole > have {
                    self.read_own(slot, task, window, whole, flight);
                } else {
                    self.left.push(Left::Own(task));
                }
            }
            Err(error) if is_of_the_queue(&error) => {
                if is_refusal(&error) && self.block.take().is_some() {
                    // If this fails too, reads without the queue will say so.
                    drop(stop_direct(self.file));
                }
                self.left.push(Left::Own(task));
            }
            Err(error) => self.settle(&Place::of(&task), Err(error), reads),
        }
    }

    fn settle(&mut self, place: &Place, outcome: io::Result<()>, reads: &Reads<'_, 'a>) {
        let Place { whole, wanted } = place;
        if let Err(failed) = reads.settle(Some(self.file), whole, wanted, outcome) {
            self.fail(failed);
        }
    }

    /// Keeps the first failure, by place.
    fn fail(&mut self, failed: FailedRead) {
        if self.failed.as_ref().is_none_or(|first| failed.offset < first.offset) {
            self.failed = Some(failed);
        }
    }
}

/// Whether a read may well be possible without the queue: it was interrupted, or the file system
/// does not know how to do it this way, or not at once.
fn is_of_the_queue(error: &io::Error) -> bool {
    let codes = [libc::EINTR, libc::EAGAIN, libc::ECANCELED, libc::EOPNOTSUPP, libc::EINVAL];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
