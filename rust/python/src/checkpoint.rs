//! `Checkpoint`: the opened table, its plan, its bytes.

use crate::buffer::{PyMapping, WriteBuf};
use crate::detach::{detached, interruptible};
use crate::dtypes::parse;
use crate::errors::to_python;
use crate::stream::PyBlockReader;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{IntoPyDict, PyDict, PyList, PyTuple};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use windlass_core::plan::PlanOptions;
use windlass_core::{
    Cache, Checkpoint, Control, Cut, CutJob, Error, FormatError, Header, Index, Io, JobDest,
    Located, ReadOptions, ReadStats, Strictness, Way, Ways, header,
};

/// `(dtype, shape, position of the shard, start and end within its file)`.
type PyInfo<'py> = (&'static str, Bound<'py, PyTuple>, usize, u64, u64);

/// `(name, dtype, shape, start and end)`.
type PyEntry<'py> = (String, &'static str, Bound<'py, PyTuple>, u64, u64);

/// Runs of a cut this near to each other are read as one.
const CUT_GAP: u64 = 64 << 10;

/// What is read of near runs at a time. The first eighth of the columns of 2.2 GB: 0.19 s, 0.21 s by
/// 256 KiB, 0.23 s by 1 MiB (warm, medians of 7 interleaved rounds).
const CUT_CHUNK: u64 = 512 << 10;

#[pyclass(frozen, name = "Checkpoint", module = "windlass._rust")]
pub(crate) struct PyCheckpoint(Arc<Checkpoint>);

/// How the shards of a load of several reads are read.
#[pyclass(frozen, name = "Ways", module = "windlass._rust")]
pub(crate) struct PyWays(Ways);

#[pymethods]
impl PyCheckpoint {
    #[staticmethod]
    fn open_file(py: Python<'_>, path: PathBuf, strict_format: bool) -> PyResult<Self> {
        let open = || Checkpoint::open_file(&path, strictness(strict_format));
        detached(py, open).map(|opened| Self(Arc::new(opened)))
    }

    #[staticmethod]
    fn open_index(py: Python<'_>, path: PathBuf, strict_format: bool) -> PyResult<Self> {
        let open = |control: &_| Checkpoint::open_index(&path, strictness(strict_format), control);
        interruptible(py, None, open).map(|opened| Self(Arc::new(opened)))
    }

    fn __len__(&self) -> usize {
        self.0.tensors().len()
    }

