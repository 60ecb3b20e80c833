//! [`Reads`]: what a thread is to read of one shard, and where each read is told of.

use super::ShardReader;
use super::job::JobDest;
use super::ledger::Ledger;
use super::pool::Control;
use super::route::Route;
use super::task::{Share, Task};
use crate::sys::dest::Dest;
use crate::sys::memory::grow;
use crate::sys::source::Source;
use std::fs::File;
use std::io;
use std::ops::Range;

/// A read that failed.
#[derive(Debug)]
pub struct FailedRead {
    pub(super) offset: u64,
    pub(super) error: io::Error,
}

/// The reads of a stretch that are still to be carried out, and where they are told of.
pub struct Reads<'s, 'a> {
    tasks: &'s mut dyn Iterator<Item = Task<'a>>,
    route: &'s Route<'s>,
    /// Where somebody wants to know what has been filled.
    ledger: Option<&'s Ledger>,
    control: &'s Control,
    scratch: &'s mut Vec<u8>,
}

impl<'s, 'a> Reads<'s, 'a> {
    pub(super) fn new(
        tasks: &'s mut dyn Iterator<Item = Task<'a>>,
        route: &'s Route<'s>,
        ledger: Option<&'s Ledger>,
        control: &'s Control,
        scratch: &'s mut Vec<u8>,
    ) -> Self {
        Self { tasks, route, ledger, control, scratch }
    }

    /// The next one; none after an error anywhere, or when the load was cancelled.
    pub(super) fn next(&mut self) -> Option<Task<'a>> {
        let task = self.tasks.next()?;
        if let Some(ledger) = self.ledger {
            ledger.begin(task.wanted());
        }
        Some(task)
    }

    /// Carries out all that are left, one after another.
    pub(super) fn one_by_one(
        &mut self,
        reader: &mut (impl ShardReader + ?Sized),
    ) -> Result<(), FailedRead> {
        while let Some(task) = self.next() {
            self.carry_out(task, reader)?;
        }
        Ok(())
    }

    /// Carries out one.
    pub(super) fn carry_out(
        &mut self,
        task: Task<'_>,
        reader: &mut (impl ShardReader + ?Sized),
    ) -> Result<(), FailedRead> {
        let (read, wanted) = (task.range(), task.wanted().collect::<Vec<_>>());
        if task.scratch_len() > 0 {
            match reader.lend(&read) {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    task.deliver(bytes);
                    return self.settle(reader.file(), &read, &wanted, Ok(()));
                }
                Err(error) => return self.settle(reader.file(), &read, &wanted, Err(error)),
            }
        }
        grow(self.scratch, task.scratch_len())
            .map_err(|error| FailedRead { offset: read.start, error })?;
        let (mut dests, held) = destinations(task.pieces, self.scratch);
        let outcome = reader.read(read.start, &mut dests);
        let outcome = outcome.map(|()| pass_on(held, self.scratch));
        self.settle(reader.file(), &read, &wanted, outcome)
    }

    /// Tells of a read that is over: what it may have left in the page cache of `file`, which jobs
    /// wanted something of it, and how many bytes.
    pub(super) fn settle(
        &self,
        file: Option<&File>,
        read: &Range<u64>,
        wanted: &[(usize, u64)],
        outcome: io::Result<()>,
    ) -> Result<(), FailedRead> {
        if let Some(file) = file {
            self.route.drop_read(file, read);
        }
        outcome.map_err(|error| FailedRead { offset: read.start, error })?;
        if let Some(ledger) = self.ledger {
            ledger.fill(wanted);
        }
        let delivered = wanted.iter().map(|(_, bytes)| bytes).sum();
        self.route.add_delivered(delivered);
        self.control.add_bytes(delivered);
        Ok(())
    }
}

/// Bytes that are read into scratch memory, and what they fill from there; nothing from a gap.
type Held<'a> = (usize, Option<JobDest<'a>>);

/// Where pieces are read to: into place, or one after another into `scratch`.
fn destinations<'a, 's>(
    pieces: Vec<Share<'a>>,
    scratch: &'s mut [u8],
) -> (Vec<Dest<'s>>, Vec<Held<'a>>)
where
    'a: 's,
{
    let (mut scratch, mut held) = (Dest::from_slice(scratch), Vec::new());
    let place = |Share { len, dest }| match dest {
        Some((_, JobDest::Bytes(dest))) => dest,
        other => {
            held.push((len, other.map(|(_, dest)| dest)));
            scratch.split_off_front(len)
        }
    };
    let dests = pieces.into_iter().map(place).collect();
    (dests, held)
}

/// Converts what was read into scratch memory.
fn pass_on(held: Vec<Held<'_>>, scratch: &[u8]) {
    let mut scratch = Source::from_slice(scratch);
    for (len, dest) in held {
        let bytes = scratch.split_off_front(len);
        if let Some(dest) = dest {
            dest.fill(bytes);
        }
    }
}
