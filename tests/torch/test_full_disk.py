"""Saves on a disk that is full: a small tmpfs with 0, 1, 2, … pages or files left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from builders.full_disk import refusal, saves_with_little_left

if TYPE_CHECKING:
    from pathlib import Path

WHY_NOT = refusal()


@pytest.mark.skipif(bool(WHY_NOT), reason=f"nobody may mount a file system here: {WHY_NOT}")
def test_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """Whole to the byte and with nothing beside it, until there is room for all of the new one."""
    cases = saves_with_little_left(tmp_path)
    assert len(cases) == 10
    for case, ends in cases.items():
        room = next(end.left for end in ends if end.error is None)
        assert 0 < room < len(ends) - 1, case
        for end in ends:
            expected = ("NoSpaceLeft", "old") if end.left < room else (None, "new")
            assert (end.error, end.found) == expected, (case, end)
