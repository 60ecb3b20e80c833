"""The folder that savers write into: emptied before a run, and synced by those who do not."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAME = "saved"


def empty_target(checkpoint_folder: Path) -> Path:
    """Return the empty target folder beside a checkpoint of the work folder."""
    target = checkpoint_folder.resolve().parent / NAME
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    return target


def sync_files(folder: Path) -> None:
    """Wait until every file of `folder`, and then their names, are on the disk."""
    for path in sorted(folder.iterdir()):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
