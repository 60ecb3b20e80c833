"""CPU tensors of other dtypes and strides are filled by the engine; the rest as before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import random_tensor, same_bits
from builders.sharded import write_model, write_safe
from torch import nn
from windlass import _rust
from windlass.errors import DestinationError, ReadFailed
from windlass.torch import engine, fill
from windlass.torch.tensors import destination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHAPE = (70, 90)
MEMORY: dict[str, Callable[[torch.dtype], torch.Tensor]] = {
    "contiguous": lambda dtype: torch.zeros(SHAPE, dtype=dtype),
    "transposed": lambda dtype: torch.zeros(SHAPE[::-1], dtype=dtype).t(),
    "columns": lambda dtype: torch.zeros(SHAPE[0], 100, dtype=dtype)[:, 3:93],
}


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of tensors that go through the staging buffer."""
    names: list[str] = []
    original = fill.read_pieces

    def spy(source: Any, fills: list[fill.Fill], *rest: Any) -> Iterator[Any]:
        names.extend(one.name for one in fills)
        return original(source, fills, *rest)

    monkeypatch.setattr(fill, "read_pieces", spy)
    return names


def _model(**tensors: torch.Tensor) -> nn.Module:
    model = nn.Module()
    for name, tensor in tensors.items():
        model.register_buffer(name, tensor)
    return model


def _load(tmp_path: Path, model: nn.Module, dtype: torch.dtype, **options: Any) -> dict[str, Any]:
    state = {
        name: random_tensor(tuple(tensor.shape), torch.int16, n).to(dtype)
        for n, (name, tensor) in enumerate(model.state_dict().items())
    }
    folder = write_model(tmp_path / "c", state, count=1)
    windlass.load_sharded_checkpoint(model, folder, **options)
    return state


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int32])
@pytest.mark.parametrize("io", ["buffered", "mapped", "direct", "uring"])
def test_engine_casts_and_scatters(
    tmp_path: Path, memory: str, dtype: torch.dtype, io: str, staged: list[str]
) -> None:
    model = _model(weight=MEMORY[memory](dtype), other=torch.zeros(7))
    before = model.weight._version
    state = _load(tmp_path, model, torch.bfloat16, io=io)
    assert same_bits(model.weight, state["weight"].to(dtype))
    assert model.weight._version > before
    assert staged == []


def test_what_lies_between_columns_is_left_alone(tmp_path: Path) -> None:
    whole = torch.full((70, 100), 5.0)
    state = _load(tmp_path, _model(weight=whole[:, 3:93]), torch.bfloat16)
    assert same_bits(whole[:, 3:93], state["weight"].float())
    assert torch.equal(whole[:, :3], torch.full((70, 3), 5.0))
    assert torch.equal(whole[:, 93:], torch.full((70, 7), 5.0))


def test_interleaved_tensors_are_filled_one_by_one(tmp_path: Path, staged: list[str]) -> None:
    whole = torch.zeros(70, 180)
    model = _model(even=whole[:, ::2], odd=whole[:, 1::2], plain=torch.zeros(9))
    state = _load(tmp_path, model, torch.bfloat16)
    assert same_bits(model.even, state["even"].float())
    assert same_bits(model.odd, state["odd"].float())
    assert same_bits(model.plain, state["plain"].float())
    assert sorted(staged) == ["even", "odd"]


def test_tensor_between_the_columns_of_another_is_filled(tmp_path: Path) -> None:
    whole = torch.zeros(70, 180)
    model = _model(columns=whole[:, :90], row=whole[3, 90:])
    state = _load(tmp_path, model, torch.float32)
    assert same_bits(model.columns, state["columns"])
    assert same_bits(model.row, state["row"])


def test_tensor_whose_elements_overlap_is_left_to_torch(tmp_path: Path, staged: list[str]) -> None:
    memory, reference = torch.zeros(16), torch.zeros(16)
    model = _model(weight=memory.as_strided((4, 6), (3, 1)))
    state = _load(tmp_path, model, torch.bfloat16)
    reference.as_strided((4, 6), (3, 1)).copy_(state["weight"])
    assert torch.equal(memory, reference)
    assert staged == ["weight"]


