//! Scoped threads over a queue of groups of tasks: the first error wins, a cancelled queue empties
//! at once.

use super::ledger::Ledger;
use crate::error::{Error, Result};
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, Scope};

/// The caller's hold on running work: stop it, or see how far it is.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    bytes: AtomicU64,
    ledger: Mutex<Option<Arc<Ledger>>>,
}

impl Control {
    /// Asks the work to stop; it does so at the next task.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the work was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Bytes delivered so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }

    /// What a read has done to its destinations; `None` before there is a plan for one.
    #[must_use]
    pub fn ledger(&self) -> Option<Arc<Ledger>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn keep(&self, ledger: Arc<Ledger>) {
        *self.ledger.lock().unwrap_or_else(PoisonError::into_inner) = Some(ledger);
    }
}

/// Runs `work` for every task, on `threads` threads, each with its own `start()` state. The tasks of
/// a group run one after another on one thread.
///
/// One thread, or one group, runs on the caller's own thread.
///
/// # Errors
/// The first error of any task; the tasks behind it are dropped. [`Error::Cancelled`] when
/// `control` was cancelled, [`Error::Panicked`] when a worker panicked.
pub fn run<Task, Group: IntoIterator<Item = Task> + Send, State>(
    threads: usize,
    groups: Vec<Group>,
    control: &Control,
    start: impl Fn() -> State + Sync,
    work: impl Fn(&mut State, Task, &Control) -> Result<()> + Sync,
) -> Result<()> {
    let one_by_one = |state: &mut State, mut tasks: Tasks<'_, Group>, control: &Control| {
        tasks.try_for_each(|task| work(state, task, control))
    };
    run_groups(threads, groups, control, start, one_by_one)
}

/// As [`run`], with the tasks of a group all handed to one call of `work`, which takes them when it
/// is ready for them. After an error, or when `control` was cancelled, there are no more.
///
/// # Errors
/// Those of [`run`].
pub fn run_groups<Group: IntoIterator + Send, State>(
    threads: usize,
    groups: Vec<Group>,
    control: &Control,
    start: impl Fn() -> State + Sync,
    work: impl Fn(&mut State, Tasks<'_, Group>, &Control) -> Result<()> + Sync,
) -> Result<()> {
    let threads = threads.min(groups.len());
    let groups = Mutex::new(groups.into_iter());
    let queue = Queue { groups, failed: AtomicBool::new(false), failure: Mutex::new(None) };
    let drain = || {
        let drained = caught(|| {
            queue.drain(control, &start, &work);
            Ok(())
        });
        if let Err(panicked) = drained {
            queue.fail(panicked);
        }
    };
    if threads <= 1 {
        drain();
    } else {
        std::thread::scope(|scope| {
            let started = (0..threads).take_while(|_| start_thread(scope, drain)).count();
            if started == 0 {
                drain();
            }
        });
    }
    queue.into_result()
}

/// Does work on whatever thread this is; a panic becomes an error, so that whoever waits for the
/// outcome gets one.
///
/// # Errors
/// Those of `work`, and [`Error::Panicked`].
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(Error::Panicked { message: panic_message(payload.as_ref()) }))
}

/// Groups of one task each.
pub fn singly<Task>(tasks: impl IntoIterator<Item = Task>) -> Vec<[Task; 1]> {
    tasks.into_iter().map(|task| [task]).collect()
}

/// Starts a thread, unless the system has none left: then those that run do all the work.
fn start_thread<'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() + Send + 'scope,
) -> bool {
    Builder::new().name("windlass".to_owned()).spawn_scoped(scope, work).is_ok()
}

/// Starts a thread that outlives its scope, unless the system has none left.
pub(super) fn start_free_thread(work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    Builder::new().name("windlass".to_owned()).spawn(work).ok()
}

/// The tasks of a group that are still to be done.
pub struct Tasks<'q, Group: IntoIterator> {
    left: Group::IntoIter,
    control: &'q Control,
    failed: &'q AtomicBool,
    /// Whether a task was left undone.
    stopped: &'q Cell<bool>,
}

impl<Group: IntoIterator> Iterator for Tasks<'_, Group> {
    type Item = Group::Item;

    fn next(&mut self) -> Option<Group::Item> {
        let task = self.left.next()?;
        let stop = self.control.is_cancelled() || self.failed.load(Ordering::Relaxed);
        self.stopped.set(self.stopped.get() || stop);
        (!stop).then_some(task)
    }
}

