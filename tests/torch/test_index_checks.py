"""The index is checked against the headers and against the folder before anything is loaded."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
import torch
import windlass
from builders.bits import fingerprint
from builders.sharded import SAFE_INDEX, write_safe, write_shards
from torch import nn
from windlass.errors import IndexMismatch, InvalidIndex, ShardNotFound, UnsafeShardName

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
WEIGHT, BIAS = torch.ones(2, 2), torch.ones(2)
UNSAFE = [
    "/etc/passwd",
    "../outside.safetensors",
    "sub/../../outside.safetensors",
    "sub/..",
    "..",
    "C:\\weights.safetensors",
    "C:/weights.safetensors",
    "C:weights.safetensors",
    "sub\\weights.safetensors",
    "..\\outside.safetensors",
    "\\\\server\\share\\weights.safetensors",
    "//server/share/weights.safetensors",
]
BAD_INDEXES = {
    "blank": b"  ",
    "not JSON": b"weights: none",
    "cut off": b'{"weight_map": {"weight": "model',
    "not UTF-8": b'{"weight_map": {"\xff": "a.safetensors"}}',
    "a list": b"[]",
    "null": b"null",
    "no weight_map": b'{"metadata": {}}',
    "weight_map is a list": b'{"weight_map": ["a.safetensors"]}',
    "weight_map is null": b'{"weight_map": null}',
    "file name is a number": b'{"weight_map": {"weight": 1}}',
    "file name is empty": b'{"weight_map": {"weight": ""}}',
    "file name has a NUL": b'{"weight_map": {"weight": "a\\u0000.safetensors"}}',
    "two documents": b'{"weight_map": {}} {"weight_map": {}}',
}


def _model(*names: str) -> nn.Module:
    """Return a linear layer with a buffer for each further name, so that no name is unexpected."""
    model = nn.Linear(2, 2)
    for name in names:
        model.register_buffer(name, torch.zeros(2))
    return model


def _refused(model: nn.Module, folder: Path, error: type[Exception], *, strict: bool) -> str:
    before = fingerprint(model)
    with pytest.raises(error) as caught:
        windlass.load_sharded_checkpoint(model, folder, strict=strict)
    assert fingerprint(model) == before
    return str(caught.value)


@pytest.mark.parametrize("strict", [True, False])
def test_name_absent_from_its_shard_names_both(tmp_path: Path, *, strict: bool) -> None:
    folder = write_shards(tmp_path / "c", {ONE: {"weight": WEIGHT}, TWO: {"bias": BIAS}}, ghost=TWO)
    message = _refused(_model("ghost"), folder, IndexMismatch, strict=strict)
    assert "ghost" in message
    assert TWO in message


@pytest.mark.parametrize("strict", [True, False])
def test_name_listed_in_the_wrong_shard_names_both(tmp_path: Path, *, strict: bool) -> None:
    folder = write_shards(tmp_path / "c", {ONE: {"weight": WEIGHT}, TWO: {"bias": BIAS}}, bias=ONE)
    message = _refused(nn.Linear(2, 2), folder, IndexMismatch, strict=strict)
    assert "bias" in message
    assert ONE in message


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("listed", [ONE, TWO])
def test_name_in_two_shards_names_all(tmp_path: Path, listed: str, *, strict: bool) -> None:
    shards = {ONE: {"weight": WEIGHT, "bias": BIAS}, TWO: {"bias": BIAS, "anchor": BIAS}}
    folder = write_shards(tmp_path / "c", shards, bias=listed)
    message = _refused(_model("anchor"), folder, IndexMismatch, strict=strict)
    assert all(word in message for word in ("bias", ONE, TWO))


def test_name_in_two_shards_is_refused_also_when_unknown_to_the_index(tmp_path: Path) -> None:
    shards = {ONE: {"weight": WEIGHT, "x": BIAS}, TWO: {"bias": BIAS, "x": BIAS}}
    folder = write_shards(tmp_path / "c", shards, x=None)
    message = _refused(nn.Linear(2, 2), folder, IndexMismatch, strict=False)
    assert all(word in message for word in ("x", ONE, TWO))


@pytest.mark.parametrize("name", ["stowaway", "bias"])
def test_unlisted_name_is_an_error_when_strict(tmp_path: Path, name: str) -> None:
    shards = {ONE: {"weight": WEIGHT, "bias": BIAS}, TWO: {"other": BIAS, "stowaway": BIAS}}
    folder = write_shards(tmp_path / "c", shards, **{name: None, "stowaway": None})
    assert name in _refused(_model("other"), folder, RuntimeError, strict=True)


def test_unlisted_name_is_reported_and_not_loaded_when_not_strict(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.bias.zero_()
    shards = {ONE: {"first": BIAS, "weight": WEIGHT}, TWO: {"last": BIAS, "bias": BIAS}}
    folder = write_shards(tmp_path / "c", shards, bias=None)
    with pytest.warns(UserWarning, match="bias"):
        result = windlass.load_sharded_checkpoint(model, folder, strict=False)
    assert result == (["bias"], ["first", "last", "bias"])
    assert torch.equal(model.bias, torch.zeros(2))
    assert torch.equal(model.weight, WEIGHT)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", UNSAFE)
def test_shard_outside_the_folder_is_refused(tmp_path: Path, name: str, *, strict: bool) -> None:
    folder = write_shards(tmp_path / "c", {ONE: {"weight": WEIGHT}}, bias=name)
    write_safe(tmp_path / "outside.safetensors", {"bias": BIAS})
    message = _refused(nn.Linear(2, 2), folder, UnsafeShardName, strict=strict)
    assert name in message or repr(name)[1:-1] in message


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("content", BAD_INDEXES.values(), ids=BAD_INDEXES)
def test_bad_index_is_named(tmp_path: Path, content: bytes, *, strict: bool) -> None:
    (tmp_path / SAFE_INDEX).write_bytes(content)
    assert SAFE_INDEX in _refused(nn.Linear(2, 2), tmp_path, InvalidIndex, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_missing_shard_is_named(tmp_path: Path, *, strict: bool) -> None:
    folder = write_shards(tmp_path / "c", {ONE: {"weight": WEIGHT}, TWO: {"bias": BIAS}})
    (folder / TWO).unlink()
    assert TWO in _refused(nn.Linear(2, 2), folder, ShardNotFound, strict=strict)


def test_index_without_metadata_is_enough(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "c", {ONE: {"weight": WEIGHT}, TWO: {"bias": BIAS}})
    index = json.loads((folder / SAFE_INDEX).read_text())
    (folder / SAFE_INDEX).write_text(json.dumps({"weight_map": index["weight_map"]}))
    assert windlass.load_sharded_checkpoint(nn.Linear(2, 2), folder) == ([], [])


def test_wrong_total_size_is_ignored(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "c", {ONE: {"weight": WEIGHT}, TWO: {"bias": BIAS}})
    index = json.loads((folder / SAFE_INDEX).read_text())
    index["metadata"]["total_size"] = -1.5
    (folder / SAFE_INDEX).write_text(json.dumps(index))
    assert windlass.load_sharded_checkpoint(nn.Linear(2, 2), folder) == ([], [])


def test_shard_in_a_subfolder_is_inside_the_folder(tmp_path: Path) -> None:
    shards = {f"parts/{ONE}": {"weight": WEIGHT}, f"parts/{TWO}": {"bias": BIAS}}
    model = nn.Linear(2, 2)
    assert windlass.load_sharded_checkpoint(model, write_shards(tmp_path / "c", shards)) == ([], [])
    assert torch.equal(model.bias, BIAS)


def test_shards_may_be_links_as_in_the_hubs_cache(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "c", {ONE: {"weight": WEIGHT}, TWO: {"bias": BIAS}})
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in folder.iterdir():
        os.symlink(file, snapshot / file.name)
    model = nn.Linear(2, 2)
    assert windlass.load_sharded_checkpoint(model, snapshot) == ([], [])
    assert torch.equal(model.bias, BIAS)


def test_index_larger_than_ten_mebibytes_works(tmp_path: Path) -> None:
    """The hub client refuses these; Kimi-K2's is 13.5 MB."""
    folder = write_shards(tmp_path / "c", {ONE: {"weight": WEIGHT}, TWO: {"bias": BIAS}})
    index = json.loads((folder / SAFE_INDEX).read_text())
    index["metadata"]["note"] = "x" * (11 << 20)
    (folder / SAFE_INDEX).write_text(json.dumps(index))
    assert windlass.load_sharded_checkpoint(nn.Linear(2, 2), folder) == ([], [])
