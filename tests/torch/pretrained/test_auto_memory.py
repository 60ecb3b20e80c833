"""`from_pretrained(memory="auto")`: weights are mapped where that pays and is safe, or read."""

from __future__ import annotations

import json
import logging
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from builders.mapped import misalign, names_mapped
from builders.pretrained import MODELS, assert_same_state, new_model, saved
from builders.sharded import deal, write_shards
from torch import nn
from windlass.errors import FileChanged, NotEnoughMemory
from windlass.layout import classify
from windlass.torch.pretrained import mapped
from windlass.torch.sources import SafeSource, open_source

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Model, Tokens = MODELS.TinyModel, MODELS.TinyForTokens
LIMIT = 256 << 20


def on_disk(monkeypatch: pytest.MonkeyPatch, **kinds: bool) -> None:
    """Let files be on file systems of these kinds: do they keep what is mapped?"""

    def file_systems(_: SafeSource, names: Iterable[str]) -> dict[str, bool]:
        assert list(names)
        return kinds

    monkeypatch.setattr(SafeSource, "file_systems", file_systems)


@pytest.fixture
def small_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mapping pay for the small models of tests, on a disk that keeps maps."""
    monkeypatch.setattr(mapped, "AUTO_LEAST_BYTES", 400)
    monkeypatch.setattr(mapped, "AUTO_LEAST_WEIGHT_BYTES", 0)
    on_disk(monkeypatch, disk=True)


def load(folder: Path, caplog: pytest.LogCaptureFixture, **options: Any) -> tuple[Any, str]:
    """Load with the default of `memory`; return the model, and the line that tells of it."""
    caplog.clear()
    caplog.set_level(logging.DEBUG, "windlass")
    model = options.pop("kind", Tokens).from_pretrained(folder, **options)
    lines = [one.getMessage() for one in caplog.records if one.name == "windlass"]
    [line] = [line for line in lines if "weights look into" in line or "weights are read" in line]
    path, _, told = line.partition("`: ")
    assert path.startswith("`")
    return model, told


@pytest.mark.usefixtures("small_pays")
@pytest.mark.parametrize("form", [{}, {"max_shard_size": 300}], ids=["single", "sharded"])
def test_weights_of_a_large_local_checkpoint_look_into_its_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: dict[str, int]
) -> None:
    model = new_model("TinyForTokens")
    model.save_pretrained(tmp_path, **form)
    again, told = load(tmp_path, caplog)
    assert names_mapped(again, tmp_path) == set(model.state_dict())
    assert_same_state(again.state_dict(), model.state_dict())
    nbytes = sum(one.nbytes for one in model.state_dict().values())
    nbytes -= model.lm_head.weight.nbytes  # It is tied.
    assert (
        told == f"{len(model.state_dict()) - 1} weights look into the files: {nbytes} bytes on disk"
    )


class Wide(Model):
    """Has a weight of the size that its configuration says."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.wide = nn.Parameter(
            torch.empty(config.wide_bytes, dtype=torch.int8), requires_grad=False
        )


@pytest.mark.parametrize("nbytes", [LIMIT - 1, LIMIT])
def test_less_than_256_mib_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, nbytes: int
) -> None:
    on_disk(monkeypatch, disk=True)
    MODELS.TinyConfig(wide_bytes=nbytes).save_pretrained(tmp_path)
    entry = {"wide": {"dtype": "I8", "shape": [nbytes], "data_offsets": [0, nbytes]}}
    text = json.dumps(entry).encode()
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + nbytes)  # A hole takes no room on the disk.
    model, told = load(tmp_path, caplog, kind=Wide, prefetch=False)
    assert names_mapped(model, tmp_path) == ({"wide"} if nbytes == LIMIT else set())
    expected = {
        LIMIT: f"1 weights look into the files: {LIMIT} bytes on disk",
        LIMIT - 1: f"weights are read: {LIMIT - 1} bytes are fewer than {LIMIT}",
    }
    assert told == expected[nbytes]


OPTIONS: dict[str, dict[str, Any]] = {
    "io": {"io": "buffered"},
    "cache": {"cache": "drop"},
}


@pytest.mark.usefixtures("small_pays")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_whoever_says_how_to_read_has_it_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    saved(tmp_path, "TinyForTokens")
    model, told = load(tmp_path, caplog, **options)
    assert names_mapped(model, tmp_path) == set()
    assert told == "weights are read: io or cache is given"


