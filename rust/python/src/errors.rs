//! One match from the engine's errors to the classes of `windlass.errors`.

use pyo3::prelude::*;
use pyo3::types::PyString;
use std::io;
use std::path::Path;
use windlass_core::convert::LayoutError;
use windlass_core::{Error, FormatError, IndexError};

mod python {
    //! The classes themselves, written in Python so that each can also be a builtin.
    pyo3::import_exception!(windlass.errors, CheckpointError);
    pyo3::import_exception!(windlass.errors, DestinationError);
    pyo3::import_exception!(windlass.errors, EmptyFile);
    pyo3::import_exception!(windlass.errors, FileChanged);
    pyo3::import_exception!(windlass.errors, FolderLocked);
    pyo3::import_exception!(windlass.errors, GitLfsPointer);
    pyo3::import_exception!(windlass.errors, IndexMismatch);
    pyo3::import_exception!(windlass.errors, InvalidHeader);
    pyo3::import_exception!(windlass.errors, InvalidIndex);
    pyo3::import_exception!(windlass.errors, InvalidName);
    pyo3::import_exception!(windlass.errors, NoSpaceLeft);
    pyo3::import_exception!(windlass.errors, NoMemoryToSave);
    pyo3::import_exception!(windlass.errors, NotARegularFile);
    pyo3::import_exception!(windlass.errors, NotEnoughMemory);
    pyo3::import_exception!(windlass.errors, ReadFailed);
    pyo3::import_exception!(windlass.errors, SaveFailed);
    pyo3::import_exception!(windlass.errors, SaveFolderNotFound);
    pyo3::import_exception!(windlass.errors, SaveNotPermitted);
    pyo3::import_exception!(windlass.errors, ShardNotFound);
    pyo3::import_exception!(windlass.errors, ShardNotReadable);
    pyo3::import_exception!(windlass.errors, TensorNotFound);
    pyo3::import_exception!(windlass.errors, TidyingFailed);
    pyo3::import_exception!(windlass.errors, TruncatedFile);
    pyo3::import_exception!(windlass.errors, UnsafeShardName);
    pyo3::import_exception!(windlass.errors, UnsupportedTensor);
    pyo3::import_exception!(windlass.errors, WindlassError);
}

pub(crate) use python::TidyingFailed;

/// The Python exception for an engine error; system errors keep `errno` and `filename`.
pub(crate) fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    let exception = class(error);
    match attach_facts(py, &exception, error) {
        Ok(()) => exception,
        Err(failure) => failure,
    }
}

/// The Python exception for what may not stand in a new file.
pub(crate) fn new_file_error(error: &FormatError) -> PyErr {
    let message = error.to_string();
    match error {
        FormatError::Name { .. } => python::InvalidName::new_err(message),
        _ => python::UnsupportedTensor::new_err(message),
    }
}

/// A destination that the engine cannot write into.
pub(crate) fn destination_error(message: &'static str) -> PyErr {
    python::DestinationError::new_err(message)
}

/// Memory whose description does not fit together.
pub(crate) fn layout_error(error: &LayoutError) -> PyErr {
    python::DestinationError::new_err(error.to_string())
}

fn class(error: &Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::NotFound { .. } => python::ShardNotFound::new_err(message),
        Error::PermissionDenied { .. } => python::ShardNotReadable::new_err(message),
        Error::NotAFile { .. } => python::NotARegularFile::new_err(message),
        Error::Io { source, .. } => read_class(source, message),
        Error::Replaced { .. } | Error::Rewritten { .. } | Error::Shrunk { .. } => {
            python::FileChanged::new_err(message)
        }
        Error::Format { source, .. } => format_class(source, message),
        Error::Index { source, .. } => index_class(source, message),
        Error::ListedButAbsent { .. } | Error::InTwoShards { .. } => {
            python::IndexMismatch::new_err(message)
        }
        Error::TensorNotFound { .. } => python::TensorNotFound::new_err(message),
        Error::DestinationSize { .. }
        | Error::RangeOutside { .. }
        | Error::CutOutside { .. }
        | Error::NoCast { .. }
        | Error::UnequalLists { .. }
        | Error::DestinationsOverlap { .. } => python::DestinationError::new_err(message),
        Error::Save { source, .. } => save_class(source, message),
        Error::AfterSave { .. } => python::TidyingFailed::new_err(message),
        Error::NoSpace { .. } => python::NoSpaceLeft::new_err(message),
        Error::Locked { .. } => python::FolderLocked::new_err(message),
        Error::Incomplete { .. } | Error::Cancelled | Error::Panicked { .. } => {
            python::WindlassError::new_err(message)
        }
        _ => python::CheckpointError::new_err(message),
    }
}

fn format_class(error: &FormatError, message: String) -> PyErr {
    match error {
        FormatError::Empty => python::EmptyFile::new_err(message),
        FormatError::GitLfsPointer => python::GitLfsPointer::new_err(message),
        FormatError::TooShort { .. }
        | FormatError::HeaderTruncated { .. }
        | FormatError::Truncated { .. } => python::TruncatedFile::new_err(message),
        _ => python::InvalidHeader::new_err(message),
    }
}

fn read_class(source: &io::Error, message: String) -> PyErr {
    match source.kind() {
        io::ErrorKind::OutOfMemory => python::NotEnoughMemory::new_err(message),
        _ => python::ReadFailed::new_err(message),
    }
}

fn save_class(source: &io::Error, message: String) -> PyErr {
    use io::ErrorKind::{NotFound, OutOfMemory, PermissionDenied, QuotaExceeded, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded => python::NoSpaceLeft::new_err(message),
        PermissionDenied => python::SaveNotPermitted::new_err(message),
        NotFound => python::SaveFolderNotFound::new_err(message),
        OutOfMemory => python::NoMemoryToSave::new_err(message),
        _ => python::SaveFailed::new_err(message),
    }
}

fn index_class(error: &IndexError, message: String) -> PyErr {
    match error {
        IndexError::UnsafeShardName { .. } => python::UnsafeShardName::new_err(message),
        _ => python::InvalidIndex::new_err(message),
    }
}

fn attach_facts(py: Python<'_>, exception: &PyErr, error: &Error) -> PyResult<()> {
    let (path, source): (&Path, Option<&io::Error>) = match error {
        Error::NotFound { path, source, .. }
        | Error::PermissionDenied { path, source }
        | Error::Save { path, source, .. }
        | Error::Io { path, source, .. } => (path, Some(source)),
        Error::AfterSave { path, source } => (path, system_error(source)),
        Error::NotAFile { path, .. }
        | Error::NoSpace { path, .. }
        | Error::Locked { path, .. }
        | Error::Replaced { path, .. }
        | Error::Rewritten { path, .. }
        | Error::Shrunk { path, .. } => (path, None),
        _ => return Ok(()),
    };
    let value = exception.value(py);
    value.setattr("filename", PyString::new(py, &path.to_string_lossy()))?;
    match source.and_then(io::Error::raw_os_error) {
        Some(errno) => value.setattr("errno", errno),
        None => Ok(()),
    }
}

fn system_error(error: &Error) -> Option<&io::Error> {
    match error {
        Error::Save { source, .. } => Some(source),
        _ => None,
    }
}
