"""What cannot be had within the memory limit of the process is refused before a byte is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from torch import nn
from windlass import _rust, memory
from windlass.errors import NotEnoughMemory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from windlass import Checkpoint

STATE = {"weight": torch.ones(100, 10), "bias": torch.ones(100)}
NBYTES = 4400

LOADS: dict[str, Callable[[Checkpoint, Path], Any]] = {
    "all": lambda checkpoint, _: checkpoint.load(),
    "numpy": lambda checkpoint, _: checkpoint.load(framework="numpy"),
    "columns": lambda checkpoint, _: checkpoint.load({"weight": (..., slice(9)), "bias": ...}),
    "owned": lambda _, path: windlass.load_file(path, memory="owned"),
    "assigned": lambda _, path: windlass.load_sharded_checkpoint(
        nn.Linear(10, 100), path.parent, assign=True, memory="owned"
    ),
}


@pytest.fixture(autouse=True)
def _compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LEAST_COMPARED", 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file of two tensors."""
    windlass.save_torch_state_dict(STATE, tmp_path)
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_load_beyond_the_limit_is_refused_before_it_reads(
    path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[Checkpoint, Path], Any]
) -> None:
    checkpoint = windlass.Checkpoint(path)
    monkeypatch.setattr(_rust, "memory_within_limits", lambda: 3999)
    with pytest.raises(NotEnoughMemory, match=r"4[04]00 bytes are needed.* leaves 3999"):
        load(checkpoint, path)


@pytest.mark.parametrize("room", [NBYTES, None])
@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_load_within_the_limit_is_done(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    load: Callable[[Checkpoint, Path], Any],
    room: int | None,
) -> None:
    checkpoint = windlass.Checkpoint(path)
    monkeypatch.setattr(_rust, "memory_within_limits", lambda: room)
    load(checkpoint, path)


def test_small_load_does_not_ask_for_the_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask takes longer than to read them."""
    monkeypatch.setattr(memory, "LEAST_COMPARED", NBYTES + 1)
    monkeypatch.delattr(_rust, "memory_within_limits")
    assert windlass.load_file(path, memory="owned").keys() == STATE.keys()
