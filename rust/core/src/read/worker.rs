//! [`Worker`]: one reading thread's state, and how it carries out a stretch.

use super::ShardReader;
use super::pool::Control;
use super::reads::{FailedRead, Reads};
use super::route::Route;
use super::task::Task;
use crate::checkpoint::Checkpoint;
use crate::error::Result;

/// The shard that a thread has open, and memory for what is not read into place.
pub(super) struct Worker<'a> {
    checkpoint: &'a Checkpoint,
    routes: &'a [Route<'a>],
    open: Option<(&'a Route<'a>, Box<dyn ShardReader>)>,
    scratch: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, routes: &'a [Route<'a>]) -> Self {
        Self { checkpoint, routes, open: None, scratch: Vec::new() }
    }

    /// Carries out tasks that are all of one shard.
    pub(super) fn run<'t>(
        &mut self,
        tasks: impl Iterator<Item = Task<'t>>,
        control: &Control,
    ) -> Result<()> {
        let mut tasks = tasks.peekable();
        let Some(shard) = tasks.peek().map(|task| task.shard) else { return Ok(()) };
        let (route, reader) = match &mut self.open {
            Some(open) if open.0.shard() == shard => open,
            open => {
                // What the reader of the last shard has, this one can have.
                *open = None;
                open.insert(open_shard(self.checkpoint, self.routes, shard)?)
            }
        };
        let mut reads = Reads::new(&mut tasks, route, control, &mut self.scratch);
        let outcome = reader.read_all(&mut reads);
        route.note(reader.as_ref());
        outcome.map_err(|FailedRead { offset, error }| {
            self.checkpoint.read_error(shard, offset, error)
        })
    }
}

fn open_shard<'a>(
    checkpoint: &Checkpoint,
    routes: &'a [Route<'a>],
    shard: usize,
) -> Result<(&'a Route<'a>, Box<dyn ShardReader>)> {
    let route = routes.binary_search_by_key(&shard, Route::shard);
    let route = &routes[route.expect("a route for each shard of the plan")];
    Ok((route, route.backend.open(&checkpoint.shards()[shard])?))
}
