"""numpy: `load_file`, and numpy's side of `windlass.safe_open`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import numpy as np
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this needs numpy: pip install 'windlass[numpy]'") from error

from windlass.arrays import Adapter, ArrayFile
from windlass.errors import UnsupportedDtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from windlass import _rust
    from windlass.checkpoint import TensorInfo
    from windlass.types import Io, Memory, PathLike, Progress

__all__ = ["load_file"]

#: Header name → numpy's own dtypes.
_NUMPY_DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
    "C64": "<c8",
    "F64": "<f8",
    "I64": "<i8",
    "U64": "<u8",
}

#: Header name → dtypes that the package ml_dtypes adds to numpy.
_ML_DTYPES = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}


def load_file(
    filename: PathLike,
    *,
    memory: Memory = "mapped",
    threads: int | None = None,
    io: Io = "auto",
    progress: Progress = None,
    strict_format: bool = False,
) -> dict[str, NDArray[Any]]:
    """Load a safetensors file, as `safetensors.numpy.load_file` does.

    Args and errors are those of `windlass.torch.load_file`. bfloat16 and the 8-bit floats need the
    package ml_dtypes.

    Example:
        >>> load_file(folder / "model.safetensors")["embed.weight"].dtype
        dtype('float32')
    """
    file = ArrayFile(
        filename, ADAPTER, memory=memory, strict_format=strict_format, threads=threads, io=io
    )
    return file.get_all(progress)


def view(name: str, info: TensorInfo, mapping: _rust.Mapping) -> NDArray[Any]:
    """Return an array over the mapped bytes."""
    dtype = numpy_dtype(name, info.dtype)
    start, end = info.file_range
    count = (end - start) // dtype.itemsize
    if not count:
        return np.empty(info.shape, dtype=dtype)
    array: NDArray[Any] = np.frombuffer(memoryview(mapping), dtype=dtype, count=count, offset=start)
    return array.reshape(info.shape)


def empty(name: str, info: TensorInfo) -> NDArray[Any]:
    """Return an uninitialised array of the dtype and shape in the file."""
    return np.empty(info.shape, dtype=numpy_dtype(name, info.dtype))


def destination(array: NDArray[Any]) -> memoryview:
    """Return an array's memory as bytes."""
    return array.reshape(-1).view(np.uint8).data


def numpy_dtype(name: str, dtype: str) -> np.dtype[Any]:
    """Return numpy's dtype for a header name.

    Raises:
        UnsupportedDtype: numpy has none, or ml_dtypes is not installed.
    """
    if dtype in _NUMPY_DTYPES:
        return np.dtype(_NUMPY_DTYPES[dtype])
    if dtype not in _ML_DTYPES:
        message = f"tensor `{name}`: numpy has no dtype for {dtype}"
        raise UnsupportedDtype(message)
    try:
        import ml_dtypes
    except ImportError as error:
        message = f"tensor `{name}`: numpy needs ml_dtypes for {dtype}: pip install ml_dtypes"
        raise UnsupportedDtype(message) from error
    added: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[dtype]))
    return added


def index(array: NDArray[Any], key: Any) -> NDArray[Any]:  # noqa: ANN401  (any index of numpy)
    """Return part of an array, packed, by numpy's rules; one element is a 0-d array.

    Raises:
        ValueError: a slice with a negative step, which safetensors refuses too.
    """
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, slice) and part.step is not None and part.step < 0:
            message = f"slice steps must be positive, found {part.step}"
            raise ValueError(message)
    return np.asarray(array[key], order="C")


#: numpy, as `windlass.arrays` sees it.
ADAPTER: Adapter[NDArray[Any]] = Adapter(view, empty, destination, np.copy)
