//! Runs engine work without the GIL, and stays answerable to Python meanwhile.

use crate::errors;
use pyo3::prelude::*;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use windlass_core::read::pool::caught;
use windlass_core::{Control, Error, Result};

/// How often signals are looked at and progress is told. Ctrl-C is answered after this, and after
/// the chunks that the reader threads are at.
const POLL: Duration = Duration::from_millis(20);

/// Short work: no polling.
pub(crate) fn detached<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    py.detach(|| caught(work)).map_err(|error| errors::to_python(py, &error))
}

/// Long work: on a thread of its own, while this one answers Ctrl-C and calls
/// `progress(bytes so far)`. An exception from either stops the work and is raised.
pub(crate) fn interruptible<T: Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    work: impl FnOnce(&Control) -> Result<T> + Send,
) -> PyResult<T> {
    let control = Control::default();
    let (done, wait) = sync_channel(1);
    // Shared, so that the work can be done here if the system has no thread left.
    let work = Mutex::new(Some(work));
    let run = || {
        let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A send fails only if the receiver is gone, and it outlives the scope below.
        let _ = done.send(work.map(|work| caught(|| work(&control))));
    };
    let (run, watched) = (&run, &control);
    let (result, interruption) = py.detach(move || {
        thread::scope(|scope| {
            if thread::Builder::new().spawn_scoped(scope, run).is_err() {
                run();
            }
            wait_for(&wait, progress, watched)
        })
    });
    if let Some(interruption) = interruption {
        return Err(interruption);
    }
    let value = result.map_err(|error| errors::to_python(py, &error))?;
    report(py, progress, &control)?;
    Ok(value)
}

/// Waits for the result; an exception meanwhile cancels the work, and is returned beside it.
fn wait_for<T>(
    wait: &Receiver<Option<Result<T>>>,
    progress: Option<&Py<PyAny>>,
    control: &Control,
) -> (Result<T>, Option<PyErr>) {
    let mut interruption = None;
    loop {
        match wait.recv_timeout(POLL) {
            Ok(Some(result)) => return (result, interruption),
            Err(RecvTimeoutError::Timeout) if interruption.is_some() => {}
            Err(RecvTimeoutError::Timeout) => {
                interruption = poll(progress, control).err();
                if interruption.is_some() {
                    control.cancel();
                }
            }
            Ok(None) | Err(RecvTimeoutError::Disconnected) => {
                return (Err(Error::Cancelled), interruption);
            }
        }
    }
}

fn poll(progress: Option<&Py<PyAny>>, control: &Control) -> PyResult<()> {
    Python::attach(|py| {
        py.check_signals()?;
        report(py, progress, control)
    })
}

fn report(py: Python<'_>, progress: Option<&Py<PyAny>>, control: &Control) -> PyResult<()> {
    match progress {
        Some(progress) => progress.call1(py, (control.bytes(),)).map(drop),
        None => Ok(()),
    }
}
