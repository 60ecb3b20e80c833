//! [`Agenda`]: all that one call reads. What is near to each other is planned at once; rows that are
//! far apart are planned one by one, as threads come to them. Pure.

use super::job::{Job, JobDest};
use super::ledger::Ledger;
use super::route::Portion;
use super::rows::FarRows;
use super::task::{Task, stretches, tasks};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::plan::{PlanOptions, ReadPlan, Want, plan_reads};
use crate::sys::memory::check_room;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::vec::IntoIter;

/// Parts that rows far apart are dealt out in, for each thread: who is done early takes another.
const PARTS_PER_THREAD: usize = 4;

/// Memory that a plan takes for each job, about.
const PLAN_BYTES: usize = 512;

pub(super) struct Agenda<'a> {
    near: ReadPlan,
    /// What `near` fills, with the position of its job.
    dests: Vec<(usize, JobDest<'a>)>,
    ledger: Arc<Ledger>,
    far: Vec<Far<'a>>,
    portions: BTreeMap<usize, Portion>,
    options: PlanOptions,
}

/// Rows that are far apart, the first of which begins at `offset` of the file.
struct Far<'a> {
    job: usize,
    shard: usize,
    offset: u64,
    rows: FarRows<'a>,
}

impl Checkpoint {
    /// # Errors
    /// [`Error::RangeOutside`] when a job wants more than its tensor has; [`Error::Io`] where there
    /// is no memory for a plan.
    pub(super) fn agenda<'a>(
        &self,
        jobs: Vec<Job<'a>>,
        options: PlanOptions,
    ) -> Result<Agenda<'a>> {
        check_room(jobs.len().saturating_mul(PLAN_BYTES))
            .map_err(|error| Error::io(self.path(), "planning a read", error))?;
        let ledger = Arc::new(Ledger::of(&jobs, |tensor| self.tensor(tensor).1.shard));
        let mut portions: BTreeMap<usize, Portion> = BTreeMap::new();
        let (mut wants, mut dests, mut far) = (Vec::new(), Vec::new(), Vec::new());
        for (position, job) in jobs.into_iter().enumerate() {
            let want = self.want(&job)?;
            if want.range.is_empty() {
                continue;
            }
            let portion = portions.entry(want.shard).or_insert_with(|| Portion::new(want.shard));
            match job.dest.into_far(options.max_gap) {
                Ok(rows) => {
                    portion.add_rows(&want.range, rows.row_count(), rows.row_bytes());
                    let (shard, offset) = (want.shard, want.range.start);
                    far.push(Far { job: position, shard, offset, rows });
                }
                Err(dest) => {
                    wants.push(want);
                    dests.push((position, dest));
                }
            }
        }
        let near = plan_reads(&wants, &options);
        for reads in near.reads.chunk_by(|a, b| a.shard == b.shard) {
            let portion = portions.get_mut(&reads[0].shard).expect("of one of the jobs");
            portion.add_reads(reads, options.max_gap);
        }
        Ok(Agenda { near, dests, ledger, far, portions, options })
    }
}

impl<'a> Agenda<'a> {
    /// What it wants of each shard, by shard.
    pub(super) fn portions(&self) -> impl Iterator<Item = &Portion> {
        self.portions.values()
    }

    /// What becomes of the destinations.
    pub(super) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// First address and end of each destination that is one run of bytes.
    pub(super) fn dense_spans(&self) -> impl Iterator<Item = (usize, usize)> {
        self.dests.iter().filter_map(|(_, dest)| dest.dense_span())
    }

    /// Reads that can be carried out at the same time.
    pub(super) fn read_count(&self) -> usize {
        self.near.reads.len() + self.far.iter().map(|far| far.rows.row_count()).sum::<usize>()
    }

    /// Deals it out for so many threads: groups of tasks, of neighbours of at most so many bytes.
    pub(super) fn into_groups(self, threads: usize, most_bytes: u64) -> Vec<Group<'a>> {
        let most_bytes = most_bytes.min(self.near.bytes / (2 * threads as u64));
        let rows: usize = self.far.iter().map(|far| far.rows.row_count()).sum();
        let most_rows = rows.div_ceil(PARTS_PER_THREAD * threads).max(1);
        let options = self.options;
        let near = stretches(tasks(self.near, self.dests), most_bytes, Task::place);
        let mut groups: Vec<_> = near.into_iter().map(Group::of_tasks).collect();
        for far in self.far {
            groups.extend(far.into_parts(most_rows, options));
        }
        groups.sort_by_key(|group| group.place);
        groups
    }
}

impl<'a> Far<'a> {
    fn into_parts(
        mut self,
        most_rows: usize,
        options: PlanOptions,
    ) -> impl Iterator<Item = Group<'a>> {
        std::iter::from_fn(move || {
            let rows = self.rows.split_off_front(most_rows);
            let place = (self.shard, self.offset + rows.start());
            let far = Self { rows, ..self };
            (far.rows.row_count() > 0).then(|| Group {
                place,
                planned: Vec::new().into_iter(),
                far: Some((far, options)),
            })
        })
    }

    fn next_tasks(&mut self, options: &PlanOptions) -> Option<Vec<Task<'a>>> {
        let (start, dest) = self.rows.take_row()?;
        let start = self.offset + start;
        let range = start..start + dest.len() as u64;
        let element_bytes = dest.element_bytes().map(|bytes| bytes as u64);
        let want = Want { shard: self.shard, range, element_bytes };
        Some(tasks(plan_reads(&[want], options), vec![(self.job, dest)]))
    }
}

/// Tasks that one thread carries out, one after another.
pub(super) struct Group<'a> {
    /// Shard, and where in it the first task begins.
    place: (usize, u64),
    planned: IntoIter<Task<'a>>,
    far: Option<(Far<'a>, PlanOptions)>,
}

impl<'a> Group<'a> {
    fn of_tasks(tasks: Vec<Task<'a>>) -> Self {
        Self { place: tasks[0].place(), planned: tasks.into_iter(), far: None }
    }
}

impl<'a> Iterator for Group<'a> {
    type Item = Task<'a>;

    fn next(&mut self) -> Option<Task<'a>> {
        loop {
            if let Some(task) = self.planned.next() {
                return Some(task);
            }
            let (far, options) = self.far.as_mut()?;
            self.planned = far.next_tasks(options)?.into_iter();
        }
    }
}