struct Queue<Group> {
    groups: Mutex<std::vec::IntoIter<Group>>,
    failed: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl<Group: IntoIterator> Queue<Group> {
    fn drain<State>(
        &self,
        control: &Control,
        start: &impl Fn() -> State,
        work: &impl Fn(&mut State, Tasks<'_, Group>, &Control) -> Result<()>,
    ) {
        let mut state = start();
        while let Some(group) = self.next() {
            let stopped = Cell::new(false);
            let (left, failed) = (group.into_iter(), &self.failed);
            let tasks = Tasks { left, control, failed, stopped: &stopped };
            if let Err(error) = work(&mut state, tasks, control) {
                return self.fail(error);
            }
            if stopped.get() {
                // Unless it was an error that stopped it: that came first.
                return self.fail(Error::Cancelled);
            }
        }
    }

    fn next(&self) -> Option<Group> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// Keeps the first error and empties the queue.
    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        *groups = Vec::new().into_iter();
    }

    fn into_result(self) -> Result<()> {
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// What a thread said when it panicked.
pub(super) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref().copied()).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn sum(threads: usize, fail_at: Option<u64>) -> (Result<()>, u64) {
        let control = Control::default();
        let work = |(): &mut (), task: u64, control: &Control| {
            if fail_at == Some(task) {
                return Err(Error::Cancelled);
            }
            control.add_bytes(task);
            Ok(())
        };
        let groups = (0..100).map(|group| group * 10..group * 10 + 10).collect();
        let result = run(threads, groups, &control, || (), work);
        (result, control.bytes())
    }

    #[test]
    fn tasks_of_a_group_run_in_order_on_one_thread() {
        let seen = Mutex::new(Vec::new());
        let work = |thread: &mut _, task: u64, _: &Control| {
            seen.lock().map_err(|_| Error::Cancelled)?.push((*thread, task));
            Ok(())
        };
        let (groups, threads) = (vec![0..50, 50..100, 100..150], || std::thread::current().id());
        run(3, groups, &Control::default(), threads, work).expect("no task fails");
        let seen = seen.into_inner().expect("no thread panics");
        for group in [0..50, 50..100, 100..150] {
            let of_group = || seen.iter().filter(|(_, task)| group.contains(task));
            assert!(of_group().map(|(_, task)| *task).eq(group.clone()));
            assert_eq!(of_group().map(|(thread, _)| *thread).collect::<HashSet<_>>().len(), 1);
        }
    }

    #[test]
    fn every_task_runs_once() {
        for threads in [0, 1, 3, 8] {
            let (result, bytes) = sum(threads, None);
            assert!(result.is_ok());
            assert_eq!(bytes, 999 * 1000 / 2, "{threads} threads");
        }
    }

    #[test]
    fn an_error_drops_the_rest() {
        let (result, bytes) = sum(1, Some(10));
        assert!(result.is_err());
        assert_eq!(bytes, 9 * 10 / 2);
        assert!(sum(4, Some(10)).0.is_err(), "of many threads too, the error is the result");
    }

    #[test]
    fn a_cancelled_queue_does_nothing() {
        let control = Control::default();
        control.cancel();
        let work = |(): &mut (), (), _: &Control| panic!("must not run");
        let result = run(2, vec![[()], [()]], &control, || (), work);
        assert!(matches!(result, Err(Error::Cancelled)));
    }

    #[test]
    fn work_that_panics_has_an_outcome_all_the_same() {
        let outcome = caught(|| -> Result<()> { panic!("half way") });
        assert!(matches!(outcome, Err(Error::Panicked { message }) if message == "half way"));
        assert!(matches!(caught(|| Ok(7)), Ok(7)));
        assert!(matches!(caught(|| Err::<(), _>(Error::Cancelled)), Err(Error::Cancelled)));
    }

    #[test]
    fn a_panic_becomes_an_error() {
        for threads in [1, 2] {
            let work = |(): &mut (), task: u8, _: &Control| panic!("task {task}");
            let result = run(threads, vec![[1], [1]], &Control::default(), || (), work);
            assert!(matches!(result, Err(Error::Panicked { message }) if message == "task 1"));
        }
    }
}