@pytest.mark.usefixtures("small_pays")
@pytest.mark.parametrize("how", ["cast", "pickle", "given", "misaligned"])
def test_weights_that_cannot_look_into_files_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    model = new_model("TinyForTokens")
    model.save_pretrained(tmp_path, safe_serialization=how != "pickle")
    options: dict[str, Any] = {}
    if how == "cast":
        options = {"torch_dtype": torch.bfloat16}
    elif how == "given":
        options = {"state_dict": model.state_dict()}
    elif how == "misaligned":
        misalign(tmp_path / "model.safetensors")
    again, told = load(tmp_path, caplog, **options)
    assert names_mapped(again, tmp_path) == set()
    assert re.fullmatch(
        r"weights are read: \d+ bytes could look into the files, fewer than 400", told
    )


@pytest.mark.usefixtures("small_pays")
def test_what_another_machine_may_take_away_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, "TinyForTokens")
    on_disk(monkeypatch, **{"a local disk": True, "FUSE": False})
    model, told = load(tmp_path, caplog)
    assert names_mapped(model, tmp_path) == set()
    assert told == "weights are read: they are on FUSE, which may take away what is mapped"


@pytest.mark.usefixtures("small_pays")
@pytest.mark.parametrize(("memory", "is_mapped"), [("owned", False), ("mapped", True)])
def test_who_says_what_memory_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, memory: str, *, is_mapped: bool
) -> None:
    model = saved(tmp_path, "TinyForTokens")
    caplog.set_level(logging.DEBUG, "windlass")
    again = Tokens.from_pretrained(tmp_path, memory=memory)
    assert names_mapped(again, tmp_path) == (set(model.state_dict()) if is_mapped else set())
    assert not any("weights are read" in one.getMessage() for one in caplog.records)


@pytest.mark.usefixtures("small_pays")
def test_small_weights_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path, "TinyForTokens")
    nbytes = {name: one.nbytes for name, one in model.state_dict().items()}
    least = sorted(nbytes.values())[len(nbytes) // 2]
    monkeypatch.setattr(mapped, "AUTO_LEAST_WEIGHT_BYTES", least)
    again = Tokens.from_pretrained(tmp_path)
    assert names_mapped(again, tmp_path) == {name for name in nbytes if nbytes[name] >= least}
    assert_same_state(again.state_dict(), model.state_dict())


@pytest.mark.usefixtures("small_pays")
def test_weights_are_read_where_there_is_no_room_for_a_map(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = new_model("TinyForTokens")
    model.save_pretrained(tmp_path, max_shard_size=300)
    whole, asked = SafeSource.tensor, list[str]()

    def tensor(source: SafeSource, name: str) -> torch.Tensor:
        asked.append(name)
        if len(asked) == 3:
            raise NotEnoughMemory("mapping failed")
        return whole(source, name)

    monkeypatch.setattr(SafeSource, "tensor", tensor)
    again, told = load(tmp_path, caplog)
    assert told == "weights are read: mapping failed"
    assert names_mapped(again, tmp_path) == set()
    assert_same_state(again.state_dict(), model.state_dict())
    asked.clear()
    with pytest.raises(NotEnoughMemory):
        Tokens.from_pretrained(tmp_path, memory="mapped")


@pytest.mark.usefixtures("small_pays")
def test_options_of_reading_ahead_are_taken_though_all_is_read(tmp_path: Path) -> None:
    model = saved(tmp_path, "TinyForTokens")
    for prefetch in (True, False, "1MB"):
        again = Tokens.from_pretrained(tmp_path, prefetch=prefetch, cache="drop")
        assert_same_state(again.state_dict(), model.state_dict())


def test_file_systems_of_weights_are_those_of_their_files(tmp_path: Path) -> None:
    state = {"a": torch.ones(3), "b": torch.ones(4)}
    write_shards(tmp_path, deal(state, [0, 1]))
    index = classify(str(tmp_path / "model.safetensors.index.json"))
    source = open_source(index, strict_format=False)
    kinds = source.file_systems(["a", "b"])
    assert kinds == source.file_systems(["b"])  # Both are in one folder.
    [(kind, keeps_maps)] = kinds.items()
    if os.path.exists("/proc/self/mounts"):
        assert keeps_maps == (kind in {"a local disk", "a file system in memory", "an overlay"})
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    assert source.file_systems(["b"]) == kinds
    with pytest.raises(FileChanged, match="model-00001-of"):
        source.file_systems(["a", "b"])
