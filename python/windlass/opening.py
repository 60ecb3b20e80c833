"""Finding a checkpoint and opening it, while somebody may be saving to its folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from windlass.errors import CheckpointNotFound, ShardNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from windlass.layout import CheckpointFile

T = TypeVar("T")

#: How often a checkpoint is looked for that is another one each time.
MOST_TRIES = 10


def open_found(find: Callable[[], CheckpointFile], open_file: Callable[[CheckpointFile], T]) -> T:
    """Open the file that is found; again, if a save has taken it away before it could be opened.

    A save to one file takes the index away in the end, one to shards the single file. Whoever has
    just seen it then finds the new checkpoint at the next look.
    """
    for _ in range(MOST_TRIES - 1):
        path = None
        try:
            file = find()
            path = file.path
            return open_file(file)
        except (CheckpointNotFound, ShardNotFound):
            if path is not None and os.path.lexists(path):
                raise  # It is something else that is not there.
    return open_file(find())
