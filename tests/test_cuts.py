"""Parts of tensors, read by `Checkpoint.load` and `Checkpoint.read`, are what numpy cuts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import windlass
from builders.bits import bits
from builders.files import Entry, write_entries
from builders.sharded import write_model
from hypothesis import given
from hypothesis import strategies as st
from windlass import _rust
from windlass.errors import DestinationError, InvalidSlice, TensorNotFound

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = [torch.uint8, torch.bfloat16, torch.float32, torch.int64]


def _edges(length: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(-length - 2, length + 2)


def _key(length: int) -> st.SearchStrategy[int | slice]:
    steps = st.none() | st.integers(1, 4) | st.integers(17, 40)
    slices = st.builds(slice, _edges(length), _edges(length), steps)
    return slices if length == 0 else slices | st.integers(-length, length - 1)


@st.composite
def _indexes(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    keys: list[Any] = [draw(_key(length)) for length in shape]
    begin = draw(st.integers(0, len(keys)))
    end = draw(st.integers(begin, len(keys)))
    if draw(st.booleans()):
        keys[begin:end] = [...]
    else:
        keys = keys[:begin]
    return keys[0] if len(keys) == 1 and draw(st.booleans()) else tuple(keys)


@given(data=st.data())
def test_parts_are_those_of_numpy(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shapes = data.draw(st.lists(st.lists(st.integers(0, 6), max_size=4).map(tuple), min_size=1))
    state = {
        f"t{number}": torch.arange(torch.Size(shape).numel())
        .reshape(shape)
        .to(data.draw(st.sampled_from(DTYPES)))
        for number, shape in enumerate(shapes)
    }
    checkpoint = windlass.Checkpoint(write_model(tmp_path_factory.mktemp("cuts"), state))
    indexes = {name: data.draw(_indexes(tuple(one.shape))) for name, one in state.items()}
    loaded = checkpoint.load(indexes, threads=data.draw(st.integers(1, 3)))
    assert list(loaded) == list(indexes)
    for name, part in loaded.items():
        numbers = np.arange(state[name].numel()).reshape(tuple(state[name].shape))
        expected = torch.tensor(numbers[indexes[name]]).to(state[name].dtype)
        assert (part.shape, part.dtype) == (expected.shape, expected.dtype)
        assert bits(part) == bits(expected)
        assert part.is_contiguous()
        assert part.untyped_storage().nbytes() == part.nbytes


def test_parts_of_numpy_arrays_and_whole_tensors(tmp_path: Path) -> None:
    state = {"w": torch.arange(20.0).reshape(4, 5), "scalar": torch.tensor(3)}
    checkpoint = windlass.Checkpoint(write_model(tmp_path, state))
    assert checkpoint.read("w", (slice(1, 3), 2), framework="numpy").tolist() == [7, 12]
    assert checkpoint.read("w").tolist() == state["w"].tolist()
    assert checkpoint.read("scalar").item() == 3
    assert checkpoint.read("scalar", ()).item() == 3


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        (4, "4 is outside of a dimension of 4"),
        ((0, -6), "-6 is outside of a dimension of 5"),
        ((0, 0, 0), "no more parts than dimensions"),
        ((..., 0, ...), "no more parts than dimensions"),
        (slice(None, None, -1), "step of 1 or more, found -1"),
        (slice(None, None, 0), "zero"),
        (True, "integers and slices, found bool"),
        ([0, 1], "integers and slices, found list"),
        (None, "integers and slices, found NoneType"),
        (np.array([True, False]), "only integer"),
        (slice("a"), "slice indices"),
    ],
)
def test_wrong_index_is_refused_by_name(tmp_path: Path, index: Any, complaint: str) -> None:
    checkpoint = windlass.Checkpoint(write_model(tmp_path, {"w": torch.zeros(4, 5)}))
    with pytest.raises(InvalidSlice, match=rf"`w` of shape \[4, 5\].*{complaint}"):
        checkpoint.read("w", index)
    with pytest.raises(TensorNotFound):
        checkpoint.read("v", index)


def test_packed_elements_are_cut_in_memory(tmp_path: Path) -> None:
    entries = [
        Entry("four", "F4", (3, 4), bytes([1, 2, 3, 4, 5, 6])),
        Entry("u", "U8", (2,), b"78"),
    ]
    checkpoint = windlass.Checkpoint(write_entries(tmp_path / "a.safetensors", entries))
    found = checkpoint.load({"u": 1, "four": (slice(1, 3), 1)})
    assert list(found) == ["u", "four"]
    assert found["four"].view(torch.uint8).tolist() == [4, 6]
    assert found["u"].item() == ord("8")


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    """Columns that are far apart are read one by one, near ones together with what is between."""
    state = {"far": torch.zeros(3, 1 << 17, dtype=torch.uint8), "near": torch.zeros(100, 100)}
    state["long"] = torch.zeros(1 << 19, dtype=torch.uint8)
    table = _rust.Checkpoint.open_index(
        str(write_model(tmp_path, state) / "model.safetensors.index.json"), strict_format=False
    )

    def count(name: str, cuts: list[tuple[int, int, int]], nbytes: int) -> int:
        memory = bytearray(nbytes)
        shape = state[name].shape
        done = table.read_cuts([name], [shape], [cuts], [memory], threads=1, io="auto")
        assert done["bytes"] == nbytes
        return done["reads"]

    assert count("far", [(0, 3, 1), (5, 10, 1)], 30) == 3
    assert count("near", [(0, 100, 1), (5, 10, 1)], 4000) == 1
    assert count("long", [(3, 4, 1 << 17)], 4) == 4
    assert count("long", [(3, 5242, 100)], 5242) <= 3


@pytest.mark.parametrize("cuts", [[(0, 3, 1)], [(0, 4, 1), (3, 3, 1)], [(0, 2, 4), (0, 5, 1)]])
def test_engine_refuses_cuts_that_leave_the_tensor(
    tmp_path: Path, cuts: list[tuple[int, int, int]]
) -> None:
    path = write_entries(tmp_path / "a.safetensors", [Entry("w", "U8", (4, 5), bytes(20))])
    table = _rust.Checkpoint.open_file(str(path), strict_format=False)
    with pytest.raises(DestinationError, match="leaves the shape"):
        table.read_cuts(["w"], [(4, 5)], [cuts], [bytearray(12)], threads=1, io="auto")
