"""numpy's `save_file` and `save`: the bytes of safetensors, and right where its are wrong."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import windlass
import windlass.numpy
from builders.strategies import NAMES, NUMPY_BITS, SHAPES, example_bytes
from hypothesis import given
from hypothesis import strategies as st
from windlass.errors import InvalidName, NotARegularFile, SaveFolderNotFound, UnsupportedTensor

if TYPE_CHECKING:
    from collections.abc import Callable

Arrays = dict[str, Any]
DTYPES = ("?", "u1", "i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<c8", "<u8", "<i8", "<f8")
ADDED = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e8m0fnu")
#: What may be done to an array without changing what a file must hold.
LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "C order": lambda array: array,
    "Fortran order": lambda array: np.asarray(array, order="F"),
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "transposed": lambda array: array.T.copy().T,
    "every other": lambda array: np.repeat(array, 2, axis=0)[::2] if array.ndim else array,
    "backwards": lambda array: array[::-1].copy()[::-1] if array.ndim else array,
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
    "unaligned": lambda array: np.frombuffer(b"x" + array.tobytes(), array.dtype, offset=1).reshape(
        array.shape
    ),
}


def _same(found: Arrays, wanted: Arrays) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].dtype == wanted[name].dtype.newbyteorder("<")
        and found[name].shape == wanted[name].shape
        and found[name].tobytes() == wanted[name].astype(found[name].dtype).tobytes()
        for name in wanted
    )


@st.composite
def arrays(draw: st.DrawFn) -> Arrays:
    """Draw arrays in C order by name."""
    names = draw(st.lists(NAMES.filter(lambda name: name and "\0" not in name), max_size=5))
    return {name: _array(draw) for name in names}


def _array(draw: st.DrawFn) -> Any:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(SHAPES)
    count = int(np.prod(shape)) * dtype.itemsize
    header = "BOOL" if dtype == np.bool_ else "U8"
    return np.frombuffer(example_bytes(header, count), dtype).reshape(shape)


@given(arrays(), st.sampled_from([None, {"format": "np"}]))
def test_bytes_are_those_of_safetensors(state: Arrays, metadata: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        windlass.numpy.save_file(state, ours, metadata)
        safetensors.numpy.save_file(state, theirs, metadata)
        assert ours.read_bytes() == theirs.read_bytes() == windlass.numpy.save(state, metadata)


@given(arrays(), st.lists(st.sampled_from(sorted(LAYOUTS)), min_size=1, max_size=4))
def test_arrays_of_any_layout_are_read_by_safetensors(state: Arrays, layouts: list[str]) -> None:
    laid = {
        name: LAYOUTS[layouts[n % len(layouts)]](array)
        for n, (name, array) in enumerate(state.items())
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        windlass.numpy.save_file(laid, path)
        assert _same(safetensors.numpy.load_file(path), state)
        assert _same(windlass.numpy.load_file(path), state)
        assert windlass.numpy.save(laid) == path.read_bytes()


@given(arrays())
def test_what_safetensors_saves_is_loaded(state: Arrays) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        safetensors.numpy.save_file(state, path)
        assert _same(windlass.numpy.load_file(path), state)
        assert _same(windlass.numpy.load(path.read_bytes()), state)


def test_every_dtype_of_numpy_that_the_format_has_can_be_saved() -> None:
    assert len(DTYPES) == len(NUMPY_BITS)


@pytest.mark.parametrize("layout", ["C order", "Fortran order", "transposed"])
@pytest.mark.parametrize("dtype", ADDED)
def test_dtypes_of_ml_dtypes_come_back(tmp_path: Path, dtype: str, layout: str) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).astype(getattr(ml_dtypes, dtype))
    windlass.numpy.save_file({"x": LAYOUTS[layout](array)}, tmp_path / "a")
    assert _same(windlass.numpy.load_file(tmp_path / "a"), {"x": array})


def test_bfloat16_is_that_of_torch(tmp_path: Path) -> None:
    import torch

    windlass.numpy.save_file({"x": np.array([1.0, -2.5], ml_dtypes.bfloat16)}, tmp_path / "a")
    expected = torch.tensor([1.0, -2.5], dtype=torch.bfloat16)
    assert torch.equal(windlass.load_file(tmp_path / "a")["x"], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 3_000_000), (3_000_000, 3), (1, 1, 5_000_000)])
def test_array_larger_than_a_part_is_stored_whole(
    tmp_path: Path, shape: tuple[int, ...], layout: str
) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    windlass.numpy.save_file({"x": LAYOUTS[layout](array)}, tmp_path / "a")
    assert np.array_equal(windlass.numpy.load_file(tmp_path / "a")["x"], array)


def test_views_of_one_array_are_each_stored(tmp_path: Path) -> None:
    whole = np.arange(6.0)
    state = {
        "whole": whole,
        "again": whole,
        "part": whole[1:3],
        "many": np.broadcast_to(whole, (2, 6)),
    }
    windlass.numpy.save_file(state, tmp_path / "a")
    assert _same(windlass.numpy.load_file(tmp_path / "a"), state)


def test_file_that_the_arrays_are_mapped_from_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    windlass.numpy.save_file({"x": np.arange(1000)}, path)
    mapped = windlass.numpy.load_file(path)
    windlass.numpy.save_file({"y": mapped["x"][::2], "x": mapped["x"]}, path)
    assert np.array_equal(windlass.numpy.load_file(path)["y"], np.arange(0, 1000, 2))
    assert np.array_equal(mapped["x"], np.arange(1000))


def test_memory_of_the_file_itself_is_saved_over_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(64)))
    windlass.numpy.save_file({"x": np.memmap(path, mode="r+")}, path)
    assert windlass.numpy.load_file(path)["x"].tobytes() == bytes(range(64))


def test_arrays_and_dict_are_left_alone(tmp_path: Path) -> None:
    state = {"a": np.asfortranarray(np.ones((2, 3))), "b": np.ones(3, ">f4")}
    before = {name: (id(a), a.dtype, a.strides, a.tobytes()) for name, a in state.items()}
    windlass.numpy.save_file(state, tmp_path / "a", checksums=True)
    windlass.numpy.save(state)
    assert {name: (id(a), a.dtype, a.strides, a.tobytes()) for name, a in state.items()} == before


@pytest.mark.parametrize("options", [{"durable": True}, {"threads": 1}, {"progress": False}])
def test_options_do_not_change_the_bytes(tmp_path: Path, options: Any) -> None:
    state = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.arange(9)}
    windlass.numpy.save_file(state, tmp_path / "a", **options)
    assert (tmp_path / "a").read_bytes() == windlass.numpy.save(state)


@pytest.mark.parametrize("layout", ["C order", "Fortran order"])
def test_checksums_are_of_what_is_stored(tmp_path: Path, layout: str) -> None:
    state = {"x": LAYOUTS[layout](np.arange(9_000_000.0).reshape(3, -1))}
    windlass.numpy.save_file(state, tmp_path / "a", checksums=True)
    assert windlass.verify(tmp_path / "a") == []
    with (tmp_path / "a").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    assert [finding.tensor for finding in windlass.verify(tmp_path / "a")] == ["x"]


def test_progress_counts_bytes_up_to_their_number(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    windlass.numpy.save_file(
        {"a": np.ones(3), "b": np.ones((2000, 3000)).T},
        tmp_path / "a",
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (48_000_024, 48_000_024)
    assert sorted(calls) == calls


BAD: dict[str, tuple[Any, type[Exception]]] = {
    "complex128": ({"bad": np.ones(2, "c16")}, UnsupportedTensor),
    "long double": ({"bad": np.ones(2, np.longdouble)}, UnsupportedTensor),
    "text": ({"bad": np.array(["a"])}, UnsupportedTensor),
    "objects": ({"bad": np.array([None])}, UnsupportedTensor),
    "records": ({"bad": np.zeros(2, [("bad", "f4")])}, UnsupportedTensor),
    "times": ({"bad": np.zeros(2, "M8[s]")}, UnsupportedTensor),
    "masked": ({"bad": np.ma.masked_array([1.0, 2.0], [0, 1])}, UnsupportedTensor),
    "four bits": ({"bad": np.ones(2, ml_dtypes.int4)}, UnsupportedTensor),
    "a list": ({"bad": [1.0]}, UnsupportedTensor),
    "a number": ({"bad": 1.0}, UnsupportedTensor),
    "empty name": ({"": np.ones(2)}, InvalidName),
    "name with NUL": ({"bad\0": np.ones(2)}, InvalidName),
    "name of the metadata": ({"__metadata__": np.ones(2)}, InvalidName),
    "name that is no text": ({3: np.ones(2)}, InvalidName),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_by_name_and_the_old_file_stays(tmp_path: Path, kind: str) -> None:
    state, error = BAD[kind]
    (tmp_path / "a").write_bytes(b"old")
    for save in (
        windlass.numpy.save,
        lambda arrays: windlass.numpy.save_file(arrays, tmp_path / "a"),
    ):
        with pytest.raises(error, match=r"tensor `(bad|__metadata__|3|)"):
            save({"fine": np.ones(2), **state})
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


@pytest.mark.parametrize("bad", [[1], None, np.ones(3), "text"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, bad: Any) -> None:
    for save in (windlass.numpy.save, lambda one: windlass.numpy.save_file(one, tmp_path / "a")):
        with pytest.raises(UnsupportedTensor, match=f"mapping.*{type(bad).__name__}"):
            save(bad)
    assert not (tmp_path / "a").exists()


def test_metadata_that_is_not_text_is_refused(tmp_path: Path) -> None:
    for save in (
        windlass.numpy.save,
        lambda arrays, metadata: windlass.numpy.save_file(arrays, tmp_path / "a", metadata),
    ):
        with pytest.raises(InvalidName, match="key"):
            save({"x": np.ones(2)}, {"key": 1})
    assert list(tmp_path.iterdir()) == []


def test_target_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    for path, error in ((tmp_path, NotARegularFile), (tmp_path / "link", SaveFolderNotFound)):
        with pytest.raises(error, match=path.name):
            windlass.numpy.save_file({"x": np.ones(2)}, path)


def test_error_of_the_callback_ends_the_save(tmp_path: Path) -> None:
    def stop(_: int, __: int) -> None:
        raise KeyboardInterrupt

    for array in (np.ones((300, 300)), np.ones((300, 300)).T):
        with pytest.raises(KeyboardInterrupt):
            windlass.numpy.save_file({"x": array}, tmp_path / "a", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["save", "save_file", "load", "load_file"])
def test_signature_begins_with_that_of_safetensors(name: str) -> None:
    ours = list(inspect.signature(getattr(windlass.numpy, name)).parameters.values())
    theirs = list(inspect.signature(getattr(safetensors.numpy, name)).parameters.values())
    theirs = [one for one in theirs if one.kind is not one.KEYWORD_ONLY]
    facts = [(one.name, one.default) for one in theirs]
    assert [(one.name, one.default) for one in ours[: len(theirs)]] == facts
    assert all(one.kind is one.KEYWORD_ONLY for one in ours[len(theirs) :])


def test_numpy_is_saved_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, numpy, windlass.numpy; windlass.numpy.save_file({'x': numpy.ones(2).T},"
        "sys.argv[1]); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, tmp_path / "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
