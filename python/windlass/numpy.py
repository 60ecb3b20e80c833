"""numpy: the four functions of `safetensors.numpy`, and numpy's side of `windlass.safe_open`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    import numpy as np
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this needs numpy: pip install 'windlass[numpy]'") from error

from windlass import _rust
from windlass.arrays import Adapter, ArrayFile
from windlass.errors import NoMemoryToSave, UnsupportedDtype, UnsupportedTensor
from windlass.memory import memory_for
from windlass.names import check_metadata, check_name, named_values
from windlass.options import check_options, is_pread
from windlass.progress import track
from windlass.refusals import saving_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from windlass.tensor_info import TensorInfo
    from windlass.types import Cache, Io, Memory, PathLike, Prefetch, Progress

__all__ = ["load", "load_file", "save", "save_file"]

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

#: Arrays that are not in the file's order are copied in parts of at most this many bytes.
_PART_BYTES = 16 << 20


def load_file(
    filename: PathLike,
    *,
    memory: Memory = "mapped",
    threads: int | None = None,
    io: Io = "auto",
    cache: Cache = "keep",
    prefetch: Prefetch = False,
    verify: bool = False,
    progress: Progress = None,
    strict_format: bool = False,
    backend: str = "mmap",
) -> dict[str, NDArray[Any]]:
    """Load a safetensors file, as `safetensors.numpy.load_file` does.

    Args and errors are those of `windlass.torch.load_file`. bfloat16 and the 8-bit floats need the
    package ml_dtypes.

    Example:
        >>> load_file(folder / "model.safetensors")["embed.weight"].dtype
        dtype('float32')
    """
    if is_pread(backend):
        memory, io = "owned", "buffered"
    file = ArrayFile(
        filename,
        ADAPTER,
        memory=memory,
        strict_format=strict_format,
        threads=threads,
        io=io,
        cache=cache,
        prefetch=prefetch,
        verify=verify,
    )
    return file.get_all(progress)


def load(data: bytes) -> dict[str, NDArray[Any]]:
    """Load arrays from the bytes of a safetensors file, as `safetensors.numpy.load` does.

    Raises:
        InvalidHeader: the bytes break the format.
        UnsupportedDtype: numpy has no dtype for a tensor.
    """
    arrays = {}
    for name, dtype, shape, start, end in _rust.parse_header(bytes(data)):
        flat = np.frombuffer(bytearray(memoryview(data)[start:end]), dtype=numpy_dtype(name, dtype))
        arrays[name] = flat.reshape(shape)
    return arrays


def save_file(
    tensor_dict: Mapping[str, NDArray[Any]],
    filename: PathLike,
    metadata: Mapping[str, str] | None = None,
    *,
    durable: bool = False,
    checksums: bool = False,
    threads: int | None = None,
    progress: Progress = None,
) -> None:
    """Save arrays to a safetensors file, as `safetensors.numpy.save_file` does.

    Arrays of any strides and byte order are saved right, those in Fortran order too. Arguments
    and errors are those of `windlass.torch.save_file`.

    Example:
        >>> save_file({"a": np.asfortranarray([[1, 2], [3, 4]])}, folder / "numpy.safetensors")
        >>> load_file(folder / "numpy.safetensors")["a"].tolist()
        [[1, 2], [3, 4]]
    """
    check_options(threads=threads)
    with saving_to(filename):
        new = [_new_tensor(name, array) for name, array in named_values(tensor_dict)]
        file = ("", new, check_metadata(metadata), checksums)
    total = sum(array.nbytes for array in tensor_dict.values())
    with _rust.Save.file(filename, file, durable=durable) as saving:
        with memory_for("the save", NoMemoryToSave), track(total, progress, verb="writing") as tell:
            _write(saving, tensor_dict, threads or 0, tell)
        saving.commit(b"", b"")


def save(
    tensor_dict: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return arrays as the bytes of a safetensors file, as `safetensors.numpy.save` does.

    Example:
        >>> load(save({"a": np.arange(3)}))["a"].tolist()
        [0, 1, 2]
    """
    new = [_new_tensor(name, array) for name, array in named_values(tensor_dict)]
    header, order = _rust.encode_header(new, check_metadata(metadata))
    parts = (part.data for name in order for _, part in _parts(tensor_dict[name]))
    return b"".join([header, *parts])


def _write(
    saving: _rust.Save,
    arrays: Mapping[str, NDArray[Any]],
    threads: int,
    tell: Callable[[int], object] | None,
) -> None:
    """Write all arrays that are in order as they are, at once; then the others part by part."""
    direct = {name: destination(array) for name, array in arrays.items() if _is_in_order(array)}
    zeros = [0] * len(direct)
    saving.write(zeros, list(direct), list(direct.values()), threads=threads, progress=tell)
    done = sum(arrays[name].nbytes for name in direct)
    for name in arrays.keys() - direct.keys():
        for start, part in _parts(arrays[name]):
            saving.write([0], [name], [part.data], [start], threads=threads)
            done += part.nbytes
            if tell:
                tell(done)


def _is_in_order(array: NDArray[Any]) -> bool:
    """Whether an array's memory is what the file will hold."""
    return array.flags.c_contiguous and array.dtype == array.dtype.newbyteorder("<")


def _new_tensor(name: str, array: object) -> tuple[str, str, tuple[int, ...]]:
    check_name(name)
    if not isinstance(array, np.ndarray):
        message = f"tensor `{name}`: expected a numpy array, found {type(array).__name__}"
        raise UnsupportedTensor(message)
    if isinstance(array, np.ma.MaskedArray):
        message = f"tensor `{name}`: expected an array of values, found a masked one"
        raise UnsupportedTensor(message)
    dtype = array.dtype.newbyteorder("<")
    known = {np.dtype(own): header for header, own in _NUMPY_DTYPES.items()}
    added = {own: header for header, own in _ML_DTYPES.items()}
    header = known.get(dtype) or added.get(dtype.name)
    if header is None:
        message = f"tensor `{name}`: the format has no dtype for numpy's {array.dtype}"
        raise UnsupportedTensor(message)
    return name, header, array.shape


def _parts(array: NDArray[Any], start: int = 0) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield an array's bytes in C order and the file's byte order, as `(first byte, bytes)`.

    What is in that order already is not copied; the rest is copied part by part.
    """
    dtype = array.dtype.newbyteorder("<")
    if _is_in_order(array) or array.nbytes <= _PART_BYTES or not array.ndim:
        packed = np.ascontiguousarray(array, dtype=dtype)
        if packed.nbytes:
            yield start, packed.reshape(-1).view(np.uint8)
        return
    row_bytes = array.nbytes // len(array)
    rows = max(1, _PART_BYTES // row_bytes)
    for first in range(0, len(array), rows):
        part = array[first] if row_bytes > _PART_BYTES else array[first : first + rows]
        yield from _parts(part, start + first * row_bytes)


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
    dtype = numpy_dtype(name, info.dtype)
    with memory_for(f"tensor `{name}`"):
        return np.empty(info.shape, dtype=dtype)


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
