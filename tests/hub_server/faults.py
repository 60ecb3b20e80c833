"""What goes wrong, for which requests, and how often."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass
class Fault:
    """Something that goes wrong with requests whose address contains `path`.

    `status` answers with that status; `cut_after` closes the connection after so many bytes;
    `damage` changes a byte; `longer_by` gives more bytes than the size that was told before.
    """

    path: str
    method: str | None = None
    times: int = 1_000_000
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    damage: bool = False
    longer_by: int = 0


class Faults:
    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def clear(self) -> None:
        self._faults.clear()

    def take(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times and fault.path in path and fault.method in (None, method):
                    fault.times -= 1
                    return fault
        return None
