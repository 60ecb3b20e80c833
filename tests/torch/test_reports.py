"""What a load says about its reads: one DEBUG line, and `ways` of the engine."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import windlass
from builders.bits import same_bits
from builders.sharded import write_model, write_safe
from windlass import _rust, numpy
from windlass.torch import load_model, load_torch_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BACKENDS = {"auto": "buffered", "mapped": "mapped", "buffered": "buffered"}
LOADS: dict[str, Callable[..., object]] = {
    "load_sharded_checkpoint": windlass.load_sharded_checkpoint,
    "load_torch_model": load_torch_model,
    "load_model": lambda model, folder, **options: load_model(
        model, folder / "model.safetensors", **options
    ),
    "load_file": lambda _, folder, **options: windlass.load_file(
        folder / "model.safetensors", memory="owned", **options
    ),
    "load_file of numpy": lambda _, folder, **options: numpy.load_file(
        folder / "model.safetensors", memory="owned", **options
    ),
}


@pytest.fixture
def model() -> torch.nn.Module:
    return torch.nn.Linear(30, 7)


@pytest.fixture
def folder(tmp_path: Path, model: torch.nn.Module) -> Path:
    return write_safe(tmp_path / "model.safetensors", model.state_dict()).parent


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("io", BACKENDS)
@pytest.mark.parametrize("cache", ["keep", "drop"])
def test_each_load_says_in_one_line_how_it_read_and_why(
    model: torch.nn.Module,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    load: str,
    io: str,
    cache: str,
) -> None:
    caplog.set_level(logging.DEBUG, "windlass")
    LOADS[load](model, folder, io=io, cache=cache)
    [record] = caplog.records
    way = f"{BACKENDS[io]} ({'too little to look first' if io == 'auto' else 'asked for'})"
    if (io, cache) == ("auto", "drop"):  # It looks, and what it sees depends on the machine.
        way = r"\w+ \((?!too little|asked for).+\)"
    else:
        way = re.escape(way)
    assert (record.name, record.levelname) == ("windlass", "DEBUG")
    assert "model.safetensors" in record.getMessage()
    assert re.search(rf": 0\.000 GB {way}, ", record.getMessage())


def test_tensors_read_directly_and_through_the_buffer_are_one_line(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = torch.nn.Linear(30, 7)
    model.weight.data = model.weight.data.double()
    caplog.set_level(logging.DEBUG, "windlass")
    windlass.load_sharded_checkpoint(model, folder, io="buffered")
    assert len(caplog.records) == 1


def test_nothing_is_said_when_nobody_listens(
    model: torch.nn.Module, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "windlass")
    windlass.load_sharded_checkpoint(model, folder)
    assert not caplog.records


def test_a_load_that_reads_nothing_says_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "windlass")
    windlass.load_file(folder / "model.safetensors", memory="mapped")
    assert not caplog.records


def test_the_engine_tells_the_way_of_each_shard(tmp_path: Path) -> None:
    state = {"a": torch.arange(5.0), "b": torch.arange(7.0)}
    table = _rust.Checkpoint.open_index(
        str(write_model(tmp_path, state, count=2) / "model.safetensors.index.json"),
        strict_format=False,
    )
    memory = [bytearray(20), bytearray(28)]
    stats: Any = table.read_into(["a", "b"], memory, threads=1, io="mapped", cache="drop")
    assert stats["ways"] == [(0, "mapped", "asked for", 20), (1, "mapped", "asked for", 28)]
    assert stats["backend"] == "mapped"
    assert same_bits(torch.frombuffer(memory[1], dtype=torch.float32), state["b"])


@pytest.mark.parametrize("option", [{"io": "tape"}, {"cache": "ask"}])
def test_the_engine_refuses_unknown_words(folder: Path, option: Any) -> None:
    table = _rust.Checkpoint.open_file(str(folder / "model.safetensors"), strict_format=False)
    with pytest.raises(ValueError, match="should be"):
        table.read_into([], [], threads=1, **{"io": "auto", **option})
