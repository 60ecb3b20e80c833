"""Which files of a folder are the checkpoint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch
import windlass
from builders.bits import fingerprint
from builders.sharded import (
    BIN_INDEX,
    SAFE_INDEX,
    deal,
    write_bin,
    write_bin_shards,
    write_model,
    write_safe,
    write_shards,
)
from torch import nn
from windlass.errors import CheckpointError, CheckpointNotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAFE = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
PICKLED = {"weight": torch.full((2, 2), 2.0), "bias": torch.full((2,), 2.0)}


def _safe_shards(folder: Path) -> None:
    write_model(folder, SAFE)


def _bin_shards(folder: Path) -> None:
    write_bin_shards(folder, deal(PICKLED, range(2), "bin"))


def _safe_file(folder: Path) -> None:
    write_safe(folder / "model.safetensors", SAFE)


def _bin_file(folder: Path) -> None:
    write_bin(folder / "pytorch_model.bin", PICKLED)


def _stale_safe_file(folder: Path) -> None:
    write_safe(folder / "model.safetensors", {name: tensor * 9 for name, tensor in SAFE.items()})


LAYOUTS: dict[str, tuple[list[Callable[[Path], None]], dict[str, bool], float]] = {
    "safetensors shards": ([_safe_shards], {}, 1),
    "pickled shards": ([_bin_shards], {}, 2),
    "one safetensors file": ([_safe_file], {}, 1),
    "one pickled file": ([_bin_file], {}, 2),
    "both shards": ([_safe_shards, _bin_shards], {}, 1),
    "both shards, pickled preferred": ([_safe_shards, _bin_shards], {"prefer_safe": False}, 2),
    "both files": ([_safe_file, _bin_file], {}, 1),
    "both files, pickled preferred": ([_safe_file, _bin_file], {"prefer_safe": False}, 2),
    "safetensors where pickled is preferred": ([_safe_shards], {"prefer_safe": False}, 1),
    "shards beside a stale file": ([_safe_shards, _stale_safe_file], {}, 1),
    "pickled shards beside a pickled file": ([_bin_shards, _bin_file], {}, 2),
    "a safetensors file over pickled shards": ([_bin_shards, _safe_file], {}, 1),
    "a pickled file beside safetensors shards": ([_safe_shards, _bin_file], {}, 1),
    "pickled preferred, beside safetensors shards": (
        [_safe_shards, _bin_file],
        {"prefer_safe": False},
        2,
    ),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_found(tmp_path: Path, layout: str, *, strict: bool) -> None:
    writers, options, value = LAYOUTS[layout]
    for write in writers:
        write(tmp_path)
    model = nn.Linear(2, 2)
    assert windlass.load_sharded_checkpoint(model, tmp_path, strict, **options) == ([], [])
    assert torch.equal(model.weight, torch.full((2, 2), value))
    assert torch.equal(model.bias, torch.full((2,), value))


def test_what_is_saved_over_pickled_shards_is_what_is_loaded(tmp_path: Path) -> None:
    windlass.save_torch_state_dict(PICKLED, tmp_path, safe_serialization=False, max_shard_size=20)
    windlass.save_torch_state_dict(SAFE, tmp_path)
    model = nn.Linear(2, 2)
    windlass.load_sharded_checkpoint(model, tmp_path)
    assert torch.equal(model.weight, SAFE["weight"])


@pytest.mark.parametrize("size", [20, "5GB"])
@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_pickles_saved_beside_safetensors_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, variant: str, size: int | str
) -> None:
    windlass.save_torch_state_dict(
        SAFE,
        tmp_path,
        filename_pattern=f"model{variant}{{suffix}}.safetensors",
        max_shard_size=size,
    )
    pattern = f"pytorch_model{variant}{{suffix}}.bin"
    for _ in range(2):
        windlass.save_torch_state_dict(
            PICKLED, tmp_path, filename_pattern=pattern, safe_serialization=False
        )
    assert [f"`model{variant}.safetensors" in one.getMessage() for one in caplog.records] == [
        True
    ] * 2


def test_pickles_saved_elsewhere_are_not_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    windlass.save_torch_state_dict(
        SAFE, tmp_path, filename_pattern="model.fp16{suffix}.safetensors"
    )
    for _ in range(2):
        windlass.save_torch_state_dict(PICKLED, tmp_path, safe_serialization=False)
    assert not caplog.records


@pytest.mark.parametrize("spell", [str, os.fspath, lambda p: f"{p}/", lambda p: p])
def test_folder_is_any_path(tmp_path: Path, spell: Callable[[Path], object]) -> None:
    _safe_shards(tmp_path)
    assert windlass.load_sharded_checkpoint(nn.Linear(2, 2), spell(tmp_path)) == ([], [])


def test_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _safe_shards(tmp_path / "wörter und raum")
    monkeypatch.chdir(tmp_path)
    assert windlass.load_sharded_checkpoint(nn.Linear(2, 2), "wörter und raum") == ([], [])


@pytest.mark.parametrize("strict", [True, False])
def test_folder_without_weights_is_an_error_in_446s_words(tmp_path: Path, *, strict: bool) -> None:
    (tmp_path / "config.json").write_text("{}")
    model = nn.Linear(2, 2)
    before = fingerprint(model)
    with pytest.raises(CheckpointNotFound, match=r"^Can't find a checkpoint index") as caught:
        windlass.load_sharded_checkpoint(model, tmp_path, strict)
    assert isinstance(caught.value, ValueError)
    assert all(word in str(caught.value) for word in (SAFE_INDEX, BIN_INDEX, str(tmp_path)))
    assert fingerprint(model) == before


def test_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="nowhere"):
        windlass.load_sharded_checkpoint(nn.Linear(2, 2), tmp_path / "nowhere")


def test_folder_argument_that_is_no_path_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        windlass.load_sharded_checkpoint(nn.Linear(2, 2), 7)


def test_index_that_is_a_folder_is_not_taken_for_an_index(tmp_path: Path) -> None:
    (tmp_path / SAFE_INDEX).mkdir()
    with pytest.raises(CheckpointError):
        windlass.load_sharded_checkpoint(nn.Linear(2, 2), tmp_path)


def test_shards_that_the_index_does_not_name_are_left_alone(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "c", {"model-00001-of-00001.safetensors": SAFE})
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"left over from a crash")
    assert windlass.load_sharded_checkpoint(nn.Linear(2, 2), folder) == ([], [])


def test_single_file_reports_keys_in_model_and_file_order(tmp_path: Path) -> None:
    write_safe(tmp_path / "model.safetensors", {"bias": torch.ones(2), "x": torch.ones(1)})
    result = windlass.load_sharded_checkpoint(nn.Linear(2, 2), tmp_path, strict=False)
    assert result == (["weight"], ["x"])


def test_checkpoint_files_are_not_written_to(tmp_path: Path) -> None:
    _safe_shards(tmp_path)
    before = {
        file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.iterdir()
    }
    windlass.load_sharded_checkpoint(nn.Linear(2, 2), tmp_path)
    after = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.iterdir()}
    assert after == before
