//! [`Worker`]: one reading thread's state, and how it carries out a task.

use super::ShardReader;
use super::job::JobDest;
use super::ledger::Ledger;
use super::pool::Control;
use super::route::Route;
use super::task::{Share, Task};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::sys::dest::Dest;
use crate::sys::file::is_still;
use crate::sys::memory::grow;
use crate::sys::source::Source;

/// The shard that a thread has open, and memory for what is not read into place.
pub(super) struct Worker<'a> {
    checkpoint: &'a Checkpoint,
    routes: &'a [Route<'a>],
    /// Where somebody wants to know what has been filled.
    ledger: Option<&'a Ledger>,
    open: Option<(&'a Route<'a>, Box<dyn ShardReader>)>,
    scratch: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        routes: &'a [Route<'a>],
        ledger: Option<&'a Ledger>,
    ) -> Self {
        Self { checkpoint, routes, ledger, open: None, scratch: Vec::new() }
    }

    /// Lets go of a shard that is not the file any more whose header was read; the next task will
    /// say so.
    pub(super) fn check_shard(&mut self) {
        let shards = self.checkpoint.shards();
        self.open.take_if(|(route, _)| {
            let shard = &shards[route.shard()];
            !is_still(&shard.path, &shard.identity)
        });
    }

    pub(super) fn run(&mut self, task: Task<'_>, control: &Control) -> Result<()> {
        let (route, reader) = match &mut self.open {
            Some(open) if open.0.shard() == task.shard => open,
            open => open.insert(open_shard(self.checkpoint, self.routes, task.shard)?),
        };
        let (offset, wanted) = (task.offset, task.wanted());
        grow(&mut self.scratch, task.scratch_len())
            .map_err(|error| self.checkpoint.read_error(task.shard, offset, error))?;
        if let Some(ledger) = self.ledger {
            ledger.begin(&wanted);
        }
        let (mut dests, held) = destinations(task.pieces, &mut self.scratch);
        let len = dests.iter().map(|dest| dest.len() as u64).sum::<u64>();
        let outcome = reader.read(offset, &mut dests);
        route.after(reader.as_ref(), offset..offset + len);
        outcome.map_err(|error| self.checkpoint.read_error(task.shard, offset, error))?;
        pass_on(held, &self.scratch);
        if let Some(ledger) = self.ledger {
            ledger.fill(&wanted);
        }
        let delivered = wanted.iter().map(|(_, bytes)| bytes).sum();
        route.add_delivered(delivered);
        control.add_bytes(delivered);
        Ok(())
    }
}

fn open_shard<'a>(
    checkpoint: &Checkpoint,
    routes: &'a [Route<'a>],
    shard: usize,
) -> Result<(&'a Route<'a>, Box<dyn ShardReader>)> {
    let route = routes.binary_search_by_key(&shard, Route::shard);
    let route = &routes[route.expect("a route for each shard of the plan")];
    Ok((route, route.open(&checkpoint.shards()[shard])?))
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
