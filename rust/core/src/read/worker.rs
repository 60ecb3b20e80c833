//! [`Worker`]: one reading thread's state, and how it carries out a stretch.

use super::ShardReader;
use super::ledger::Ledger;
use super::pool::Control;
use super::reads::{FailedRead, Reads};
use super::route::Route;
use super::task::Task;
use crate::checkpoint::{Checkpoint, Shard};
use crate::error::{Error, Result};
use crate::sys::file::{check_unchanged, is_still};

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

    /// Carries out neighbouring tasks, in order: those of the first one's shard together, and so on.
    pub(super) fn run<'t>(
        &mut self,
        tasks: impl Iterator<Item = Task<'t>>,
        control: &Control,
    ) -> Result<()> {
        let mut tasks = tasks.peekable();
        while let Some(shard) = tasks.peek().map(|task| task.shard) {
            let mut of_shard = std::iter::from_fn(|| tasks.next_if(|task| task.shard == shard));
            self.run_shard(shard, &mut of_shard, control)?;
        }
        Ok(())
    }

    fn run_shard(
        &mut self,
        shard: usize,
        tasks: &mut dyn Iterator<Item = Task<'_>>,
        control: &Control,
    ) -> Result<()> {
        let (route, reader) = match &mut self.open {
            Some(open) if open.0.shard() == shard => open,
            open => {
                // What the reader of the last shard has, this one can have.
                *open = None;
                open.insert(open_shard(self.checkpoint, self.routes, shard)?)
            }
        };
        let mut reads = Reads::new(tasks, route, self.ledger, control, &mut self.scratch);
        let outcome = reader.read_all(&mut reads);
        route.note(reader.as_ref());
        outcome.map_err(|FailedRead { offset, error }| {
            self.checkpoint.read_error(shard, offset, error)
        })?;
        // Who writes to a file while it is read leaves some bytes of either state.
        let Shard { path, identity, .. } = &self.checkpoint.shards()[shard];
        let check = |file| check_unchanged(file, path, identity);
        let checked = reader.file().map_or(Ok(()), check).map_err(|error| match error {
            Error::Rewritten { found, .. } if found.len < identity.len => {
                self.checkpoint.shrunk(shard, path.clone())
            }
            other => other,
        });
        if let (Err(_), Some(ledger)) = (&checked, self.ledger) {
            ledger.distrust(shard);
        }
        checked
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
