"""Bytes reach other devices through a ring of buffers, none of which is reused too early.

The lane here stands for a device that is slower than any: it copies nothing until somebody waits
for it. So a buffer that is filled again before its mark is reached gives wrong values.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders.bits import random_tensor, same_bits
from builders.sharded import write_model
from windlass.layout import CheckpointFile
from windlass.reports import ReadReport
from windlass.torch import pieces, relay
from windlass.torch.fill import Fill, ReadSettings, fill_by_relay
from windlass.torch.sources import SafeSource

if TYPE_CHECKING:
    from pathlib import Path

BUFFER_BYTES = 4096


class LateLane:
    """Copies when it is waited for, in order, and notes what happens."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sent: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.done = 0
        self.sent_before_waiting: int | None = None
        self.is_closed = False

    def send(self, target: torch.Tensor, values: torch.Tensor) -> None:
        assert target.device == self.device
        self.sent.append((target, values))

    def mark(self) -> LateMark:
        return LateMark(self, len(self.sent))

    def close(self) -> None:
        self.is_closed = True

    def copy(self, end: int) -> None:
        if self.sent_before_waiting is None:
            self.sent_before_waiting = len(self.sent)
        with torch.no_grad():
            for target, values in self.sent[self.done : end]:
                target.copy_(values)
        self.done = max(self.done, end)


class LateMark:
    """A place in the order of a lane."""

    def __init__(self, lane: LateLane, end: int) -> None:
        self.lane, self.end = lane, end

    def synchronize(self) -> None:
        self.lane.copy(self.end)


class Lanes:
    """The lanes that were made, by device."""

    def __init__(self) -> None:
        self.made: dict[torch.device, LateLane] = {}

    def __call__(self, device: torch.device) -> LateLane:
        assert device not in self.made
        self.made[device] = LateLane(device)
        return self.made[device]

    @property
    def host(self) -> LateLane:
        return self.made[torch.device("cpu")]


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "STAGING_BYTES", BUFFER_BYTES)
    monkeypatch.setattr(relay, "STAGING_BYTES", BUFFER_BYTES)


def _source(folder: Path, state: dict[str, torch.Tensor], shards: int = 2) -> SafeSource:
    write_model(folder, state, shards)
    index = folder / "model.safetensors.index.json"
    file = CheckpointFile(str(index), is_index=True, is_safetensors=True)
    return SafeSource(file, strict_format=False)


def _state(count: int = 20) -> dict[str, torch.Tensor]:
    shapes = [(3, 500), (7,), (1, 1), (40, 40), (0, 4), (5000,)]
    return {f"t{n}": random_tensor(shapes[n % 6], torch.float32, n) for n in range(count)}


def _fills(state: dict[str, torch.Tensor], dtype: torch.dtype | None = None) -> list[Fill]:
    return [Fill(name, torch.zeros_like(tensor, dtype=dtype)) for name, tensor in state.items()]


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 6, 40])
def test_every_tensor_arrives(tmp_path: Path, dtype: torch.dtype, count: int) -> None:
    state, lanes = _state(count), Lanes()
    fills = _fills(state, dtype)
    fill_by_relay(_source(tmp_path, state), fills, ReadSettings(), lanes)
    for one in fills:
        assert same_bits(one.tensor, state[one.name].to(dtype)), one.name
    assert all(lane.is_closed and lane.done == len(lane.sent) for lane in lanes.made.values())


@pytest.mark.usefixtures("small_buffers")
def test_strided_tensors_arrive(tmp_path: Path) -> None:
    state = {"a": random_tensor((60, 70), torch.float32, 1)}
    target = torch.zeros(70, 60).t()
    fill_by_relay(_source(tmp_path, state, 1), [Fill("a", target)], ReadSettings(), Lanes())
    assert same_bits(target, state["a"])
    assert target.stride() == (1, 60)


@pytest.mark.usefixtures("small_buffers")
def test_nobody_waits_before_the_ring_is_full(tmp_path: Path) -> None:
    state, lanes = {"a": random_tensor((10 * BUFFER_BYTES,), torch.uint8, 1)}, Lanes()
    fill_by_relay(_source(tmp_path, state, 1), _fills(state), ReadSettings(), lanes)
    assert len(lanes.host.sent) == 10
    # What is still being read is not sent yet.
    assert lanes.host.sent_before_waiting == relay.BUFFERS - 1


@pytest.mark.usefixtures("small_buffers")
def test_memory_is_that_of_the_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Tensor] = []
    new_buffer = relay._new_buffer

    def noted() -> torch.Tensor:
        made.append(new_buffer())
        return made[-1]

    monkeypatch.setattr(relay, "_new_buffer", noted)
    for count, expected in [(1, 1), (3, 3), (10, relay.BUFFERS)]:
        made.clear()
        state = {"a": random_tensor((count * BUFFER_BYTES,), torch.uint8, 1)}
        source = _source(tmp_path / str(count), state, 1)
        fill_by_relay(source, _fills(state), ReadSettings(), Lanes())
        assert [buffer.nbytes for buffer in made] == [BUFFER_BYTES] * expected


