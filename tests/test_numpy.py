"""numpy gets what safetensors gives it, ml_dtypes' types as well, and numpy's own slicing rules."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import windlass
import windlass.numpy
from builders.files import Entry, write_entries
from builders.strategies import NUMPY_BITS, SHAPES, entries, example_bytes, selections
from hypothesis import given, settings
from hypothesis import strategies as st
from windlass.errors import UnsupportedDtype, WindlassError

MEMORIES = ("mapped", "owned")
DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.complex64,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}


def _same_bits(one: Any, other: Any) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    same_kind = one.dtype == other.dtype and one.shape == other.shape
    return same_kind and one.tobytes() == other.tobytes()


@given(entries(NUMPY_BITS), st.sampled_from(MEMORIES), st.booleans())
def test_generated_file_is_read_as_safetensors_reads_it(
    file: list[Entry],
    memory: Any,
    misaligned: bool,  # noqa: FBT001 hypothesis passes by position
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_entries(Path(folder, "a"), file, misaligned=misaligned)
        ours, theirs = (
            windlass.numpy.load_file(path, memory=memory),
            safetensors.numpy.load_file(path),
        )
        assert ours.keys() == theirs.keys()
        assert all(_same_bits(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_is_numpys_or_that_of_ml_dtypes(tmp_path: Path, dtype: str, memory: Any) -> None:
    data = example_bytes(dtype, 6 * np.dtype(DTYPES[dtype]).itemsize)
    path = write_entries(tmp_path / "a", [Entry("x", dtype, (1, 3, 2), data)])
    array = windlass.numpy.load_file(path, memory=memory)["x"]
    assert array.dtype == DTYPES[dtype]
    assert array.shape == (1, 3, 2)
    assert array.tobytes() == data


def test_bfloat16_needs_no_import_of_ml_dtypes_by_the_caller(tmp_path: Path) -> None:
    path = write_entries(tmp_path / "a", [Entry("x", "BF16", (2,), b"\x80\x3f\x00\x40")])
    code = "import sys, windlass.numpy; print(*windlass.numpy.load_file(sys.argv[1])['x'])"
    command = [sys.executable, "-c", code, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "2"], done.stderr


def test_numpy_is_read_without_torch(tmp_path: Path) -> None:
    path = write_entries(tmp_path / "a", [Entry("x", "F32", (1,), bytes(4))])
    code = (
        "import sys, windlass, windlass.numpy; windlass.numpy.load_file(sys.argv[1]);"
        "windlass.safe_open(sys.argv[1], 'numpy').get_tensor('x'); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("dtype", ["F6_E2M3", "F6_E3M2"])
def test_dtype_unknown_to_numpy_is_named_with_its_tensor(tmp_path: Path, dtype: str) -> None:
    path = write_entries(tmp_path / "a", [Entry("odd", dtype, (4,), bytes(3))])
    with pytest.raises(UnsupportedDtype, match=rf"(?s)(odd.*{dtype}|{dtype}.*odd)"):
        windlass.numpy.load_file(path)


@pytest.mark.parametrize("memory", MEMORIES)
def test_arrays_are_writable_and_the_file_is_left_alone(tmp_path: Path, memory: Any) -> None:
    entry = [Entry("x", "U8", (5,), b"abcde"), Entry("y", "U8", (2,), b"fg")]
    path = write_entries(tmp_path / "a", entry)
    content = path.read_bytes()
    arrays = windlass.numpy.load_file(path, memory=memory)
    arrays["x"][:] = 7
    assert arrays["y"].tobytes() == b"fg"
    assert path.read_bytes() == content


def test_owned_arrays_do_not_depend_on_the_file(tmp_path: Path) -> None:
    path = write_entries(tmp_path / "a", [Entry("x", "U8", (5,), b"abcde")])
    arrays = windlass.numpy.load_file(path, memory="owned")
    path.write_bytes(bytes(path.stat().st_size))
    assert arrays["x"].tobytes() == b"abcde"


@pytest.mark.parametrize("memory", MEMORIES)
def test_array_outlives_the_others_and_the_file(tmp_path: Path, memory: Any) -> None:
    path = write_entries(tmp_path / "a", [Entry("x", "U8", (5,), b"abcde")])
    array = windlass.numpy.load_file(path, memory=memory)["x"]
    path.unlink()
    assert array.tobytes() == b"abcde"


def _attempt(slice_: Any, index: Any) -> Any:
    try:
        return slice_[index]
    except Exception as error:  # noqa: BLE001 whatever it is, it is compared
        return error


def _has_negative_step(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, slice) and (part.step or 0) < 0 for part in parts)


def _check(path: Path, name: str, index: Any, memory: Any) -> None:
    with windlass.safe_open(path, "numpy", memory=memory) as file:
        ours = _attempt(file.get_slice(name), index)
    if _has_negative_step(index):
        assert isinstance(ours, (ValueError, IndexError)), ours
        return
    with safetensors.safe_open(path, "numpy") as file:
        theirs = _attempt(file.get_slice(name), index)
        if isinstance(theirs, Exception):
            theirs = _attempt(file.get_tensor(name), index)
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), (ours, theirs)
        return
    assert not isinstance(ours, Exception), ours
    assert _same_bits(ours, theirs)


@settings(max_examples=300)
@given(st.data())
def test_slice_is_that_of_safetensors_or_of_numpy(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    index = data.draw(selections(shape))
    count = int(np.prod(shape, dtype=np.int64))
    with tempfile.TemporaryDirectory() as folder:
        entry = Entry("x", "I16", shape, bytes(range(2 * count % 256)).ljust(2 * count, b"!"))
        path = write_entries(Path(folder, "a"), [Entry("y", "U8", (3,), b"abc"), entry])
        _check(path, "x", index, data.draw(st.sampled_from(MEMORIES)))


INDICES: list[Any] = [
    [0, 1],
    (slice(0, 1), [0, 2]),
    None,
    (None, 0),
    ...,
    (..., ...),
    (),
    np.int64(1),
    np.array([1, 0]),
    np.array([True, False]),
    "b",
    1.0,
    slice("b"),
    slice(None, None, 0),
    (0, 0, 0, 0),
    (0, 0, 0),
    2,
    -3,
    slice(-1, None),
    slice(0, 99),
    slice(5, 1),
    slice(10**30),
]


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_index_follows_safetensors_or_numpy(tmp_path: Path, index: Any, memory: Any) -> None:
    entry = Entry("b", "U8", (2, 3, 4), bytes(range(24)))
    _check(write_entries(tmp_path / "a", [entry]), "b", index, memory)


@pytest.mark.parametrize("memory", MEMORIES)
def test_negative_step_is_a_value_error(tmp_path: Path, memory: Any) -> None:
    path = write_entries(tmp_path / "a", [Entry("x", "U8", (5,), b"abcde")])
    file = windlass.safe_open(path, "numpy", memory=memory)
    with pytest.raises(ValueError, match="step"):
        file.get_slice("x")[::-1]


@pytest.mark.parametrize("framework", ["np", "numpy"])
def test_handle_gives_arrays(tmp_path: Path, framework: str) -> None:
    path = write_entries(tmp_path / "a", [Entry("x", "U8", (5,), b"abcde")], {"format": "np"})
    with windlass.safe_open(path, framework) as file:
        assert isinstance(file.get_tensor("x"), np.ndarray)
        assert file.get_tensors()["x"].tobytes() == b"abcde"
        assert file.metadata() == {"format": "np"}
        assert file.get_slice("x").get_shape() == [5]
        assert file.get_slice("x").get_dtype() == "U8"


def test_closed_handle_says_so(tmp_path: Path) -> None:
    with windlass.safe_open(write_entries(tmp_path / "a", []), "numpy") as file:
        pass
    with pytest.raises(WindlassError, match="closed"):
        file.keys()


@pytest.mark.parametrize("device", ["cuda", "cuda:0", 0, "bogus"])
def test_numpy_has_no_device_but_the_cpu(tmp_path: Path, device: Any) -> None:
    path = write_entries(tmp_path / "a", [Entry("x", "U8", (5,), b"abcde")])
    with pytest.raises((ValueError, RuntimeError, WindlassError), match=str(device)):
        windlass.safe_open(path, "numpy", device).get_tensor("x")
