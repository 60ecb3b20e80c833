"""`load_file` into memory of a device, with the CPU in its place: the same options count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import windlass
import windlass.torch.files
from windlass.errors import ChecksumMismatch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a file with checksums; every device counts as one that is filled by a relay."""
    monkeypatch.setattr(windlass.torch.files, "has_lane", lambda _: True)
    windlass.save_file({"x": torch.arange(5.0)}, tmp_path / "a", checksums=True)
    return tmp_path / "a"


def test_whole_file_is_loaded(path: Path) -> None:
    assert torch.equal(windlass.load_file(path, verify=True)["x"], torch.arange(5.0))


def test_damage_is_refused_when_asked_to_verify(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ChecksumMismatch):
        windlass.load_file(path, verify=True)


def test_prefetch_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="tensors of cpu are read at once"):
        windlass.load_file(path, prefetch=True)