@pytest.mark.parametrize(
    ("found", "wanted", "moved"),
    [
        (torch.bfloat16, torch.float32, torch.bfloat16),
        (torch.float32, torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.bfloat16, torch.float16),
        (torch.float32, torch.float32, torch.float32),
        (torch.complex64, torch.float32, torch.complex64),
    ],
)
def test_what_is_smaller_is_moved(
    tmp_path: Path, found: torch.dtype, wanted: torch.dtype, moved: torch.dtype
) -> None:
    state, lanes = {"a": torch.arange(100.0).to(found)}, Lanes()
    fills = _fills(state, wanted)
    with warnings.catch_warnings():
        # torch says once in a process that the imaginary part is lost.
        warnings.filterwarnings("ignore", "Casting complex values to real", UserWarning)
        fill_by_relay(_source(tmp_path, state, 1), fills, ReadSettings(), lanes)
    assert [values.dtype for _, values in lanes.host.sent] == [moved]
    assert torch.equal(fills[0].tensor, torch.arange(100.0).to(wanted))


@pytest.mark.usefixtures("small_buffers")
def test_each_device_has_a_lane_and_pieces_come_in_file_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_READS_AT_ONCE", 1)  # Two would note their names in any order.
    state, lanes = _state(), Lanes()
    source = _source(tmp_path, state)
    fills = [
        one._replace(tensor=one.tensor.to("meta")) if number % 2 else one
        for number, one in enumerate(_fills(state))
    ]
    order: list[tuple[int, int]] = []
    read_into = source.table.read_into

    class Noted:
        infos = source.table.infos

        def read_into(self, names: list[str], *rest: Any, **more: Any) -> Any:
            order.extend(source.place(name) for name in names)
            return read_into(names, *rest, **more)

    source.table = Noted()  # type: ignore[assignment]
    fill_by_relay(source, list(reversed(fills)), ReadSettings(), lanes)
    assert set(lanes.made) == {torch.device("cpu"), torch.device("meta")}
    assert all(lane.is_closed for lane in lanes.made.values())
    assert order == sorted(order)
    for one in fills:
        assert one.tensor.is_meta or same_bits(one.tensor, state[one.name])


@pytest.mark.usefixtures("small_buffers")
def test_progress_and_report_count_every_byte(tmp_path: Path) -> None:
    state, told, report = _state(), [], ReadReport()
    settings = ReadSettings(report=report, tell=told.append)
    fill_by_relay(_source(tmp_path, state), _fills(state), settings, Lanes(), done=1000)
    total = sum(tensor.nbytes for tensor in state.values())
    assert told == sorted(told)
    assert told[-1] == 1000 + total
    assert sum(report._bytes.values()) == total


@pytest.mark.usefixtures("small_buffers")
def test_failed_read_waits_for_what_was_sent_and_leaves_no_thread(tmp_path: Path) -> None:
    state, lanes = {"a": random_tensor((20 * BUFFER_BYTES,), torch.uint8, 1)}, Lanes()
    source = _source(tmp_path, state, 1)
    shard = tmp_path / "model-00001-of-00001.safetensors"

    def cut(done: int) -> None:
        if done == 3 * BUFFER_BYTES:
            shard.write_bytes(b"")

    with pytest.raises(OSError, match="model-00001"):
        fill_by_relay(source, _fills(state), ReadSettings(tell=cut), lanes)
    assert lanes.host.done == len(lanes.host.sent) >= 3
    assert lanes.host.is_closed
    assert not [t for t in threading.enumerate() if t.name.startswith("windlass relay")]


@pytest.mark.usefixtures("small_buffers")
def test_interruption_is_passed_on(tmp_path: Path) -> None:
    state, lanes = {"a": random_tensor((20 * BUFFER_BYTES,), torch.uint8, 1)}, Lanes()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_by_relay(
            _source(tmp_path, state, 1), _fills(state), ReadSettings(tell=interrupt), lanes
        )
    assert lanes.host.done == len(lanes.host.sent) == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("windlass relay")]


def test_memory_that_cannot_be_pinned_is_used_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    empty = torch.empty

    def refusing(*sizes: int, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        if pin_memory:
            message = "no memory can be pinned here"
            raise RuntimeError(message)
        return empty(*sizes, **options)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", refusing)
    with caplog.at_level("DEBUG", logger="windlass"):
        assert relay._new_buffer().nbytes == relay.STAGING_BYTES
    assert "no memory can be pinned here" in caplog.text
