"""`Checkpoint` is a mapping over a file, an index or a folder, and opens no framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
import windlass
from builders.files import Entry, data_start, write_entries
from builders.sharded import SAFE_INDEX, write_index
from windlass.errors import (
    CheckpointNotFound,
    IndexMismatch,
    InvalidHeader,
    ShardNotFound,
    TensorNotFound,
    UnsafeShardName,
)

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = [
    Entry("w", "F32", (2, 3), bytes(24)),
    Entry("half", "BF16", (5,), bytes(10)),
    Entry("scalar", "I64", (), bytes(8)),
    Entry("empty", "F64", (0, 3), b""),
    Entry("six", "F6_E2M3", (4,), bytes(3)),
    Entry("four", "F4", (2, 3), bytes(3)),
]
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two shards, listed in another order than stored."""
    write_entries(tmp_path / ONE, ENTRIES[:3])
    write_entries(tmp_path / TWO, ENTRIES[3:])
    names = ["six", "w", "scalar", "empty", "half", "four"]
    first = {entry.name for entry in ENTRIES[:3]}
    write_index(tmp_path / SAFE_INDEX, {name: ONE if name in first else TWO for name in names})
    return tmp_path


def test_file_is_a_mapping_of_names(tmp_path: Path) -> None:
    checkpoint = windlass.Checkpoint(write_entries(tmp_path / "a.safetensors", ENTRIES))
    assert isinstance(checkpoint, Mapping)
    assert set(checkpoint) == {entry.name for entry in ENTRIES}
    assert len(checkpoint) == len(ENTRIES)
    assert "w" in checkpoint
    assert "nothing" not in checkpoint
    assert 7 not in checkpoint


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_info_is_that_of_the_header(tmp_path: Path, entry: Entry) -> None:
    path = write_entries(tmp_path / "a.safetensors", ENTRIES, {"format": "pt"})
    info = windlass.Checkpoint(path)[entry.name]
    position = sum(len(e.data) for e in ENTRIES[: ENTRIES.index(entry)]) + data_start(path)
    assert (info.dtype, info.shape, info.shard) == (entry.dtype, entry.shape, "a.safetensors")
    assert info.nbytes == len(entry.data)
    assert info.file_range == (position, position + len(entry.data))


@pytest.mark.parametrize("part", ["", SAFE_INDEX])
def test_folder_and_index_give_all_shards(folder: Path, part: str) -> None:
    checkpoint = windlass.Checkpoint(folder / part)
    assert {name: info.shard for name, info in checkpoint.items()} == {
        "w": ONE,
        "half": ONE,
        "scalar": ONE,
        "empty": TWO,
        "six": TWO,
        "four": TWO,
    }
    assert checkpoint["four"].file_range[1] == (folder / TWO).stat().st_size


def test_names_of_an_index_come_in_its_order(folder: Path) -> None:
    assert list(windlass.Checkpoint(folder)) == ["six", "w", "scalar", "empty", "half", "four"]


def test_folder_with_one_file_works(tmp_path: Path) -> None:
    write_entries(tmp_path / "model.safetensors", ENTRIES)
    assert windlass.Checkpoint(tmp_path)["w"].shard == "model.safetensors"


def test_absent_name_is_a_key_error(folder: Path) -> None:
    with pytest.raises(TensorNotFound, match="nothing") as caught:
        windlass.Checkpoint(folder)["nothing"]
    assert isinstance(caught.value, KeyError)
    assert windlass.Checkpoint(folder).get("nothing") is None


def test_info_cannot_be_changed(folder: Path) -> None:
    with pytest.raises(AttributeError):
        windlass.Checkpoint(folder)["w"].shape = (6,)  # type: ignore[misc]


def test_missing_shard_is_named(folder: Path) -> None:
    (folder / TWO).unlink()
    with pytest.raises(ShardNotFound, match=TWO):
        windlass.Checkpoint(folder)


def test_truncated_shard_is_found_when_opened(folder: Path) -> None:
    (folder / TWO).write_bytes((folder / TWO).read_bytes()[:-1])
    with pytest.raises(InvalidHeader, match=TWO):
        windlass.Checkpoint(folder)


def test_index_that_disagrees_is_refused(folder: Path) -> None:
    write_index(folder / SAFE_INDEX, {"w": TWO})
    with pytest.raises(IndexMismatch, match=r"w.*model|model.*w"):
        windlass.Checkpoint(folder)


def test_unsafe_index_is_refused(folder: Path) -> None:
    write_index(folder / SAFE_INDEX, {"w": f"../{folder.name}/{ONE}"})
    with pytest.raises(UnsafeShardName):
        windlass.Checkpoint(folder)


def test_nothing_there_is_named(tmp_path: Path) -> None:
    with pytest.raises((CheckpointNotFound, ShardNotFound), match="nowhere"):
        windlass.Checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointNotFound):
        windlass.Checkpoint(tmp_path)


def test_many_tensors_in_many_shards_are_all_found(tmp_path: Path) -> None:
    weight_map = {}
    for shard in range(40):
        entries = [Entry(f"{shard}.{n}", "U8", (1,), b"0") for n in range(100)]
        write_entries(tmp_path / f"{shard}.safetensors", entries)
        weight_map.update({entry.name: f"{shard}.safetensors" for entry in entries})
    write_index(tmp_path / SAFE_INDEX, weight_map)
    checkpoint = windlass.Checkpoint(tmp_path)
    assert {name: info.shard for name, info in checkpoint.items()} == weight_map
