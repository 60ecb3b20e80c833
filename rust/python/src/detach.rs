//! Runs engine work without the GIL, and stays answerable to Python meanwhile.

use crate::errors;
use pyo3::prelude::*;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;
use windlass_core::{Control, Result};

/// How often signals are looked at and progress is told. Ctrl-C is answered after this, and after
/// the chunks that the reader threads are at.
const POLL: Duration = Duration::from_millis(20);

/// Short work: no polling.
pub(crate) fn detached<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    py.detach(work).map_err(|error| errors::to_python(py, &error))
}

/// Long work: on a thread of its own, while this one answers Ctrl-C and calls
/// `progress(bytes so far)`. An exception from either stops the work and is raised.
pub(crate) fn interruptible<T: Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    work: impl FnOnce(&Control) -> Result<T> + Send,
) -> PyResult<T> {
    let control = Control::default();
    let outcome = py.detach(|| {
        thread::scope(|scope| {
            let (done, wait) = sync_channel(1);
            scope.spawn(|| {
                let done = done;
                // A send fails only if the receiver is gone, and it outlives this thread.
                let _ = done.send(work(&control));
            });
            let mut interruption = None;
            let result = loop {
                match wait.recv_timeout(POLL) {
                    Ok(result) => break Ok(result),
                    Err(RecvTimeoutError::Disconnected) => break Err(()),
                    Err(RecvTimeoutError::Timeout) if interruption.is_some() => {}
                    Err(RecvTimeoutError::Timeout) => {
                        interruption = poll(progress, &control).err();
                        if interruption.is_some() {
                            control.cancel();
                        }
                    }
                }
            };
            (result, interruption)
        })
    });
    match outcome {
        (_, Some(interruption)) => Err(interruption),
        (Ok(Ok(value)), None) => report(py, progress, &control).map(|()| value),
        (Ok(Err(error)), None) => Err(errors::to_python(py, &error)),
        (Err(()), None) => unreachable!("a panicking thread is re-raised by the scope"),
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
