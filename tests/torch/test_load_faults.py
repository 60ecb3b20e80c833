"""Files that change under a load, and loads that end half way: what the error says of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import random_tensor, same_bits
from builders.sharded import write_model
from torch import nn
from windlass.errors import FileChanged, ReadFailed
from windlass.torch import fill
from windlass.torch.plan import LoadPlan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IOS = ("auto", "mapped", "buffered", "direct")
SHAPE = (30, 50)
#: What is read by the engine, and what goes through the staging buffer afterwards.
DTYPES = {
    "plain": torch.float32,
    "cast": torch.float64,
    "last": torch.complex128,
    "later": torch.complex128,
}


def _truncate(shard: Path) -> None:
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 1)


def _replace(shard: Path) -> None:
    twin = shard.with_name("twin")
    twin.write_bytes(shard.read_bytes())
    twin.rename(shard)


def _rewrite(shard: Path) -> None:
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


CHANGES: dict[str, Callable[[Path], object]] = {
    "truncated": _truncate,
    "replaced": _replace,
    "rewritten": _rewrite,
    "deleted": lambda shard: shard.unlink(),
}


class Target(nn.Module):
    """Four tensors, two of which only torch can cast."""

    def __init__(self) -> None:
        super().__init__()
        for name, dtype in DTYPES.items():
            self.register_buffer(name, torch.full(SHAPE, 7, dtype=dtype))


def _changed(model: nn.Module) -> set[str]:
    """Return the names whose values are not those of a new model."""
    before = Target().state_dict()
    return {name for name, now in model.state_dict().items() if not same_bits(now, before[name])}


def _notes(error: BaseException) -> str:
    return " ".join(getattr(error, "__notes__", ()))


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Write a checkpoint of one shard for `Target`, and give the shard."""
    state = {
        name: random_tensor(SHAPE, torch.complex64 if dtype.is_complex else torch.float32, seed)
        for seed, (name, dtype) in enumerate(DTYPES.items())
    }
    (shard,) = write_model(tmp_path / "c", state, count=1).glob("*.safetensors")
    return shard


