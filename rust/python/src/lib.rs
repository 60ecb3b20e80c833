//! `windlass._rust`: the engine as Python sees it. Translation only; see `_rust.pyi` for the manual.

#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

mod alias;
mod buffer;
mod checkpoint;
mod copy;
mod detach;
mod dtypes;
mod errors;
mod overlap;
mod prefetch;
mod quiet;
mod save;
mod shard;
mod stream;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _rust {
    #[pymodule_export]
    use super::alias::{find_aliases, find_touching};
    #[pymodule_export]
    use super::buffer::PyMapping;
    #[pymodule_export]
    use super::checkpoint::{
        PyCheckpoint, PyWays, available_memory, memory_within_limits, parse_header, read_index,
    };
    #[pymodule_export]
    use super::copy::copy_fresh;
    #[pymodule_export]
    use super::dtypes::can_cast;
    #[pymodule_export]
    use super::overlap::resolve_overlaps;
    #[pymodule_export]
    use super::prefetch::{PyPrefetch, prefetch};
    #[pymodule_export]
    use super::quiet::PausedGc;
    #[pymodule_export]
    use super::save::{PySave, encode_header, recover};
    #[pymodule_export]
    use super::shard::plan_shards;
    #[pymodule_export]
    use super::stream::PyBlockReader;

    use super::save::IN_PLACE;
    use super::{Bound, PyModule, PyModuleMethods, PyResult, dtypes};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("IN_PLACE", IN_PLACE)?;
        module.add("DTYPES", dtypes::table(module.py())?)
    }
}
