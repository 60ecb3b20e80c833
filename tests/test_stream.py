"""`Checkpoint.stream` and `Checkpoint.load` give every tensor, within the memory they may take."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
import windlass
from builders.bits import bits
from builders.files import info, write_header
from builders.sharded import write_dealt, write_model
from hypothesis import given
from hypothesis import strategies as st
from windlass import streaming
from windlass.errors import BudgetExceeded, FileChanged, TensorNotFound

DTYPES = [torch.uint8, torch.int16, torch.float32, torch.float64]
SHAPES = st.lists(st.integers(0, 7), max_size=3).map(tuple)
STATES = st.lists(st.tuples(SHAPES, st.sampled_from(DTYPES)), max_size=12).map(
    lambda kinds: {f"t{number}": _values(*kind, number) for number, kind in enumerate(kinds)}
)


def _values(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 100, shape, generator=generator).to(dtype)


def _numbers(count: int, size: int = 1000) -> dict[str, torch.Tensor]:
    """Return tensors of `size` bytes, each full of its own number."""
    return {f"t{n}": torch.full((size,), n, dtype=torch.uint8) for n in range(count)}


def test_small_tensors_that_are_kept_take_no_more_than_they_are(tmp_path: Path) -> None:
    """Each between two large ones, so that it has a block to itself."""
    state = {}
    for number in range(40):
        state[f"{number:02}.large"] = torch.full((150_000,), number, dtype=torch.uint8)
        state[f"{number:02}.small"] = torch.full((25,), number, dtype=torch.uint8)
    windlass.save_file(state, tmp_path / "model.safetensors")
    checkpoint = windlass.Checkpoint(tmp_path)
    read = checkpoint.stream(sorted(state), budget=800_000)
    kept = {name: tensor for name, tensor in read if name.endswith("small")}
    assert len(kept) == 40
    assert all(bits(tensor) == bits(state[name]) for name, tensor in kept.items())


@given(state=STATES, places=st.lists(st.integers(0, 3), min_size=1, max_size=5), data=st.data())
def test_every_tensor_comes_once_in_the_order_asked_for(
    tmp_path_factory: pytest.TempPathFactory,
    state: dict[str, torch.Tensor],
    places: list[int],
    data: st.DataObject,
) -> None:
    folder = write_dealt(tmp_path_factory.mktemp("stream"), state, places)
    checkpoint = windlass.Checkpoint(folder)
    orders: dict[Any, list[str]] = {
        "file": sorted(
            state, key=lambda name: (_shard(checkpoint, name), checkpoint[name].file_range)
        ),
        "index": list(state),
    }
    names = data.draw(st.permutations(list(state)))
    orders[tuple(names)] = names
    largest = max((tensor.nbytes for tensor in state.values()), default=0)
    budget = data.draw(st.integers(largest, 5000))
    for order, expected in orders.items():
        found: dict[str, bytes] = {}
        for name, tensor in checkpoint.stream(order, budget=budget):
            found[name] = bits(tensor)
            assert (tensor.dtype, tensor.shape) == (state[name].dtype, state[name].shape)
            del tensor
        assert list(found) == expected
        assert found == {name: bits(state[name]) for name in expected}
    loaded = checkpoint.load(names)
    assert {name: bits(tensor) for name, tensor in loaded.items()} == found
    assert list(checkpoint.load()) == list(state)


def _shard(checkpoint: windlass.Checkpoint, name: str) -> int:
    return checkpoint.shards.index(checkpoint[name].shard)


@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_tensors_outlive_the_stream(tmp_path: Path, framework: str) -> None:
    write_model(tmp_path, _numbers(20))
    stream = windlass.Checkpoint(tmp_path).stream("index", framework=framework)
    kept = dict(stream)
    assert [int(one[-1]) for one in kept.values()] == list(range(20))


def test_tensor_larger_than_the_budget_is_refused_at_once(tmp_path: Path) -> None:
    write_model(tmp_path, {"small": torch.ones(1), "large": torch.ones(100)})
    with pytest.raises(BudgetExceeded, match="`large` has 400 bytes, the budget is 399"):
        windlass.Checkpoint(tmp_path).stream(budget=399)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let streams wait for room no longer than for a moment."""
    monkeypatch.setattr("windlass.streaming._PATIENCE", 0.01)


@pytest.mark.usefixtures("impatient")
def test_tensors_still_in_use_are_told_from_a_budget_that_is_too_small(tmp_path: Path) -> None:
    write_model(tmp_path, _numbers(5))
    stream = windlass.Checkpoint(tmp_path).stream("index", budget=3000)
    kept = [next(stream) for _ in range(3)]
    with pytest.raises(BudgetExceeded, match=r"`t3`.*3000 bytes.*still in use"):
        next(stream)
    assert [int(tensor[0]) for _, tensor in kept] == [0, 1, 2]


@pytest.mark.usefixtures("impatient")
def test_a_view_holds_on_to_its_memory(tmp_path: Path) -> None:
    write_model(tmp_path, _numbers(2))
    stream = windlass.Checkpoint(tmp_path).stream("index", budget=1000)
    part = next(stream)[1][:1]
    with pytest.raises(BudgetExceeded):
        next(stream)
    assert part.tolist() == [0]


