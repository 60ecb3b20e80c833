"""Finding a checkpoint and opening it, while somebody may be saving to its folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from windlass.errors import CheckpointNotFound, ShardNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from windlass.layout import CheckpointFile

T = TypeVar("T")
Identity: TypeAlias = tuple[int, int, int, int]

#: How often a checkpoint is looked for that is another one each time.
MOST_TRIES = 10


def open_found(find: Callable[[], CheckpointFile], open_file: Callable[[CheckpointFile], T]) -> T:
    """Open the file that is found; again, if a save has taken it away before it could be opened.

    A save to one file takes the index away in the end, one to shards the single file. Whoever has
    just seen it then finds the new checkpoint at the next look.
    """
    for _ in range(MOST_TRIES - 1):
        try:
            file = find()
        except CheckpointNotFound:
            continue
        before = identity(file.path)
        try:
            return open_file(file)
        except (CheckpointNotFound, ShardNotFound):
            if is_still(file.path, before):
                raise  # It is something else that is not there.
    return open_file(find())


def identity(path: str) -> Identity | None:
    """Return what tells a file from one that takes its name; None where there is none."""
    try:
        return identity_of(os.stat(path))
    except OSError:
        return None


def identity_of(status: os.stat_result) -> Identity:
    """Return device, inode, size and time of modification."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def is_still(path: str, before: Identity | None) -> bool:
    """Whether a file is there that was there before."""
    return before is not None and identity(path) == before