@pytest.mark.parametrize("io", IOS)
@pytest.mark.parametrize("change", CHANGES)
def test_shard_changed_before_it_is_read_leaves_the_model(
    shard: Path, change: str, io: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LoadPlan.carry_out

    def carry_out(plan: LoadPlan, settings: fill.ReadSettings) -> None:
        CHANGES[change](shard)
        original(plan, settings)

    monkeypatch.setattr(LoadPlan, "carry_out", carry_out)
    model = Target()
    with pytest.raises(FileChanged, match=shard.name) as caught:
        windlass.load_sharded_checkpoint(model, shard.parent, io=io)
    assert _changed(model) == set()
    assert _notes(caught.value) == "The model has not been changed."


@pytest.mark.parametrize("io", IOS)
@pytest.mark.parametrize("change", CHANGES)
def test_shard_changed_half_way_says_which_tensors_are_loaded(
    shard: Path, change: str, io: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fill._fill_by_engine

    def fill_by_engine(*arguments: Any) -> None:
        original(*arguments)
        CHANGES[change](shard)

    monkeypatch.setattr(fill, "_fill_by_engine", fill_by_engine)
    model = Target()
    with pytest.raises(FileChanged, match=shard.name) as caught:
        windlass.load_sharded_checkpoint(model, shard.parent, io=io)
    assert _changed(model) == {"plain", "cast"}
    note = _notes(caught.value)
    assert "partly loaded" in note
    assert "new values: `plain`, `cast`. All others are as they were" in note


@pytest.mark.parametrize("change", CHANGES)
def test_owned_file_changed_before_it_is_read_is_named(
    shard: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from windlass import arrays

    original = arrays.read_owned

    def read_owned(*arguments: Any) -> Any:
        CHANGES[change](shard)
        return original(*arguments)

    monkeypatch.setattr(arrays, "read_owned", read_owned)
    with pytest.raises(FileChanged, match=shard.name):
        windlass.load_file(shard, memory="owned")


@pytest.mark.parametrize("change", ["truncated", "deleted", "replaced"])
def test_map_of_a_file_that_was_replaced_or_deleted_keeps_its_bytes(
    shard: Path, change: str
) -> None:
    expected = windlass.load_file(shard, memory="owned")
    mapped = windlass.load_file(shard)
    if change == "truncated":  # As every writer does it that replaces files: by a shorter one.
        twin = shard.with_name("twin")
        twin.write_bytes(shard.read_bytes()[:100])
        twin.rename(shard)
    else:
        CHANGES[change](shard)
    assert all(same_bits(mapped[name], expected[name]) for name in expected)


def test_tensor_that_was_being_filled_is_told_from_those_that_are_whole(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The staging buffer holds one row; the third piece of `last` cannot be read."""
    monkeypatch.setattr("windlass.torch.pieces.STAGING_BYTES", SHAPE[1] * 8)
    original, reads = fill._read, []

    def read(*arguments: Any, **options: Any) -> Any:
        reads.append(arguments[1])
        if len(reads) == 4:
            raise ReadFailed("cable pulled")
        return original(*arguments, **options)

    monkeypatch.setattr(fill, "_read", read)
    model = Target()
    with pytest.raises(ReadFailed, match="cable pulled") as caught:
        windlass.load_sharded_checkpoint(model, shard.parent)
    assert _changed(model) == {"plain", "cast", "last"}
    note = _notes(caught.value)
    assert "new values: `plain`, `cast`. Tensors that may have a part of theirs: `last`." in note


def test_interruption_half_way_has_the_note_too(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = fill._fill_by_engine

    def fill_by_engine(*arguments: Any) -> None:
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(fill, "_fill_by_engine", fill_by_engine)
    with pytest.raises(KeyboardInterrupt) as caught:
        windlass.load_sharded_checkpoint(Target(), shard.parent)
    assert "`plain`, `cast`" in _notes(caught.value)


def test_many_names_are_told_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"t{number:02}" for number in range(25)]
    folder = write_model(tmp_path / "c", dict.fromkeys(names, torch.ones(2)))
    model = nn.Module()
    for name in names:
        model.register_buffer(name, torch.zeros(2))
    original = fill._fill_by_engine

    def fill_by_engine(*arguments: Any) -> None:
        original(*arguments)
        raise ReadFailed("cable pulled")

    monkeypatch.setattr(fill, "_fill_by_engine", fill_by_engine)
    with pytest.raises(ReadFailed) as caught:
        windlass.load_sharded_checkpoint(model, folder)
    assert "`t00`, " in _notes(caught.value)
    assert "`t09` and 15 more." in _notes(caught.value)


def test_modules_that_load_themselves_are_among_those_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3))
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    folder = write_model(tmp_path / "c", state, count=1)
    (shard,) = folder.glob("*.safetensors")
    original = LoadPlan.carry_out

    def carry_out(plan: LoadPlan, settings: fill.ReadSettings) -> None:
        shard.unlink()
        original(plan, settings)

    monkeypatch.setattr(LoadPlan, "carry_out", carry_out)
    with pytest.raises(FileChanged) as caught:
        windlass.load_sharded_checkpoint(model, folder)
    told = {f"0.{name}" for name in nn.BatchNorm1d(3).state_dict()}
    assert all(f"`{name}`" in _notes(caught.value) for name in told)
    assert "`1." not in _notes(caught.value)


@pytest.mark.parametrize("memory", ["mapped", "owned"])
def test_failed_assignment_leaves_the_model(
    shard: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LoadPlan.carry_out

    def carry_out(plan: LoadPlan, settings: fill.ReadSettings) -> None:
        shard.unlink()
        original(plan, settings)

    monkeypatch.setattr(LoadPlan, "carry_out", carry_out)
    model = Target()
    before = dict(model.named_buffers())
    with pytest.raises(FileChanged) as caught:
        windlass.load_sharded_checkpoint(model, shard.parent, assign=True, memory=memory)
    assert all(value is before[name] for name, value in model.named_buffers())
    assert _changed(model) == set()
    assert _notes(caught.value) == "The model has not been changed."


def test_failed_read_counts_as_a_change_of_what_it_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autograd must not go on with a tensor that has changed half way."""
    folder = write_model(tmp_path / "c", {"x": torch.ones(1000)}, count=1)
    model = nn.Module()
    model.register_buffer("x", torch.zeros(1000))
    version = model.x._version

    def fail(*_: Any, **options: Any) -> None:
        options["on_failure"]([(0, False)])
        raise ReadFailed("cable pulled")

    monkeypatch.setattr(fill, "_read", fail)
    with pytest.raises(ReadFailed):
        windlass.load_sharded_checkpoint(model, folder)
    assert model.x._version > version
