//! `Save`: a file or checkpoint that is being written; and what a crash left.

use crate::buffer::ReadBuf;
use crate::detach::{detached, interruptible};
use crate::dtypes::parse;
use crate::errors::{TidyingFailed, new_file_error, to_python};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyTuple};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use windlass_core::save::{
    Contents, IndexTexts, NewFile, Outcome, Part, PartSource, RealDisk, Save, SaveOptions,
    recover as recover_folder, without_checksums,
};
use windlass_core::{Control, Dtype, Error, Family, FormatError, Header, NewTensor};

/// Said of Ctrl-C that comes too late to stop a save.
pub(crate) const IN_PLACE: &str = "windlass: what was saved is in place and whole";

/// `(name, dtype, shape)`.
type PyNewTensor = (String, PyBackedStr, Vec<u64>);

/// What a new file will hold.
#[derive(FromPyObject)]
enum PyContents {
    Tensors(Vec<PyNewTensor>),
    /// About so many bytes, which the caller writes.
    Foreign(u64),
}

/// `(file name, contents, metadata, checksums)`.
type PyNewFile = (String, PyContents, Option<BTreeMap<String, String>>, bool);

#[pyclass(frozen, name = "Save", module = "windlass._rust")]
pub(crate) struct PySave(RwLock<Option<Save>>);

#[pymethods]
impl PySave {
    #[staticmethod]
    #[pyo3(signature = (path, file, *, durable))]
    fn file(py: Python<'_>, path: PathBuf, file: PyNewFile, durable: bool) -> PyResult<Self> {
        let new = new_file(file)?;
        let options = SaveOptions { durable, ..SaveOptions::default() };
        detached(py, || Save::file(&path, new, options)).map(Self::of)
    }

    #[staticmethod]
    #[pyo3(signature = (folder, family, files, *, durable, lock_timeout, poll=None))]
    fn folder(
        py: Python<'_>,
        folder: PathBuf,
        family: (String, String, String, Option<String>),
        files: Vec<PyNewFile>,
        durable: bool,
        lock_timeout: f64,
        poll: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let (prefix, suffix, index, foreign_index) = family;
        let family = Family { prefix, suffix, index, foreign_index };
        let files = files.into_iter().map(new_file).collect::<PyResult<_>>()?;
        let lock_timeout = timeout(lock_timeout)?;
        let options = SaveOptions { durable, lock_timeout, ..SaveOptions::default() };
        let begin = |control: &_| Save::folder(&folder, family, files, options, control);
        interruptible(py, poll.as_ref(), begin).map(Self::of)
    }

    fn staged_path(&self, file: usize) -> PyResult<PathBuf> {
        self.with(|save| Ok(save.staged_path(file).to_owned()))
    }

    fn work_name(&self) -> PyResult<Option<String>> {
        self.with(|save| Ok(save.work_name()))
    }

    #[pyo3(signature = (files, names, sources, starts=None, dtypes=None, *, threads, progress=None))]
    #[expect(clippy::too_many_arguments, reason = "the signature that Python sees")]
    fn write(
        &self,
        py: Python<'_>,
        files: Vec<usize>,
        names: Vec<PyBackedStr>,
        sources: Vec<ReadBuf>,
        starts: Option<Vec<u64>>,
        dtypes: Option<Vec<Option<PyBackedStr>>>,
        threads: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let starts = starts.unwrap_or_else(|| vec![0; names.len()]);
        let dtypes = dtypes.unwrap_or_else(|| names.iter().map(|_| None).collect());
        if [files.len(), sources.len(), starts.len(), dtypes.len()] != [names.len(); 4] {
            return Err(PyValueError::new_err("expected lists of equal length"));
        }
        self.with(|save| {
            let mut parts = Vec::with_capacity(names.len());
            for (i, (&file, name)) in files.iter().zip(&names).enumerate() {
                let found = save.position(file, name);
                let tensor = found.map_err(|error| to_python(py, &error))?;
                let source = part_source(py, save, file, name, &sources[i], dtypes[i].as_deref())?;
                parts.push(Part { file, tensor, start: starts[i], source });
            }
            let write = |control: &Control| save.write(parts, threads, control);
            interruptible(py, progress.as_ref(), write)
        })
    }