    fn __contains__(&self, name: &str) -> bool {
        self.0.tensors().contains_key(name)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.0.tensors().keys())
    }

    fn info<'py>(&self, py: Python<'py>, name: &str) -> PyResult<PyInfo<'py>> {
        let position = self.0.position(name).map_err(|error| to_python(py, &error))?;
        info(py, self.0.tensor(position).1)
    }

    fn infos<'py>(&self, py: Python<'py>) -> PyResult<Vec<PyInfo<'py>>> {
        self.0.tensors().values().map(|tensor| info(py, tensor)).collect()
    }

    fn shard_names(&self) -> Vec<&str> {
        self.0.shards().iter().map(|shard| shard.name.as_str()).collect()
    }

    fn shard_metadata<'py>(
        &self,
        py: Python<'py>,
        shard: usize,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.0.shards()[shard]
            .metadata
            .as_ref()
            .map(|metadata| metadata.iter().into_py_dict(py))
            .transpose()
    }

    fn index_metadata(&self) -> Option<&str> {
        self.0.index_metadata()
    }

    fn unlisted(&self) -> Vec<(&str, &str)> {
        let shard_name = |position: usize| self.0.shards()[position].name.as_str();
        let unlisted = self.0.unlisted().iter();
        unlisted.map(|one| (one.tensor.as_str(), shard_name(one.shard))).collect()
    }

    fn plan(&self, py: Python<'_>) -> (usize, u64) {
        py.detach(|| {
            let plan = self.0.plan_all(&PlanOptions::default());
            (plan.reads.len(), plan.bytes)
        })
    }

    fn map_shard(&self, py: Python<'_>, shard: usize) -> PyResult<PyMapping> {
        detached(py, || self.0.map_shard(shard)).map(PyMapping::from)
    }

    fn file_system(&self, py: Python<'_>, shard: usize) -> PyResult<(String, bool)> {
        let kind = detached(py, || self.0.file_system(shard))?;
        Ok((kind.to_string(), kind.keeps_maps()))
    }

    #[pyo3(signature = (*, threads, progress=None))]
    fn crc32c(
        &self,
        py: Python<'_>,
        threads: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<u32>> {
        let work = |control: &_| self.0.crc32c(threads, control);
        interruptible(py, progress.as_ref(), work)
    }

    #[pyo3(signature = (names, *, io, cache="keep"))]
    fn look(
        &self,
        py: Python<'_>,
        names: Vec<PyBackedStr>,
        io: &str,
        cache: &str,
    ) -> PyResult<PyWays> {
        let options = parse_options(0, io, cache)?;
        let look = || {
            let tensors = names.iter().map(|name| self.0.position(name));
            Ok(self.0.look(&tensors.collect::<Result<Vec<_>, _>>()?, &options))
        };
        detached(py, look).map(PyWays)
    }

    #[pyo3(signature = (names, *, most_bytes, threads, io, cache="keep"))]
    fn block_reader(
        &self,
        py: Python<'_>,
        names: Vec<PyBackedStr>,
        most_bytes: u64,
        threads: usize,
        io: &str,
        cache: &str,
    ) -> PyResult<PyBlockReader> {
        PyBlockReader::start(py, &self.0, &names, most_bytes, (threads, io, cache))
    }

    #[pyo3(signature = (
        names, destinations, starts=None, dtypes=None, *, threads, io, cache="keep", fresh=false,
        ways=None, progress=None, on_failure=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "the signature that Python sees")]
    fn read_into<'py>(
        &self,
        py: Python<'py>,
        names: Vec<PyBackedStr>,
        mut destinations: Vec<WriteBuf>,
        starts: Option<Vec<u64>>,
        dtypes: Option<Vec<Option<PyBackedStr>>>,
        threads: usize,
        io: &str,
        cache: &str,
        fresh: bool,
        ways: Option<Py<PyWays>>,
        progress: Option<Py<PyAny>>,
        on_failure: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let options = ReadOptions { fresh, ..parse_options(threads, io, cache)? };
        let ways = ways.as_ref().map(|ways| &ways.get().0);
        let dtypes = dtypes.unwrap_or_else(|| names.iter().map(|_| None).collect());
        let starts = starts.as_deref();
        if [destinations.len(), dtypes.len()] != [names.len(); 2] {
            let (names, dests, starts) = (names.len(), destinations.len(), starts.map(<[_]>::len));
            return Err(to_python(py, &Error::UnequalLists { names, dests, starts }));
        }
        let dests = names.iter().zip(&mut destinations).zip(&dtypes);
        let dests = dests
            .map(|((name, memory), dtype)| self.job_dest(py, name, memory, dtype.as_deref()))
            .collect::<PyResult<Vec<_>>>()?;
        let jobs = self.0.jobs(&names, dests, starts);
        let jobs = jobs.map_err(|error| to_python(py, &error))?;
        let ledger = Mutex::new(None);
        let read = |control: &Control| {
            let outcome = match ways {
                Some(ways) => self.0.read_by(ways, jobs, &options, control),
                None => self.0.read_into(jobs, &options, control),
            };
            *ledger.lock().unwrap_or_else(PoisonError::into_inner) = control.ledger();
            outcome
        };
        let done = interruptible(py, progress.as_ref(), read);
        let ledger = ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let (Err(_), Some(on_failure)) = (&done, on_failure) {
            let touched = ledger.map_or_else(Vec::new, |ledger| ledger.touched());
            let touched: Vec<_> = touched.into_iter().map(|one| (one.job, one.whole)).collect();
            on_failure.call1((touched,))?;
        }
        stats(py, &done?)
    }

    #[pyo3(signature = (
        names, shapes, cuts, destinations, *, threads, io, cache="keep", fresh=false, progress=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "the signature that Python sees")]
    fn read_cuts<'py>(
        &self,
        py: Python<'py>,
        names: Vec<PyBackedStr>,
        shapes: Vec<Vec<u64>>,
        cuts: Vec<Vec<(u64, u64, u64)>>,
        mut destinations: Vec<WriteBuf>,
        threads: usize,
        io: &str,
        cache: &str,
        fresh: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        if [shapes.len(), cuts.len(), destinations.len()] != [names.len(); 3] {
            return Err(PyValueError::new_err("expected lists of equal length"));
        }
        let plan = PlanOptions {
            max_gap: CUT_GAP,
            element_chunk_bytes: CUT_CHUNK,
            ..PlanOptions::default()
        };
        let options = ReadOptions { plan, fresh, ..parse_options(threads, io, cache)? };
        let parts = names.iter().zip(shapes).zip(cuts.into_iter().zip(&mut destinations));
        let parts = parts
            .map(|((name, shape), (cuts, memory))| {
                let cut = |(first, count, step)| Cut { first, count, step };
                let cuts = cuts.into_iter().map(cut).collect();
                let tensor = self.0.position(name).map_err(|error| to_python(py, &error))?;
                Ok(CutJob { tensor, shape, cuts, dest: memory.dest()? })
            })
            .collect::<PyResult<_>>()?;
        let read = |control: &_| self.0.read_into(self.0.cut_jobs(parts)?, &options, control);
        stats(py, &interruptible(py, progress.as_ref(), read)?)
    }
}

