//! [`Reads`]: what a thread is to read of one shard, and where each read is told of.

use super::ShardReader;
use super::job::{ElementsDest, JobDest};
use super::pool::Control;
use super::route::Route;
use super::task::Task;
use crate::sys::dest::Dest;
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
    control: &'s Control,
    scratch: &'s mut Vec<u8>,
}

impl<'s, 'a> Reads<'s, 'a> {
    pub(super) fn new(
        tasks: &'s mut dyn Iterator<Item = Task<'a>>,
        route: &'s Route<'s>,
        control: &'s Control,
        scratch: &'s mut Vec<u8>,
    ) -> Self {
        Self { tasks, route, control, scratch }
    }

    /// The next one; none after an error anywhere, or when the load was cancelled.
    pub(super) fn next(&mut self) -> Option<Task<'a>> {
        self.tasks.next()
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
        let (read, wanted) = (task.range(), task.wanted());
        self.scratch.resize(task.scratch_len().max(self.scratch.len()), 0);
        let (mut dests, held) = destinations(task.pieces, self.scratch);
        let outcome = reader.read(read.start, &mut dests);
        let outcome = outcome.map(|()| pass_on(held, self.scratch));
        self.settle(reader.cached_file(), &read, wanted, outcome)
    }

    /// Tells of a read that is over: what it may have left in the page cache of `file`, and how many
    /// of its bytes were wanted.
    pub(super) fn settle(
        &self,
        file: Option<&File>,
        read: &Range<u64>,
        wanted: u64,
        outcome: io::Result<()>,
    ) -> Result<(), FailedRead> {
        if let Some(file) = file {
            self.route.drop_read(file, read);
        }
        outcome.map_err(|error| FailedRead { offset: read.start, error })?;
        self.control.add_bytes(wanted);
        Ok(())
    }
}

/// Bytes that are read into scratch memory, and the elements that they become; none from a gap.
type Held<'a> = (usize, Option<ElementsDest<'a>>);

/// Where pieces are read to: into place, or one after another into `scratch`.
fn destinations<'a, 's>(
    pieces: Vec<(usize, Option<JobDest<'a>>)>,
    scratch: &'s mut [u8],
) -> (Vec<Dest<'s>>, Vec<Held<'a>>)
where
    'a: 's,
{
    let (mut scratch, mut held) = (Dest::from_slice(scratch), Vec::new());
    let mut put_aside = |len, elements| {
        held.push((len, elements));
        scratch.split_off_front(len)
    };
    let place = |(len, dest)| match dest {
        Some(JobDest::Bytes(dest)) => dest,
        Some(JobDest::Elements(elements)) => put_aside(len, Some(elements)),
        None => put_aside(len, None),
    };
    let dests = pieces.into_iter().map(place).collect();
    (dests, held)
}

/// Converts what was read into scratch memory.
fn pass_on(held: Vec<Held<'_>>, scratch: &[u8]) {
    let mut scratch = Source::from_slice(scratch);
    for (len, elements) in held {
        let bytes = scratch.split_off_front(len);
        if let Some(elements) = elements {
            elements.fill(bytes);
        }
    }
}