def test_casts_with_an_imaginary_part_are_left_to_torch(tmp_path: Path, staged: list[str]) -> None:
    model = _model(weight=torch.zeros(SHAPE, dtype=torch.complex64))
    state = _load(tmp_path, model, torch.bfloat16)
    assert same_bits(model.weight, state["weight"].to(torch.complex64))
    assert staged == ["weight"]


@pytest.mark.parametrize("saturates", [True, False])
def test_eight_bit_floats_are_cast_by_the_engine_only_if_torch_saturates_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, staged: list[str], *, saturates: bool
) -> None:
    engine.casts.cache_clear()
    monkeypatch.setattr(engine, "_saturates", lambda: saturates)
    model = _model(weight=torch.zeros(SHAPE, dtype=torch.float8_e4m3fn))
    _load(tmp_path, model, torch.float32)
    engine.casts.cache_clear()
    assert staged == ([] if saturates else ["weight"])


def test_large_tensor_is_filled_over_all_its_length(tmp_path: Path) -> None:
    model = _model(weight=torch.zeros(2001, 1503).t())
    calls: list[tuple[int, int]] = []
    state = _load(
        tmp_path, model, torch.bfloat16, progress=lambda *counts: calls.append(counts), threads=3
    )
    assert same_bits(model.weight, state["weight"].float())
    assert all(done <= total == 2 * 2001 * 1503 for done, total in calls)


def test_truncated_file_names_the_tensor(tmp_path: Path) -> None:
    path = write_safe(tmp_path / "a.safetensors", {"x": torch.zeros(1000, dtype=torch.bfloat16)})
    table = _rust.Checkpoint.open_file(path, strict_format=False)
    with path.open("r+b") as file:
        stat = path.stat()
        file.truncate(stat.st_size - 100)
    memory = destination(torch.zeros(1000))
    with pytest.raises((ReadFailed, windlass.errors.FileChanged)):
        table.read_into(["x"], [memory], dtypes=["F32"], threads=1, io="buffered")


@pytest.fixture
def table(tmp_path: Path) -> _rust.Checkpoint:
    state = {"x": torch.arange(12.0), "y": torch.arange(12.0)}
    return _rust.Checkpoint.open_file(write_safe(tmp_path / "a", state), strict_format=False)


@pytest.mark.parametrize(
    ("tensor", "dtype", "message"),
    [
        (torch.zeros(24)[::2], None, "expected C-contiguous memory"),
        (torch.zeros(1).expand(12), "F32", "several elements of a destination may be one"),
        (torch.zeros(12), "F64", "tensor `x`: F32 cannot be cast to F64 in memory of that kind"),
        (torch.zeros(26)[::2], "F32", "destination should have 48 bytes, has 52"),
    ],
)
def test_memory_that_does_not_fit_is_refused(
    table: _rust.Checkpoint, tensor: torch.Tensor, dtype: str | None, message: str
) -> None:
    with pytest.raises(DestinationError, match=message):
        table.read_into(["x"], [destination(tensor)], dtypes=[dtype], threads=1, io="auto")


def test_destinations_in_one_anothers_gaps_are_refused(table: _rust.Checkpoint) -> None:
    whole = torch.zeros(24)
    halves = [destination(whole[::2]), destination(whole[1::2])]
    with pytest.raises(DestinationError, match="overlap in memory"):
        table.read_into(["x", "y"], halves, dtypes=["F32", "F32"], threads=1, io="auto")


def test_lists_of_unequal_length_are_refused(table: _rust.Checkpoint) -> None:
    memory = [destination(torch.zeros(12))]
    with pytest.raises(DestinationError, match="as many destinations"):
        table.read_into(["x"], memory, dtypes=[], threads=1, io="auto")
