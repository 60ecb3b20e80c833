"""What a long read owes the rest of the process: the GIL, Ctrl-C, progress, the collector."""

from __future__ import annotations

import gc
import signal
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import random_tensor, same_bits
from builders.sharded import write_model, write_safe
from torch import nn
from windlass.errors import IncompatibleKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

DELAY = 0.05
#: Ten times the promise of 100 ms: a slow machine is not a bug, and a whole read takes longer.
PATIENCE = 1.0
LONG = 6 << 30
INTERRUPTIBLE: dict[str, Callable[[Path], object]] = {
    "buffered": lambda path: _fill(path, "buffered"),
    "mapped": lambda path: _fill(path, "mapped"),
    "direct": lambda path: _fill(path, "direct"),
    "uring": lambda path: _fill(path, "uring"),
    "uring, past the page cache": lambda path: _fill(path, "uring", cache="drop"),
    "owned file": lambda path: windlass.load_file(path, memory="owned"),
    "stream": lambda path: list(windlass.Checkpoint(path).stream(budget="7GiB")),
    "columns": lambda path: windlass.Checkpoint(path).read("x", slice(None, None, 3)),
}


def _hole(folder: Path, size: int) -> Path:
    """Write a valid file whose one tensor `x` is a hole: it has bytes to read, but no blocks."""
    path = folder / "model.safetensors"
    header = f'{{"x":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}}}'.encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    return path


def _model(size: int) -> nn.Module:
    model = nn.Module()
    model.register_buffer("x", torch.empty(size, dtype=torch.uint8))
    return model


def _fill(path: Path, io: Any, **options: Any) -> None:
    windlass.load_sharded_checkpoint(_model(LONG), path.parent, io=io, progress=False, **options)


@pytest.fixture
def interrupt() -> Iterator[Callable[[], object]]:
    """Give a function that has a KeyboardInterrupt raised by a signal after `DELAY`."""

    def handler(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, DELAY)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", INTERRUPTIBLE)
def test_signal_ends_a_long_read_soon(
    tmp_path: Path, way: str, interrupt: Callable[[], object]
) -> None:
    path = _hole(tmp_path, LONG)
    interrupt()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        INTERRUPTIBLE[way](path)
    assert time.perf_counter() - start < DELAY + PATIENCE


@pytest.mark.parametrize("io", ["buffered", "mapped", "direct", "uring"])
def test_other_threads_run_during_a_read(tmp_path: Path, io: Any) -> None:
    """Ticks of a Python thread: without the GIL the longest gap is as long as the read."""
    size, ticks, done = 1 << 29, [time.perf_counter()], threading.Event()
    _hole(tmp_path, size)
    model = _model(size)

    def tick() -> None:
        while not done.wait(0.002):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    windlass.load_sharded_checkpoint(model, tmp_path, io=io, progress=False)
    took = time.perf_counter() - start
    done.set()
    thread.join()
    gaps = [after - before for before, after in pairwise(ticks)]
    assert max(gaps) < max(0.6 * took, 0.1)


def test_progress_counts_bytes_up_to_their_number(tmp_path: Path) -> None:
    size, calls = 1 << 29, []
    _hole(tmp_path, size)
    windlass.load_sharded_checkpoint(
        _model(size), tmp_path, progress=lambda done, total: calls.append((done, total))
    )
    assert calls
    assert {total for _, total in calls} == {size}
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1][0] <= size


def test_progress_that_raises_ends_the_load_with_its_error(tmp_path: Path) -> None:
    size = 1 << 29
    _hole(tmp_path, size)

    def fail(*_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        windlass.load_sharded_checkpoint(_model(size), tmp_path, progress=fail)


@pytest.mark.parametrize("option", [True, False, None])
def test_short_load_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], option: Any
) -> None:
    folder = write_model(tmp_path / "c", nn.Linear(2, 2).state_dict())
    windlass.load_sharded_checkpoint(nn.Linear(2, 2), folder, progress=option)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collector_is_left_as_it_was(tmp_path: Path, *, enabled: bool) -> None:
    good = write_model(tmp_path / "good", nn.Linear(2, 2).state_dict())
    bad = write_model(tmp_path / "bad", {"weight": torch.ones(3)}, count=1)
    was_enabled, thresholds = gc.isenabled(), gc.get_threshold()
    try:
        gc.enable() if enabled else gc.disable()
        windlass.load_sharded_checkpoint(nn.Linear(2, 2), good)
        assert gc.isenabled() is enabled
        with pytest.raises(IncompatibleKeys):
            windlass.load_sharded_checkpoint(nn.Linear(2, 2), bad)
        assert gc.isenabled() is enabled
        assert gc.get_threshold() == thresholds
    finally:
        gc.enable() if was_enabled else gc.disable()


def test_two_threads_can_load_at_once(tmp_path: Path) -> None:
    state = {str(n): random_tensor((500, 500), torch.float32, n) for n in range(8)}
    path = write_safe(tmp_path / "model.safetensors", state)
    results: list[bool] = []

    def load() -> None:
        loaded = windlass.load_file(path, memory="owned")
        results.append(all(same_bits(loaded[name], tensor) for name, tensor in state.items()))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