    fn commit(&self, py: Python<'_>, interim: &[u8], last: &[u8]) -> PyResult<()> {
        let save = self.take().ok_or_else(over)?;
        let index = IndexTexts { interim: interim.to_vec(), last: last.to_vec() };
        let in_place = AtomicBool::new(false);
        let commit = |control: &_| {
            let done = save.commit(&index, control);
            let is_seen = matches!(done, Ok(()) | Err(Error::AfterSave { .. }));
            in_place.store(is_seen, Ordering::SeqCst);
            done
        };
        let done = interruptible(py, None, commit);
        match done {
            Err(interruption)
                if in_place.load(Ordering::SeqCst)
                    && !interruption.is_instance_of::<TidyingFailed>(py) =>
            {
                interruption.value(py).call_method1("add_note", (IN_PLACE,))?;
                Err(interruption)
            }
            done => done,
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, py: Python<'_>, _error: &Bound<'_, PyTuple>) {
        py.detach(|| drop(self.take()));
    }
}

impl PySave {
    fn of(save: Save) -> Self {
        Self(RwLock::new(Some(save)))
    }

    fn take(&self) -> Option<Save> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn with<T>(&self, use_save: impl FnOnce(&Save) -> PyResult<T>) -> PyResult<T> {
        let save = self.0.read().unwrap_or_else(PoisonError::into_inner);
        use_save(save.as_ref().ok_or_else(over)?)
    }
}

fn part_source<'a>(
    py: Python<'_>,
    save: &Save,
    file: usize,
    name: &str,
    memory: &'a ReadBuf,
    dtype: Option<&str>,
) -> PyResult<PartSource<'a>> {
    match dtype {
        None => memory.source().map(PartSource::from),
        Some(dtype) => {
            let elements = save.elements(file, name, memory.elements()?, parse(dtype)?);
            elements.map_err(|error| to_python(py, &error))
        }
    }
}

fn over() -> PyErr {
    PyValueError::new_err("the save is over")
}

fn new_file(file: PyNewFile) -> PyResult<NewFile> {
    let (name, contents, metadata, checksums) = file;
    let tensors = match contents {
        PyContents::Tensors(tensors) => tensors,
        PyContents::Foreign(len) => {
            return Ok(NewFile { name, contents: Contents::Foreign { len } });
        }
    };
    let header = lay_out(tensors, metadata).map_err(|error| new_file_error(&error))?;
    NewFile::of_tensors(name, header, checksums).map_err(|error| new_file_error(&error))
}

fn lay_out(
    tensors: Vec<PyNewTensor>,
    metadata: Option<BTreeMap<String, String>>,
) -> Result<Header, FormatError> {
    let tensors = tensors.into_iter().map(|(name, dtype, shape)| {
        let dtype: &str = &dtype;
        let unknown = || FormatError::Json { message: format!("unknown dtype `{dtype}`") };
        Ok(NewTensor { name, dtype: Dtype::from_name(dtype).ok_or_else(unknown)?, shape })
    });
    let metadata = metadata.map(|metadata| metadata.into_iter().collect());
    Header::lay_out(tensors.collect::<Result<_, _>>()?, metadata)
}

/// Header of a new file as bytes, and the names in the order of their bytes.
#[pyfunction]
pub(crate) fn encode_header(
    py: Python<'_>,
    tensors: Vec<PyNewTensor>,
    metadata: Option<BTreeMap<String, String>>,
) -> PyResult<(Bound<'_, PyBytes>, Vec<String>)> {
    let header = lay_out(tensors, metadata).and_then(without_checksums);
    let header = header.map_err(|error| new_file_error(&error))?;
    let names = header.tensors.keys().cloned().collect();
    Ok((PyBytes::new(py, &header.encode()), names))
}

/// Deals with what interrupted saves left in a folder: `(name, what was done)` for each.
#[pyfunction]
pub(crate) fn recover(
    py: Python<'_>,
    folder: PathBuf,
    lock_timeout: f64,
) -> PyResult<Vec<(String, &'static str)>> {
    let timeout = timeout(lock_timeout)?;
    let work = |control: &_| recover_folder(&RealDisk, &folder, timeout, control);
    let recovered = interruptible(py, None, work)?;
    Ok(recovered.into_iter().map(|one| (one.name, outcome(one.outcome))).collect())
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Undone => "undone",
        Outcome::Completed => "completed",
        Outcome::Superseded => "superseded",
    }
}

fn timeout(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| PyValueError::new_err(format!("lock_timeout: {error}")))
}
