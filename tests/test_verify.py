"""`verify` and `recover`: what is wrong with a checkpoint, file by file and tensor by tensor."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
import windlass
import windlass.numpy
from builders.files import data_start
from windlass.errors import CheckpointNotFound, FolderLocked, SaveFolderNotFound
from windlass.recovery import Recovered
from windlass.verification import CHECKSUM_KEY, Finding

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def _arrays(seed: int) -> dict[str, Any]:
    return {f"{seed}.{n}": np.full((4, n), seed + n, dtype=np.float32) for n in range(3)}


def _file(path: Path, *, checksums: bool = True) -> Path:
    windlass.numpy.save_file(_arrays(1), path, {"k": "v"}, checksums=checksums)
    return path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Give a folder with two shards, with checksums, and an index."""
    weight_map = {}
    for seed, name in enumerate(FILES):
        windlass.numpy.save_file(_arrays(seed), tmp_path / name, checksums=True)
        weight_map.update(dict.fromkeys(_arrays(seed), name))
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return tmp_path


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[data_start(path) + offset] ^= 0x10
    path.write_bytes(content)


def test_whole_file_has_no_findings(tmp_path: Path) -> None:
    assert windlass.verify(_file(tmp_path / "a")) == []


def test_file_without_checksums_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert windlass.verify(_file(tmp_path / "a", checksums=False)) == []
    assert "no tensor has a checksum" in caplog.text


VARIANT = "model.fp16{suffix}.safetensors"


def test_checkpoint_of_another_name_is_found_by_its_pattern(sharded: Path) -> None:
    """Beside one of the standard name, which is whole."""
    _flip(_file(sharded / "model.fp16.safetensors"), 5)
    assert windlass.verify(sharded) == []
    (finding,) = windlass.verify(sharded, filename_pattern=VARIANT)
    assert finding.file == "model.fp16.safetensors"


def test_index_of_another_name_is_found_by_its_pattern(sharded: Path) -> None:
    (sharded / INDEX).rename(sharded / "model.safetensors.index.fp16.json")
    _flip(sharded / FILES[1], 5)
    (finding,) = windlass.verify(sharded, filename_pattern=VARIANT)
    assert finding.file == FILES[1]


def test_only_file_of_a_folder_is_found_whatever_its_name(tmp_path: Path) -> None:
    _flip(_file(tmp_path / "weights.safetensors"), 5)
    (finding,) = windlass.verify(tmp_path)
    assert finding.file == "weights.safetensors"
    _file(tmp_path / "more.safetensors")
    with pytest.raises(CheckpointNotFound):
        windlass.verify(tmp_path)


@pytest.mark.parametrize("pattern", ["model.safetensors", "other{suffix}.safetensors"])
def test_pattern_that_finds_nothing_is_an_error(sharded: Path, pattern: str) -> None:
    with pytest.raises((CheckpointNotFound, ValueError)):
        windlass.verify(sharded, filename_pattern=pattern)


@pytest.mark.parametrize("name", [".", INDEX, FILES[0]])
def test_whole_checkpoint_has_no_findings_by_any_of_its_paths(sharded: Path, name: str) -> None:
    assert windlass.verify(sharded / name) == []
    assert windlass.verify(str(sharded / name), threads=1) == []


@pytest.mark.parametrize(("offset", "tensor"), [(0, "1.1"), (15, "1.1"), (16, "1.2"), (47, "1.2")])
def test_changed_bit_is_found_in_its_tensor(tmp_path: Path, offset: int, tensor: str) -> None:
    path = _file(tmp_path / "a.safetensors")
    _flip(path, offset)
    (finding,) = windlass.verify(path)
    assert (finding.file, finding.tensor) == ("a.safetensors", tensor)
    assert finding.expected.startswith("CRC-32C ")
    assert finding.found.startswith("CRC-32C ")
    assert finding.expected != finding.found


def test_every_finding_is_told_in_the_order_of_the_files(sharded: Path) -> None:
    _flip(sharded / FILES[1], 0)
    _flip(sharded / FILES[0], 0)
    _flip(sharded / FILES[0], 40)
    found = [(finding.file, finding.tensor) for finding in windlass.verify(sharded)]
    assert found == [(FILES[0], "0.1"), (FILES[0], "0.2"), (FILES[1], "1.1")]


def test_checksums_are_those_of_the_standard(tmp_path: Path) -> None:
    path = tmp_path / "a"
    windlass.numpy.save_file({"x": np.frombuffer(b"123456789", "u1")}, path, checksums=True)
    metadata = windlass.safe_open(path, "np").metadata()
    assert json.loads(metadata[CHECKSUM_KEY]) == {"x": "e3069283"}


