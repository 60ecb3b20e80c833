"""`prefetch=` makes what is mapped present in the background, and changes nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
import windlass.numpy
from builders.bits import random_tensor, same_bits
from builders.sharded import write_model, write_safe
from windlass import _rust
from windlass.arrays import ArrayFile
from windlass.prefetch import prefetch_budget, start_prefetch
from windlass.torch.tensors import ADAPTER

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")


def _state() -> dict[str, torch.Tensor]:
    return {f"t{n}": random_tensor((MIB,), torch.uint8, n) for n in range(8)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_safe(tmp_path / "a.safetensors", _state())


def _same(loaded: dict[str, torch.Tensor]) -> bool:
    state = _state()
    return loaded.keys() == state.keys() and all(same_bits(loaded[n], state[n]) for n in state)


@pytest.mark.parametrize(
    ("prefetch", "expected"),
    [(True, 8 * MIB), (False, 0), (3 * MIB + 5, 3 * MIB + 5), ("2MiB", 2 * MIB), (0, 0)],
)
def test_as_much_is_read_ahead_as_was_asked_for(path: Path, prefetch: Any, expected: int) -> None:
    file = ArrayFile(path, ADAPTER, prefetch=prefetch)
    assert file.wait_for_prefetch() == expected
    assert _same(file.get_all())


@linux
def test_pages_are_there_before_they_are_touched(path: Path) -> None:
    file = ArrayFile(path, ADAPTER, prefetch=5 * MIB)
    file.wait_for_prefetch()
    ahead = _present_bytes(path)
    del file
    # Faults of the kernel's own accord bring what is around a page along.
    assert 5 * MIB <= ahead < 6 * MIB


def _present_bytes(path: Path) -> int:
    """Return how much of the file's maps is in this process's page tables."""
    present, is_ours = 0, False
    with open("/proc/self/smaps", encoding="utf-8") as lines:
        for line in lines:
            if "-" in line.split(" ", 1)[0]:
                is_ours = line.rstrip().endswith(str(path))
            elif is_ours and line.startswith("Rss:"):
                present += int(line.split()[1]) * 1024
    return present


@pytest.mark.parametrize("prefetch", [True, "3MB"])
def test_every_way_to_map_takes_it(tmp_path: Path, path: Path, prefetch: Any) -> None:
    assert _same(windlass.load_file(path, prefetch=prefetch))
    arrays = windlass.numpy.load_file(path, prefetch=prefetch)
    assert _same({name: torch.from_numpy(array) for name, array in arrays.items()})
    with windlass.safe_open(path, "pt", prefetch=prefetch) as file:
        loaded = file.get_tensors()
    assert _same(loaded)
    model = torch.nn.Module()
    for name, tensor in _state().items():
        model.register_buffer(name, torch.empty_like(tensor, device="meta"))
    folder = write_model(tmp_path / "c", _state(), 3)
    windlass.load_sharded_checkpoint(model, folder, assign=True, prefetch=prefetch)
    assert _same(model.state_dict())


def test_shards_are_read_ahead_in_file_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[int], int]] = []
    prefetch = _rust.prefetch

    def noted(parts: Any, budget: int, report: Any) -> _rust.Prefetch:
        asked.append(([start for _, start, _ in parts], budget))
        return prefetch(parts, budget, report)

    monkeypatch.setattr(_rust, "prefetch", noted)
    state = _state()
    folder = write_model(tmp_path, state, 2)
    model = torch.nn.Module()
    for name in sorted(state, reverse=True):
        model.register_buffer(name, torch.empty_like(state[name], device="meta"))
    windlass.load_sharded_checkpoint(model, folder, assign=True, prefetch="1GB")
    [(starts, budget)] = asked
    assert budget == 10**9
    assert len(starts) == 8
    descents = [one for one, other in itertools.pairwise(starts) if other < one]
    assert len(descents) == 1  # Where the second shard begins.


def test_half_of_the_available_memory_is_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rust, "available_memory", lambda: 1001)
    assert prefetch_budget(prefetch=True, memory="mapped") == 500
    monkeypatch.setattr(_rust, "available_memory", lambda: None)
    assert prefetch_budget(prefetch=True, memory="mapped") > 1 << 60


@pytest.mark.parametrize(
    ("prefetch", "error"), [("much", ValueError), (-1, ValueError), (1.5, TypeError)]
)
def test_what_is_no_size_is_refused(path: Path, prefetch: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="size should be"):
        windlass.load_file(path, prefetch=prefetch)


def test_nothing_mapped_is_refused(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ValueError, match="memory='owned'"):
        windlass.load_file(path, memory="owned", prefetch=True)
    with pytest.raises(ValueError, match="assign=True"):
        windlass.load_sharded_checkpoint(torch.nn.Module(), tmp_path, prefetch="1GB")


def test_truncated_file_is_told_and_kills_nobody(path: Path) -> None:
    table = _rust.Checkpoint.open_file(path, strict_format=False)
    mapping = table.map_shard(0)
    with path.open("r+b") as file:
        file.truncate(4 * MIB)
    said: list[str] = []
    ahead = _rust.prefetch([(mapping, 100, len(mapping))], 1 << 40, said.append)
    ahead.wait()
    # A kernel before 5.14 populates nothing, and sees no loss.
    assert all("Bad address" in message for message in said)
    assert ahead.nbytes() <= 8 * MIB


def test_failure_is_logged_with_the_path(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mapping = _rust.Checkpoint.open_file(path, strict_format=False).map_shard(0)
    with path.open("r+b") as file:
        file.truncate(0)
    with caplog.at_level("DEBUG", logger="windlass"):
        ahead = start_prefetch([(mapping, 0, len(mapping))], 1 << 40, "the path")
        assert ahead is not None
        ahead.wait()
    failures = [record for record in caplog.records if "failed" in record.message]
    assert all("the path" in one.message and one.levelname == "WARNING" for one in failures)
    assert "are read ahead" in caplog.text


@linux
def test_dropped_tensors_end_it(path: Path) -> None:
    file = ArrayFile(path, ADAPTER, prefetch=True)
    ahead = file._prefetch
    assert ahead is not None
    del file
    ahead.wait()
    assert str(path) not in _maps()


def _maps() -> str:
    with open("/proc/self/maps", encoding="utf-8") as file:
        return file.read()


def test_closing_the_file_stops_it(path: Path) -> None:
    with windlass.safe_open(path, "pt", prefetch=True) as file:
        array_file = file._file
        tensor = file.get_tensor("t0")
    array_file.wait_for_prefetch()
    assert same_bits(tensor, _state()["t0"])


def test_process_ends_while_it_goes_on(path: Path) -> None:
    code = f"import windlass; a = windlass.load_file({str(path)!r}, prefetch=True); print(len(a))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("8\n", "")