def test_stream_waits_for_tensors_that_another_thread_lets_go_of(tmp_path: Path) -> None:
    write_model(tmp_path, _numbers(40))
    given: queue.Queue[tuple[str, torch.Tensor] | None] = queue.Queue()
    seen: list[str] = []

    def consume() -> None:
        while (pair := given.get()) is not None:
            time.sleep(0.001)
            seen.append(pair[0])
            del pair

    consumer = threading.Thread(target=consume)
    consumer.start()
    for pair in windlass.Checkpoint(tmp_path).stream("index", budget=3000):
        given.put(pair)
        del pair
    given.put(None)
    consumer.join()
    assert seen == [f"t{number}" for number in range(40)]


def test_tensors_in_cycles_are_collected(tmp_path: Path) -> None:
    write_model(tmp_path, _numbers(40))
    gc.disable()
    try:
        for _, tensor in windlass.Checkpoint(tmp_path).stream(budget=3000):
            cycle: list[object] = [tensor]
            cycle.append(cycle)
            del tensor, cycle
    finally:
        gc.enable()


def test_failed_stream_holds_on_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path, _numbers(50), 1)
    blocks: list[weakref.ref[Any]] = []
    take = streaming._Reads.next

    def watched(reads: Any) -> Any:
        block, memory = take(reads)
        blocks.append(weakref.ref(memory))
        return block, memory

    monkeypatch.setattr(streaming._Reads, "next", watched)
    stream = windlass.Checkpoint(tmp_path).stream(budget=5000)
    next(stream)
    write_model(tmp_path / "new", _numbers(50), 1)
    shard = "model-00001-of-00001.safetensors"
    (tmp_path / "new" / shard).replace(tmp_path / shard)
    gc.disable()
    try:
        with contextlib.suppress(FileChanged):
            deque(stream, maxlen=0)
        assert [block() for block in blocks if block() is not None] == []
    finally:
        gc.enable()
    assert blocks


def _engine_threads() -> int:
    names = []
    for name in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # The thread has ended meanwhile.
            names.append(name.read_text())
    return names.count("windlass\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names the threads of a process")
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_stream_that_is_left_leaves_no_thread(tmp_path: Path, taken: int) -> None:
    write_model(tmp_path, _numbers(50))
    stream = windlass.Checkpoint(tmp_path).stream(budget=10_000)
    for _ in range(taken):
        next(stream)
    assert (_engine_threads() > 0) == (taken > 0)
    stream.close()  # type: ignore[attr-defined]
    for _ in range(1000):  # The system may show a thread for a moment after it has ended.
        if not _engine_threads():
            break
        time.sleep(0.001)
    assert not _engine_threads()


def test_blocks_of_a_stream_are_judged_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(tmp_path, _numbers(20, 1 << 20))
    caplog.set_level(logging.DEBUG, "windlass")
    deque(windlass.Checkpoint(tmp_path).stream(budget="8MiB"), maxlen=0)
    [record] = caplog.records
    assert "0.021 GB" in record.getMessage()
    assert "too little to look first" not in record.getMessage()


def test_file_that_is_replaced_on_the_way_is_noticed(tmp_path: Path) -> None:
    write_model(tmp_path, _numbers(50), 1)
    stream = windlass.Checkpoint(tmp_path).stream(budget=2000)
    next(stream)
    write_model(tmp_path / "new", _numbers(50), 1)
    shard = "model-00001-of-00001.safetensors"
    (tmp_path / "new" / shard).replace(tmp_path / shard)
    with pytest.raises(FileChanged):
        list(stream)


def test_wrong_arguments_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    write_model(tmp_path, _numbers(3))
    checkpoint = windlass.Checkpoint(tmp_path)
    with pytest.raises(TensorNotFound, match="nothing"):
        checkpoint.stream(["t0", "nothing"])
    with pytest.raises(ValueError, match="`t1`: the name stands twice"):
        checkpoint.stream(["t1", "t0", "t1"])
    with pytest.raises(ValueError, match="order should be one of file, index"):
        checkpoint.stream("bytes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size"):
        checkpoint.stream(budget="much")
    with pytest.raises(ValueError, match="framework"):
        checkpoint.load(framework="jax")
    with pytest.raises(TypeError, match="`read` takes one"):
        checkpoint.load("t0")


BUDGET, COUNT, SIZE = 24, 60, 4  # MiB, tensors, MiB each
WALK = f"""
import json, sys, torch, windlass
def peak():
    with open("/proc/self/status") as facts:
        return next(int(line.split()[1]) for line in facts if line.startswith("VmHWM:")) / 1024
list(windlass.Checkpoint(sys.argv[2]).stream())
before, total = peak(), 0
for name, tensor in windlass.Checkpoint(sys.argv[1]).stream(budget="{BUDGET}MiB"):
    total += tensor.nbytes
    tensor.add_(1)
print(json.dumps([peak() - before, total]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process")
def test_large_checkpoint_is_walked_within_the_budget(tmp_path: Path) -> None:
    """The file is a hole: its bytes take no disk, and as much memory as any when they are read."""
    step = SIZE << 20
    header = {f"t{n}": info("F32", [step // 4], n * step, (n + 1) * step) for n in range(COUNT)}
    large = write_header(tmp_path / "large.safetensors", header)
    with large.open("r+b") as file:
        file.truncate(large.stat().st_size + COUNT * step)
    small = write_header(tmp_path / "small.safetensors", {"x": info("U8", [1], 0, 1)}, b"1")
    command = [sys.executable, "-c", WALK, large, small]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    added, total = json.loads(done.stdout)
    assert total == COUNT * step
    assert added <= BUDGET + 32