def test_changed_bit_is_not_found_without_checksums(tmp_path: Path) -> None:
    path = _file(tmp_path / "a", checksums=False)
    _flip(path, 0)
    assert windlass.verify(path) == []


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes after"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"\xff" * 100), "header"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: (path.unlink(), path.mkdir()), "folder"),
    ],
)
def test_broken_shard_is_a_finding_and_the_others_are_checked(
    sharded: Path, damage: Any, word: str
) -> None:
    damage(sharded / FILES[0])
    _flip(sharded / FILES[1], 0)
    first, second = windlass.verify(sharded)
    assert (first.file, first.tensor, second.file) == (FILES[0], None, FILES[1])
    assert word in first.found


def _edit_index(folder: Path, changes: dict[str, str | None]) -> None:
    index = json.loads((folder / INDEX).read_text())
    weight_map = {**index["weight_map"], **changes}
    index["weight_map"] = {name: file for name, file in weight_map.items() if file}
    (folder / INDEX).write_text(json.dumps(index))


def test_name_in_the_index_only_is_a_finding(sharded: Path) -> None:
    _edit_index(sharded, {"ghost": FILES[1]})
    (finding,) = windlass.verify(sharded)
    assert finding[:2] == (FILES[1], "ghost")
    assert "index" in finding.expected


def test_name_that_the_index_lacks_is_a_finding(sharded: Path) -> None:
    _edit_index(sharded, {"0.1": None})
    (finding,) = windlass.verify(sharded)
    assert finding[:2] == (FILES[0], "0.1")


def test_name_in_the_wrong_shard_is_two_findings(sharded: Path) -> None:
    _edit_index(sharded, {"0.1": FILES[1]})
    findings = windlass.verify(sharded)
    assert sorted(finding[:2] for finding in findings) == [(FILES[0], "0.1"), (FILES[1], "0.1")]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"weight_map": {"a": "../b"}}'])
def test_index_that_is_none_is_a_finding(sharded: Path, text: str) -> None:
    (sharded / INDEX).write_text(text)
    (finding,) = windlass.verify(sharded)
    assert finding[:3] == (INDEX, None, "an index")


@pytest.mark.parametrize("sums", ["", "[]", "{", "7", "null", '[["a"]]'])
def test_checksums_that_are_none_are_a_finding(tmp_path: Path, sums: str) -> None:
    data = safetensors.numpy.save({"x": np.ones(2)}, {CHECKSUM_KEY: sums})
    (tmp_path / "a").write_bytes(data)
    (finding,) = windlass.verify(tmp_path / "a")
    assert finding[:2] in {("a", None), ("a", "x")}


def test_tensor_without_its_checksum_is_a_finding(tmp_path: Path) -> None:
    data = safetensors.numpy.save({"x": np.ones(2)}, {CHECKSUM_KEY: '{"y": "00000000"}'})
    (tmp_path / "a").write_bytes(data)
    assert windlass.verify(tmp_path / "a")[0][:3] == ("a", "x", "CRC-32C none stored")


@pytest.mark.parametrize("name", [".", "none"])
def test_nothing_to_check_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointNotFound, match=str(tmp_path / name)):
        windlass.verify(tmp_path / name)


def test_progress_counts_all_bytes(sharded: Path) -> None:
    calls: list[tuple[int, int]] = []
    windlass.verify(sharded, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (96, 96)
    assert sorted(calls) == calls


def test_finding_is_a_tuple_of_file_tensor_expected_and_found() -> None:
    assert Finding._fields == ("file", "tensor", "expected", "found")


def test_verify_needs_neither_torch_nor_numpy(tmp_path: Path) -> None:
    code = (
        "import sys, windlass; print(windlass.verify(sys.argv[1]), windlass.recover(sys.argv[2]),"
        "sys.modules.keys() & {'torch', 'numpy'})"
    )
    command = [sys.executable, "-c", code, _file(tmp_path / "a"), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["[]", "[]", "set()"], done.stderr


def test_recover_undoes_what_was_not_committed(sharded: Path) -> None:
    name = "model.windlass-0123456789abcdef"
    (sharded / name).mkdir()
    (sharded / name / "model.safetensors").write_bytes(b"half")
    assert windlass.recover(sharded) == [Recovered(name, "undone")]
    assert windlass.recover(sharded) == []
    assert windlass.verify(sharded) == []


def test_recover_waits_for_a_save_that_goes_on(tmp_path: Path) -> None:
    from builders.saves import locked

    with locked(tmp_path), pytest.raises(FolderLocked, match="4711"):
        windlass.recover(tmp_path, lock_timeout=0)


def test_recover_of_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SaveFolderNotFound, match="none"):
        windlass.recover(tmp_path / "none")
