"""The limit of saving writes what it was given, whichever way it writes."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from harness.raw_programs import compile_raw_programs

if TYPE_CHECKING:
    from pathlib import Path

BLOCK, CHUNK = 4096, 2 << 20
SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, CHUNK, 2 * CHUNK + 3 * BLOCK + 5)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    compile_raw_programs(folder)
    return folder


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    (tmp_path / "sources").mkdir()
    paths = [tmp_path / "sources" / f"{size}.bin" for size in SIZES]
    for path, size in zip(paths, SIZES, strict=True):
        path.write_bytes(os.urandom(size))
    return paths


def takes_direct_writes(folder: Path) -> bool:
    """Whether files of this folder can be opened for writes past the page cache."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_DIRECT
    try:
        os.close(os.open(folder / "probe", flags))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("mode", ["plain", "direct"])
@pytest.mark.parametrize("durable", [0, 1])
def test_files_of_every_size_are_equal_also_over_larger_ones(
    programs: Path, sources: list[Path], tmp_path: Path, mode: str, durable: int
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    for path in sources:
        (target / path.name).write_bytes(b"old" * CHUNK)
    command = [programs / "raw_write", "16", mode, str(durable), "0", target, *sources]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if mode == "direct" and not takes_direct_writes(tmp_path):
        assert (answer.returncode, answer.stdout) == (1, "")
        assert answer.stderr.startswith(f"openat: {sources[0].name}: ")
        return
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["bytes"] == sum(SIZES)
    assert [(target / path.name).read_bytes() for path in sources] == [
        path.read_bytes() for path in sources
    ]


def test_unknown_way_is_refused_before_anything_is_written(
    programs: Path, sources: list[Path], tmp_path: Path
) -> None:
    command = [programs / "raw_write", "16", "1", "0", "0", tmp_path / "target", *sources]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "plain|direct" in answer.stderr
    assert not (tmp_path / "target").exists()
