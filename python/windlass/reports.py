"""What the reads of one load did, and why: one DEBUG line of the logger `windlass`."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass._rust import Checkpoint, ReadStats

logger = logging.getLogger("windlass")


class ReadReport:
    """Gathers what the engine says about each read of a load."""

    def __init__(self) -> None:
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._threads = 0

    def add(self, stats: ReadStats) -> None:
        """Count in one read."""
        self._threads = max(self._threads, stats["threads"])
        for _, backend, reason, nbytes in stats["ways"]:
            self._bytes[backend, reason] += nbytes

    def log(self, path: str) -> None:
        """Say it, if anything was read."""
        if not self._bytes or not logger.isEnabledFor(logging.DEBUG):
            return
        ways = [
            f"{nbytes / 1e9:.3f} GB {backend} ({reason})"
            for (backend, reason), nbytes in self._bytes.most_common()
        ]
        logger.debug("`%s`: %s, %d threads", path, ", ".join(ways), self._threads)


def log_read(table: Checkpoint, stats: ReadStats) -> None:
    """Say what a load of one read did."""
    report = ReadReport()
    report.add(stats)
    report.log(str(table.path()))