impl PyCheckpoint {
    fn job_dest<'a>(
        &self,
        py: Python<'_>,
        name: &str,
        memory: &'a mut WriteBuf,
        dtype: Option<&str>,
    ) -> PyResult<JobDest<'a>> {
        match dtype {
            None => memory.dest().map(JobDest::from),
            Some(dtype) => {
                let elements = self.0.elements(name, memory.elements()?, parse(dtype)?);
                elements.map_err(|error| to_python(py, &error))
            }
        }
    }
}

/// What the header of a file in memory says: `(name, dtype, shape, start, end)` in file order.
#[pyfunction]
pub(crate) fn parse_header<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Vec<PyEntry<'py>>> {
    let file_len = data.len() as u64;
    let header = header::text_len(data, file_len).and_then(|text_len| {
        let end = usize::try_from(header::PREFIX_LEN + text_len).unwrap_or(usize::MAX);
        let text = data.get(8..end).unwrap_or_default();
        Header::parse(text, file_len, Strictness::Reference)
    });
    let header = header.map_err(|error| memory_error(py, error))?;
    let start = header.data_start;
    let entries = header.tensors.into_iter().map(|(name, info)| {
        let shape = PyTuple::new(py, &info.shape)?;
        Ok((name, info.dtype.name(), shape, start + info.range.start, start + info.range.end))
    });
    entries.collect()
}

/// Weight map and shard names of an index, without opening a shard.
#[pyfunction]
pub(crate) fn read_index(
    py: Python<'_>,
    path: PathBuf,
) -> PyResult<(Bound<'_, PyDict>, Vec<String>)> {
    let index = detached(py, || Index::read(&path))?;
    let entries = index.weight_map.iter().map(|(name, &shard)| (name, &index.shards[shard]));
    Ok((entries.into_py_dict(py)?, index.shards.iter().cloned().collect()))
}

/// Bytes that this process may still use; see `windlass_core::sys::memory`.
#[pyfunction]
pub(crate) fn available_memory() -> Option<u64> {
    windlass_core::sys::memory::available_memory()
}

/// Bytes that limits leave this process; see `windlass_core::sys::memory`.
#[pyfunction]
pub(crate) fn memory_within_limits() -> Option<u64> {
    windlass_core::sys::memory::memory_within_limits()
}

fn strictness(strict_format: bool) -> Strictness {
    if strict_format { Strictness::Strict } else { Strictness::Reference }
}

pub(crate) fn parse_options(threads: usize, io: &str, cache: &str) -> PyResult<ReadOptions> {
    let (io, cache) = (parse_io(io)?, parse_cache(cache)?);
    Ok(ReadOptions { threads, io, cache, ..ReadOptions::default() })
}

fn parse_io(io: &str) -> PyResult<Io> {
    match io {
        "auto" => Ok(Io::Auto),
        "mapped" => Ok(Io::Mapped),
        "buffered" => Ok(Io::Buffered),
        "direct" => Ok(Io::Direct),
        "uring" => Ok(Io::Uring),
        other => Err(PyValueError::new_err(format!(
            "io should be \"auto\", \"mapped\", \"buffered\", \"direct\" or \"uring\", \
             found {other:?}"
        ))),
    }
}

fn parse_cache(cache: &str) -> PyResult<Cache> {
    match cache {
        "keep" => Ok(Cache::Keep),
        "drop" => Ok(Cache::Drop),
        other => Err(PyValueError::new_err(format!(
            "cache should be \"keep\" or \"drop\", found {other:?}"
        ))),
    }
}

/// What a read did; see `ReadStats` in the stub.
pub(crate) fn stats<'py>(py: Python<'py>, done: &ReadStats) -> PyResult<Bound<'py, PyDict>> {
    let way = |way: &Way| (way.shard, way.backend, way.reason.to_string(), way.bytes);
    let facts = PyDict::new(py);
    facts.set_item("bytes", done.bytes)?;
    facts.set_item("reads", done.reads)?;
    facts.set_item("threads", done.threads)?;
    facts.set_item("backend", done.backend)?;
    facts.set_item("ways", done.ways.iter().map(way).collect::<Vec<_>>())?;
    Ok(facts)
}

fn info<'py>(py: Python<'py>, tensor: &Located) -> PyResult<PyInfo<'py>> {
    let shape = PyTuple::new(py, &tensor.shape)?;
    let range = &tensor.file_range;
    Ok((tensor.dtype.name(), shape, tensor.shard, range.start, range.end))
}

/// The exception for bytes that break the format.
fn memory_error(py: Python<'_>, source: FormatError) -> PyErr {
    to_python(py, &Error::Format { path: PathBuf::from("<bytes>"), source })
}
