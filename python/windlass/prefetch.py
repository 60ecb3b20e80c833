"""`prefetch=`: what is mapped is read in the background, before it is touched."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from windlass import _rust
from windlass.memory import half_of_memory
from windlass.sizes import parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from windlass.types import Prefetch, PretrainedMemory

logger = logging.getLogger("windlass")


def prefetch_budget(prefetch: Prefetch, memory: PretrainedMemory) -> int:
    """Return how many bytes are to be read ahead; 0 for none.

    Raises:
        ValueError: text that is no size, a negative number, or nothing is mapped.
        TypeError: neither a bool nor a size.
    """
    if isinstance(prefetch, bool):
        budget = half_of_memory() if prefetch else 0
    else:
        budget = parse_size(prefetch)
    if budget and memory == "owned":
        message = f"prefetch is for what is mapped: with memory={memory!r} all is read at once"
        raise ValueError(message)
    return budget


def start_prefetch(
    parts: Sequence[tuple[_rust.Mapping, int, int]], budget: int, path: str
) -> _rust.Prefetch | None:
    """Begin to read parts of maps, each given as `(map, start, end)`, in their order.

    What cannot be read is said at WARNING: whoever touches it then has nobody who says what it is.
    """
    if not budget:
        return None
    logger.debug("`%s`: up to %.3f GB of what is mapped are read ahead", path, budget / 1e9)

    def tell(error: str) -> None:
        logger.warning(
            "`%s`: reading ahead failed: %s; touching what is mapped of it may end the process",
            path,
            error,
        )

    return _rust.prefetch(parts, budget, tell)
