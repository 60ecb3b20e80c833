"""Ctrl-C at any moment of a load or save: nothing half done without a word, nothing left behind."""

from __future__ import annotations

import gc
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
import torch
import windlass
from builders.bits import same_bits
from builders.saves import file_names, load_folder
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

#: How many moments of a call are tried, spread over somewhat more than its length.
MOMENTS = 60
BEYOND = 1.2
SHAPE = (300, 400)

#: An interrupt that comes while Python runs a finalizer, or a callback of the garbage collector (as
#: hypothesis has one), is dropped by Python with this warning; the call then goes on to its end.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def interrupted() -> Iterator[Callable[[Callable[[], object], float], BaseException | None]]:
    """Give a function that calls another, and has a signal interrupt it after some seconds."""

    def handler(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    def call(act: Callable[[], object], seconds: float) -> BaseException | None:
        error: BaseException | None = None
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                act()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt as interruption:
            error = interruption
        return error

    before = signal.signal(signal.SIGALRM, handler)
    yield call
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _moments(act: Callable[[], object]) -> Iterator[float]:
    """Give moments within the time that a call takes."""
    start = time.perf_counter()
    act()
    took = time.perf_counter() - start
    return ((number + 0.5) / MOMENTS * BEYOND * took for number in range(MOMENTS))


class Target(nn.Module):
    """Tensors that the engine fills, one that only torch can cast, and two that are tied."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        for number in range(6):
            self.register_buffer(f"t{number}", torch.full(SHAPE, value))
        self.register_buffer("far", torch.full(SHAPE, value, dtype=torch.complex64))
        self.one = nn.Parameter(torch.full(SHAPE, value))
        self.other = self.one


def _state(value: float) -> dict[str, torch.Tensor]:
    names = [*(f"t{number}" for number in range(6)), "far", "one", "other"]
    return {name: torch.full(SHAPE, value) for name in names}


@pytest.mark.timeout(120)
def test_load_that_is_interrupted_leaves_the_model_or_says_what_has_changed(
    tmp_path: Path, interrupted: Callable[..., BaseException | None]
) -> None:
    threads = set(threading.enumerate())
    windlass.save_torch_state_dict(_state(1.0), tmp_path, max_shard_size="1MB")
    whole, outcomes = Target(1.0).state_dict(), []
    for seconds in _moments(lambda: windlass.load_sharded_checkpoint(Target(), tmp_path)):
        model = Target()
        now = dict(model.state_dict())
        error = interrupted(lambda m=model: windlass.load_sharded_checkpoint(m, tmp_path), seconds)
        new = {name for name, value in now.items() if same_bits(value, whole[name])}
        old = {name for name, value in now.items() if not value.any()}
        notes = " ".join(getattr(error, "__notes__", ()))
        if "partly loaded" in notes:
            assert all(f"`{name}`" in notes for name in now.keys() - old - {"one", "other"}), notes
        else:
            assert new == now.keys() or old == now.keys(), (notes, new, old)
        outcomes.append(error is None)
        assert gc.isenabled()
        assert set(threading.enumerate()) <= threads
    assert not all(outcomes)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("size", ["1MB", "1GB"])
def test_save_that_is_interrupted_leaves_one_whole_checkpoint_and_nothing_else(
    tmp_path: Path, size: str, interrupted: Callable[..., BaseException | None]
) -> None:
    threads = set(threading.enumerate())
    states = {value: _state(value) for value in (0.0, 1.0)}

    def save(value: float) -> None:
        windlass.save_torch_state_dict(states[value], tmp_path, max_shard_size=size)

    save(0.0)
    names, there, outcomes = file_names(tmp_path), 0.0, []
    for seconds in _moments(lambda: save(0.0)):
        error = interrupted(lambda value=1 - there: save(value), seconds)
        found = {float(tensor.unique().item()) for tensor in load_folder(tmp_path).values()}
        assert found <= {0.0, 1.0}
        assert len(found) == 1
        assert error is not None or found == {1 - there}
        (there,) = found
        assert file_names(tmp_path) == names
        outcomes.append(error is None)
        assert gc.isenabled()
        assert set(threading.enumerate()) <= threads
    assert not all(outcomes)
