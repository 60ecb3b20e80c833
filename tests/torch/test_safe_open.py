"""`safe_open` for torch has safetensors' shape: names, metadata, tensors, slices, and an end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import windlass
from builders.bits import same_bits
from builders.files import Entry, write_entries, write_header
from builders.sharded import write_safe
from builders.strategies import SHAPES, TORCH_BITS, entries, selections
from hypothesis import given, settings
from hypothesis import strategies as st
from windlass.errors import TensorNotFound, WindlassError

MEMORIES = ("mapped", "owned")
METADATA = ({}, {"format": "pt"}, {"a": "1", "ö": "\n", "": ""})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file of three tensors and metadata."""
    state = {"b": torch.arange(24.0).view(2, 3, 4), "a": torch.ones(2, dtype=torch.int64)}
    return write_safe(tmp_path / "x.safetensors", {**state, "s": torch.tensor(1.5)})


@given(entries(TORCH_BITS), st.one_of(st.none(), st.sampled_from(METADATA)))
def test_generated_file_looks_as_in_safetensors(file: list[Entry], metadata: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_entries(Path(folder, "a"), file, metadata)
        with windlass.safe_open(path, "pt") as ours, safetensors.safe_open(path, "pt") as theirs:
            assert ours.keys() == theirs.keys()
            assert ours.metadata() == theirs.metadata()
            assert sorted(ours.offset_keys()) == sorted(theirs.offset_keys())
            for name in theirs.keys():  # noqa: SIM118 it is no mapping
                assert same_bits(ours.get_tensor(name), theirs.get_tensor(name))
                one, other = ours.get_slice(name), theirs.get_slice(name)
                assert one.get_shape() == other.get_shape()
                assert one.get_dtype() == other.get_dtype()


def _attempt(slice_: Any, index: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return slice_[index]
        except Exception as error:  # noqa: BLE001 whatever it is, it is compared
            return error


def _compare(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), (ours, theirs)
        return
    assert isinstance(ours, torch.Tensor), ours
    assert same_bits(ours, theirs)


def _check(path: Path, name: str, index: Any, memory: Any) -> None:
    with windlass.safe_open(path, "pt", memory=memory) as file:
        ours = _attempt(file.get_slice(name), index)
    with safetensors.safe_open(path, "pt") as file:
        _compare(ours, _attempt(file.get_slice(name), index))


@settings(max_examples=300)
@given(st.data())
def test_slice_is_that_of_safetensors(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    index = data.draw(selections(shape))
    count = torch.Size(shape).numel()
    with tempfile.TemporaryDirectory() as folder:
        entry = Entry("x", "I16", shape, bytes(range(2 * count % 256)).ljust(2 * count, b"!"))
        path = write_entries(Path(folder, "a"), [Entry("y", "U8", (3,), b"abc"), entry])
        memory = data.draw(st.sampled_from(MEMORIES))
        _check(path, "x", index, memory)


INDICES: list[Any] = [
    [0, 1],
    ([0, 1], slice(None)),
    (slice(0, 1), [0, 2]),
    True,
    None,
    ...,
    (..., ...),
    (),
    torch.tensor(1),
    torch.tensor([1, 0]),
    torch.tensor([True, False]),
    "b",
    1.0,
    slice("b"),
    slice(None, None, -1),
    slice(None, None, 0),
    (0, 0, 0, 0),
    (0, 0, 0),
    2,
    -3,
    slice(10**30),
]


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_index_is_taken_or_refused_as_by_safetensors(path: Path, index: Any, memory: Any) -> None:
    _check(path, "b", index, memory)


@pytest.mark.parametrize("memory", MEMORIES)
def test_negative_step_is_a_value_error(path: Path, memory: Any) -> None:
    with (
        windlass.safe_open(path, "pt", memory=memory) as file,
        pytest.raises(ValueError, match="step"),
    ):
        file.get_slice("b")[::-1]


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("index", [0, slice(1), (slice(None), 1), ...], ids=repr)
def test_writing_to_a_slice_leaves_the_file_alone(path: Path, index: Any, memory: Any) -> None:
    content = path.read_bytes()
    with windlass.safe_open(path, "pt", memory=memory) as file:
        file.get_slice("b")[index].fill_(7)
        assert path.read_bytes() == content
    with windlass.safe_open(path, "pt", memory=memory) as file:
        assert torch.equal(file.get_tensor("b"), torch.arange(24.0).view(2, 3, 4))


def test_two_owned_reads_of_a_tensor_are_two_tensors(path: Path) -> None:
    """Mapped, they are two looks at one private map, as in safetensors."""
    with windlass.safe_open(path, "pt", memory="owned") as file:
        file.get_tensor("b").fill_(7)
        assert torch.equal(file.get_tensor("b"), torch.arange(24.0).view(2, 3, 4))


@pytest.mark.parametrize("memory", MEMORIES)
def test_tensors_and_slices_outlive_the_handle(path: Path, memory: Any) -> None:
    with windlass.safe_open(path, "pt", memory=memory) as file:
        whole, part = file.get_tensor("b"), file.get_slice("b")[1]
    del file
    assert torch.equal(whole[1], torch.arange(12.0, 24.0).view(3, 4))
    assert torch.equal(part, whole[1])


@pytest.mark.parametrize("memory", MEMORIES)
def test_get_tensors_gives_all_in_file_order(path: Path, memory: Any) -> None:
    with windlass.safe_open(path, "pt", memory=memory) as file:
        tensors = file.get_tensors()
        assert list(tensors) == file.offset_keys()
        assert all(same_bits(tensor, file.get_tensor(name)) for name, tensor in tensors.items())
    storages = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    assert len(storages) == len(tensors)


def test_keys_are_sorted_and_offset_keys_are_in_file_order(tmp_path: Path) -> None:
    file_order = ["c", "a", "b", "B"]
    path = write_entries(tmp_path / "a", [Entry(name, "U8", (1,), b"0") for name in file_order])
    with windlass.safe_open(path, "pt") as file:
        assert file.keys() == ["B", "a", "b", "c"]
        assert file.offset_keys() == file_order


@pytest.mark.parametrize("header", [{}, {"__metadata__": None}], ids=["absent", "null"])
def test_absent_metadata_is_none(tmp_path: Path, header: dict[str, Any]) -> None:
    with windlass.safe_open(write_header(tmp_path / "a", header), "pt") as file:
        assert file.metadata() is None


def test_empty_metadata_is_what_safetensors_gives(tmp_path: Path) -> None:
    path = write_header(tmp_path / "a", {"__metadata__": {}})
    with windlass.safe_open(path, "pt") as ours, safetensors.safe_open(path, "pt") as theirs:
        assert ours.metadata() == theirs.metadata()


@pytest.mark.parametrize("ask", ["get_tensor", "get_slice"])
@pytest.mark.parametrize("name", ["nothing", "", "__metadata__", "B"])
def test_absent_tensor_is_a_key_error_that_names_it(path: Path, ask: str, name: str) -> None:
    with windlass.safe_open(path, "pt") as file, pytest.raises(TensorNotFound) as caught:
        getattr(file, ask)(name)
    assert isinstance(caught.value, KeyError)
    assert name in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "arguments"),
    [
        ("keys", ()),
        ("offset_keys", ()),
        ("metadata", ()),
        ("get_tensor", ("b",)),
        ("get_tensors", ()),
        ("get_slice", ("b",)),
    ],
)
def test_closed_handle_says_so(path: Path, ask: str, arguments: tuple[str, ...]) -> None:
    with windlass.safe_open(path, "pt") as file:
        pass
    with pytest.raises(WindlassError, match="closed"):
        getattr(file, ask)(*arguments)


def test_handle_closes_also_after_an_error(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), windlass.safe_open(path, "pt") as file:
        raise ZeroDivisionError
    with pytest.raises(WindlassError, match="closed"):
        file.keys()


def test_handle_works_without_with(path: Path) -> None:
    assert windlass.safe_open(path, "pt").keys() == ["a", "b", "s"]


@pytest.mark.parametrize("framework", ["pt", "torch"])
def test_framework_names_of_torch(path: Path, framework: str) -> None:
    with windlass.safe_open(path, framework) as file:
        assert isinstance(file.get_tensor("a"), torch.Tensor)


@pytest.mark.parametrize("framework", ["PT", "PyTorch", "x"])
def test_unknown_framework_is_named(path: Path, framework: str) -> None:
    with pytest.raises((ValueError, WindlassError), match=framework):
        windlass.safe_open(path, framework)


@pytest.mark.parametrize("device", ["bogus", "cpu0", "cpu:x"])
def test_unknown_device_is_named(path: Path, device: Any) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError, WindlassError), match=str(device)):
        windlass.safe_open(path, "pt", device).get_tensor("a")


def test_framework_is_needed(path: Path) -> None:
    with pytest.raises(TypeError):
        windlass.safe_open(path)  # type: ignore[call-arg]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("read", ["get_tensor('x')", "get_slice('x')[60_000:]"])
def test_owned_read_of_a_file_that_shrank_is_its_own_error(tmp_path: Path, read: str) -> None:
    path = write_safe(tmp_path / "a", {"x": torch.ones(100_000)})
    code = (
        "import os, sys, windlass\n"
        "from windlass.errors import FileChanged\n"
        "with windlass.safe_open(sys.argv[1], 'pt', memory='owned') as file:\n"
        "    os.truncate(sys.argv[1], 5000)\n"
        f"    try:\n        file.{read}.sum()\n"
        "    except FileChanged as error:\n        print(error)\n"
    )
    command = [sys.executable, "-c", code, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout
