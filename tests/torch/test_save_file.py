"""`save_file` and `save` write what safetensors writes, and what it cannot write as well."""

from __future__ import annotations

import inspect
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
import windlass
import windlass.torch
from builders.bits import bits, random_tensor, storage_bits
from builders.saves import (
    APART,
    CASTS,
    data_bytes,
    file_names,
    hard_dicts,
    holds,
    metadata_of,
    stored_value,
)
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

State = dict[str, torch.Tensor]


class Tagged(torch.Tensor):
    """A subclass with values of its own."""


#: What safetensors refuses, or stores wrongly.
HARD: dict[str, Callable[[], torch.Tensor]] = {
    "conjugated": lambda: random_tensor((3, 2), torch.complex64, 1).conj(),
    "negated": lambda: random_tensor((3, 2), torch.complex64, 1).conj().imag,
    "transposed": lambda: random_tensor((3, 2), torch.float32, 1).t(),
    "expanded": lambda: random_tensor((1, 2), torch.float32, 1).expand(3, 2),
    "every other": lambda: random_tensor((6,), torch.int16, 1)[::2],
    "channels last": lambda: random_tensor((2, 3, 4, 4), torch.float32, 1).to(
        memory_format=torch.channels_last
    ),
    "without elements": lambda: torch.empty(0, 3).t(),
    "of no dimension": lambda: torch.tensor(3.5),
    "with gradient": lambda: torch.ones(2, requires_grad=True) * 2,
    "of a subclass": lambda: torch.ones(3, 2).as_subclass(Tagged).t(),
    "a parameter": lambda: torch.nn.Parameter(random_tensor((3, 2), torch.float32, 1).t()),
    "packed four-bit": lambda: random_tensor((2, 4), torch.float4_e2m1fn_x2, 1),
    "larger than a buffer": lambda: random_tensor((3000, 1500), torch.float32, 1).t(),
    "with a row larger than a buffer": lambda: torch.arange(2.0)[:, None].expand(2, 5_000_000),
}


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Give `os.umask`, and undo it."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@given(hard_dicts(), st.sampled_from([None, *CASTS]))
def test_generated_tensors_are_read_by_safetensors(state: State, dtype: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        windlass.save_file(state, path, on_overlap="store", dtype=dtype)
        assert holds(safetensors.torch.load_file(path), state, dtype)
        assert holds(windlass.load_file(path), state, dtype)
        assert file_names(Path(folder)) == ["a.safetensors"]


@given(hard_dicts())
def test_bytes_are_those_of_the_file(state: State) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        windlass.save_file(state, path, {"b": "2", "a": "1"}, on_overlap="store")
        saved = windlass.save(state, {"a": "1", "b": "2"}, on_overlap="store")
        assert saved == path.read_bytes()
        assert holds(windlass.torch.load(saved), state)


@given(hard_dicts(kinds=APART), st.sampled_from([None, {"format": "pt"}, {"": 'ü"\n'}]))
def test_bytes_are_those_of_safetensors(state: State, metadata: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        windlass.save_file(state, ours, metadata)
        safetensors.torch.save_file(state, theirs, metadata)
        assert ours.read_bytes() == theirs.read_bytes()
        assert windlass.save(state, metadata) == safetensors.torch.save(state, metadata)


@given(hard_dicts(kinds=APART))
def test_what_safetensors_saves_is_loaded(state: State) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        safetensors.torch.save_file(state, path)
        assert holds(windlass.load_file(path), state)
        assert holds(windlass.torch.load(path.read_bytes()), state)


@pytest.mark.parametrize("kind", HARD)
def test_hard_tensor_is_stored_by_its_values(tmp_path: Path, kind: str) -> None:
    tensor = HARD[kind]()
    windlass.save_file({"x": tensor}, tmp_path / "a")
    assert bits(windlass.load_file(tmp_path / "a")["x"]) == bits(stored_value(tensor))
    assert (tmp_path / "a").read_bytes() == windlass.save({"x": tensor})


def test_lone_view_takes_no_more_than_itself(tmp_path: Path) -> None:
    windlass.save_file({"x": torch.zeros(1000, 1000)[3]}, tmp_path / "a")
    assert data_bytes(tmp_path / "a") == 4000


def test_slices_of_one_storage_that_do_not_touch_are_not_shared(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"left": whole[:, :2], "right": whole[:, 2:]}
    windlass.save_file(state, tmp_path / "a")
    assert holds(windlass.load_file(tmp_path / "a"), state)


def test_nothing_with_no_metadata_is_a_file() -> None:
    """Where safetensors writes a header that it cannot read."""
    data = windlass.save({}, {})
    assert windlass.torch.load(data) == {} == safetensors.torch.load(data)


def test_metadata_is_sorted_so_that_bytes_repeat() -> None:
    one = windlass.save({"x": torch.ones(2)}, {"b": "2", "a": "1", "c": "3"})
    assert one == windlass.save({"x": torch.ones(2)}, {"c": "3", "a": "1", "b": "2"})
    assert one.index(b'"a"') < one.index(b'"b"') < one.index(b'"c"')


@given(hard_dicts())
def test_tensors_and_dict_are_left_alone(state: State) -> None:
    before = [(name, id(tensor)) for name, tensor in state.items()]
    memory = {name: storage_bits(tensor.detach()) for name, tensor in state.items()}
    with tempfile.TemporaryDirectory() as folder:
        windlass.save_file(state, Path(folder, "a"), on_overlap="store", dtype=torch.float16)
    assert [(name, id(tensor)) for name, tensor in state.items()] == before
    assert {name: storage_bits(tensor.detach()) for name, tensor in state.items()} == memory


@pytest.mark.parametrize("kind", HARD)
def test_storage_stays_resizable(tmp_path: Path, kind: str) -> None:
    tensor = HARD[kind]()
    windlass.save_file({"x": tensor}, tmp_path / "a")
    windlass.save({"x": tensor})
    assert tensor.untyped_storage().resizable()


def test_metadata_of_the_caller_is_left_alone(tmp_path: Path) -> None:
    metadata = {"a": "1"}
    model = torch.nn.Module()
    model.a = model.b = torch.nn.Parameter(torch.ones(2))
    windlass.save_model(model, tmp_path / "a", metadata, checksums=True)
    assert metadata == {"a": "1"}


def test_cast_applies_to_floats_only(tmp_path: Path) -> None:
    state = {
        "float": torch.ones(2),
        "int": torch.ones(2, dtype=torch.int64),
        "complex": torch.ones(2, dtype=torch.complex64),
        "packed": random_tensor((2,), torch.float4_e2m1fn_x2, 1),
    }
    windlass.save_file(state, tmp_path / "a", dtype=torch.bfloat16)
    dtypes = {name: tensor.dtype for name, tensor in windlass.load_file(tmp_path / "a").items()}
    assert dtypes == {**{name: t.dtype for name, t in state.items()}, "float": torch.bfloat16}


@pytest.mark.parametrize("save", [windlass.save_torch_state_dict, windlass.save_async])
@pytest.mark.parametrize("dtype", CASTS)
@pytest.mark.parametrize("shape", [(), (3, 2), (1, 2_500_000)])
def test_negated_view_is_cast_with_its_sign(
    tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype, save: Any
) -> None:
    """Where torch's `copy_` makes infinity positive, or cannot negate the dtype of the file."""
    values = torch.linspace(-1e7, 3e7, torch.Size(shape).numel()).reshape(shape)
    negated = torch.complex(values, values).conj().imag
    done = save({"x": negated}, tmp_path, dtype=dtype)
    assert done is None or done.result() is None
    found = windlass.load_file(tmp_path / "model.safetensors")["x"]
    assert bits(found) == bits((-values).to(dtype))


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_new_file_has_the_mode_of_the_umask(
    tmp_path: Path, umask: Callable[[int], int], mask: int
) -> None:
    umask(mask)
    windlass.save_file({"x": torch.ones(2)}, tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("mask", [0o022, 0o077])
@pytest.mark.parametrize("mode", [0o644, 0o664, 0o600])
def test_replaced_file_keeps_its_mode(
    tmp_path: Path, umask: Callable[[int], int], mask: int, mode: int
) -> None:
    umask(mask)
    path = tmp_path / "a"
    path.touch()
    path.chmod(mode)
    windlass.save_file({"x": torch.ones(2)}, path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(Path("far", "target"))
    windlass.save_file({"x": torch.ones(2)}, link)
    assert link.is_symlink()
    assert torch.equal(windlass.load_file(target)["x"], torch.ones(2))
    assert file_names(tmp_path / "far") == ["target"]


def test_other_name_of_the_file_keeps_the_old_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    windlass.save_file({"x": torch.ones(2)}, tmp_path / "a")
    assert (tmp_path / "b").read_bytes() == b"old"


def test_file_in_a_linked_folder_is_saved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    windlass.save_file({"x": torch.ones(2)}, tmp_path / "link" / "a")
    assert file_names(tmp_path / "real") == ["a"]


def test_bare_name_is_saved_into_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    windlass.save_file({"x": torch.ones(2)}, "a", durable=True)
    assert file_names(tmp_path) == ["a"]


@pytest.mark.parametrize("load", [windlass.load_file, safetensors.torch.load_file])
def test_file_that_the_tensors_are_mapped_from_is_replaced(tmp_path: Path, load: Any) -> None:
    path = tmp_path / "a"
    state = {"x": random_tensor((1000,), torch.float32, 1), "y": torch.ones(3)}
    windlass.save_file(state, path)
    mapped = load(path)
    windlass.save_file({"new": mapped["x"], "y": mapped["y"].flip(0)}, path)
    assert holds(windlass.load_file(path), {"new": state["x"], "y": state["y"]})
    assert holds(mapped, state)


def test_memory_of_the_file_itself_is_saved_over_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(64)))
    shared = torch.from_file(str(path), shared=True, size=64, dtype=torch.uint8)
    windlass.save_file({"x": shared}, path)
    assert bits(windlass.load_file(path)["x"]) == bytes(range(64))


@pytest.mark.parametrize("threads", [1, 9])
def test_threads_and_durable_do_not_change_the_bytes(tmp_path: Path, threads: int) -> None:
    state = {str(n): random_tensor((1 << 20,), torch.float32, n) for n in range(5)}
    state |= {
        "matrix": random_tensor((1501, 1003), torch.float32, 5).t(),
        "rows": random_tensor((2002, 1003), torch.int16, 6)[::2],
        "odd": random_tensor((4097,), torch.uint8, 7),
        "complex": random_tensor((300_001, 2), torch.complex64, 8)[:, 1],
    }
    windlass.save_file(state, tmp_path / "a", threads=threads, durable=True, checksums=True)
    windlass.save_file(state, tmp_path / "b", checksums=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert holds(windlass.load_file(tmp_path / "a", verify=True), state)


@pytest.mark.parametrize("kind", ["direct", "staged"])
def test_progress_counts_bytes_up_to_their_number(tmp_path: Path, kind: str) -> None:
    tensor = random_tensor((3000, 3000), torch.float32, 1)
    calls: list[tuple[int, int]] = []
    windlass.save_file(
        {"x": tensor if kind == "direct" else tensor.t(), "y": torch.ones(3)},
        tmp_path / "a",
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (36_000_012, 36_000_012)
    assert sorted(calls) == calls


def test_checksums_of_another_file_are_not_taken_over(tmp_path: Path) -> None:
    """As when tensors are saved again with the metadata that they were loaded with."""
    windlass.save_file({"x": torch.ones(2)}, tmp_path / "a", {"k": "v"}, checksums=True)
    windlass.save_file({"x": torch.zeros(3)}, tmp_path / "b", metadata_of(tmp_path / "a"))
    assert metadata_of(tmp_path / "b") == {"k": "v"}
    assert windlass.verify(tmp_path / "b") == []
    (tmp_path / "c").write_bytes(windlass.save({"x": torch.ones(2)}, metadata_of(tmp_path / "a")))
    assert metadata_of(tmp_path / "c") == {"k": "v"}


def test_front_doors_are_one_function() -> None:
    assert windlass.save_file is windlass.torch.save_file
    assert windlass.save is windlass.torch.save


@pytest.mark.parametrize("name", ["save", "save_file", "save_model", "load_model"])
def test_signature_begins_with_that_of_safetensors(name: str) -> None:
    ours = list(inspect.signature(getattr(windlass, name)).parameters.values())
    theirs = list(inspect.signature(getattr(safetensors.torch, name)).parameters.values())
    theirs = [one for one in theirs if one.kind is not one.KEYWORD_ONLY]
    facts = [(one.name, one.default) for one in theirs]
    assert [(one.name, one.default) for one in ours[: len(theirs)]] == facts
    assert all(one.kind is one.KEYWORD_ONLY for one in ours[len(theirs) :])
